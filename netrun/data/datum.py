"""A Datum, the record of Caffe's databases: from its bytes and to them.

Written by hand because this is the hot path of reading, and because a damaged record needs a reason a person
understands. What it accepts is held against the protobuf library in tests.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_CHANNELS, _HEIGHT, _WIDTH, _DATA, _LABEL, _FLOATS, _ENCODED = range(1, 8)
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_BYTES = 1 << 31  # a protobuf message is smaller than 2 GiB, so a larger record can only be damage

_NUMBER = rb"[\x80-\xff]{0,9}[\x00-\x7f]"
_HEAD = re.compile(rb"\x08%b\x10%b\x18%b\x22%b" % ((_NUMBER,) * 4), re.DOTALL)
"""What stands before the pixels of a plain record: its size, and the number of bytes that follow."""
_TAIL = re.compile(rb"(?:\x28(%b))?(?:\x38\x00)?" % _NUMBER, re.DOTALL)
"""What may follow the pixels of a plain record: a label, and encoded: false."""


class RecordError(ValueError):
    """Why a record cannot be used. The reader adds which one it is, and raises a DataError."""


@dataclass
class Record:
    """One decoded Datum. ``data`` holds pixels, or a whole image file if ``encoded``; else ``floats`` has values."""

    channels: int = 0
    height: int = 0
    width: int = 0
    data: bytes = b""
    label: int = 0
    floats: npt.NDArray[np.float32] | None = None
    encoded: bool = False
    start: int = 0
    """Offset of ``data`` in the value it was read from."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width, as the record states them."""
        return self.channels, self.height, self.width

    def values(self) -> npt.NDArray[np.uint8] | npt.NDArray[np.float32]:
        """The values as an array C H W (uint8 or float32) of a record that is not encoded.

        Raises:
            RecordError: the sizes are not positive, or the number of values does not agree with them.
        """
        if min(self.shape) <= 0:
            raise RecordError(f"its size is {size_text(self.shape)}, and every number of it must be positive")
        wanted = self.channels * self.height * self.width
        if self.data:
            if len(self.data) != wanted:
                raise RecordError(
                    f"it holds {len(self.data)} bytes of pixels, but {size_text(self.shape)} needs {wanted}"
                )
            return np.frombuffer(self.data, np.uint8).reshape(self.shape)
        got = 0 if self.floats is None else self.floats.size
        if self.floats is None or got != wanted:
            raise RecordError(f"it holds {got} values, but {size_text(self.shape)} needs {wanted}")
        return self.floats.reshape(self.shape)


