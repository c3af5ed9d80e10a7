"""Steps of Winograd's filtering in a recipe: chunks of images with their borders, transforms shared among the cores."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from ..types import Shape, Spec
from . import dnnl
from .dnnl import Handle, Library, cores
from .layouts import nbytes, of, strides
from .memory import Array
from .recipe import LINE, Operand, Recipe
from .team import sharers, together
from .winograd import Matrix, Spare, gather, gather_room, sandwich, sandwich_room, spread, spread_room

CACHE = 32 << 20
"""Bytes of transformed values of one chunk, about: what stays in the last cache."""
PIECE = 512 << 10
"""Bytes one thread works on at a time, about: what stays in a core's own cache."""

Step = Callable[[], Any]
Address = Callable[[Operand], int]
Piece = tuple[slice, slice]
Parts = Callable[[int, Spare], list[Step]]


def floats(address: int, *shape: int) -> Array:
    """The float32 array at an address."""
    count = math.prod(shape)
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address)).reshape(shape)


class Maps:
    """One side of a convolution, cut into tiles: ``taps`` numbers a side, m apart, the first ``origin`` numbers before
    the map.

    chunk: images that are taken at once; down, across: tiles of an image.
    """

    def __init__(
        self, lib: Library, spec: Spec, m: int, taps: int, origin: Sequence[int], tiles: Sequence[int]
    ) -> None:
        self.lib, self.spec, self.m, self.taps, self.origin = lib, spec, m, taps, tuple(origin)
        self.down, self.across = tiles
        self.images, self.channels, *self.size = spec.shape
        self.rows = m * (self.down - 1) + taps
        self.columns = m * (self.across - 1) + taps
        self.chunk = 1

    @property
    def shape(self) -> Shape:
        """Of the border and what is inside it, for one chunk: images, rows, columns, channels."""
        return self.chunk, self.rows, self.columns, self.channels

    def area(self, r: Recipe) -> Operand:
        """Scratch for a chunk with its border."""
        return r.area(self.lib.strided(self.shape, strides(self.shape)))

    def inside(self, area: Operand, images: int) -> Operand:
        """The maps of some images within the border."""
        _, rows, columns, c = self.shape
        line = columns * c
        md = self.lib.strided((images, c, *self.size), (rows * line, 1, line, c))
        name, at = area.place
        return Operand(md, (name, at + 4 * (self.origin[0] * line + self.origin[1] * c)))

    def home(self, name: str, start: int, images: int) -> Operand:
        """The images from ``start`` on where they lie."""
        part = Spec((images, *self.spec.shape[1:]), self.spec.dtype, self.spec.layout)
        return Operand(of(self.lib, part), (name, 0), start * (nbytes(self.spec) // self.images))

    def clear(self, r: Recipe, area: Operand) -> None:
        """Add a step that makes the border zero; nothing else writes there."""
        top, left = self.origin
        height, width = self.size
        if (top, left, top + height, left + width) == (0, 0, self.rows, self.columns):
            return

        def make(address: Address, _: Any) -> Step:
            whole = floats(address(area), *self.shape)
            parts = [whole[:, :top], whole[:, top + height :], whole[:, top : top + height, :left],
                     whole[:, top : top + height, left + width :]]  # fmt: skip
            fills = [partial(part.fill, 0) for part in parts if part.size]
            return together([fills])

        r.host(make)

    def pieces(self, images: int, numbers: int) -> list[Piece]:
        """Images and rows of tiles of about ``PIECE`` bytes, where a row of tiles takes so many numbers."""
        limit = max(1, PIECE // (4 * numbers))
        if limit >= self.down and images >= cores():
            step = max(1, min(limit // self.down, -(-images // cores())))
            return [(slice(a, min(a + step, images)), slice(0, self.down)) for a in range(0, images, step)]
        count = max(-(-self.down // limit), -(-cores() // images))
        step = -(-self.down // count)
        return [(slice(i, i + 1), slice(a, min(a + step, self.down)))
                for i, a in product(range(images), range(0, self.down, step))]  # fmt: skip


class Work:
    """The steps in Python of one recipe, shared out among the cores; every thread has spare memory of its own."""

    _spare: Operand
    """Of all threads: there when all steps are."""

    def __init__(self, r: Recipe) -> None:
        self.r, self._room = r, 0

    def add(self, count: int, room: int, elements: int, make: Callable[[Address, Any], Parts]) -> None:
        """Add a step of ``count`` pieces that need so much spare memory each: make(address, arrays)(piece, spare)."""
        threads = min(sharers(elements), count)
        self._room = max(self._room, room + 16)

        def step(address: Address, arrays: Any) -> Step:
            part = make(address, arrays)
            memory = floats(address(self._spare), cores(), self._room)
            shares = []
            for t in range(threads):
                spare = Spare(memory[t])
                mine = range(t * count // threads, (t + 1) * count // threads)
                shares.append([s for i in mine for s in part(i, spare)])
            return together(shares)

        self.r.host(step)

    def close(self) -> Recipe:
        """The recipe, when all steps are there."""
        self._spare = self.r.area(self.r.lib.strided((cores() * self._room,), (1,)))
        return self.r


def carved(r: Recipe, *groups: Sequence[Handle]) -> list[list[Operand]]:
    """Scratch areas for groups of arrays that are not needed at the same time: they start at one place."""
    whole = max(sum(-(-r.lib.nbytes(md) // LINE) * LINE for md in group) for group in groups)
    block = r.area(r.lib.strided((whole // 4,), (1,)))
    found = []
    for group in groups:
        at, places = block.place[1], []
        for md in group:
            places.append(Operand(md, ("", at)))
            at += -(-r.lib.nbytes(md) // LINE) * LINE
        found.append(places)
    return found


def cube(lib: Library, *shape: int, half: bool = False) -> Handle:
    """Description of a plain array."""
    return lib.strided(shape, strides(shape), dnnl.BF16 if half else dnnl.F32)


def taps_md(lib: Library, k: int, c: int, r: int) -> Handle:
    """Weights K C r r that lie as r r K C."""
    return lib.strided((k, c, r, r), (c, 1, r * k * c, k * c))


def to_points(work: Work, matrix: Matrix, given: Operand, out: Operand, count: int) -> None:
    """Weights between taps and points: the first two axes of ``given`` and ``out`` multiplied by the matrix."""
    rows, columns = len(matrix), len(matrix[0])
    each = max(256, PIECE // 4 // (rows * columns * 2))
    pieces = -(-count // each)

    def make(address: Address, _: Any) -> Parts:
        source = floats(address(given), columns, columns, count)
        target = floats(address(out), rows, rows, count)

        def part(i: int, spare: Spare) -> list[Step]:
            here = slice(i * each, min((i + 1) * each, count))
            return sandwich(matrix, source[:, :, here], target[:, :, here], spare)

        return part

    work.add(pieces, sandwich_room(matrix, min(each, count)), rows * rows * count, make)


def chunk_of(images: int, each: int) -> int:
    """How many images to take at once if one has so many bytes of transformed values: equal shares that fit."""
    most = max(1, min(images, CACHE // each))
    return -(-images // -(-images // most))


def chunks(images: int, chunk: int) -> Iterator[tuple[int, int]]:
    """(first, number) of every chunk."""
    for start in range(0, images, chunk):
        yield start, min(chunk, images - start)


def to_tiles(
    work: Work, maps: Maps, area: Operand, matrix: Matrix, images: int, out: Operand, sums: Sums | None = None
) -> None:
    """Add the transform of a chunk; with ``sums`` every piece's sum over all its positions, too."""
    m, a, c = maps.m, len(matrix), maps.channels
    pieces = maps.pieces(images, a * maps.columns * c)
    n, rows = pieces[0]
    room = spread_room(matrix, n.stop, rows.stop, maps.columns, c)
    first = sums.reserve(len(pieces)) if sums is not None else 0

    def make(address: Address, _: Any) -> Parts:
        whole = floats(address(area), *maps.shape)
        target = floats(address(out), a, a, images, maps.down, maps.across, c)
        totals = floats(address(sums.area), sums.count, c) if sums is not None else None

        def part(i: int, spare: Spare) -> list[Step]:
            n, rows = pieces[i]
            given = whole[n, rows.start * m : (rows.stop - 1) * m + maps.taps]
            found = spread(matrix, m, given, target[:, :, n, rows], spare)
            if totals is not None:
                found.append(partial(np.add.reduce, given.reshape(-1, c), 0, None, totals[first + i]))
            return found

        return part

    work.add(len(pieces), room, a * a * images * maps.down * maps.across * c, make)


def from_tiles(
    work: Work, maps: Maps, given: Operand, matrix: Matrix, images: int, area: Operand, bias: bool, relu: bool
) -> None:
    """Add the transform of a chunk of products into maps, with the bias and ReLU."""
    m, a, c = maps.m, len(matrix[0]), maps.channels
    pieces = maps.pieces(images, a * m * maps.across * c)
    n, rows = pieces[0]

    def make(address: Address, arrays: Any) -> Parts:
        source = floats(address(given), a, a, images, maps.down, maps.across, c)
        target = floats(address(area), maps.chunk, maps.down, m, maps.across, m, c)
        shift = arrays["b"][0].reshape(-1) if bias else None

        def part(i: int, spare: Spare) -> list[Step]:
            n, rows = pieces[i]
            home = target[n, rows]
            found = gather(matrix, source[:, :, n, rows], home, spare)
            if shift is not None:
                found.append(partial(np.add, home, shift, home))
            if relu:
                found.append(partial(np.maximum, home, np.float32(0), out=home))
            return found

        return part

    room = gather_room(matrix, n.stop, rows.stop, maps.across, c)
    work.add(len(pieces), room, a * a * images * maps.down * maps.across * c, make)


class Sums:
    """Partial sums of the gradient of a bias: one row a piece, in scratch."""

    area: Operand
    """There when all pieces are."""

    def __init__(self, r: Recipe, channels: int) -> None:
        self.r, self.channels, self.count = r, channels, 0

    def reserve(self, pieces: int) -> int:
        """The first of so many rows."""
        self.count += pieces
        return self.count - pieces

    def close(self) -> None:
        """Add the step that sums the rows into db."""
        self.area = self.r.area(cube(self.r.lib, self.count, self.channels))

        def make(address: Address, arrays: Any) -> Step:
            totals = floats(address(self.area), self.count, self.channels)
            return partial(np.add.reduce, totals, 0, None, arrays["db"][0].reshape(-1))

        self.r.host(make)
