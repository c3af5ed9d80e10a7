"""Reads a LevelDB folder through the Python package plyvel (extra ``leveldb``)."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from netrun.errors import DataError, missing_extra

T = TypeVar("T")

_lock = threading.Lock()
_open: dict[str, tuple[Any, int]] = {}
"""Handles by real path with their number of users: LevelDB lets a process open a folder only once."""


class LevelDb:
    """The records of a LevelDB in key order, by number. See database.Database for the interface.

    LevelDB has no read-only mode: opening locks the folder against other processes and may tidy its log files.
    """

    def __init__(self, path: str, source: str = "") -> None:
        """Opens the folder and lists its keys (keys only).

        Raises:
            DataError: another process holds it, it is damaged or empty.
            UsageError: plyvel is not installed.
        """
        self.source = source or path
        self._path = os.path.realpath(path)
        self._db = _acquire(self._path, self.source)
        self._closed = False
        try:
            # LevelDB reaches a record by its key alone, so the n-th one needs the list.
            self._keys: list[bytes] = self._asked(lambda: list(self._db.iterator(include_value=False)))
            if not self._keys:
                raise DataError(f"source {self.source} is empty: it holds no records")
        except BaseException:
            self.close()
            raise
        self.count = len(self._keys)

    def read(self, number: int) -> tuple[bytes, bytes]:
        """Key and value of record ``number`` (0 .. count - 1).

        Raises:
            DataError: the database is damaged there.
        """
        key = self._keys[number]
        value: bytes | None = self._asked(lambda: self._db.get(key))
        if value is None:
            raise DataError(f"source {self.source} is damaged: record number {number} has a key but no value")
        return key, value

    def close(self) -> None:
        """Gives the folder back when nobody else in this process reads it. Calling it twice is fine."""
        if self._closed:
            return
        self._closed = True
        with _lock:
            handle, users = _open[self._path]
            if users > 1:
                _open[self._path] = handle, users - 1
            else:
                del _open[self._path]
                handle.close()

    def _asked(self, question: Callable[[], T]) -> T:
        import plyvel

        try:
            return question()
        except (plyvel.Error, OSError) as error:
            raise DataError(f"source {self.source} is damaged: {_first_line(error)}") from None


def _acquire(path: str, source: str) -> Any:
    try:
        import plyvel
    except ImportError:
        raise missing_extra(f"reading the LevelDB {source}", "plyvel", "leveldb") from None
    with _lock:
        handle, users = _open.get(path, (None, 0))
        if handle is None:
            try:
                handle = plyvel.DB(path, create_if_missing=False, paranoid_checks=True)
            except (plyvel.Error, OSError) as error:
                raise DataError(
                    f"source {source} cannot be opened as a LevelDB: {_first_line(error)}",
                    notes=[
                        "LevelDB writes into its folder and lets one process at a time use it; an LMDB does neither"
                    ],
                ) from None
        _open[path] = handle, users + 1
        return handle


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
