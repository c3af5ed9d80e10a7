"""Winograd's minimal filtering: its matrices, and the transforms of maps, weights and results as products in NumPy.

A tile of m x m results of an r x r filter takes a = m + r - 1 numbers a side. With y[i] = sum_s d[i + s] g[s] in one
dimension, three matrices turn the sum into a product of transformed values, one multiplication each:

    y = A^T ((G g) * (B^T d))          A^T: m x a    G: a x r    B^T: a x a

and in two dimensions Y = A^T ((G g G^T) * (B^T d B)) A. Over channels the products of each of the a x a points are a
matrix product. The map is trilinear, so its adjoints are made of the same matrices: the gradient of the filter is
G^T ((B^T d B) * (A dY A^T)) G. What is saved is (m r / a)^2 of the multiplications: 2.25 times with m = 2 and r = 3, 4
times with m = 4.

The matrices are those of interpolation at a - 1 points and infinity (Toom and Cook; Winograd 1980; Lavin and Gray
2015). The points decide how large rounding errors become. Measured against float64 on normal random numbers, 512
channels, greatest error by greatest result: direct 5e-7; m = 2 with the points 0, 1, -1: 1.1e-6; m = 4 with 0, +-1,
+-2: 1.3e-5, with 0, +-5/8, +-3/2: 3.4e-6. With factors rounded to bfloat16, root mean square: direct 2.3e-3, m = 2
4.0e-3, m = 3 with +-2/5, +-5/4 6.0e-3, m = 4 1.1e-2.

The transforms are products of a small matrix with many short rows of channels. BLAS has kernels for such: measured with
NumPy's own OpenBLAS and AVX-512, 0.2 ns a number in the cache. Sums of whole arrays, a NumPy call each, need a third of
the arithmetic and take 3 times as long with m = 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from .memory import Array

Step = Callable[[], Any]
Matrix = tuple[tuple[Fraction, ...], ...]

POINTS: Mapping[int, tuple[Fraction, ...]] = {
    4: tuple(map(Fraction, ("0", "1", "-1"))),
    5: tuple(map(Fraction, ("2/5", "-2/5", "5/4", "-5/4"))),
    6: tuple(map(Fraction, ("0", "5/8", "-5/8", "3/2", "-3/2"))),
    8: tuple(map(Fraction, ("0", "1", "-1", "2", "-2", "1/2", "-1/2"))),
}
"""Finite points by the side of a transformed tile."""


@dataclass(frozen=True)
class Tile:
    """The matrices for m x m results of an r x r filter."""

    m: int
    r: int
    result: Matrix
    """A^T, m x a."""
    weights: Matrix
    """G, a x r."""
    data: Matrix
    """B^T, a x a."""

    @property
    def side(self) -> int:
        """a."""
        return self.m + self.r - 1


@lru_cache
def tile(m: int, r: int) -> Tile:
    """The matrices, worked out from the points.

    Raises:
        KeyError: no points are known for tiles of that side.
    """
    points = POINTS[m + r - 1]
    result = [[p**k for p in points] + [Fraction(int(k == m - 1))] for k in range(m)]
    weights, data = [], []
    for i, p in enumerate(points):
        others = [q for j, q in enumerate(points) if j != i]
        norm = _value(_polynomial(others), p)
        weights.append([p**k / norm for k in range(r)])
        data.append([*_polynomial(others), Fraction(0)])
    weights.append([Fraction(int(k == r - 1)) for k in range(r)])
    data.append(_polynomial(points))
    return Tile(m, r, _fixed(result), _fixed(weights), _fixed(data))


def _polynomial(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients of the product of (x - root), the constant first."""
    found = [Fraction(1)]
    for root in roots:
        found = [a - root * b for a, b in zip([Fraction(0), *found], [*found, Fraction(0)], strict=True)]
    return found


def _value(coefficients: Sequence[Fraction], x: Fraction) -> Fraction:
    return sum((c * x**k for k, c in enumerate(coefficients)), Fraction(0))


