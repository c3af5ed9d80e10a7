"""Protobuf's binary format by hand, for messages that are gigabytes of floats.

Protobuf's own Python lists cost 32 bytes a number and refuse 2 GB. Here the structure is walked field by field over
a memory map, and packed numbers become NumPy views of it: opening a file costs nothing, whatever its size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import WeightsError, Where

Array = npt.NDArray[np.floating[Any]]

VARINT, FIXED64, LENGTH, GROUP, GROUP_END, FIXED32 = range(6)
_KINDS = "varint", "64-bit", "length-delimited", "group", "end of group", "32-bit"
_DEEPEST_GROUP = 100


class Record(NamedTuple):
    """One field on the wire. ``at`` is the offset of its tag, its content stands in ``start:end``."""

    number: int
    kind: int
    at: int
    start: int
    end: int
    value: int  # of a varint


class Wire:
    """A buffer that holds a message, and the file it is from."""

    def __init__(self, data: memoryview, file: str) -> None:
        self.data = data
        self.file = file

    def damaged(self, at: int, why: str) -> WeightsError:
        """The error for something impossible at a byte."""
        return WeightsError(f"damaged at byte {at} of {len(self.data)}: {why}", Where(self.file))

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """An unsigned number of variable length, and the offset behind it."""
        value = 0
        for shift in range(0, 70, 7):
            if at + shift // 7 >= end:
                raise self.damaged(at, "the data ends inside a number")
            byte = self.data[at + shift // 7]
            value |= (byte & 127) << shift
            if byte < 128:
                return value & (2**64 - 1), at + shift // 7 + 1
        raise self.damaged(at, "a number is longer than 10 bytes")

    def record(self, at: int, end: int) -> Record:
        """The field whose tag stands at an offset, inside a message that ends at ``end``."""
        tag, start = self.varint(at, end)
        number, kind = tag >> 3, tag & 7
        if not 0 < number < 2**29:
            raise self.damaged(at, f"{number} is no field number")
        if kind == VARINT:
            value, stop = self.varint(start, end)
            return Record(number, kind, at, start, stop, value)
        if kind == LENGTH:
            size, start = self.varint(start, end)
        elif kind == FIXED32:
            size = 4
        elif kind == FIXED64:
            size = 8
        elif kind == GROUP:
            size = self._group(number, start, end) - start
        elif kind == GROUP_END:
            raise self.damaged(at, f"a group ends here (field {number}) that did not begin")
        else:
            raise self.damaged(at, f"there is no wire type {kind}")
        if size > end - start:
            raise self.damaged(at, f"field {number} wants {size} bytes, {end - start} are left (is the file cut off?)")
        return Record(number, kind, at, start, start + size, 0)

    def records(self, start: int, end: int) -> Iterator[Record]:
        """Every field of the message in ``start:end``, in the order of the file."""
        while start < end:
            record = self.record(start, end)
            yield record
            start = record.end

    def text(self, record: Record) -> str:
        """The text of a string field."""
        return bytes(self.data[record.start : record.end]).decode("utf-8", "replace")

    def raw(self, record: Record) -> bytes:
        """A field as it stands, with its tag."""
        return bytes(self.data[record.at : record.end])

    def varints(self, record: Record) -> list[int]:
        """Signed 64-bit numbers of a repeated field: one, or a packed list."""
        if record.kind == VARINT:
            return [_signed(record.value)]
        found, at = [], record.start
        while at < record.end:
            value, at = self.varint(at, record.end)
            found.append(_signed(value))
        return found

    def numbers(self, record: Record, end: int, dtype: str) -> tuple[Array, int]:
        """The numbers of a repeated ``<f4`` or ``<f8`` field, and the offset behind them.

        A packed field gives a read-only view. Of an unpacked one, the whole run of equal tags is taken at once.
        """
        width = int(dtype[-1])
        if record.kind == LENGTH:
            size = record.end - record.start
            if size % width:
                what = f"field {record.number} holds {size} bytes, no multiple of {width}"
                raise self.damaged(record.at, what)
            return np.frombuffer(self.data, dtype, size // width, record.start), record.end
        tag = bytes(self.data[record.at : record.start])
        whole = np.dtype([("tag", np.uint8, (len(tag),)), ("number", dtype)])
        run = np.frombuffer(self.data, whole, (end - record.at) // whole.itemsize, record.at)
        # In growing steps, so that tags that alternate do not cost the square of their number.
        count, step = 0, 64
        while count < len(run):
            same = (run["tag"][count : count + step] == np.frombuffer(tag, np.uint8)).all(axis=1)
            if not same.all():
                count += int(np.argmin(same))
                break
            count += len(same)
            step *= 2
        return run["number"][:count].copy(), record.at + count * whole.itemsize

    def _group(self, number: int, at: int, end: int) -> int:
        """The offset behind a group (a form of field that no schema here uses) whose content starts at ``at``."""
        first, open_groups = at, [number]
        while open_groups:
            tag, start = self.varint(at, end)
            if tag & 7 == GROUP:
                open_groups.append(tag >> 3)
                at = start
            elif tag & 7 == GROUP_END:
                if open_groups.pop() != tag >> 3:
                    raise self.damaged(at, "groups end in the wrong order")
                at = start
            else:
                at = self.record(at, end).end
            if len(open_groups) > _DEEPEST_GROUP:
                raise self.damaged(first, f"groups are nested deeper than {_DEEPEST_GROUP}")
        return at


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def varint(value: int) -> bytes:
    """An unsigned number as it is written on the wire."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def length_tag(number: int, size: int) -> bytes:
    """The head of a length-delimited field."""
    return varint(number << 3 | LENGTH) + varint(size)


Piece = bytes | memoryview


def array_pieces(number: int, array: Array) -> list[Piece]:
    """A packed field of floats or doubles, in pieces that copy nothing of a contiguous little-endian array."""
    flat = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1)
    return [length_tag(number, flat.nbytes), flat.view(np.uint8).data]


def message_pieces(number: int, pieces: Sequence[Piece]) -> list[Piece]:
    """A message field made of the pieces of its content."""
    return [length_tag(number, sum(map(len, pieces))), *pieces]
