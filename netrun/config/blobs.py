"""BlobProto, the message that holds one array, read and written without protobuf's lists."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import schema
from .wire import FIXED32, FIXED64, LENGTH, VARINT, Array, Piece, Wire, array_pieces, message_pieces

_NUMBERS = {name: field.number for name, field in schema.BlobProto.DESCRIPTOR.fields_by_name.items()}
_SHAPE = _NUMBERS["shape"]
_DIM = schema.BlobShape.DESCRIPTOR.fields_by_name["dim"].number
_LEGACY = tuple(_NUMBERS[name] for name in ("num", "channels", "height", "width"))
_FLOATS = {_NUMBERS["data"]: "data", _NUMBERS["diff"]: "diff"}
_DOUBLES = {_NUMBERS["double_data"]: "data", _NUMBERS["double_diff"]: "diff"}


@dataclass
class Blob:
    """One array of a file.

    Attributes:
        data: the values, float32 or float64, in the shape of the file. Read-only, and not aligned in memory if it is a
            view of the file: copy it into its place.
        diff: the gradient in the same shape, if the file holds one.
        legacy: the shape is the old one with always four axes (num, channels, height, width).
    """

    data: Array
    diff: Array | None = None
    legacy: bool = False


def read_blob(wire: Wire, start: int, end: int, what: str) -> Blob:
    """The BlobProto in ``start:end``; ``what`` names it in messages.

    Raises:
        WeightsError: it is damaged, or does not hold as many values as its shape says.
    """
    dims: list[int] = []
    shaped = False
    legacy = dict.fromkeys(_LEGACY, 0)
    old = False
    floats: dict[str, list[Array]] = {"data": [], "diff": []}
    doubles: dict[str, list[Array]] = {"data": [], "diff": []}
    at = start
    while at < end:
        record = wire.record(at, end)
        number, at = record.number, record.end
        if number in _FLOATS and record.kind in (LENGTH, FIXED32):
            values, at = wire.numbers(record, end, "<f4")
            floats[_FLOATS[number]].append(values)
        elif number in _DOUBLES and record.kind in (LENGTH, FIXED64):
            values, at = wire.numbers(record, end, "<f8")
            doubles[_DOUBLES[number]].append(values)
        elif number == _SHAPE and record.kind == LENGTH:
            shaped = True
            for inner in wire.records(record.start, record.end):
                if inner.number == _DIM and inner.kind in (VARINT, LENGTH):
                    dims += wire.varints(inner)
        elif number in legacy and record.kind == VARINT:
            legacy[number], old = _int32(record.value), True
    shape = tuple(legacy.values()) if old else tuple(dims)
    data = _shaped(wire, start, what, shape, _joined(floats["data"], doubles["data"]))
    gradient = _joined(floats["diff"], doubles["diff"])
    if data is None:
        why = "no values" if shaped or old else "nothing"
        raise wire.damaged(start, f"{what} holds {why}, its shape is {' '.join(map(str, shape)) or 'missing'}")
    return Blob(data, _shaped(wire, start, f"the diff of {what}", shape, gradient), old)


def blob_pieces(number: int, data: Array, diff: Array | None = None, legacy: bool = False) -> list[Piece]:
    """A BlobProto as field ``number`` of the message around it, in pieces to be written one after the other.

    Args:
        legacy: write the shape in the old form with always four axes; ``data`` has four then.

    Raises:
        TypeError: an array is neither float32 nor float64.
    """
    if legacy:
        shape = schema.BlobProto(**dict(zip(("num", "channels", "height", "width"), data.shape, strict=True)))
    else:
        shape = schema.BlobProto(shape=schema.BlobShape(dim=data.shape))
    pieces: list[Piece] = [shape.SerializeToString()]
    for array, name in ((data, "data"), (diff, "diff")):
        if array is None:
            continue
        if array.dtype not in (np.float32, np.float64):
            raise TypeError(f"a blob of {array.dtype} cannot be written")
        pieces += array_pieces(_NUMBERS[name if array.dtype == np.float32 else f"double_{name}"], array)
    return message_pieces(number, pieces)


def _int32(value: int) -> int:
    value &= 2**32 - 1
    return value - 2**32 if value >= 2**31 else value


def _joined(floats: Sequence[Array], doubles: Sequence[Array]) -> Array | None:
    """One array of all the parts; doubles win, as in Caffe."""
    parts = doubles or floats
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _shaped(wire: Wire, at: int, what: str, shape: tuple[int, ...], values: Array | None) -> Array | None:
    if values is None:
        # A packed list without entries is not written at all.
        return np.empty(shape, np.float32) if min(shape, default=1) == 0 else None
    if min(shape, default=0) < 0 or math.prod(shape) != len(values):
        sizes = " ".join(map(str, shape)) or "(a single value)"
        raise wire.damaged(at, f"{what} holds {len(values)} values, its shape {sizes} wants {math.prod(shape)}")
    try:
        return values.reshape(shape)
    except ValueError:
        raise wire.damaged(at, f"{what} has {len(shape)} axes") from None
