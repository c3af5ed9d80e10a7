"""A small canvas that becomes a PNG: filled boxes, lines, and letters made of strokes."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Point = tuple[float, float]

GLYPHS: dict[str, str] = {
    "A": "06 20 46|14 34", "B": "00 06 36 45 44 33 03|00 30 41 42 33", "C": "41 30 10 01 05 16 36 45",
    "D": "00 06 26 44 42 20 00", "E": "40 00 06 46|03 33", "F": "40 00 06|03 33",
    "G": "41 30 10 01 05 16 36 45 43 23", "H": "00 06|40 46|03 43", "I": "10 30|20 26|16 36",
    "J": "20 40|30 35 26 16 05", "K": "00 06|40 03 46", "L": "00 06 46", "M": "06 00 23 40 46", "N": "06 00 46 40",
    "O": "10 30 41 45 36 16 05 01 10", "P": "06 00 30 41 42 33 03", "Q": "10 30 41 45 36 16 05 01 10|24 46",
    "R": "06 00 30 41 42 33 03|23 46", "S": "41 30 10 01 02 13 33 44 45 36 16 05", "T": "00 40|20 26",
    "U": "00 05 16 36 45 40", "V": "00 26 40", "W": "00 16 23 36 40", "X": "00 46|40 06", "Y": "00 23 40|23 26",
    "Z": "00 40 06 46", "a": "12 32 43 46|44 14 05 16 36 45", "b": "00 06|03 12 32 43 45 36 16 05",
    "c": "42 12 03 05 16 46", "d": "40 46|43 32 12 03 05 16 36 45", "e": "04 44 43 32 12 03 05 16 46",
    "f": "40 30 21 26|02 42", "g": "43 32 12 03 05 16 36 45|42 47 38 18 07", "h": "00 06|03 12 32 43 46",
    "i": "20 20.4|12 22 26|16 36", "j": "30 30.4|22 32 37 28 18", "k": "00 06|42 04 46", "l": "10 20 26|16 36",
    "m": "06 02|03 12 23 26|23 32 43 46", "n": "06 02|03 12 32 43 46", "o": "12 32 43 45 36 16 05 03 12",
    "p": "08 02|03 12 32 43 45 36 16 05", "q": "48 42|43 32 12 03 05 16 36 45", "r": "06 02|03 12 32 43",
    "s": "42 12 03 14 34 45 36 06", "t": "10 15 26 46|02 42", "u": "02 05 16 36 45|42 46", "v": "02 26 42",
    "w": "02 16 24 36 42", "x": "02 46|42 06", "y": "02 26|42 18 08", "z": "02 42 06 46",
    "0": "10 30 41 45 36 16 05 01 10|14 32", "1": "11 20 26|16 36", "2": "01 10 30 41 42 06 46",
    "3": "00 40 22 43 45 36 16 05", "4": "36 30 04 44", "5": "40 00 02 32 43 45 36 16 05",
    "6": "30 10 01 05 16 36 45 44 33 03", "7": "00 40 16", "8": "13 02 01 10 30 41 42 33 13 04 05 16 36 45 44 33",
    "9": "43 13 02 01 10 30 41 45 36 16", "_": "06 46", "-": "13 33", "+": "03 43|21 25", "=": "02 42|04 44",
    "/": "06 40", "\\": "00 46", "(": "30 12 14 36", ")": "10 32 34 16", "[": "30 10 16 36", "]": "10 30 36 16",
    "{": "30 21 22 13 24 25 36", "}": "10 21 22 33 24 25 16", ".": "26 26.4", ",": "26 18", ":": "22 22.4|25 25.4",
    ";": "22 22.4|25 17", "'": "20 22", "\"": "10 12|30 32", "!": "20 24|26 26.4",
    "?": "01 10 30 41 42 23 24|26 26.4", "*": "21 25|02 44|42 04", "#": "10 16|30 36|02 42|04 44", "<": "40 03 46",
    ">": "00 43 06", "|": "20 27", "@": "33 23 24 33 34 43 41 30 10 01 05 16 46", "%": "06 40|00 11|35 46",
    "&": "46 11 10 20 21 04 05 16 26 44", "$": "41 11 02 13 33 44 35 05|20 26", "^": "02 20 42", "~": "03 12 33 42",
    "`": "10 21",
}  # fmt: skip
"""Strokes on a grid 5 wide and 7 high (descenders go below): points "xy", strokes divided by "|"."""
UNKNOWN = "00 40 46 06 00"


def _strokes(letter: str) -> list[list[Point]]:
    found = []
    for stroke in GLYPHS.get(letter, "" if letter.isspace() else UNKNOWN).split("|"):
        found.append([(float(point[0]), float(point[1:])) for point in stroke.split()])
    return [stroke for stroke in found if stroke]


def _colour(text: str) -> npt.NDArray[np.float32]:
    return np.array([int(text[i : i + 2], 16) for i in (1, 3, 5)], np.float32)


class Canvas:
    """A white picture of so many pixels; coordinates are in pixels from the upper left corner."""

    def __init__(self, width: float, height: float) -> None:
        shape = max(1, math.ceil(height)), max(1, math.ceil(width)), 3
        self.pixels = np.full(shape, 255, np.float32)

    def _blend(self, x0: float, y0: float, x1: float, y1: float, distance: Any, colour: str) -> None:
        """Paint where ``distance(x, y)``, in pixels from the edge of a shape, is negative; the edge is smooth."""
        left, top = max(0, math.floor(x0)), max(0, math.floor(y0))
        right, bottom = min(self.pixels.shape[1], math.ceil(x1) + 1), min(self.pixels.shape[0], math.ceil(y1) + 1)
        if left >= right or top >= bottom:
            return
        y, x = np.mgrid[top:bottom, left:right].astype(np.float32) + np.float32(0.5)
        cover = np.clip(0.5 - distance(x, y), 0, 1)[..., np.newaxis]
        part = self.pixels[top:bottom, left:right]
        part += cover * (_colour(colour) - part)

    def line(self, points: Sequence[Point], colour: str, width: float = 1.2) -> None:
        """A line through the points."""
        for (ax, ay), (bx, by) in pairwise(points):
            dx, dy = bx - ax, by - ay
            length = dx * dx + dy * dy or 1e-9

            def distance(x: Any, y: Any, a: Point = (ax, ay), d: Point = (dx, dy), n: float = length) -> Any:
                t = np.clip(((x - a[0]) * d[0] + (y - a[1]) * d[1]) / n, 0, 1)
                return np.hypot(x - a[0] - t * d[0], y - a[1] - t * d[1]) - width / 2

            edge = width + 1
            box = min(ax, bx) - edge, min(ay, by) - edge, max(ax, bx) + edge, max(ay, by) + edge
            self._blend(*box, distance, colour)

    def tip(self, before: Point, end: Point, colour: str, size: float = 7) -> None:
        """The tip of an arrow that ends in ``end``, coming from ``before``."""
        length = math.dist(before, end) or 1.0
        ux, uy = (end[0] - before[0]) / length, (end[1] - before[1]) / length

        def distance(x: Any, y: Any) -> Any:
            back = (end[0] - x) * ux + (end[1] - y) * uy
            side = np.abs((x - end[0]) * uy - (y - end[1]) * ux)
            return np.maximum(side - back * 0.45, back - size)

        self._blend(end[0] - size, end[1] - size, end[0] + size, end[1] + size, distance, colour)

    def box(self, x: float, y: float, w: float, h: float, radius: float, fill: str, edge: str) -> None:
        """A filled box with round corners and an edge."""

        def outside(grow: float) -> Any:
            def distance(px: Any, py: Any) -> Any:
                qx = np.abs(px - x - w / 2) - w / 2 + radius - grow
                qy = np.abs(py - y - h / 2) - h / 2 + radius - grow
                inner = np.minimum(np.maximum(qx, qy), 0)
                return np.hypot(np.maximum(qx, 0), np.maximum(qy, 0)) + inner - radius

            return distance

        self._blend(x - 2, y - 2, x + w + 2, y + h + 2, outside(0.5), edge)
        self._blend(x - 2, y - 2, x + w + 2, y + h + 2, outside(-0.6), fill)

    def text(self, text: str, x: float, y: float, size: float, colour: str = "#000000") -> None:
        """A line of text around the point."""
        unit = size / 9
        step = size * 0.6
        left, top = x - step * len(text) / 2 + (step - 4 * unit) / 2, y - 3.2 * unit
        for i, letter in enumerate(text):
            for stroke in _strokes(letter):
                self.line([(left + i * step + px * unit, top + py * unit) for px, py in stroke], colour, size / 11)

    def png(self) -> bytes:
        """The picture as a PNG file."""
        pixels = np.rint(self.pixels).astype(np.uint8)
        height, width = pixels.shape[:2]
        rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)

        def chunk(kind: bytes, content: bytes) -> bytes:
            return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

        head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        body = zlib.compress(rows.tobytes(), 6)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def picture_of(rows: npt.ArrayLike) -> bytes:
    """An array H W 3 of levels 0..255 as a PNG file."""
    array = np.asarray(rows)
    canvas = Canvas(array.shape[1], array.shape[0])
    canvas.pixels[...] = np.clip(array, 0, 255)
    return canvas.png()


__all__ = ["Canvas", "picture_of"]
