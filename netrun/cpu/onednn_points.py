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
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ..program import Call
from ..types import PLAIN, Spec, Window
from . import dnnl
from .dnnl import Handle, Library, Unsupported
from .layouts import is_half, nbytes, of, strides
from .onednn_spatial import quick
from .onednn_winograd import rectifiers
from .recipe import Operand, Place, Recipe
from .winograd import tile

Matrix = npt.NDArray[np.float64]

TILE, WINDOW = 4, 5
POINTS = TILE + WINDOW - 1

IMAGES = 16
"""Images at a time at least: they are the rows of the products."""

CACHE = 5 * 2**20
"""Bytes of values at points that stay near the cores. Images are taken in chunks of so many, if those are enough."""

COSTS = {True: (1.5, 1.3), False: (2.5, 1.6)}
"""What an operation of the transforms and of the products costs, by one of a direct convolution: where values stay in
the cache and where they do not. Measured on one core: 85 and 95, or 50 and 80, against 125 thousand million a second.
"""

GAIN = 1.3
"""How many times faster it has to be by that count."""

ROOM = 96 * 2**20
"""Bytes of scratch it may take."""


@lru_cache(maxsize=1)
def matrices() -> tuple[Matrix, Matrix, Matrix]:
    """(A, G, B) of one tile: TILE x POINTS, POINTS x WINDOW, POINTS x POINTS."""
    t = tile(TILE, WINDOW)
    a, g, b = (np.array(m, float) for m in (t.result, t.weights, t.data))
    scale = np.abs(b).max(axis=1, keepdims=True)  # the larger numbers to the weights' side: smaller errors
    return a, g * scale, b / scale


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
        for number in range(self.tiles):
            at, first = slice(number, None, self.tiles), number * TILE
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
    size = chunk(x, y) * _image(x, y)
    dear, cheap = COSTS[size <= CACHE]
    return direct > GAIN * (dear * transforms + cheap * products) and size <= ROOM


