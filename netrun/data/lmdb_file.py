"""Reads an LMDB file: an own reader of the B+tree on disk, for two reasons.

The LMDB library trusts its file: in a truncated or damaged one it touches memory that is not there, and the process
dies of SIGBUS or SIGSEGV with nothing said. Here every page number, offset and length is checked before it is used,
and a DataError names the file. And a record can be reached by its number without a list of all keys: the leaf pages
and how many records each holds are enough (8 bytes a page), which makes resuming and shuffling cheap.

The format is LMDB's data version 1 (all of LMDB 0.9) as written by a 64-bit little-endian machine: pages of
``psize`` bytes, of which the first two are the meta pages; every page begins with a header of 16 bytes, followed on
branch and leaf pages by 2-byte offsets of its nodes. Writing is left to the library (write.py).
"""

from __future__ import annotations

import itertools
import mmap
import os
import struct
import weakref
from bisect import bisect_right

from ..errors import DataError

_PAGE = struct.Struct("<QHHHH")  # page number, unused, flags, lower, upper (overflow pages: lower, upper = page count)
_META = struct.Struct("<IIQQ 48s IHHQQQQQ QQ")  # magic, version, address, map size, free list, main tree, last, txn
_NODE = struct.Struct("<HHHH")  # size or page number (low, high), flags, key size
_HEADER = _PAGE.size
_MAGIC, _VERSION = 0xBEEFC0DE, 1
_BRANCH, _LEAF, _OVERFLOW = 1, 2, 4  # page flags
_BIG = 1  # node flag: the value is on pages of its own
_DUPSORT = 4  # tree flag
_NO_ROOT = 0xFFFFFFFFFFFFFFFF
_MAX_DEPTH = 32


