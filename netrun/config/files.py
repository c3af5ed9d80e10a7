"""Files that are read, or told of in one message; files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

from ..errors import UsageError


@contextlib.contextmanager
def reading(file: str) -> Iterator[BinaryIO]:
    """The file, open for reading its bytes.

    Raises:
        UsageError: there is no such file, it is a folder, or it may not be read.
    """
    try:
        with open(file, "rb") as stream:
            yield stream
    except FileNotFoundError:
        raise UsageError(f"there is no file {file}") from None
    except IsADirectoryError:
        raise UsageError(f"{file} is a folder, a file is wanted") from None
    except (OSError, ValueError) as problem:
        raise UsageError(f"{file} cannot be read: {getattr(problem, 'strerror', None) or problem}") from None


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A stream whose bytes become the file ``path`` when the block ends, in one step that survives a power cut.

    They go to a temporary file in the same folder, which is synced and then renamed over ``path``. If the block raises,
    the temporary file is removed and what was under ``path`` stays. A file that is replaced keeps its permissions; a
    symbolic link keeps its place and its target is replaced. What is no file (/dev/stdout, /dev/null, a pipe) stays
    what it is, and is given the bytes.

    Raises:
        OSError: the folder does not exist or is not writable, or the disk is full.
    """
    if _takes_bytes(path):
        with tempfile.TemporaryFile() as stream:
            yield stream
            stream.seek(0)
            with open(path, "wb") as home:
                shutil.copyfileobj(stream, home)
        return
    target = os.path.realpath(os.fspath(path))
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(4)}.part")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(descriptor, "w+b") as stream:
            yield stream
            stream.flush()
            with contextlib.suppress(FileNotFoundError):
                os.chmod(temporary, os.stat(target).st_mode & 0o777)
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(folder)


def _takes_bytes(path: str | os.PathLike[str]) -> bool:
    """Whether a device, a pipe or a socket is there, which renaming a file over it would do away with."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _sync_folder(folder: str) -> None:
    """Make the new name itself last. Some file systems cannot; the bytes are safe all the same."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
