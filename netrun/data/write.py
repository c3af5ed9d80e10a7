"""Writes a database: an LMDB or a LevelDB of Datum records, whole or not at all."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import lmdb

from ..config import schema
from ..errors import DataError, missing_extra

_FIRST_MAP = 64 << 20
_CHUNK = 1000  # records a transaction


def key_of(number: int) -> bytes:
    """The key of record ``number``: eight digits, so that the order of the bytes is the order of the numbers."""
    return b"%08d" % number


Records = Iterable[tuple[bytes, schema.Datum | bytes]]
Progress = Callable[[int], None]


def write_lmdb(path: str | os.PathLike[str], records: Records, progress: Progress | None = None) -> int:
    """Writes the folder ``path`` with one LMDB of the records and returns their number.

    The records may come in any order and as messages or as their bytes; ``progress`` is called with the number written
    so far, about every 1000. The database grows in a temporary folder beside ``path`` and is renamed when it is
    complete and on the disk, so a kill leaves no half database. A database that is already there is replaced.

    Raises:
        DataError: a key comes twice or is empty or too long; there are no records; something else than a database
            stands under ``path``; or the disk refuses.
    """
    return _write(Path(path), "LMDB", re.compile(r"data\.mdb|lock\.mdb"), _fill, records, progress)


def write_leveldb(path: str | os.PathLike[str], records: Records, progress: Progress | None = None) -> int:
    """As write_lmdb, for a LevelDB (blocks of 64 KiB, like Caffe's).

    Raises:
        DataError: as write_lmdb.
        UsageError: plyvel is not installed.
    """
    names = re.compile(r"CURRENT|LOCK|LOG(\.old)?|MANIFEST-\d+|\d+\.(ldb|sst|log|dbtmp)")
    return _write(Path(path), "LevelDB", names, _fill_leveldb, records, progress)


WRITERS = {"lmdb": write_lmdb, "leveldb": write_leveldb}
"""By the name of a backend."""

_Fill = Callable[[Path, Path, Records, "Progress | None"], int]


def _write(
    target: Path, kind: str, own: re.Pattern[str], fill: _Fill, records: Records, progress: Progress | None
) -> int:
    if target.exists():
        inside = [entry.name for entry in target.iterdir()] if target.is_dir() else ["a file"]
        if not all(own.fullmatch(name) for name in inside):
            raise DataError(f"{target} is there and is no {kind}; it is not overwritten")
    temporary = target.parent / f".{target.name}.{os.getpid()}.partial"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        count = fill(temporary, target, records, progress)
        _put_in_place(temporary, target)
    except (lmdb.Error, OSError) as error:
        raise DataError(f"database {target} cannot be written: {getattr(error, 'strerror', None) or error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return count


def _fill(
    folder: Path,
    target: Path,
    records: Records,
    progress: Progress | None,
) -> int:
    # Nobody else can see the folder yet: no lock file, and one sync at the end instead of one a transaction.
    environment = lmdb.open(str(folder), map_size=_FIRST_MAP, lock=False, sync=False, metasync=False)
    try:
        count = 0
        for pairs in _chunks(records):
            while not _commit(environment, target, pairs):
                environment.set_mapsize(2 * environment.info()["map_size"])
            count += len(pairs)
            if progress:
                progress(count)
        if not count:
            raise DataError(f"there are no records to write into {target}")
        environment.sync(True)
        return count
    finally:
        environment.close()


def _commit(environment: lmdb.Environment, target: Path, pairs: list[tuple[bytes, bytes]]) -> bool:
    """Writes the pairs in one transaction; False (and nothing written) if the map is too small for them."""
    try:
        with environment.begin(write=True) as transaction:
            for key, value in pairs:
                if not 0 < len(key) <= environment.max_key_size():
                    raise DataError(
                        f"key {key[:40]!r} of {len(key)} bytes: LMDB takes 1 to {environment.max_key_size()} bytes"
                    )
                if not transaction.put(key, value, overwrite=False):
                    raise DataError(f"two records for {target} have the key {key!r}")
        return True
    except lmdb.MapFullError:
        return False


def _fill_leveldb(folder: Path, target: Path, records: Records, progress: Progress | None) -> int:
    try:
        import plyvel
    except ImportError:
        raise missing_extra(f"writing the LevelDB {target}", "plyvel", "leveldb") from None
    try:
        database = plyvel.DB(str(folder), create_if_missing=True, block_size=1 << 16, write_buffer_size=_FIRST_MAP)
    except plyvel.Error as error:
        raise DataError(f"database {target} cannot be written: {error}") from None
    try:
        count, largest = 0, b""
        for pairs in _chunks(records):
            with database.write_batch() as batch:
                new: set[bytes] = set()
                for key, value in pairs:
                    if not key:
                        raise DataError(f"a record for {target} has an empty key")
                    # A key beyond all others, as they usually come, is new without a look.
                    if key <= largest and (key in new or database.get(key) is not None):
                        raise DataError(f"two records for {target} have the key {key!r}")
                    new.add(key)
                    largest = max(largest, key)
                    batch.put(key, value)
            count += len(pairs)
            if progress:
                progress(count)
        if not count:
            raise DataError(f"there are no records to write into {target}")
        # Everything goes into tables, so that opening the database finds nothing to tidy.
        database.compact_range()
    except plyvel.Error as error:
        raise DataError(f"database {target} cannot be written: {error}") from None
    finally:
        database.close()
    for name in ("LOCK", "LOG", "LOG.old"):
        (folder / name).unlink(missing_ok=True)
    for path in folder.iterdir():
        _sync(path)
    return count


def _chunks(records: Records) -> Iterator[list[tuple[bytes, bytes]]]:
    source = iter(records)
    while chunk := list(itertools.islice(source, _CHUNK)):
        yield [(key, r if isinstance(r, bytes) else r.SerializeToString()) for key, r in chunk]


def _put_in_place(temporary: Path, target: Path) -> None:
    if (temporary / "data.mdb").exists() and target.exists():
        # Only the file is exchanged, in one step: who reads the old database goes on reading it.
        os.replace(temporary / "data.mdb", target / "data.mdb")
    elif target.exists():
        old = temporary.with_suffix(".old")
        os.rename(target, old)
        os.rename(temporary, target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(temporary, target)
    for folder in (target, target.parent):
        with contextlib.suppress(OSError):  # some file systems cannot sync a folder; the data itself is safe
            _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
