"""Lists of image files: a text file with a file name and a label, or several, on each line."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..config.paths import resolve
from ..errors import DataError


@dataclass(frozen=True)
class ImageList:
    """What a list says: ``names[i]`` has ``labels[i]`` (float64, N x L) and stands on ``lines[i]`` of ``source``."""

    source: str
    names: list[str]
    labels: npt.NDArray[np.float64]
    lines: list[int]

    def place(self, number: int) -> str:
        """How messages call an entry."""
        return f"line {self.lines[number]} of {self.source} ({self.names[number]})"


def read_image_list(source: str, folder: str = "", root: str = "") -> ImageList:
    """Reads a list; ``root`` is put in front of its names where it has to be known which files exist.

    The last space (or tab) of a line separates name and label, as in Caffe, so names may hold spaces. If the file
    named like that on the first line is not there, but one is when more numbers are taken off the end, every line has
    that many labels. Labels are numbers, whole or not. Empty lines are passed over.

    Raises:
        DataError: the list cannot be read or is empty, or a line of it has no name or not as many numbers.
    """
    path = resolve(source, folder)
    try:
        stat = os.stat(path)
        return _read(path, source, folder, root, (os.getcwd(), stat.st_mtime_ns, stat.st_size, stat.st_ino))
    except OSError as error:
        raise DataError(f"source {source} cannot be read: {error.strerror}") from None


@functools.lru_cache(maxsize=4)
def _read(path: str, source: str, folder: str, root: str, _: object) -> ImageList:
    """The list. A net asks for it once for the shapes and once for the images; a million lines take a second."""
    names: list[str] = []
    values: list[list[float]] = []
    numbers: list[int] = []
    count = 0
    # Names need not be UTF-8: what is not goes through as it is.
    with open(path, encoding="utf-8", errors="surrogateescape") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            count = count or _labels_on(line, lambda name: os.path.exists(resolve(root + name, folder)))
            parts = line.rstrip("\r\n").rsplit(None, count)
            try:
                if len(parts) <= count:
                    raise ValueError
                values.append([_number(part) for part in parts[1:]])
            except ValueError:
                wanted = "a label" if count == 1 else f"{count} labels, as on the first line"
                raise DataError(
                    f'line {number} of {source}: wanted a file name, a space and {wanted}, got "{line.strip()[:120]}"'
                ) from None
            names.append(parts[0])
            numbers.append(number)
    if not names:
        raise DataError(f"source {source} lists no images")
    return ImageList(source, names, np.array(values), numbers)


def _labels_on(line: str, exists: Callable[[str], bool]) -> int:
    """How many numbers at the end of a line are labels."""
    count, rest = 0, line
    while True:
        parts = rest.rsplit(None, 1)
        try:
            _number(parts[1])
        except (IndexError, ValueError):
            return 1
        count, rest = count + 1, parts[0]
        if exists(rest):
            return count


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or "_" in text:
        raise ValueError(text)
    return value
