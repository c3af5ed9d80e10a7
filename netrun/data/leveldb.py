"""Reads a LevelDB folder through the Python package plyvel (extra ``leveldb``), without writing into it."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import DataError, missing_extra

T = TypeVar("T")

_lock = threading.RLock()  # a finalizer may run wherever the collector does, in here too
_open: dict[str, tuple[Any, int, str]] = {}
"""Handles by real path with their number of users and the folder of links: one handle serves all feeders."""


class LevelDb:
    """The records of a LevelDB in key order, by number. See database.Database for the interface.

    LevelDB has no read-only mode: opening locks the folder and may tidy its files. So it gets another folder, with
    links to the files, which goes when the last reader closes. The database may be read-only, and several processes
    may read it at once. (Tables that LevelDB merges meanwhile are new files in that temporary folder.)
    """

    def __init__(self, path: str, source: str = "") -> None:
        """Opens the database and lists its keys.

        Raises:
            DataError: it is damaged or empty.
            UsageError: plyvel is not installed.
        """
        self.source = source or path
        self._path = os.path.realpath(path)
        self._db = _acquire(self._path, self.source)
        self._close = weakref.finalize(self, _release, self._path)
        try:
            # LevelDB reaches a record by its key alone, so the n-th one needs the list.
            self._keys: list[bytes] = self._asked(self._list_keys)
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
        value: bytes | None = self._asked(lambda: self._db.get(key, verify_checksums=True))
        if value is None:
            raise DataError(f"source {self.source} is damaged: record number {number} has a key but no value")
        return key, value

    def close(self) -> None:
        """Closes the database when nobody else in this process reads it. Calling it twice is fine."""
        self._close()

    def _list_keys(self) -> list[bytes]:
        # The comfortable iterator of plyvel ends without a word where a table cannot be read; this one does not.
        rows = self._db.raw_iterator(verify_checksums=True)
        rows.seek_to_first()
        keys = []
        while rows.valid():
            keys.append(rows.key())
            rows.next()
        return keys

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
        handle, users, links = _open.get(path, (None, 0, ""))
        if handle is None:
            links = tempfile.mkdtemp(prefix="netrun-leveldb-")
            try:
                _link(path, links)
                handle = plyvel.DB(links, create_if_missing=False, paranoid_checks=True)
            except (plyvel.Error, OSError) as error:
                shutil.rmtree(links, ignore_errors=True)
                reason = _first_line(error).replace(links, source)
                raise DataError(f"source {source} cannot be opened as a LevelDB: {reason}") from None
        _open[path] = handle, users + 1, links
        return handle


def _link(path: str, links: str) -> None:
    """Links to all files of a database but its lock and its logs for people, which LevelDB would move about.

    LevelDB removes the names of files it no longer needs, and replaces CURRENT by renaming; it never changes a file
    that is there. So all that happens to the links leaves the files alone.
    """
    for name in os.listdir(path):
        file = os.path.join(path, name)
        if name not in ("LOCK", "LOG", "LOG.old") and os.path.isfile(file):
            os.symlink(file, os.path.join(links, name))


def _release(path: str) -> None:
    with _lock:
        handle, users, links = _open[path]
        if users > 1:
            _open[path] = handle, users - 1, links
            return
        del _open[path]
        handle.close()
        shutil.rmtree(links, ignore_errors=True)


def _first_line(error: Exception) -> str:
    words = error.args[0] if error.args else ""
    text = words.decode(errors="replace") if isinstance(words, bytes) else str(error)
    text = text.strip()
    return text.splitlines()[0] if text else type(error).__name__
