"""Writes a database: an LMDB of Datum records, whole or not at all."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import lmdb

from netrun.config import schema
from netrun.errors import DataError

_FIRST_MAP = 64 << 20
_CHUNK = 1000  # records a transaction


def key_of(number: int) -> bytes:
    """The key of record ``number``: eight digits, so that the order of the bytes is the order of the numbers."""
    return b"%08d" % number


def write_lmdb(
    path: str | os.PathLike[str],
    records: Iterable[tuple[bytes, schema.Datum | bytes]],
    progress: Callable[[int], None] | None = None,
) -> int:
    """Writes the folder ``path`` with one LMDB of the records and returns their number.

    The records may come in any order and as messages or as their bytes; ``progress`` is called with the number written
    so far, about every 1000. The database grows in a temporary folder beside ``path`` and is renamed when it is
    complete and on the disk, so a kill leaves no half database. A database that is already there is replaced.

    Raises:
        DataError: a key comes twice or is empty or too long; there are no records; something else than a database
            stands under ``path``; or the disk refuses.
    """
    target = Path(path)
    _check_target(target)
    temporary = target.parent / f".{target.name}.{os.getpid()}.partial"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        count = _fill(temporary, target, records, progress)
        _put_in_place(temporary, target)
    except (lmdb.Error, OSError) as error:
        raise DataError(f"database {target} cannot be written: {getattr(error, 'strerror', None) or error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return count


def _check_target(target: Path) -> None:
    if not target.exists():
        return
    inside = {entry.name for entry in target.iterdir()} if target.is_dir() else {"a file"}
    if inside - {"data.mdb", "lock.mdb"}:
        raise DataError(f"{target} is there and is no LMDB; it is not overwritten")


def _fill(
    folder: Path,
    target: Path,
    records: Iterable[tuple[bytes, schema.Datum | bytes]],
    progress: Callable[[int], None] | None,
) -> int:
    # Nobody else can see the folder yet: no lock file, and one sync at the end instead of one a transaction.
    environment = lmdb.open(str(folder), map_size=_FIRST_MAP, lock=False, sync=False, metasync=False)
    try:
        count, source = 0, iter(records)
        while chunk := list(itertools.islice(source, _CHUNK)):
            pairs = [(key, r if isinstance(r, bytes) else r.SerializeToString()) for key, r in chunk]
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


def _put_in_place(temporary: Path, target: Path) -> None:
    if target.exists():
        # Only the file is exchanged, in one step: who reads the old database goes on reading it.
        os.replace(temporary / "data.mdb", target / "data.mdb")
    else:
        os.rename(temporary, target)
    for folder in (target, target.parent):
        with contextlib.suppress(OSError):  # some file systems cannot sync a folder; the data itself is safe
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
