"""A source of records by number: LMDB (lmdb_file.py) or LevelDB (leveldb.py), found by what is in the folder."""

from __future__ import annotations

import logging
import os
import re
from typing import Protocol

from ..config import schema
from ..config.paths import resolve
from ..errors import DataError
from .leveldb import LevelDb
from .lmdb_file import LmdbFile

_log = logging.getLogger("netrun.data")
_told: set[str] = set()


class Database(Protocol):
    """Records in the order of their keys. For one thread at a time; as many may be open on a folder as you like."""

    @property
    def source(self) -> str:
        """The path as the user typed it."""

    @property
    def count(self) -> int:
        """Number of records, at least 1."""

    def read(self, number: int) -> tuple[bytes, bytes]:
        """Key and value of record ``number`` (0 .. count - 1).

        Raises:
            DataError: the database is damaged there.
        """

    def close(self) -> None:
        """Gives the file back. Calling it twice is fine."""


def is_there(source: str, folder: str = "") -> bool:
    """Whether anything stands under the path."""
    return os.path.exists(resolve(source, folder))


def open_database(source: str, backend: int | None = None, folder: str = "") -> Database:
    """Opens a database for reading; nothing in its folder is written or locked.

    ``backend`` is what the configuration says, None if there is none. What the folder holds decides: Caffe's default
    is LEVELDB, and many nets that leave the field out mean an LMDB. If they differ, the log says so once per folder.

    Raises:
        DataError: nothing is there, it is no database, or it is empty, truncated or damaged.
        UsageError: a LevelDB, and the Python package that reads it is not installed.
    """
    path = resolve(source, folder)
    if not os.path.exists(path):
        raise missing(source)
    if os.path.isfile(path) or os.path.exists(os.path.join(path, "data.mdb")):
        _tell(path, source, backend, schema.DataParameter.LMDB)
        return LmdbFile(path, source)
    if os.path.exists(os.path.join(path, "CURRENT")):
        _tell(path, source, backend, schema.DataParameter.LEVELDB)
        return LevelDb(path, source)
    raise DataError(f"source {source} is no database: it holds neither data.mdb (LMDB) nor CURRENT (LevelDB)")


def missing(source: str, *hints: str) -> DataError:
    """The error for a source that is not there."""
    known = re.search(r"mnist|cifar10", source.lower())
    made = [f"netrun data {known[0]} makes it"] if known else []
    return DataError(f"source {source} is not there", notes=[*made, *hints])


def _tell(path: str, source: str, said: int | None, found: int) -> None:
    real = os.path.realpath(path)
    if said is not None and said != found and real not in _told:
        _told.add(real)
        name = schema.DataParameter.DB.Name
        _log.warning("%s is an %s: reading it as such, not as %s", source, name(found), name(said))
