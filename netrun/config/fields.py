"""What the schema says about the fields of a message, in the form that reading and writing want."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from ..errors import nearest
from .lexer import NAME, NUMBER, shown

Convert = Callable[[int, str], Any]
"""(kind of token, its text) -> the value, or None if the token is no such value."""


def is_repeated(field: FieldDescriptor) -> bool:
    """Whether a field may stand several times (older versions of protobuf only know the label)."""
    known: bool | None = getattr(field, "is_repeated", None)
    return _label(field) == 3 if known is None else known


def is_required(field: FieldDescriptor) -> bool:
    """Whether a message without this field is incomplete."""
    known: bool | None = getattr(field, "is_required", None)
    return _label(field) == 2 if known is None else known


def _label(field: FieldDescriptor) -> int:
    label: int = field.label  # type: ignore[attr-defined] # gone from newer protobufs, and from their type stubs
    return label


class Field:
    """One field of a message.

    Attributes:
        name: the name in the text.
        repeated: it may stand several times, or with a list.
        message: the descriptor of the block it opens, or None for a plain value.
        text: a string or bytes field; its value may be made of several quoted pieces.
        binary: a bytes field.
        convert: reads any other plain value.
        wants: the values it takes, in words.
        choices: the names of an enumeration.
    """

    __slots__ = ("binary", "choices", "convert", "message", "name", "repeated", "text", "wants")

    def __init__(self, field: FieldDescriptor) -> None:
        self.name: str = field.name
        self.repeated = is_repeated(field)
        self.message: Descriptor | None = field.message_type
        self.binary = field.type == FieldDescriptor.TYPE_BYTES
        self.text = self.binary or field.type == FieldDescriptor.TYPE_STRING
        self.choices: tuple[str, ...] = ()
        self.convert: Convert = _nothing
        if self.message is not None:
            self.wants = "a block { ... }"
        elif self.text:
            self.wants = "a text in quotes"
        elif field.enum_type is not None:
            numbers = {value.name: value.number for value in field.enum_type.values}
            self.choices = tuple(numbers)
            self.convert = _enum(numbers)
            self.wants = _either(self.choices) if len(self.choices) <= 8 else f"one of {len(self.choices)} names"
        elif field.type == FieldDescriptor.TYPE_BOOL:
            self.convert, self.wants = _bool, "true or false"
        elif field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
            self.convert, self.wants = _float, "a number"
        else:
            low, high = _RANGES[field.cpp_type]
            self.convert, self.wants = _integer(low, high), f"a whole number from {low} to {high}"

    def refusal(self, kind: int, text: str) -> str:
        """The sentence for a token that is no value of this field."""
        got = shown(text)
        said = f"{self.name} wants {self.wants}, got {got}"
        bare = text[1:-1] if text[:1] in ("'", '"') else text
        if self.choices:
            return (
                f"{said}; write it without quotes"
                if text != bare and bare in self.choices
                else (said + nearest(bare, self.choices))
            )
        if self.text and kind in (NAME, NUMBER):
            return f'{said}; write "{got}"'
        if text != bare and self.message is None and self.convert(_kind_of(bare), bare) is not None:
            return f"{said}; write it without quotes"
        return said


class Fields:
    """All fields of one message type by name, and those it cannot do without."""

    __slots__ = ("by_name", "required", "type")

    def __init__(self, descriptor: Descriptor) -> None:
        self.type: str = descriptor.name
        self.by_name = {field.name: Field(field) for field in descriptor.fields}
        self.required = tuple(field.name for field in descriptor.fields if is_required(field))


@functools.cache
def fields_of(descriptor: Descriptor) -> Fields:
    """The fields of a message type (made once for each)."""
    return Fields(descriptor)


_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_OCTAL = re.compile(r"(-?)0([0-9]+)")
_OCTAL_FLOAT = re.compile(r"-?0[0-9]")
_NON_FINITE = re.compile(r"(-?)inf(?:inity)?f|nanf", re.IGNORECASE)
# Longer digits are out of every range, and Python refuses to read very long ones.
_LONGEST_INTEGER = 80


def _nothing(kind: int, text: str) -> None:
    return None


def _kind_of(text: str) -> int:
    return NUMBER if text[:1] in tuple("0123456789+-.") else NAME


def _either(words: tuple[str, ...]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _whole(text: str) -> int | None:
    """Decimal, hexadecimal (0x) and binary (0b) digits with a sign; no underscores."""
    if "_" in text or len(text) > _LONGEST_INTEGER:
        return None
    try:
        return int(text, 0)
    except ValueError:
        return None


def _integer(low: int, high: int) -> Convert:
    def convert(kind: int, text: str) -> int | None:
        if kind != NUMBER:
            return None
        octal = _OCTAL.fullmatch(text)
        number = _whole(f"{octal[1]}0o{octal[2]}" if octal else text)
        return number if number is not None and low <= number <= high else None

    return convert


def number(text: str) -> int | float | None:
    """The value of a NUMBER token, whole where it is written so; None if it is no number."""
    value: int | None = _integer(-(2**63), 2**64 - 1)(NUMBER, text)
    return _float(NUMBER, text) if value is None else value


@functools.cache
def blocks_of(descriptor: Descriptor) -> frozenset[str]:
    """The names of all fields that open a block, in a message or in any message inside it."""
    found: set[str] = set()
    seen: set[str] = set()
    waiting = [descriptor]
    while waiting:
        one = waiting.pop()
        if one.full_name in seen:
            continue
        seen.add(one.full_name)
        for field in one.fields:
            if field.message_type is not None:
                found.add(field.name)
                waiting.append(field.message_type)
    return frozenset(found)


def _float(kind: int, text: str) -> float | None:
    if kind not in (NUMBER, NAME) or "_" in text or _OCTAL_FLOAT.match(text):
        return None
    try:
        return float(text)
    except ValueError:
        pass
    odd = _NON_FINITE.fullmatch(text)
    if odd:
        return float(text[:-1])
    try:
        return float(text.rstrip("fF"))
    except ValueError:
        return None


_BOOLS = {"true": True, "t": True, "True": True, "1": True, "false": False, "f": False, "False": False, "0": False}


def _bool(kind: int, text: str) -> bool | None:
    return _BOOLS.get(text)


def _enum(numbers: dict[str, int]) -> Convert:
    known = frozenset(numbers.values())

    def convert(kind: int, text: str) -> int | None:
        if kind == NAME:
            return numbers.get(text)
        number = _whole(text) if kind == NUMBER else None
        return number if number in known else None

    return convert