def _image(x: Spec, y: Spec) -> int:
    """Bytes of the values at points of one image, before and after the products."""
    return 4 * math.prod(POINTS * -(-n // TILE) for n in y.shape[2:]) * (x.shape[1] + y.shape[1])


def chunk(x: Spec, y: Spec) -> int:
    """Images taken at a time: the most that divide their number and stay in the cache, or the fewest allowed."""
    images = x.shape[0]
    found = [n for n in range(min(IMAGES, images), images + 1) if images % n == 0]
    return max((n for n in found if n * _image(x, y) <= CACHE), default=found[0])


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


class _Points:
    """The products of one recipe. Values go to and fro between two areas of scratch."""

    def __init__(self, lib: Library, call: Call, x: Spec, w: Spec, y: Spec) -> None:
        if not takes(call):
            raise Unsupported("points")
        self.lib, self.recipe = lib, Recipe(lib)
        pads = call.attrs["window"].pad
        self.axes = [_Axis(n, m, p) for n, m, p in zip(x.shape[2:], y.shape[2:], pads, strict=True)]
        self.images, self.inputs, self.outputs = chunk(x, y), x.shape[1], y.shape[1]
        self.chunks = x.shape[0] // self.images
        high, wide = self.axes
        self.grid = (POINTS, high.tiles, POINTS, wide.tiles)

    def area(self, *counts: int) -> Operand:
        """Scratch for the largest of some counts of floats."""
        return self.recipe.area(self.lib.strided((max(counts),), (1,)))

    def constant(self, values: Matrix) -> Operand:
        """A matrix that is always the same."""
        return self.recipe.constant(self.lib.strided(values.shape, strides(values.shape)), values)

    def product(self, sides: Sequence[tuple[Operand, Sequence[int], Sequence[int]]], more: bool = False) -> None:
        """left right = result, each (memory, shape, steps); ``more``: added to what is there."""
        mds = [self.lib.strided(shape, steps) for _, shape, steps in sides]
        pd = self.lib.describe(
            "matmul", mds[0], mds[1], None, mds[2], self.lib.attributes([("sum", 1.0)] if more else ())
        )
        operands = [Operand(md, memory.place) for md, (memory, *_) in zip(mds, sides, strict=True)]
        self.recipe.run(quick(self.lib, pd), dict(zip((dnnl.SRC, dnnl.WEIGHTS, dnnl.DST), operands, strict=True)))

    def along(self, source: Operand, target: Operand, ways: Sequence[tuple[Operand, Matrix]], inner: int) -> None:
        """Both axes of ``source`` through matrices, ``inner`` numbers a pixel; the result is in ``source`` again."""
        (first, up), (second, across) = ways
        (rows, high), (columns, wide) = up.shape, across.shape
        line = wide * inner
        self.product([(first, (rows, high), (high, 1)), (source, (high, line), (line, 1)),
                      (target, (rows, line), (line, 1))])  # fmt: skip
        self.product([(second, (1, columns, wide), (columns * wide, wide, 1)),
                      (target, (rows, wide, inner), (line, inner, 1)),
                      (source, (rows, columns, inner), (columns * inner, inner, 1))])  # fmt: skip

    def ways(self, matrices: Sequence[Matrix]) -> list[tuple[Operand, Matrix]]:
        """The matrices of both axes with where they lie."""
        return [(self.constant(m), m) for m in matrices]

    def part(self, name: str, spec: Spec, number: int) -> tuple[Operand, Handle]:
        """A chunk of the images of an argument, and how it is described with pixels outermost."""
        shape = (self.images, *spec.shape[1:])
        _, c, _, wide = shape
        given = Operand(of(self.lib, replace(spec, shape=shape)), (name, 0), number * (nbytes(spec) // self.chunks))
        return given, self.lib.strided(shape, (c, 1, wide * self.images * c, self.images * c))

    def take(self, name: str, spec: Spec, number: int, into: Operand) -> None:
        """A chunk of an argument with its pixels outermost."""
        given, seen = self.part(name, spec, number)
        self.recipe.reorder(given, Operand(seen, into.place))

    def give(self, name: str, spec: Spec, number: int, source: Operand) -> None:
        """Back into the layout of an argument."""
        home, seen = self.part(name, spec, number)
        self.recipe.reorder(Operand(seen, source.place), home)

    def add(self, source: Operand, bias: Place, post: Sequence[tuple[Any, ...]]) -> None:
        """The bias to a result with pixels outermost, and what is done to the sum."""
        lib, shape = self.lib, (self.images * math.prod(a.outputs for a in self.axes), self.outputs)
        whole, vector = lib.strided(shape, strides(shape)), lib.strided((1, self.outputs), (self.outputs, 1))
        pd = lib.describe("binary", dnnl.ADD, whole, vector, whole, lib.attributes(post))
        home = Operand(whole, source.place)
        self.recipe.run(quick(lib, pd), {dnnl.SRC: home, dnnl.SRC_1: Operand(vector, bias), dnnl.DST: home})

    def weights(self, back: bool) -> Operand:
        """U from the argument w: point by point inputs x outputs, or with ``back`` outputs x inputs."""
        _, g, _ = matrices()
        count = self.outputs * self.inputs
        made, window = self.area(POINTS**2 * count), WINDOW**2
        self.product([(self.constant(np.kron(g, g).astype(float)), (POINTS**2, window), (window, 1)),
                      (Operand(made.md, ("w", 0)), (window, count), (1, window)),
                      (made, (POINTS**2, count), (count, 1))])  # fmt: skip
        if back:
            return made
        turned, shape = self.area(POINTS**2 * count), (POINTS**2, self.outputs, self.inputs)
        order = self.lib.strided(shape, (count, 1, self.outputs))  # the library's products like rows best
        self.recipe.reorder(Operand(self.lib.strided(shape, strides(shape)), made.place), Operand(order, turned.place))
        return turned

    def multiplied(self, source: Operand, weights: Operand, target: Operand, back: bool) -> None:
        """Values at points times U, or times its transpose."""
        given, made = (self.outputs, self.inputs) if back else (self.inputs, self.outputs)
        count = given * made
        steps = (POINTS * count, POINTS * count, count, count, made, 1)

        def lying(channels: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
            shape = (*self.grid, self.images, channels)
            return shape, strides(shape)

        self.product([(source, *lying(given)), (weights, (POINTS, 1, POINTS, 1, given, made), steps),
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
    weights, inner, outer = p.weights(back=False), p.images * p.inputs, p.images * p.outputs
    down, up = p.ways([a.down for a in p.axes]), p.ways([a.up for a in p.axes])
    bias = ("b", 0) if b is not None else p.constant(np.zeros((1, p.outputs))).place
    for number in range(p.chunks):
        p.take("x", x.spec, number, one)
        p.along(one, other, down, inner)
        p.multiplied(one, weights, other, back=False)
        p.along(other, one, up, outer)
        if b is not None or post:
            p.add(other, bias, post)
        p.give("y", y.spec, number, other)
    return p.recipe


def conv_grad_x(lib: Library, call: Call) -> Recipe:
    """Kernels.conv_grad_x."""
    w, dy, dx = call.tensors()
    p = _Points(lib, call, dx.spec, w.spec, dy.spec)
    before, after = p.sizes(p.outputs, "outputs"), p.sizes(p.inputs, "pixels")
    one, other = p.area(before[0], before[2], after[1]), p.area(before[1], after[0], after[2])
    weights, inner, outer = p.weights(back=True), p.images * p.inputs, p.images * p.outputs
    up, down = p.ways([a.up.T for a in p.axes]), p.ways([a.down.T for a in p.axes])
    for number in range(p.chunks):
        p.take("dy", dy.spec, number, one)
        p.along(one, other, up, outer)
        p.multiplied(one, weights, other, back=True)
        p.along(other, one, down, inner)
        p.give("dx", dx.spec, number, other)
    return p.recipe


def conv_grad_w(lib: Library, call: Call) -> Recipe:
    """Kernels.conv_grad_w; conv_grad_wb has the gradient of the bias as a second output."""
    x, dy, dw, *more = call.tensors()
    p = _Points(lib, call, x.spec, dw.spec, dy.spec)
    inner, outer = p.sizes(p.inputs, "pixels"), p.sizes(p.outputs, "outputs")
    grid, count, window = math.prod(p.grid), p.outputs * p.inputs, WINDOW**2
    values, seeds = p.area(inner[0], inner[2]), p.area(outer[0], outer[2], window * count)
    sums = p.area(grid * count)
    between = p.area(inner[1], outer[1])
    down, up = p.ways([a.down for a in p.axes]), p.ways([a.up.T for a in p.axes])
    rows = p.images * math.prod(a.outputs for a in p.axes)
    ones = p.constant(np.ones((1, rows)))
    for number in range(p.chunks):
        p.take("x", x.spec, number, values)
        p.along(values, between, down, p.images * p.inputs)
        p.take("dy", dy.spec, number, seeds)
        if more:
            p.product([(ones, (1, rows), (rows, 1)), (seeds, (rows, p.outputs), (p.outputs, 1)),
                       (Operand(seeds.md, ("db", 0)), (1, p.outputs), (p.outputs, 1))], number > 0)  # fmt: skip
        p.along(seeds, between, up, p.images * p.outputs)
        p.product([(seeds, (grid, p.outputs, p.images), (p.images * p.outputs, 1, p.outputs)),
                   (values, (grid, p.images, p.inputs), (p.images * p.inputs, p.inputs, 1)),
                   (sums, (grid, p.outputs, p.inputs), (count, p.inputs, 1))], number > 0)  # fmt: skip
    fold = p.constant(np.kron(p.axes[0].fold, p.axes[1].fold))
    p.product([(fold, (window, grid), (grid, 1)), (sums, (grid, count), (count, 1)),
               (seeds, (window, count), (count, 1))])  # fmt: skip
    p.recipe.reorder(Operand(lib.strided((count, window), (1, count)), seeds.place),
                     Operand(lib.strided((count, window), (window, 1)), ("dw", 0)))  # fmt: skip
    return p.recipe