def _fixed(rows: Sequence[Sequence[Fraction]]) -> Matrix:
    return tuple(map(tuple, rows))


def transposed(matrix: Matrix) -> Matrix:
    """Rows and columns exchanged."""
    return tuple(zip(*matrix, strict=True))


def mirrored(matrix: Matrix) -> Matrix:
    """The columns in opposite order: what is done to a filter that is turned around."""
    return tuple(row[::-1] for row in matrix)


@lru_cache
def numbers(matrix: Matrix) -> Array:
    """The matrix in float32."""
    return np.array([[float(x) for x in row] for row in matrix], np.float32)


# ------------------------------------------------------------------------------------------------------- the transforms
class Spare:
    """Memory for what one thread needs between two steps: handed out anew for every piece of work."""

    def __init__(self, memory: Array) -> None:
        self._memory = memory

    def take(self, *shape: int) -> Array:
        """An array of that shape."""
        return self._memory[: math.prod(shape)].reshape(shape)


def _product(matrix: Matrix, given: Array, out: Array) -> Step:
    return partial(np.matmul, numbers(matrix), given, out)


def spread(matrix: Matrix, m: int, maps: Array, out: Array, spare: Spare) -> list[Step]:
    """out[i, j] = the tiles of ``maps``, multiplied by the matrix from both sides: B^T d B, or A dY A^T.

    maps: images, rows, columns, channels: tiles of as many numbers a side as the matrix has columns, m apart.
    out: a, a, images, tiles down, tiles across, channels.
    """
    a, _, n, down, across, c = out.shape
    taps, columns = len(matrix[0]), maps.shape[2]
    image, line, number, each = maps.strides
    halfway = spare.take(a, n, down, columns * c)
    rows = as_strided(maps, (n, down, taps, columns * c), (image, m * line, line, each), writeable=False)
    point, one, row, _ = halfway.strides
    tiles = as_strided(halfway, (a, n, down, across, taps, c), (point, one, row, m * number, number, each),
                       writeable=False)  # fmt: skip
    return [_product(matrix, rows, halfway.transpose(1, 2, 0, 3)),
            _product(matrix, tiles, out.transpose(0, 2, 3, 4, 1, 5))]  # fmt: skip


def spread_room(matrix: Matrix, n: int, down: int, columns: int, c: int) -> int:
    """Numbers that ``spread`` takes of its spare memory."""
    return len(matrix) * n * down * columns * c


def gather(matrix: Matrix, products: Array, maps: Array, spare: Spare) -> list[Step]:
    """The tiles of ``maps`` = A^T M A.

    products: a, a, images, tiles down, tiles across, channels; rows of tiles lie one after another.
    maps: images, tiles down, m, tiles across, m, channels.
    """
    a, _, n, down, across, c = products.shape
    m, many = len(matrix), down * across * c
    i, j, image, _, _, each = products.strides
    halfway = spare.take(n, a, m, many)
    points = as_strided(products, (n, a, a, many), (image, j, i, each), writeable=False)
    lines = halfway.reshape(n, a, m, down, across, c).transpose(0, 3, 2, 4, 1, 5)
    return [_product(matrix, points, halfway), _product(matrix, lines, maps)]


def gather_room(matrix: Matrix, n: int, down: int, across: int, c: int) -> int:
    """Numbers that ``gather`` takes of its spare memory."""
    return n * len(matrix) * len(matrix[0]) * down * across * c


def sandwich(matrix: Matrix, given: Array, out: Array, spare: Spare) -> list[Step]:
    """out = matrix x given x matrix^T over the first two axes: weights to points, or points to weights."""
    halfway = spare.take(len(matrix[0]), len(matrix), given.shape[-1])
    return [_product(matrix, given.transpose(1, 0, 2), halfway), _product(matrix, halfway.transpose(1, 0, 2), out)]


def sandwich_room(matrix: Matrix, n: int) -> int:
    """Numbers that ``sandwich`` takes of its spare memory."""
    return len(matrix) * len(matrix[0]) * n
