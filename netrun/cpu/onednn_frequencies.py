"""Convolutions as products at frequencies (frequencies.py says how), by the library.

Everything is a matrix product, or a copy between layouts:

    x -> along the width -> along the height -> pairs mixed = V,    V U = M at each frequency,    and M back to y

with pixels outermost, then images, then channels. Between the axes values lie as frequency of the first axis, cosine or
sine, row of the map, image, channel. From there on some frequencies of the first axis are finished before the next, so
that their values stay near the cores; the weights' values, which may be many more, piece by piece of the second axis.
The gradients are the adjoints, made of the same matrices, and both are one kernel: they share the values of dy.

BF16: maps are widened when they are taken and rounded when they are given back; all between is in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..program import Call
from ..types import Spec
from .dnnl import Library, Unsupported
from .frequencies import DATA, FORMS, RESULT, Axis, Sizes, spread_taps, takes
from .layouts import strides
from .matrix_steps import Matrix, MatrixSteps
from .onednn_winograd import rectifiers
from .recipe import Operand, Recipe


class _Frequencies(MatrixSteps):
    """The products of one recipe."""

    def __init__(self, lib: Library, call: Call, x: Spec, w: Spec, y: Spec) -> None:
        if not takes(call):
            raise Unsupported("frequencies")
        window = call.attrs["window"]
        self.sizes = Sizes(x, w, y, window)
        super().__init__(lib, x, y, self.sizes.chunk)
        self.high, self.wide = (Axis(x.shape[2 + a], y.shape[2 + a], window, a, apart=a == 0) for a in (0, 1))
        self.half, self.group, self.pieces = self.high.length // 2, self.sizes.group, self.sizes.pieces
        self.inner, self.outer, self.pairs = (
            self.images * self.inputs, self.images * self.outputs, self.inputs * self.outputs
        )  # fmt: skip
        self.spread = spread_taps(self.high)
        self.spare = self.area(2 * self.group * self.high.length * max(self.inner, self.outer))

    # ---------------------------------------------------------------------------------------------------- transforms
    def enter(self, source: Operand, into: Operand, matrix: Matrix, rows: int, inner: int) -> None:
        """Along the width: rows of pixels to frequencies, each with all rows."""
        count, pixels = matrix.shape
        self.product([(self.constant(matrix), (1, count, pixels), strides((1, count, pixels))),
                      (source, (rows, pixels, inner), strides((rows, pixels, inner))),
                      (into, (rows, count, inner), (inner, rows * inner, 1))])  # fmt: skip

    def leave(
        self, source: Operand, into: Operand, matrix: Matrix, rows: int, inner: int, bias: Operand | None = None,
        post: Sequence[tuple[Any, ...]] = (),
    ) -> None:  # fmt: skip
        """The way back, with a bias for each inner number."""
        pixels, count = matrix.shape
        self.product([(self.constant(matrix), (1, pixels, count), strides((1, pixels, count))),
                      (source, (rows, count, inner), (inner, rows * inner, 1)),
                      (into, (rows, pixels, inner), strides((rows, pixels, inner)))],
                     False, (bias, (1, 1, inner), (inner, inner, 1)) if bias else None, post)  # fmt: skip

    def _through(
        self, matrix: Matrix, source: Operand, into: Operand, count: int, inner: int, more: bool = False
    ) -> None:
        """``count`` arrays of rows of ``inner`` numbers through a matrix."""
        made, given = matrix.shape
        shapes = (1, made, given), (count, given, inner), (count, made, inner)
        places = self.constant(matrix), source, into
        self.product([(p, shape, strides(shape)) for p, shape in zip(places, shapes, strict=True)], more)

    def _mixed(self, inner: int, forms: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """How the values at pairs of frequencies lie: four sums in the spare memory, or all forms one after another."""
        shape = (self.group, self.half, forms, inner)
        return shape, strides(shape) if forms == FORMS else (4 * self.half * inner, inner, self.half * inner, 1)

    def mix(self, source: Operand, into: Operand, matrix: Matrix, inner: int) -> None:
        """The sums at each pair of frequencies to forms, or forms to sums."""
        made, given = matrix.shape
        self.product([(self.constant(matrix), (1, 1, made, given), strides((1, 1, made, given))),
                      (source, *self._mixed(inner, given)), (into, *self._mixed(inner, made))])  # fmt: skip

    def rise(self, source: Operand, into: Operand, matrix: Matrix, mix: Matrix, inner: int) -> None:
        """A group's rows of the map to its values."""
        self._through(matrix, source, self.spare, 2 * self.group, inner)
        self.mix(self.spare, into, mix, inner)

    def fall(self, source: Operand, into: Operand, matrix: Matrix, mix: Matrix, inner: int) -> None:
        """The way back."""
        self.mix(source, self.spare, mix, inner)
        self._through(matrix, self.spare, into, 2 * self.group, inner)

    # ------------------------------------------------------------------------------------------------------ products
    def groups(self) -> Iterator[int]:
        """The first frequency of each group."""
        return iter(range(0, self.wide.length // 2, self.group))

    def values(self, channels: int, whole: bool = False) -> int:
        """How many values a map has, in a group or in all."""
        return (self.wide.length // 2 if whole else self.group) * self.half * FORMS * self.images * channels

    def line(self, rows: int, inner: int, group: int = 1) -> int:
        """How many numbers there are at so many frequencies of the width: cosine and sine, all rows."""
        return 2 * group * rows * inner

    def weights_room(self) -> Operand:
        """Memory for the weights' values of a piece."""
        return self.area(self.group * max(b - a for a, b in self.pieces) * FORMS * self.pairs)

    def taps(self, back: bool) -> Operand:
        """The argument w along the width: from inputs to outputs, or with ``back`` from outputs to inputs."""
        high, wide = self.high.window, self.wide.window
        shape, order = (self.outputs, self.inputs, high, wide), (wide * self.pairs, self.pairs)
        lying = self.area(high * wide * self.pairs)
        made = self.area(self.wide.length * high * self.pairs)
        seen = self.lib.strided(shape, (*((self.inputs, 1) if back else (1, self.outputs)), *order))
        self.recipe.reorder(Operand(self.lib.strided(shape, strides(shape)), ("w", 0)), Operand(seen, lying.place))
        self.enter(lying, made, self.wide.taps, high, self.pairs)
        return made

    def weights(self, taps: Operand, piece: tuple[int, int], into: Operand) -> None:
        """The values of a piece of a group from ``taps`` of that group."""
        self._through(self.spread[FORMS * piece[0] : FORMS * piece[1]], taps, into, self.group, self.pairs)

    def folded(self, sums: Operand, piece: tuple[int, int], into: Operand, more: bool) -> None:
        """The adjoint of ``weights``; ``more``: added to what is there."""
        self._through(self.spread[FORMS * piece[0] : FORMS * piece[1]].T, sums, into, self.group, self.pairs, more)

    def piece(self, values: Operand, piece: tuple[int, int], channels: int) -> Operand:
        """Where the values of a piece begin."""
        return self.at(values, piece[0] * FORMS * self.images * channels)

    def multiplied(
        self, piece: tuple[int, int], source: Operand, given: int, weights: Operand, made: int, into: Operand
    ) -> None:
        """Values of a piece times the weights': ``given`` channels to ``made``."""
        count = self.group * (piece[1] - piece[0]) * FORMS
        shapes = (count, self.images, given), (count, given, made), (count, self.images, made)
        places = self.piece(source, piece, given), weights, self.piece(into, piece, made)
        self.product([(place, shape, strides(shape)) for place, shape in zip(places, shapes, strict=True)])

    def correlated(self, piece: tuple[int, int], values: Operand, seeds: Operand, into: Operand) -> None:
        """The gradient of the weights' values of a piece."""
        count, c, k = self.group * (piece[1] - piece[0]) * FORMS, self.inputs, self.outputs
        self.product([(self.piece(values, piece, c), (count, c, self.images), (self.inner, 1, c)),
                      (self.piece(seeds, piece, k), (count, self.images, k), (self.outer, k, 1)),
                      (into, (count, c, k), (self.pairs, k, 1))])  # fmt: skip


def conv(lib: Library, call: Call) -> Recipe:
    """Kernels.conv, with ``then`` applied to the result; onednn.CONV_KEEP."""
    args: Any = call.args
    x, w, b, *_ = args
    y: Any = call.argument("y")
    keep = call.op.name == "conv_keep"
    p = _Frequencies(lib, call, x.spec, w.spec, y.spec)
    post = rectifiers(call)
    (rows, columns), (high, wide) = x.shape[2:], y.shape[2:]
    one = p.area(rows * columns * p.inner, p.wide.length * high * p.outer)
    other = p.area(p.wide.length * rows * p.inner, high * wide * p.outer)
    taps, weights = p.taps(back=False), p.weights_room()
    values = Operand(one.md, ("values", 0)) if keep else p.area(p.values(p.inputs))
    products = p.area(p.values(p.outputs))
    bias = p.repeated(Operand(one.md, ("b", 0))) if b is not None else None
    for number in range(p.chunks):
        p.take("x", x.spec, number, one)
        p.enter(one, other, p.wide.down, rows, p.inner)
        for first in p.groups():
            here = p.at(values, first * p.values(p.inputs) // p.group) if keep else values
            p.rise(p.at(other, p.line(rows, p.inner, first)), here, p.high.down, DATA, p.inner)
            for piece in p.pieces:
                p.weights(p.at(taps, p.line(p.high.window, p.pairs, first)), piece, weights)
                p.multiplied(piece, here, p.inputs, weights, p.outputs, products)
            p.fall(products, p.at(one, p.line(high, p.outer, first)), p.high.up, RESULT, p.outer)
        p.leave(one, other, p.wide.up, high, p.outer, bias, post)
        p.give("y", y.spec, number, other)
    return p.recipe


def conv_grad_x(lib: Library, call: Call) -> Recipe:
    """Kernels.conv_grad_x."""
    w, dy, dx = call.tensors()
    return _gradients(lib, call, (dx.spec, w.spec, dy.spec), inputs=True)


def conv_grad_w(lib: Library, call: Call) -> Recipe:
    """Kernels.conv_grad_w; conv_grad_wb has the gradient of the bias as a second output."""
    x, dy, dw, *more = call.tensors()
    return _gradients(lib, call, (x.spec, dw.spec, dy.spec), weights=True, bias=bool(more))


def conv_grads(lib: Library, call: Call) -> Recipe:
    """onednn.GRADS: the gradients of weights, bias and input."""
    _, w, dy, _, _, dx = call.tensors()
    return _gradients(lib, call, (dx.spec, w.spec, dy.spec), weights=True, bias=True, inputs=True)


def _gradients(
    lib: Library, call: Call, specs: tuple[Spec, Spec, Spec], weights: bool = False, bias: bool = False,
    inputs: bool = False,
) -> Recipe:  # fmt: skip
    """The gradients of those of weights, bias and input that are asked for."""
    x, w, dy = specs
    p = _Frequencies(lib, call, x, w, dy)
    (rows, columns), (high, wide) = x.shape[2:], dy.shape[2:]
    kept = weights and call.reads()[0].spec.layout.startswith("work:")
    pixels = p.area(max(rows * columns * p.inner, high * wide * p.outer))
    down, up = p.area(p.wide.length * rows * p.inner), p.area(p.wide.length * high * p.outer)
    seeds, made = p.area(p.values(p.outputs)), p.area(p.values(p.inputs))
    values = Operand(pixels.md, ("x", 0)) if kept else made
    taps, factor = (p.taps(back=True), p.weights_room()) if inputs else (None, None)
    total, sums = (p.area(p.wide.length * p.high.window * p.pairs), p.weights_room()) if weights else (None, None)
    for number in range(p.chunks):
        if weights and not kept:
            p.take("x", x, number, pixels)
            p.enter(pixels, down, p.wide.down, rows, p.inner)
        p.take("dy", dy, number, pixels)
        if bias:
            p.summed(pixels, high * wide, number > 0)
        p.enter(pixels, up, p.wide.up.T, high, p.outer)
        for first in p.groups():
            lines = p.at(down, p.line(rows, p.inner, first))
            p.rise(p.at(up, p.line(high, p.outer, first)), seeds, p.high.up.T, RESULT.T, p.outer)
            if total is not None and sums is not None:
                here = p.at(values, first * p.values(p.inputs) // p.group) if kept else made
                if not kept:
                    p.rise(lines, made, p.high.down, DATA, p.inner)
                for piece in p.pieces:
                    p.correlated(piece, here, seeds, sums)
                    p.folded(sums, piece, p.at(total, p.line(p.high.window, p.pairs, first)), number + piece[0] > 0)
            if taps is not None and factor is not None:
                for piece in p.pieces:
                    p.weights(p.at(taps, p.line(p.high.window, p.pairs, first)), piece, factor)
                    p.multiplied(piece, seeds, p.outputs, factor, p.inputs, made)
                p.fall(made, lines, p.high.down.T, DATA.T, p.inner)
        if inputs:
            p.leave(down, pixels, p.wide.down.T, rows, p.inner)
            p.give("dx", x, number, pixels)
    if total is not None:
        _give_weights(p, total, pixels, w)
    return p.recipe


def _give_weights(p: _Frequencies, total: Operand, spare: Operand, w: Spec) -> None:
    """The argument dw from its sums along the width."""
    lying = p.area(w.count)
    p.leave(total, lying, p.wide.taps.T, p.high.window, p.pairs)
    shape, lib = (p.outputs, p.inputs, p.high.window * p.wide.window), p.lib
    p.recipe.reorder(Operand(lib.strided(shape, (1, p.outputs, p.pairs)), lying.place),
                     Operand(lib.strided(shape, strides(shape)), ("dw", 0)))  # fmt: skip
