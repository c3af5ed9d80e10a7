"""Winograd's minimal filtering as NumPy steps: its matrices, and the transforms of maps, weights and results.

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
4.0e-3, m = 4 1.1e-2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache, partial
from typing import Any

import numpy as np

from .memory import Array

Step = Callable[[], Any]
Matrix = tuple[tuple[Fraction, ...], ...]

POINTS: Mapping[int, tuple[Fraction, ...]] = {
    4: tuple(map(Fraction, ("0", "1", "-1"))),
    6: tuple(map(Fraction, ("0", "5/8", "-5/8", "3/2", "-3/2"))),
}
"""Finite points by the side of a transformed tile. Opposite ones stand together: they share half of the work."""


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


# ----------------------------------------------------------------------------------------- a matrix as NumPy operations
Register = tuple[str, int]
"""("in", j), ("out", i) or ("tmp", k)."""

PRODUCT, SUM, EVEN, ODD, PAIRS = (("tmp", k) for k in range(5))


@dataclass
class Linear:
    """out[i] = sum_j matrix[i][j] in[j] as few operations on whole arrays.

    Rows or columns of opposite points are equal but for the signs of every other number: they are computed as sum and
    difference of one even and one odd half.
    """

    matrix: Matrix
    code: list[tuple[Any, Register, Register, Any]] = field(default_factory=list)
    temporaries: int = 4

    def __post_init__(self) -> None:
        forms: list[dict[Register, Fraction]] = [{} for _ in self.matrix]
        columns, j = transposed(self.matrix), 0
        while j < len(columns):
            a, b = columns[j], columns[j + 1] if j + 1 < len(columns) else ()
            if b and all(abs(x) == abs(y) for x, y in zip(a, b, strict=True)) and a != b:
                plus, minus = ("tmp", self.temporaries), ("tmp", self.temporaries + 1)
                self.temporaries += 2
                self.code += [(np.add, plus, ("in", j), ("in", j + 1)), (np.subtract, minus, ("in", j), ("in", j + 1))]
                for form, x, y in zip(forms, a, b, strict=True):
                    form[plus if x == y else minus] = x
                j += 2
                continue
            for form, x in zip(forms, a, strict=True):
                form[("in", j)] = x
            j += 1
        forms = [{source: c for source, c in form.items() if c} for form in forms]
        i = 0
        while i < len(forms):
            out = ("out", i)
            half = self._halves(forms[i], forms[i + 1]) if i + 1 < len(forms) else None
            if half is None:
                self._form(forms[i], out, SUM)
                i += 1
                continue
            even, odd = (self._single(form, home) for form, home in zip(half, (EVEN, ODD), strict=True))
            self.code += [(np.add, out, even, odd), (np.subtract, ("out", i + 1), even, odd)]
            i += 2

    @staticmethod
    def _halves(a: dict[Register, Fraction], b: dict[Register, Fraction]) -> Any:
        if a.keys() != b.keys() or any(abs(a[s]) != abs(b[s]) for s in a):
            return None
        even = {s: c for s, c in a.items() if c == b[s]}
        odd = {s: c for s, c in a.items() if c != b[s]}
        return (even, odd) if even and odd else None

    def _single(self, form: dict[Register, Fraction], home: Register) -> Register:
        """Where the value of a form is: it may be an input as it lies."""
        if len(form) == 1 and 1 in form.values():
            return next(iter(form))
        self._form(form, home, home)
        return home

    def _form(self, form: dict[Register, Fraction], out: Register, partial_sum: Register) -> None:
        sizes = {abs(c) for c in form.values()}
        if len(sizes) == 1 and sizes != {Fraction(1)} and len(form) > 1:
            (size,) = sizes
            self._form({s: c / size for s, c in form.items()}, partial_sum, partial_sum)
            self.code.append((np.multiply, out, partial_sum, size))
            return
        (first, factor), *rest = sorted(form.items(), key=lambda item: (item[1] != 1, abs(item[1]) != 1))
        now = first
        if factor != 1 or not rest:
            now = partial_sum if rest else out
            self.code.append((np.multiply, now, first, factor))
        for number, (source, c) in enumerate(rest, 1):
            term = source
            if abs(c) != 1:
                self.code.append((np.multiply, PRODUCT, source, abs(c)))
                term = PRODUCT
            home = out if number == len(rest) else partial_sum
            self.code.append((np.add if c > 0 else np.subtract, home, now, term))
            now = home

    def steps(self, sources: Sequence[Array], targets: Sequence[Array], temporaries: Sequence[Array]) -> list[Step]:
        """The operations on arrays of one shape."""
        arrays = {"in": sources, "out": targets, "tmp": temporaries}

        def find(what: Any) -> Any:
            return np.float32(what) if isinstance(what, Fraction) else arrays[what[0]][what[1]]

        return [partial(function, find(a), find(b), find(out)) for function, out, a, b in self.code]


@lru_cache
def linear(matrix: Matrix) -> Linear:
    """The operations of a matrix, worked out once."""
    return Linear(matrix)


# ------------------------------------------------------------------------------------------------------- the transforms
class Spare:
    """Memory for what one thread needs between two operations: handed out anew for every piece."""

    def __init__(self, memory: Array) -> None:
        self._memory, self._at = memory, 0

    def again(self) -> None:
        """Everything handed out is free."""
        self._at = 0

    def take(self, *shape: int) -> Array:
        """An array of that shape."""
        count = int(np.prod(shape))
        found: Array = self._memory[self._at : self._at + count].reshape(shape)
        self._at += -(-count // 16) * 16
        return found


def spread(matrix: Matrix, m: int, maps: Array, out: Array, spare: Spare) -> list[Step]:
    """out[i, j] = the tiles of ``maps``, multiplied by the matrix from both sides: B^T d B, or A dY A^T.

    maps: images, rows, columns/m, m, channels: tiles of as many numbers a side as the matrix has columns, m apart.
    out: a, a, images, tiles down, tiles across, channels.
    """
    spare.again()
    a, _, n, down, across, c = out.shape
    wide, taps = maps.shape[2], len(matrix[0])
    rows = [maps[:, s : s + m * (down - 1) + 1 : m] for s in range(taps)]
    halfway = spare.take(a, n, down, m, wide, c)  # columns that are m apart lie together: long runs for what follows
    code = linear(matrix)
    count = code.temporaries
    found = code.steps(rows, [h.transpose(0, 1, 3, 2, 4) for h in halfway],
                       [spare.take(n, down, wide, m, c) for _ in range(count)])  # fmt: skip
    columns = [halfway[:, :, :, s % m, s // m : s // m + across] for s in range(taps)]
    return found + code.steps(columns, [out[:, j] for j in range(a)],
                              [spare.take(a, n, down, across, c) for _ in range(count)])  # fmt: skip


def spread_room(matrix: Matrix, m: int, n: int, down: int, across: int, wide: int, c: int) -> int:
    """Numbers that ``spread`` takes of its spare memory."""
    a, count = len(matrix), linear(matrix).temporaries
    sizes = [a * n * down * m * wide * c, *[n * down * m * wide * c] * count, *[a * n * down * across * c] * count]
    return sum(-(-s // 16) * 16 for s in sizes)


def gather(matrix: Matrix, products: Array, maps: Array, spare: Spare) -> list[Step]:
    """The tiles of ``maps`` = A^T M A.

    products: a, a, images, tiles down, tiles across, channels.
    maps: images, tiles down, m, tiles across, m, channels.
    """
    spare.again()
    a, _, n, down, across, c = products.shape
    m, code = len(matrix), linear(matrix)
    halfway = spare.take(m, a, n, down, across, c)
    between = [spare.take(a, n, down, across, c) for _ in range(code.temporaries)]
    found = code.steps(list(products), list(halfway), between)
    targets = [maps[:, :, :, :, q].transpose(2, 0, 1, 3, 4) for q in range(m)]
    return found + code.steps([halfway[:, j] for j in range(a)], targets, [b[:m] for b in between])


def gather_room(matrix: Matrix, n: int, down: int, across: int, c: int) -> int:
    """Numbers that ``gather`` takes of its spare memory."""
    m, a = len(matrix), len(matrix[0])
    return m * a * n * down * across * c + 16 + linear(matrix).temporaries * (a * n * down * across * c + 16)


def sandwich(matrix: Matrix, given: Array, out: Array, spare: Spare) -> list[Step]:
    """out = matrix x given x matrix^T over the first two axes: weights to points, or points to weights."""
    spare.again()
    rows, columns, n = len(matrix), len(matrix[0]), given.shape[-1]
    code = linear(matrix)
    halfway = spare.take(rows, columns, n)
    between = [spare.take(max(rows, columns), n) for _ in range(code.temporaries)]
    found = code.steps(list(given), list(halfway), [b[:columns] for b in between])
    return found + code.steps([halfway[:, s] for s in range(columns)], [out[:, j] for j in range(rows)],
                              [b[:rows] for b in between])  # fmt: skip


def sandwich_room(matrix: Matrix, n: int) -> int:
    """Numbers that ``sandwich`` takes of its spare memory."""
    rows, columns = len(matrix), len(matrix[0])
    return rows * columns * n + 16 + linear(matrix).temporaries * (max(rows, columns) * n + 16)
