"""Fetches a file from the first mirror that has it: resumed, checked, with time-outs."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import DataError
from ..version import __version__

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and of how much (0: not known)."""

_BLOCK = 1 << 16


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as stream:
        return _digest(stream.read)


def content_digest(path: Path) -> str:
    """SHA-256 of what a gzip file holds: mirrors compress the same file differently. Empty if it is no gzip file."""
    try:
        with gzip.open(path, "rb") as stream:
            return _digest(stream.read)
    except (OSError, EOFError, zlib.error):
        return ""


def download(
    urls: Sequence[str],
    target: Path,
    sha256: str,
    *,
    digest: Callable[[Path], str] = file_digest,
    progress: Progress | None = None,
    timeout: float = 30,
    attempts: int = 3,
    pause: float = 1,
) -> Path:
    """Fetches ``target`` from one of the ``urls`` (tried in turn, each up to ``attempts`` times) and returns it.

    The bytes go to a ``.part`` file per mirror, which the next attempt, or the next call, continues (HTTP Range). A
    file becomes ``target`` only if ``digest`` of it is ``sha256``; one that has another is thrown away. A target that
    is there and right is not fetched again. ``timeout`` (seconds) is how long a silent server is waited for, ``pause``
    (seconds) the time between two attempts.

    Raises:
        DataError: no mirror gave the file; the message tells what happened at each.
    """
    if target.exists() and digest(target) == sha256:
        return target
    failures = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for url in urls:
            part = target.with_name(f"{target.name}.{zlib.crc32(url.encode()):08x}.part")
            failure = ""
            for attempt in range(attempts):
                if attempt:
                    time.sleep(pause)
                failure = _fetch(url, part, target.name, timeout, progress)
                if not failure:
                    if digest(part) == sha256:
                        os.replace(part, target)
                        return target
                    failure = "the file there has another checksum (SHA-256)"
                    part.unlink()
            failures.append(f"{url}: {failure}")
    except OSError as error:
        raise DataError(f"{target} cannot be written: {error.strerror or error}") from None
    raise DataError(
        f"{target.name} could not be downloaded",
        notes=[*failures, "get the file by other means and name its folder: --from DIR"],
    )


def _fetch(url: str, part: Path, name: str, timeout: float, progress: Progress | None) -> str:
    """Continues ``part`` to its end. Returns what went wrong, or an empty string. Raises OSError of the disk."""
    have = part.stat().st_size if part.exists() else 0
    try:
        request = urllib.request.Request(url, headers={"User-Agent": f"netrun/{__version__}"})
        if have:
            request.add_header("Range", f"bytes={have}-")
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # nothing beyond what we have: it is complete, or of another file
            return ""
        return f"the server says {error.code} {error.reason}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return _reason(error)
    with response:
        resumed = response.status == 206 and str(response.headers.get("Content-Range", "")).startswith(f"bytes {have}-")
        if not resumed:
            have = 0
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if length.isdigit() else 0
        with open(part, "ab" if resumed else "wb") as out:
            while True:
                try:
                    block = response.read(_BLOCK)
                except (OSError, http.client.HTTPException) as error:
                    return _reason(error)
                if not block:
                    break
                out.write(block)
                have += len(block)
                if progress:
                    progress(name, have, total)
    return f"the connection ended after {have} of {total} bytes" if have < total else ""


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        error = error.reason
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


def _digest(read: Callable[[int], bytes]) -> str:
    digest = hashlib.sha256()
    while block := read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()
