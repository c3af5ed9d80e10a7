"""Convolutions of 5 x 5 windows as products at points (Toom and Cook's method, known as Winograd's), by the library.

Along an axis a tile of 4 outputs is a product of polynomials, found from its values at 8 points instead of from 20
products: y = A ((B x) * (G w)). Over both axes 64 products stand for 400. The polynomials of all tiles of an axis are
one matrix each way, B with a column a pixel and A with a row an output, so that everything is a matrix product:

    x -> rows B x -> columns B x = V,    V U = M point by point,    M -> rows A M -> columns A M -> y,    U = (G x G) w

with pixels outermost, then images, then channels. The gradients are the adjoints of these products. Sums have some 20
times the rounding error of the direct ones, about 6e-6 of the largest result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..program import Call
from ..types import PLAIN, Spec, Window
from . import dnnl
from .dnnl import Handle, Library, Unsupported
from .layouts import is_half, of, strides
from .onednn_spatial import quick
from .onednn_winograd import rectifiers
from .recipe import Operand, Place, Recipe

Matrix = npt.NDArray[np.float64]

TILE, WINDOW = 4, 5
POINTS = TILE + WINDOW - 1
_AT = tuple(map(Fraction, ("0", "1", "-1", "2", "-2", "1/2", "-1/2")))
"""The points but for infinity."""

IMAGES = 16
"""Images at least: they are the rows of the products."""

TRANSFORMS, PRODUCTS = 2.5, 1.6
"""What an operation of the transforms and of the products costs, by one of a direct convolution. Measured on one core:
50 and 80 against 125 thousand million operations a second."""

GAIN = 1.3
"""How many times faster it has to be by that count."""

ROOM = 96 * 2**20
"""Bytes of scratch it may take."""


@lru_cache(maxsize=1)
def matrices() -> tuple[Matrix, Matrix, Matrix]:
    """(A, G, B) of one tile: TILE x POINTS, POINTS x WINDOW, POINTS x POINTS; computed in fractions."""

    def values(count: int) -> list[list[Fraction]]:
        infinity = [Fraction(0)] * (count - 1) + [Fraction(1)]
        return [[p**i for i in range(count)] for p in _AT] + [infinity]

    inverse = _inverse(values(POINTS))
    a = np.array(values(TILE), float).T
    g, b = np.array(values(WINDOW), float), np.array(inverse, float).T
    scale = np.abs(b).max(axis=1, keepdims=True)  # the larger numbers to the weights' side: smaller errors
    return a, g * scale, b / scale


def _inverse(rows: list[list[Fraction]]) -> list[list[Fraction]]:
    """Of a matrix that has one."""
    n = len(rows)
    wide = [[*row, *(Fraction(i == j) for j in range(n))] for i, row in enumerate(rows)]
    for i in range(n):
        first = next(k for k in range(i, n) if wide[k][i])
        wide[i], wide[first] = wide[first], wide[i]
        wide[i] = [v / wide[i][i] for v in wide[i]]
        for k in range(n):
            if k != i and wide[k][i]:
                wide[k] = [v - wide[k][i] * p for v, p in zip(wide[k], wide[i], strict=True)]
    return [row[n:] for row in wide]


class _Axis:
    """One axis: ``tiles`` tiles, ``count`` values at points, in the order of points, then of tiles.

    down  count x pixels: B of all tiles, nothing where a tile sticks out
    up    outputs x count: A of all tiles
    fold  WINDOW x count: the transpose of G, added up over the tiles
    """

    def __init__(self, pixels: int, outputs: int, pad: int) -> None:
        self.pixels, self.outputs, self.tiles = pixels, outputs, -(-outputs // TILE)
        self.count = POINTS * self.tiles
        a, g, b = matrices()
        self.down, self.up = np.zeros((self.count, pixels)), np.zeros((outputs, self.count))
        for tile in range(self.tiles):
            at, first = slice(tile, None, self.tiles), tile * TILE
            low, high = max(0, first - pad), min(pixels, first - pad + POINTS)
            self.down[at, low:high] = b[:, low - first + pad : high - first + pad]
            self.up[first : first + TILE, at] = a[: outputs - first]
        self.fold = np.repeat(g.T, self.tiles, axis=1)


def worth(x: Spec, w: Spec, y: Spec, window: Window, groups: int) -> bool:
    """Whether a convolution has the form and the size for this."""
    if w.shape[2:] != (WINDOW, WINDOW) or groups != 1 or window.stride != (1, 1) or window.dilation != (1, 1):
        return False
    if w.layout != PLAIN or any(s.dtype != "float32" or is_half(s.layout) for s in (x, w, y)) or x.shape[0] < IMAGES:
        return False
    direct = y.count * math.prod(w.shape[1:])
    high, wide = (POINTS * -(-n // TILE) for n in y.shape[2:])
    inner, outer = x.shape[0] * x.shape[1], x.shape[0] * y.shape[1]
    transforms = high * x.shape[3] * inner * (x.shape[2] + wide) + y.shape[2] * wide * outer * (high + y.shape[3])
    products = high * wide * inner * w.shape[0]
    room = 4 * high * wide * (inner + outer)
    return direct > GAIN * (TRANSFORMS * transforms + PRODUCTS * products) and room <= ROOM


def takes(call: Call) -> bool:
    """Whether a convolution or one of its gradients is run this way."""
    args: Any = call.args
    if call.op.name in ("conv", "conv_then"):
        x, w, _, *others, y = args
        if any(others):
            return False
    elif call.op.name == "conv_grad_x":
        w, y, x = args
    else:
        x, y, w, *_ = args
        if math.prod(POINTS * -(-n // TILE) for n in y.shape[2:]) * math.prod(w.shape[:2]) * 4 > ROOM // 4:
            return False  # products of single tiles, not yet added up
    return worth(x.spec, w.spec, y.spec, call.attrs["window"], call.attrs["groups"])


class _Array(NamedTuple):
    """Memory of so many floats in C order, to be seen in any shape."""

    home: Operand
    sizes: tuple[int, ...]


class _Points:
    """The products of one recipe. Values go to and fro between two areas of scratch."""

    def __init__(self, lib: Library, call: Call, x: Spec, w: Spec, y: Spec) -> None:
        if not takes(call):
            raise Unsupported("points")
        self.lib, self.recipe, self.x, self.w, self.y = lib, Recipe(lib), x, w, y
        pads = call.attrs["window"].pad
        self.axes = [_Axis(n, m, p) for n, m, p in zip(x.shape[2:], y.shape[2:], pads, strict=True)]
        self.images, self.inputs, self.outputs = x.shape[0], x.shape[1], y.shape[1]
        high, wide = self.axes
        self.grid = (POINTS, high.tiles, POINTS, wide.tiles)

    def area(self, *counts: int) -> Operand:
        """Scratch for the largest of some counts of floats."""
        return self.recipe.area(self.lib.strided((max(counts),), (1,)))

    def constant(self, values: Matrix) -> Operand:
        """A matrix that is always the same."""
        return self.recipe.constant(self.lib.strided(values.shape, strides(values.shape)), values)

    def product(self, sides: Sequence[tuple[Operand, Sequence[int], Sequence[int]]]) -> None:
        """left right = result, each (memory, shape, steps)."""
        mds = [self.lib.strided(shape, steps) for _, shape, steps in sides]
        pd = self.lib.describe("matmul", mds[0], mds[1], None, mds[2], self.lib.attributes())
        operands = [Operand(md, memory.place) for md, (memory, *_) in zip(mds, sides, strict=True)]
        self.recipe.run(quick(self.lib, pd), dict(zip((dnnl.SRC, dnnl.WEIGHTS, dnnl.DST), operands, strict=True)))

    def along(self, source: Operand, target: Operand, ways: Sequence[Matrix], inner: int) -> None:
        """Both axes of ``source`` through matrices, ``inner`` numbers a pixel; the result is in ``source`` again."""
        (rows, high), (columns, wide) = (m.shape for m in ways)
        first, second = (self.constant(m) for m in ways)
        line = wide * inner
        self.product([(first, (rows, high), (high, 1)), (source, (high, line), (line, 1)),
                      (target, (rows, line), (line, 1))])  # fmt: skip
        self.product([(second, (1, columns, wide), (columns * wide, wide, 1)),
                      (target, (rows, wide, inner), (line, inner, 1)),
                      (source, (rows, columns, inner), (columns * inner, inner, 1))])  # fmt: skip

    def seen(self, spec: Spec) -> Handle:
        """An activation with pixels outermost, described in the order images, channels, pixels."""
        n, c, _, wide = spec.shape
        return self.lib.strided(spec.shape, (c, 1, wide * n * c, n * c))

    def take(self, name: str, spec: Spec, into: Operand) -> None:
        """An argument with its pixels outermost."""
        self.recipe.reorder(Operand(of(self.lib, spec), (name, 0)), Operand(self.seen(spec), into.place))

    def give(self, name: str, spec: Spec, source: Operand) -> None:
        """Back into the layout of an argument."""
        self.recipe.reorder(Operand(self.seen(spec), source.place), Operand(of(self.lib, spec), (name, 0)))

    def add(self, source: Operand, bias: Place, post: Sequence[tuple[Any, ...]]) -> None:
        """The bias to a result with pixels outermost, and what is done to the sum."""
        lib, shape = self.lib, (self.images * math.prod(a.outputs for a in self.axes), self.outputs)
        whole, vector = lib.strided(shape, strides(shape)), lib.strided((1, self.outputs), (self.outputs, 1))
        pd = lib.describe("binary", dnnl.ADD, whole, vector, whole, lib.attributes(post))
        home = Operand(whole, source.place)
        self.recipe.run(quick(lib, pd), {dnnl.SRC: home, dnnl.SRC_1: Operand(vector, bias), dnnl.DST: home})

    def weights(self) -> Operand:
        """U, point by point outputs x inputs, from the argument w."""
        _, g, _ = matrices()
        count = self.outputs * self.inputs
        made, window = self.area(POINTS**2 * count), WINDOW**2
        self.product([(self.constant(np.kron(g, g).astype(float)), (POINTS**2, window), (window, 1)),
                      (Operand(made.md, ("w", 0)), (window, count), (1, window)),
                      (made, (POINTS**2, count), (count, 1))])  # fmt: skip
        return made

    def multiplied(self, source: Operand, weights: Operand, target: Operand, back: bool) -> None:
        """Values at points times U, or times its transpose."""
        given, made = (self.outputs, self.inputs) if back else (self.inputs, self.outputs)
        count = given * made
        at = (POINTS * count, count, count, count)
        steps = (self.inputs, 1) if back else (1, self.inputs)

        def lying(channels: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
            shape = (*self.grid, self.images, channels)
            return shape, strides(shape)

        self.product([(source, *lying(given)), (weights, (POINTS, 1, POINTS, 1, given, made), (*at, *steps)),
                      (target, *lying(made))])  # fmt: skip

    def sizes(self, channels: int, pixels: str) -> tuple[int, int, int]:
        """Numbers before, between and after the two products of ``along`` at most, from or to ``pixels``."""
        high, wide = (getattr(a, pixels) for a in self.axes)
        rows, columns = (a.count for a in self.axes)
        inner = self.images * channels
        return high * wide * inner, max(rows * wide, high * columns) * inner, rows * columns * inner


def conv(lib: Library, call: Call) -> Recipe:
    """Kernels.conv, with ``then`` applied to the result."""
    args: Any = call.args
    x, w, b, *_, y = args
    p = _Points(lib, call, x.spec, w.spec, y.spec)
    post = rectifiers(call)
    before, after = p.sizes(p.inputs, "pixels"), p.sizes(p.outputs, "outputs")
    one, other = p.area(before[0], before[2], after[1]), p.area(before[1], after[0], after[2])
    p.take("x", x.spec, one)
    p.along(one, other, [a.down for a in p.axes], p.images * p.inputs)
    p.multiplied(one, p.weights(), other, back=False)
    p.along(other, one, [a.up for a in p.axes], p.images * p.outputs)
    if b is not None or post:
        p.add(other, ("b", 0) if b is not None else p.constant(np.zeros((1, p.outputs))).place, post)
    p.give("y", y.spec, other)
    return p.recipe


def conv_grad_x(lib: Library, call: Call) -> Recipe:
    """Kernels.conv_grad_x."""
    w, dy, dx = call.tensors()
    p = _Points(lib, call, dx.spec, w.spec, dy.spec)
    before, after = p.sizes(p.outputs, "outputs"), p.sizes(p.inputs, "pixels")
    one, other = p.area(before[0], before[2], after[1]), p.area(before[1], after[0], after[2])
    p.take("dy", dy.spec, one)
    p.along(one, other, [a.up.T for a in p.axes], p.images * p.outputs)
    p.multiplied(one, p.weights(), other, back=True)
    p.along(other, one, [a.down.T for a in p.axes], p.images * p.inputs)
    p.give("dx", dx.spec, other)
    return p.recipe


def conv_grad_w(lib: Library, call: Call) -> Recipe:
    """Kernels.conv_grad_w; conv_grad_wb has the gradient of the bias as a second output."""
    x, dy, dw, *more = call.tensors()
    p = _Points(lib, call, x.spec, dw.spec, dy.spec)
    inner, outer = p.sizes(p.inputs, "pixels"), p.sizes(p.outputs, "outputs")
    grid, count = math.prod(p.grid), p.outputs * p.inputs
    values, seeds = p.area(inner[0], inner[2]), p.area(outer[0], outer[2], WINDOW**2 * count)
    sums = p.area(inner[1], outer[1], grid * count)
    p.take("x", x.spec, values)
    p.along(values, sums, [a.down for a in p.axes], p.images * p.inputs)
    p.take("dy", dy.spec, seeds)
    if more:
        rows = p.images * math.prod(a.outputs for a in p.axes)
        p.product([(p.constant(np.ones((1, rows))), (1, rows), (rows, 1)),
                   (seeds, (rows, p.outputs), (p.outputs, 1)),
                   (Operand(seeds.md, ("db", 0)), (1, p.outputs), (p.outputs, 1))])  # fmt: skip
    p.along(seeds, sums, [a.up.T for a in p.axes], p.images * p.outputs)
    p.product([(seeds, (grid, p.outputs, p.images), (p.images * p.outputs, 1, p.outputs)),
               (values, (grid, p.images, p.inputs), (p.images * p.inputs, p.inputs, 1)),
               (sums, (grid, p.outputs, p.inputs), (count, p.inputs, 1))])  # fmt: skip
    window = WINDOW**2
    fold = p.constant(np.kron(p.axes[0].fold, p.axes[1].fold))
    p.product([(fold, (window, grid), (grid, 1)), (sums, (grid, count), (count, 1)),
               (seeds, (window, count), (count, 1))])  # fmt: skip
    p.recipe.reorder(Operand(lib.strided((count, window), (1, count)), seeds.place),
                     Operand(lib.strided((count, window), (window, 1)), ("dw", 0)))  # fmt: skip
    return p.recipe
