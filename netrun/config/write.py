"""Writes a message as canonical prototxt."""

from __future__ import annotations

import math
import struct
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from .fields import is_repeated


def write(message: Message) -> str:
    """The message in protobuf's text format.

    Fields stand in the order of their numbers, one a line, indented by two blanks; enumerations by name; a float is
    written with the fewest digits that give the same float32 again.
    """
    lines: list[str] = []
    _fields(message, "", lines)
    return "".join(lines)


def _fields(message: Message, indent: str, lines: list[str]) -> None:
    for field, value in message.ListFields():
        for one in value if is_repeated(field) else (value,):
            if field.message_type is None:
                lines.append(f"{indent}{field.name}: {_value(field, one)}\n")
            else:
                lines.append(f"{indent}{field.name} {{\n")
                _fields(one, indent + "  ", lines)
                lines.append(indent + "}\n")


def _value(field: FieldDescriptor, value: Any) -> str:
    if field.type == FieldDescriptor.TYPE_STRING:
        return f'"{quoted(value)}"'
    if field.type == FieldDescriptor.TYPE_BYTES:
        return f'"{value.decode("latin-1").translate(_BYTE_ESCAPES)}"'
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else str(value)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return "true" if value else "false"
    if field.type == FieldDescriptor.TYPE_FLOAT:
        return float_text(value)
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return repr(value).removesuffix(".0")
    return str(value)


def quoted(value: str) -> str:
    """What stands between the quotes of a text."""
    return value.translate(_ESCAPES)


def float_text(value: float) -> str:
    """The shortest decimal that reads back as the same float32."""
    if not math.isfinite(value):
        return str(value)
    for digits in range(6, 9):
        text = f"{value:.{digits}g}"
        try:
            if struct.unpack("<f", struct.pack("<f", float(text)))[0] == value:
                return text
        except OverflowError:  # rounded up beyond the largest float32
            pass
    return f"{value:.9g}"


_ESCAPES = {code: f"\\{code:03o}" for code in (*range(32), 127)}
_ESCAPES.update({ord(char): "\\" + name for char, name in zip("\t\n\r\"'\\", "tnr\"'\\", strict=True)})
_BYTE_ESCAPES = {**_ESCAPES, **{code: f"\\{code:03o}" for code in range(128, 256)}}