class LmdbFile:
    """The records of an LMDB in key order, by number. See database.Database for the interface."""

    def __init__(self, path: str, source: str = "") -> None:
        """Opens a folder that holds ``data.mdb``, or such a file itself; ``source`` is its name in messages.

        Raises:
            DataError: it cannot be read, is no LMDB, is empty or truncated.
        """
        self.source = source or path
        file = os.path.join(path, "data.mdb") if os.path.isdir(path) else path
        try:
            with open(file, "rb") as stream:
                self._size = os.fstat(stream.fileno()).st_size
                if not self._size:
                    raise DataError(f"source {self.source} is empty: data.mdb has 0 bytes")
                self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
                self._file = os.dup(stream.fileno())
        except OSError as error:
            raise DataError(f"source {self.source} cannot be read: {error.strerror}") from None
        self._close = weakref.finalize(self, _close, self._map, self._file)
        self._starts = [0]  # record number at which leaf i starts; grows as leaves are counted
        self._first = self._stop = 0  # the records of the leaf that was read last
        self._base = 0
        self._nodes: tuple[int, ...] = ()
        try:
            self._leaves = self._open()
        except DataError:
            self.close()
            raise

    def close(self) -> None:
        """Gives the file back. Calling it twice is fine."""
        self._close()

    def read(self, number: int) -> tuple[bytes, bytes]:
        """Key and value of record ``number`` (0 .. count - 1).

        Raises:
            DataError: the database is damaged there.
        """
        while number >= self._starts[-1]:
            self._count_next_leaf()
        if not self._first <= number < self._stop:
            leaf = bisect_right(self._starts, number) - 1
            self._first, self._stop = self._starts[leaf], self._starts[leaf + 1]
            self._base, self._nodes = self._node_offsets(self._leaves[leaf], _LEAF)
        return self._record(self._base, self._nodes[number - self._first])

    # -- the tree ---------------------------------------------------------------------------------------------------

    def _open(self) -> list[int]:
        """The leaf pages in the order of their keys."""
        root, depth = self._read_meta()
        pages = [root]
        for _ in range(depth - 1):
            pages = [child for page in pages for child in self._children(page)]
            if len(pages) > self._pages:
                raise self._truncated(max(pages))
        self._leaves = pages
        if self._missing > 0:
            # The library may leave the last pages unwritten if nothing uses them, so a short file is not yet a
            # truncated one: look at every record once, to learn it now and not in the middle of an epoch.
            for page in pages:
                base, nodes = self._node_offsets(page, _LEAF)
                for node in nodes:
                    self._place(base, node)
        return pages

    def _read_meta(self) -> tuple[int, int]:
        """Root page and depth of the newest of the two meta pages; sets the sizes."""
        found = []
        offset = 0
        for _ in range(2):
            if offset + _HEADER + _META.size > self._size:
                raise DataError(f"source {self.source} is truncated: data.mdb has only {self._size} bytes")
            meta = _META.unpack_from(self._map, offset + _HEADER)
            magic, version, _, _, free = meta[:5]
            if magic != _MAGIC:
                raise DataError(f"source {self.source} is no LMDB: data.mdb does not start like one")
            if version != _VERSION:
                raise DataError(
                    f"source {self.source} is an LMDB of format {version}, and only format {_VERSION} is known here",
                    notes=["copy it with the tools of the LMDB that wrote it (mdb_dump, then mdb_load of LMDB 0.9)"],
                )
            offset = self._psize = struct.unpack_from("<I", free)[0]
            if not 512 <= self._psize <= 65536 or self._psize & (self._psize - 1):
                raise self._damaged(f"a page size of {self._psize} bytes")
            found.append(meta)
        newest = max(found, key=lambda meta: int(meta[-1]))
        _, flags, depth, _, _, _, entries, root, last, _ = newest[5:]
        self._pages = self._size // self._psize
        self._missing = (last + 1) * self._psize - self._size  # bytes, if positive
        if root == _NO_ROOT or not entries:
            raise DataError(f"source {self.source} is empty: it holds no records")
        if flags & _DUPSORT:
            raise DataError(f"source {self.source} has several values per key, so it is not a database of records")
        if not 0 < depth <= _MAX_DEPTH or entries > self._size:
            raise self._damaged(f"its tree is said to be {depth} deep and to hold {entries} records")
        self.count = int(entries)
        return int(root), int(depth)

    def _children(self, page: int) -> list[int]:
        base, nodes = self._node_offsets(page, _BRANCH)
        children = []
        for node in nodes:
            low, high, top, _ = _NODE.unpack_from(self._map, base + node)
            children.append(low | high << 16 | top << 32)
        return children

    def _count_next_leaf(self) -> None:
        _, nodes = self._node_offsets(self._leaves[len(self._starts) - 1], _LEAF)
        self._starts.append(self._starts[-1] + len(nodes))
        found, last = self._starts[-1], len(self._starts) > len(self._leaves)
        if found > self.count or last != (found == self.count):
            raise self._damaged(f"it should hold {self.count} records, and its pages hold more or fewer")

    def _node_offsets(self, page: int, kind: int) -> tuple[int, tuple[int, ...]]:
        """Where a page starts in the file, and the offsets of its nodes in it."""
        base = page * self._psize
        if base + self._psize > self._size:
            raise self._truncated(page)
        number, _, flags, lower, upper = _PAGE.unpack_from(self._map, base)
        count = (lower - _HEADER) // 2
        if number != page or not flags & kind or count < 1 or not lower <= upper <= self._psize:
            raise self._damaged(f"page {page} is not what the tree says it is")
        nodes = struct.unpack_from(f"<{count}H", self._map, base + _HEADER)
        if min(nodes) < upper or max(nodes) + _NODE.size > self._psize:
            raise self._damaged(f"page {page} points outside of itself")
        return base, nodes

    # -- records ----------------------------------------------------------------------------------------------------

    def _record(self, base: int, node: int) -> tuple[bytes, bytes]:
        key, start, size, big = self._place(base, node)
        if big and hasattr(os, "pread"):
            # Large values are read by a call that lets other threads run meanwhile; touching the mapped file would
            # stop all of them until the disk has answered.
            try:
                value = os.pread(self._file, size, start)
            except OSError as error:
                raise DataError(f"source {self.source} cannot be read: {error.strerror}") from None
            if len(value) != size:
                raise self._truncated(start // self._psize)
            return key, value
        return key, self._map[start : start + size]

    def _place(self, base: int, node: int) -> tuple[bytes, int, int, bool]:
        """Key, offset in the file and size of a value, and whether it is on pages of its own."""
        low, high, flags, key_size = _NODE.unpack_from(self._map, base + node)
        size = low | high << 16
        key_at = node + _NODE.size
        value_at = key_at + key_size
        if flags & ~_BIG or value_at + (8 if flags else size) > self._psize:
            raise self._damaged(f"a record on page {base // self._psize} does not fit into it")
        key = self._map[base + key_at : base + value_at]
        if not flags:
            return key, base + value_at, size, False
        (page,) = struct.unpack_from("<Q", self._map, base + value_at)
        start = page * self._psize
        if start + _HEADER + size > self._size:
            raise self._truncated(page)
        number, _, kind, low, high = _PAGE.unpack_from(self._map, start)
        if number != page or not kind & _OVERFLOW or (low | high << 16) * self._psize < _HEADER + size:
            raise self._damaged(f'the value of record "{show_key(key)}" is not on page {page}')
        return key, start + _HEADER, size, True

    def _damaged(self, what: str) -> DataError:
        return DataError(f"source {self.source} is damaged: {what}")

    def _truncated(self, page: int) -> DataError:
        return DataError(
            f"source {self.source} is truncated or damaged: data.mdb has {self._size} bytes, "
            f"and page {page} would be at {page * self._psize}",
            notes=["copy it again: it may have been interrupted, or copied while it was written"],
        )


def _close(mapped: mmap.mmap, file: int) -> None:
    mapped.close()
    os.close(file)


def show_key(key: bytes) -> str:
    """A key as people can read it: printable ASCII as it is, other bytes as \\xNN."""
    text = "".join(chr(b) if 32 <= b < 127 else f"\\x{b:02x}" for b in itertools.islice(key, 120))
    return text + ("..." if len(key) > 120 else "")
