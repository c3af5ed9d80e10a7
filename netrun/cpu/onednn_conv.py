"""Convolution through the library.

Weights lie plain; each call brings them into the form the library wants.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from ..expression import letters, parse
from ..program import Call
from ..types import PLAIN, Shape, Spec, Window
from . import dnnl, frequencies, onednn_frequencies, onednn_points, onednn_winograd, points
from .dnnl import Handle, Library, Unsupported
from .layouts import CHANNELS_LAST, describe, format_of, is_half, of, packed, strides
from .onednn_pointwise import chain_of, operand, post_operations, rectified
from .recipe import Operand, Recipe
from .windows import axis_taps

SLOW = ("ref", "gemm")
"""What the names of implementations begin with or hold that another layout beats."""

PREFERRED, BATCHED = "jit:avx512_core", "brg"
"""The implementation of float32 that channels-last windows are fastest in, and what the names of those begin with that
the library would take instead. Measured over 8 to 200 channels and windows of 3 and 5, PREFERRED is 1.0 to 1.2 times as
fast forward and for gradients of inputs, 1.2 to 3.3 times for those under a stride; windows of one pixel are as fast.
"""


class Convolution:
    """The geometry of one convolution in the library's terms."""

    def __init__(self, lib: Library, x: Spec, w: Spec, y: Spec, window: Window, groups: int) -> None:
        if {x.dtype, w.dtype, y.dtype} != {"float32"} or 0 in (*x.shape, *w.shape, *y.shape):
            raise Unsupported("type or size")
        if window.rank not in (1, 2, 3):
            raise Unsupported("rank")
        self.lib, self.x, self.y = lib, x, y
        kernel = w.shape[2:]
        wide = (groups, w.shape[0] // groups, *w.shape[1:]) if groups > 1 else w.shape
        # 16-bit factors; sums, gradients of weights and biases stay in 32 bits
        kind = dnnl.BF16 if is_half(x.layout) or is_half(y.layout) else dnnl.F32
        self.any_w, self.any_dw = lib.tagged(wide, dnnl.ANY, kind), lib.tagged(wide, dnnl.ANY)
        self.wide = wide
        self.own_w = lib.strided(wide, strides(wide)) if w.layout == PLAIN else format_of(lib, w.layout)[0]
        self.any_x, self.any_y = lib.tagged(x.shape, dnnl.ANY, kind), lib.tagged(y.shape, dnnl.ANY, kind)
        self.bias = lib.strided((y.shape[1],), (1,))
        # The library divides as window.output does; what the last window does not reach stays unread.
        self.sizes = (dnnl.dims(window.stride), dnnl.dims([d - 1 for d in window.dilation]), dnnl.dims(window.pad),
                      dnnl.dims(window.pad_end))  # fmt: skip
        self.kernel = kernel
        one_channel = x.shape[1] == 1 and x.layout == PLAIN and y.layout == CHANNELS_LAST
        self.own_x = describe(lib, x.shape, CHANNELS_LAST) if one_channel else of(lib, x)
        self.own_y = of(lib, y)

    def layouts(self) -> Iterator[tuple[Handle, Handle]]:
        """Layouts of x and y to try, the cheapest first."""
        yield self.own_x, self.own_y
        yield self.own_x, self.any_y
        yield self.any_x, self.own_y
        yield self.any_x, self.any_y

    def forward(self, x: Handle, y: Handle, bias: bool, post: Any = ()) -> Handle:
        """Description of the forward primitive."""
        b = self.bias if bias else None
        attributes = self.lib.attributes(post)
        return self.lib.describe("convolution_forward", dnnl.TRAINING, dnnl.DIRECT, x, self.any_w, b, y, *self.sizes,
                                 attributes)  # fmt: skip

    def hint(self) -> Handle:
        """Description of the forward primitive that backward ones refer to."""
        return self.forward(self.any_x, self.any_y, bias=False)

    def best(self, make: Any) -> Handle:
        """The first description of ``make(x, y)`` that is no slow one.

        Raises:
            Unsupported: there is none at all but the library's own reference.
        """
        fallback = None
        for x, y in self.layouts():
            try:
                pd: Handle = make(x, y)
            except Unsupported:
                continue
            name = self.lib.implementation(pd)
            if not any(word in name for word in SLOW):
                return self._direct(make, x, y) or pd if name.startswith(BATCHED) else pd
            if "ref" not in name:
                fallback = fallback or pd
        if fallback is None:
            raise Unsupported("convolution")
        return fallback

    def _direct(self, make: Any, x: Handle, y: Handle) -> Handle | None:
        """The description that PREFERRED runs, where that is worth it and possible."""
        if self.y.layout != CHANNELS_LAST or math.prod(self.kernel) == 1:
            return None
        pd: Handle = make(x, y)
        while self.lib.implementation(pd) != PREFERRED:
            if not self.lib.advance(pd):
                return None
        return pd


def _forward(lib: Library, call: Call) -> tuple[Convolution, Handle, Any, dict[int, Operand]]:
    """Geometry, primitive, bias and operands of the post-operations of a forward convolution."""
    args: Any = call.args
    x, w, b, *others, y = args
    c = Convolution(lib, x.spec, w.spec, y.spec, call.attrs["window"], call.attrs["groups"])
    then = call.attrs.get("then")
    post, more = rectified(then) if not others else [], dict[int, Operand]()
    if others:
        given = dict(zip(letters(1 + len(others[0])), (y, *others[0]), strict=True))
        numbers = {name: i - 1 for i, name in enumerate(given)}
        found = chain_of(parse(str(then)), "a")
        if found.start != "a" or any(t.shape == y.shape and t.spec.layout != y.spec.layout for t in others[0]):
            raise Unsupported(str(then))
        post, more = post_operations(found.links, lambda n: operand(lib, given[n], y, ("others", numbers[n])))
        wide = any(t.shape == y.shape for t in others[0])
        if wide and y.spec.layout != PLAIN:  # it has to lie as the result does
            c.any_y = c.own_y
        elif wide:
            post = [p if p[0] != "binary" or not lib.same(p[2], c.own_y) else (*p[:2], c.any_y) for p in post]
    pd = c.best(lambda mx, my: c.forward(mx, my, b is not None, post))
    return c, pd, b, more


def conv(lib: Library, call: Call) -> Recipe:
    """Kernels.conv, with ``then`` applied to the result; also onednn.CONV_THEN."""
    for quicker in (onednn_frequencies.conv, onednn_points.conv, onednn_winograd.forward):
        with suppress(Unsupported):
            return quicker(lib, call)
    c, pd, b, more = _forward(lib, call)
    r = Recipe(lib)
    source = r.as_wanted(Operand(c.own_x, ("x", 0)), lib.query(pd, dnnl.SRC))
    weights = r.as_wanted(Operand(c.own_w, ("w", 0)), lib.query(pd, dnnl.WEIGHTS))
    home = Operand(c.own_y, ("y", 0))
    made, moved = r.made_as(home, lib.query(pd, dnnl.DST))
    operands = {dnnl.SRC: source, dnnl.WEIGHTS: weights, dnnl.DST: made}
    for number, other in more.items():
        operands[number] = r.as_wanted(other, lib.query_argument(pd, number)) if moved else other
    if b is not None:
        operands[dnnl.BIAS] = Operand(c.bias, ("b", 0))
    r.run(pd, operands)
    if moved:
        r.reorder(made, home)
    return r


def conv_keep(lib: Library, call: Call) -> Recipe:
    """onednn.CONV_KEEP."""
    return onednn_frequencies.conv(lib, call) if frequencies.takes(call) else onednn_points.conv(lib, call)


def conv_grads(lib: Library, call: Call) -> Recipe:
    """onednn.GRADS."""
    way = onednn_frequencies.conv_grads if frequencies.takes(call) else onednn_points.conv_grads
    return way(lib, call)


def weight_layout(lib: Library, call: Call) -> str:
    """The layout in which a forward convolution takes its weights as they are; PLAIN if that is it.

    Raises:
        Unsupported: the library does not run the call.
    """
    if frequencies.takes(call) or points.takes(call):
        return PLAIN
    filtered = onednn_winograd.packed_weights(lib, call)
    if filtered is not None:
        return filtered
    c, pd, *_ = _forward(lib, call)
    wanted = lib.query(pd, dnnl.WEIGHTS)
    return PLAIN if lib.same(wanted, c.own_w) else packed(lib, wanted, c.wide)


def conv_grad_x(lib: Library, call: Call) -> Recipe:
    """Kernels.conv_grad_x."""
    for quicker in (onednn_frequencies.conv_grad_x, onednn_points.conv_grad_x, onednn_winograd.grad_x):
        with suppress(Unsupported):
            return quicker(lib, call)
    w, dy, dx = call.tensors()
    c = Convolution(lib, dx.spec, w.spec, dy.spec, call.attrs["window"], call.attrs["groups"])
    hint, attributes = c.hint(), lib.attributes()

    def make(mx: Handle, my: Handle) -> Handle:
        return lib.describe("convolution_backward_data", dnnl.DIRECT, mx, c.any_w, my, *c.sizes, hint, attributes)

    pd = c.best(make)
    r = Recipe(lib)
    seed = r.as_wanted(Operand(c.own_y, ("dy", 0)), lib.query(pd, dnnl.DIFF_DST))
    weights = r.as_wanted(Operand(c.own_w, ("w", 0)), lib.query(pd, dnnl.WEIGHTS))
    home = Operand(c.own_x, ("dx", 0))
    made, moved = r.made_as(home, lib.query(pd, dnnl.DIFF_SRC))
    r.run(pd, {dnnl.DIFF_DST: seed, dnnl.WEIGHTS: weights, dnnl.DIFF_SRC: made})
    if moved:
        r.reorder(made, home)
    return r


def conv_grad_w(lib: Library, call: Call) -> Recipe:
    """Kernels.conv_grad_w; conv_grad_wb has the gradient of the bias as a second output."""
    # of 5x5 with many channels: products at points form the sums of single tiles here, and only then add them up
    for quicker in (onednn_frequencies.conv_grad_w, onednn_winograd.grad_w, onednn_points.conv_grad_w):
        with suppress(Unsupported):
            return quicker(lib, call)
    x, dy, dw, *more = call.tensors()
    window = call.attrs["window"]
    half = is_half(x.spec.layout) or is_half(dy.spec.layout)
    c = Convolution(lib, x.spec, dw.spec, dy.spec, window, call.attrs["groups"])
    if not _sound(window, x.shape[2:], dy.shape[2:], half):
        raise Unsupported("version 3.2 is wrong there")
    hint, attributes = c.hint(), lib.attributes()
    bias = c.bias if more else None

    def make(mx: Handle, my: Handle) -> Handle:
        return lib.describe("convolution_backward_weights", dnnl.DIRECT, mx, c.any_dw, bias, my, *c.sizes, hint,
                            attributes)  # fmt: skip

    pd = c.best(make)
    r = Recipe(lib)
    source = r.as_wanted(Operand(c.own_x, ("x", 0)), lib.query(pd, dnnl.SRC))
    seed = r.as_wanted(Operand(c.own_y, ("dy", 0)), lib.query(pd, dnnl.DIFF_DST))
    home = Operand(c.own_w, ("dw", 0))
    made, moved = r.made_as(home, lib.query(pd, dnnl.DIFF_WEIGHTS))
    operands = {dnnl.SRC: source, dnnl.DIFF_DST: seed, dnnl.DIFF_WEIGHTS: made}
    if more:
        operands[dnnl.DIFF_BIAS] = Operand(c.bias, ("db", 0))
    r.run(pd, operands)
    if moved:
        r.reorder(made, home)
    return r


def _sound(window: Window, size: Shape, out: Shape, half: bool) -> bool:
    """Whether the library's gradient of weights is right. Version 3.2 reads and writes beside its arrays where depth is
    padded by more than a stride above 1 and there is little of it. In 16 bits it leaves unwritten what taps that meet
    no input are given (those at the rim of 3x3 on a padded map of 1x1), and much where a window is deeper than the map.
    """
    stride, pad, deep = window.stride[0], window.pad[0], window.rank == 3
    if deep and 1 < stride < pad and size[0] < window.extent[0] + stride:
        return False
    met = all(len(axis_taps(window, i, size[i], out[i])) == window.kernel[i] for i in range(window.rank))
    return not half or (met and not (deep and size[0] < window.extent[0]))