def parse(value: bytes) -> Record:
    """Decodes one record.

    Raises:
        RecordError: the bytes are no Datum.
    """
    record = Record()
    floats: list[npt.NDArray[np.float32]] = []
    at, end = 0, len(value)
    if not end:
        raise RecordError("it is empty")
    while at < end:
        first = at
        tag, at = _varint(value, at)
        field, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            number, at = _varint(value, at)
            if field == _CHANNELS:
                record.channels = _int32(number)
            elif field == _HEIGHT:
                record.height = _int32(number)
            elif field == _WIDTH:
                record.width = _int32(number)
            elif field == _LABEL:
                record.label = _int32(number)
            elif field == _ENCODED:
                record.encoded = number != 0
        elif wire == _BYTES:
            length, at = _varint(value, at)
            if at + length > end:
                raise RecordError(f"it is cut off: a field of {length} bytes starts at byte {at} of {end}")
            if field == _DATA:
                record.data, record.start = value[at : at + length], at
            elif field == _FLOATS:
                if length % 4:
                    raise RecordError(f"its packed float_data has {length} bytes, not a multiple of 4")
                floats.append(np.frombuffer(value, "<f4", length // 4, at))
            at += length
        elif wire == _FIXED32:
            if field == _FLOATS:
                run = _float_run(value, first, value[first:at])
                floats.append(run)
                at = first + run.size * (at - first + 4)
            else:
                at += 4
        elif wire == _FIXED64:
            at += 8
        else:
            raise RecordError(f"byte {first} starts no field of a Datum (wire type {wire})")
        if field == 0 or at > end:
            raise RecordError("it is cut off" if field else f"byte {first} starts no field of a Datum (field number 0)")
    if floats:
        record.floats = floats[0] if len(floats) == 1 else np.concatenate(floats)
    return record


@dataclass(frozen=True)
class Plain:
    """The frame around the pixels of a raw 8-bit record.

    The records of a database mostly differ only in pixels and label, so the bytes before the pixels repeat. A value
    that begins with them needs no parsing: that is what makes small images cheap.
    """

    prefix: bytes
    stop: int

    @classmethod
    def of(cls, value: bytes, record: Record) -> Plain | None:
        """The frame of a record that was read from ``value``; None if it is encoded, float or oddly written."""
        prefix, stop = value[: record.start], record.start + len(record.data)
        if record.encoded or not record.data or not _HEAD.fullmatch(prefix) or not _TAIL.fullmatch(value, stop):
            return None
        return cls(prefix, stop)

    def split(self, value: bytes) -> tuple[memoryview, int] | None:
        """Pixels and label of a value with the same frame, else None."""
        if not value.startswith(self.prefix):
            return None
        tail = value[self.stop :]
        if len(tail) == 2 and tail[0] == 0x28 and tail[1] < 0x80:
            label = tail[1]
        else:
            match = _TAIL.fullmatch(tail)
            if match is None or len(value) < self.stop:
                return None
            label = _int32(_varint(match[1], 0)[0]) if match[1] else 0
        return memoryview(value)[len(self.prefix) : self.stop], label


def size_text(shape: tuple[int, ...]) -> str:
    """A shape as messages write it: 3x32x32."""
    return "x".join(map(str, shape))


def _varint(value: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    for position in range(at, min(at + 10, len(value))):
        byte = value[position]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & 0xFFFFFFFFFFFFFFFF, position + 1
        shift += 7
    raise RecordError("it is cut off" if at + 10 > len(value) else f"byte {at} starts no number")


def _int32(number: int) -> int:
    """A varint as protobuf reads an int32: the lower 32 bits, signed."""
    number &= 0xFFFFFFFF
    return number - (1 << 32) if number & 0x80000000 else number


def _float_run(value: bytes, first: int, tag: bytes) -> npt.NDArray[np.float32]:
    """The float_data fields, each with its own tag, that follow one another from ``first`` on: one NumPy look."""
    step = len(tag) + 4
    count = (len(value) - first) // step
    if not count:
        raise RecordError("it is cut off in float_data")
    rows = np.frombuffer(value, np.uint8, count * step, first).reshape(count, step)
    other = np.flatnonzero((rows[:, : len(tag)] != np.frombuffer(tag, np.uint8)).any(axis=1))
    rows = rows[: other[0] if other.size else count, len(tag) :]
    return np.ascontiguousarray(rows).view("<f4").reshape(-1)


def pack(shape: tuple[int, int, int] | None, pixels: bytes, label: int, *, encoded: bool | None = None) -> bytes:
    """The bytes of a raw 8-bit record, as protobuf writes them (fields in the order of their numbers).

    ``shape`` None and ``encoded`` True make the record of an image file; ``encoded`` None leaves that field out. Used
    where tens of thousands of records are written, so it avoids a message object for each.
    """
    out = bytearray()
    for field, number in zip((_CHANNELS, _HEIGHT, _WIDTH), shape or (), strict=bool(shape)):
        out += struct.pack("B", field << 3) + _encode(number)
    out += struct.pack("B", _DATA << 3 | _BYTES) + _encode(len(pixels)) + pixels
    out += struct.pack("B", _LABEL << 3) + _encode(label)
    if encoded is not None:
        out += struct.pack("BB", _ENCODED << 3, encoded)
    return bytes(out)


def _encode(number: int) -> bytes:
    number &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
