"""Convolutions of 5 x 5 windows as products at points (points.py says how), by the library.

Everything is a matrix product:

    x -> rows B x -> columns B x = V,    V U = M point by point,    M -> rows A M -> columns A M -> y,    U = (G x G) w

with pixels outermost, then images, then channels. The gradients are the adjoints of these products; both gradients of a
convolution are one kernel, since they share the values of dy at points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..program import Call
from ..types import Spec
from .dnnl import Library, Unsupported
from .layouts import strides
from .matrix_steps import Matrix, MatrixSteps
from .onednn_winograd import rectifiers
from .points import POINTS, WINDOW, Axis, chunk, matrices, takes
from .recipe import Operand, Recipe


class _Points(MatrixSteps):
    """The products of one recipe. Values go to and fro between two areas of scratch."""

    def __init__(self, lib: Library, call: Call, x: Spec, w: Spec, y: Spec) -> None:
        if not takes(call):
            raise Unsupported("points")
        super().__init__(lib, x, y, chunk(x, y))
        pads = call.attrs["window"].pad
        self.axes = [Axis(n, m, p) for n, m, p in zip(x.shape[2:], y.shape[2:], pads, strict=True)]
        high, wide = self.axes
        self.grid = (POINTS, high.tiles, POINTS, wide.tiles)

    def along(
        self, source: Operand, target: Operand, ways: Sequence[tuple[Operand, Matrix]], inner: int,
        bias: Operand | None = None, post: Sequence[tuple[Any, ...]] = (),
    ) -> None:  # fmt: skip
        """Both axes of ``source`` through matrices, ``inner`` numbers a pixel; the result is in ``source`` again."""
        (first, up), (second, across) = ways
        (rows, high), (columns, wide) = up.shape, across.shape
        line = wide * inner
        self.product([(first, (rows, high), (high, 1)), (source, (high, line), (line, 1)),
                      (target, (rows, line), (line, 1))])  # fmt: skip
        self.product([(second, (1, columns, wide), (columns * wide, wide, 1)),
                      (target, (rows, wide, inner), (line, inner, 1)),
                      (source, (rows, columns, inner), (columns * inner, inner, 1))],
                     False, (bias, (1, 1, inner), (inner, inner, 1)) if bias else None, post)  # fmt: skip

    def ways(self, matrices: Sequence[Matrix]) -> list[tuple[Operand, Matrix]]:
        """The matrices of both axes with where they lie."""
        return [(self.constant(m), m) for m in matrices]

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
    """Kernels.conv, with ``then`` applied to the result; onednn.CONV_KEEP."""
    args: Any = call.args
    x, w, b, *_ = args
    y: Any = call.argument("y")
    keep = call.op.name == "conv_keep"
    p = _Points(lib, call, x.spec, w.spec, y.spec)
    post = rectifiers(call)
    before, after = p.sizes(p.inputs, "pixels"), p.sizes(p.outputs, "outputs")
    one, other = p.area(before[0], before[2], after[1]), p.area(before[1], after[0], after[2])
    weights, inner, outer = p.weights(back=False), p.images * p.inputs, p.images * p.outputs
    down, up = p.ways([a.down for a in p.axes]), p.ways([a.up for a in p.axes])
    bias = p.repeated(Operand(one.md, ("b", 0))) if b is not None else None
    values = Operand(one.md, ("values", 0)) if keep else one
    for number in range(p.chunks):
        p.take("x", x.spec, number, values)
        p.along(values, other, down, inner)
        p.multiplied(values, weights, other, back=False)
        p.along(other, one, up, outer, bias, post)
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
    return _gradients(lib, call, (x.spec, dw.spec, dy.spec), bool(more), inputs=False)


def conv_grads(lib: Library, call: Call) -> Recipe:
    """onednn.GRADS: the gradients of weights, bias and input."""
    _, w, dy, _, _, dx = call.tensors()
    return _gradients(lib, call, (dx.spec, w.spec, dy.spec), True, inputs=True)


def _gradients(lib: Library, call: Call, specs: tuple[Spec, Spec, Spec], bias: bool, inputs: bool) -> Recipe:
    x, w, dy = specs
    p = _Points(lib, call, x, w, dy)
    inner, outer = p.sizes(p.inputs, "pixels"), p.sizes(p.outputs, "outputs")
    count, window = p.outputs * p.inputs, WINDOW**2
    lines, each = math.prod(p.grid[:3]), p.grid[3] * p.images  # tiles of a row and their images: one sum
    values, seeds = p.area(inner[0], inner[2]), p.area(outer[0], outer[2], window * count)
    given = call.reads()[0].spec.layout.startswith("work:")
    made = Operand(values.md, ("x", 0)) if given else values
    sums = p.area(lines * count)
    between = p.area(inner[1], outer[1])
    down, up = p.ways([a.down for a in p.axes]), p.ways([a.up.T for a in p.axes])
    pixels = math.prod(a.outputs for a in p.axes)
    weights, back = (p.weights(back=True), p.ways([a.down.T for a in p.axes])) if inputs else (None, [])
    for number in range(p.chunks):
        if made is values:
            p.take("x", x, number, values)
            p.along(values, between, down, p.images * p.inputs)
        p.take("dy", dy, number, seeds)
        if bias:
            p.summed(seeds, pixels, number > 0)
        p.along(seeds, between, up, p.images * p.outputs)
        p.product([(made, (lines, p.inputs, each), (each * p.inputs, 1, p.inputs)),
                   (seeds, (lines, each, p.outputs), (each * p.outputs, p.outputs, 1)),
                   (sums, (lines, p.inputs, p.outputs), (count, p.outputs, 1))], number > 0)  # fmt: skip
        if weights is not None:
            p.multiplied(seeds, weights, values, back=True)
            p.along(values, between, back, p.images * p.inputs)
            p.give("dx", x, number, values)
    high, wide = p.axes
    fold = p.constant(np.kron(high.fold, wide.fold[:, :: wide.tiles]))
    p.product([(fold, (window, lines), (lines, 1)), (sums, (lines, count), (count, 1)),
               (seeds, (window, count), (count, 1))])  # fmt: skip
    shape = (p.outputs, p.inputs, window)
    p.recipe.reorder(Operand(lib.strided(shape, (1, p.outputs, count)), seeds.place),
                     Operand(lib.strided(shape, strides(shape)), ("dw", 0)))  # fmt: skip
    return p.recipe
