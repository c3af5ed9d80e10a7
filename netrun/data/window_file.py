"""Window files: which windows of which images show an object, and how well, as R-CNN writes them.

# 0                                the image's number, counted from 0
path/of/image.jpg
3                                  its channels, height and width (what the file says of itself is what counts)
375
500
2                                  how many windows follow
7 0.83 48 10 211 180               class, overlap with the object, then x1 y1 x2 y2, both corners inside
0 0.12 3 4 90 80
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..config.paths import resolve
from ..errors import DataError

Ints = npt.NDArray[np.int64]

_HEADER = 4  # channels, height, width, windows
_WINDOW = 6  # class, overlap, x1, y1, x2, y2


@dataclass(frozen=True)
class Windows:
    """Windows of one kind: ``rows[i]`` is image, class, x1, y1, x2, y2 and the line of the file."""

    rows: Ints

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class WindowFile:
    """The names of the images, and the windows that show objects and those that show background (class 0)."""

    source: str
    images: list[str]
    objects: Windows
    background: Windows


def read_window_file(source: str, folder: str, fg_threshold: float, bg_threshold: float) -> WindowFile:
    """Reads a window file and sorts its windows: objects from an overlap of ``fg_threshold`` on, background below
    ``bg_threshold``; those in between are left out.

    Raises:
        DataError: it cannot be read or is empty, a line is not what should stand there, an object has class 0.
    """
    images: list[str] = []
    objects: list[Ints] = []
    background: list[Ints] = []
    try:
        with open(resolve(source, folder), encoding="utf-8", errors="surrogateescape") as stream:
            lines = _Lines(source, stream)
            while (title := lines.next()) is not None:
                if title.split() not in ([f"#{len(images)}"], ["#", str(len(images))]):
                    raise lines.wrong(f'"# {len(images)}", the number of the next image', title)
                images.append(lines.need("the name of an image").strip())
                *_, count = lines.header()
                values, at = lines.windows(count)
                overlap, rows = values[:, 1].astype(np.float32), values[:, [0, 2, 3, 4, 5]].astype(np.int64)
                rows = np.column_stack([np.full(count, len(images) - 1), rows, at])
                shown = overlap >= np.float32(fg_threshold)
                hidden = ~shown & (overlap < np.float32(bg_threshold))
                nameless = np.flatnonzero(shown & (rows[:, 1] < 1))
                if nameless.size:
                    row = rows[nameless[0]]
                    raise DataError(
                        f"line {row[6]} of {source}: a window with overlap {overlap[nameless[0]]:g} shows an object, "
                        f"and its class is {row[1]}; classes count from 1"
                    )
                rows[hidden, 1] = 0
                objects.append(rows[shown])
                background.append(rows[hidden])
    except OSError as error:
        raise DataError(f"source {source} cannot be read: {error.strerror}") from None
    if not images:
        raise DataError(f"source {source} lists no images")
    return WindowFile(source, images, Windows(np.concatenate(objects)), Windows(np.concatenate(background)))


class _Lines:
    """The lines that are not empty, and where they stand."""

    def __init__(self, source: str, lines: Iterator[str]) -> None:
        self._source, self._lines, self._number = source, enumerate(lines, 1), 0

    def next(self) -> str | None:
        for number, line in self._lines:
            if line.strip():
                self._number = number
                return line
        return None

    def need(self, what: str) -> str:
        line = self.next()
        if line is None:
            raise DataError(f"source {self._source} ends after line {self._number}; wanted {what}")
        return line

    def wrong(self, wanted: str, got: str) -> DataError:
        return DataError(f'line {self._number} of {self._source}: wanted {wanted}, got "{got.strip()[:80]}"')

    def header(self) -> list[int]:
        found: list[int] = []
        while len(found) < _HEADER:
            line = self.need("channels, height, width and the number of windows")
            words = line.split()
            if not all(w.isdecimal() for w in words) or len(found) + len(words) > _HEADER:
                raise self.wrong("channels, height, width and the number of windows, whole numbers", line)
            found += map(int, words)
        return found

    def windows(self, count: int) -> tuple[npt.NDArray[np.float64], Ints]:
        """The values of ``count`` windows, count x 6, and their lines."""
        values: list[list[float]] = []
        at: list[int] = []
        while len(values) < count:
            line = self.need(f"{count - len(values)} more windows")
            words = line.split()
            try:
                if len(words) != _WINDOW:
                    raise ValueError
                row = [float(word) for word in words]
                if any(row[k] != int(row[k]) for k in (0, 2, 3, 4, 5)) or not math.isfinite(row[1]):
                    raise ValueError
            except (ValueError, OverflowError):
                raise self.wrong("class overlap x1 y1 x2 y2 (all but the overlap whole numbers)", line) from None
            values.append(row)
            at.append(self._number)
        return np.array(values).reshape(count, _WINDOW), np.array(at, np.int64)
