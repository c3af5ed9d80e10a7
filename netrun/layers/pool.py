"""Pooling over windows and over spatial pyramids."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..config import schema
from ..kernels import Kernels
from ..random import stream_of
from ..types import Shape, Spec, Window
from .base import IMAGES, Layer
from .windows import given, needs_text, pooled, read_window, size_text

MAX, AVE, STOCHASTIC = schema.PoolingParameter.MAX, schema.PoolingParameter.AVE, schema.PoolingParameter.STOCHASTIC


def pool(layer: Layer, k: Kernels, x: Any, y: Any, window: Window, method: int, part: str = "") -> Any:
    """Record pooling of x, N C S, into y; returns the places of the winners (int32), or None if there are none.

    ``part`` names one of several poolings of a layer: temporaries and random numbers go by it.
    """
    if method == AVE:
        k.pool_avg(x, y, window=window, count="padded")
        return None
    if method == STOCHASTIC and not layer.train:
        _expectation(k, x, y, window, part)
        return None
    index = k.temp(f"index{part}", y.shape, "int32")
    if method == MAX:
        k.pool_max(x, y, index, window=window)
    else:
        noise = k.temp(f"noise{part}", y.shape)
        stream = stream_of(layer.key, "pool", part)
        k.random(layer.clock, noise, how="uniform", p=0.0, seed=layer.context.seed, stream=stream)
        k.pool_random(x, noise, y, index, window=window)
    return index


def _expectation(k: Kernels, x: Any, y: Any, window: Window, part: str) -> None:
    """What stochastic pooling gives on average: sum of x^2 / sum of x, 0 for a window of zeros."""
    squares = k.temp(f"squares{part}", x.shape)
    k.pointwise([x], squares, expr="a * a")
    above, below = k.temp(f"above{part}", y.shape), k.temp(f"below{part}", y.shape)
    k.pool_avg(squares, above, window=window, count="kernel")
    k.pool_avg(x, below, window=window, count="kernel")
    # A divisor of 1 where there is nothing keeps value and gradient finite.
    k.pointwise([above, below], y, expr="a / where(b > 0, b, 1)")


class Pooling(Layer):
    """y = max, or mean, of x over each window; STOCHASTIC: one x of the window, drawn with probability x / sum(x)

    Bottom: N C and one spatial axis or more (Caffe: exactly two). Top: N C and the spatial axes, of size
    ceil((size + 2 pad - kernel) / stride) + 1 (round_mode: FLOOR rounds down); if there is padding, a last window that
    would start behind size + pad is left out. Second top, MAX only: the place of each maximum within its plane
    (h * W + w) as a number; no gradient passes through it.

    MAX: padding never wins, of equals the first in row order does. AVE: padding counts as zeros, what lies behind it
    does not count. STOCHASTIC, for x >= 0: drawn in TRAIN, sum(x^2) / sum(x) in TEST. A window that lies wholly outside
    x (a stride larger than the kernel, no pad) gives 0 with AVE (Caffe divides 0 by 0) and the lowest finite number,
    place -1 and no gradient with MAX (Caffe's gradient is written out of bounds).
    """

    param = "pooling_param"
    axes = IMAGES
    tops = (1, 2)

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        shape = bottom[0].shape
        size = shape[2:]
        if not size:
            self.fail(f"wants a bottom of N C and spatial axes (4 axes for images), got {len(shape)} axes", bottom=0)
        if len(self.message.top) > 1 and self.p.pool != MAX:
            self.fail("a second top, the places of the maxima, goes with pool: MAX only", at="pool")
        self._window = self._whole(size) if self.p.global_pooling else read_window(self, len(size), dilated=False)
        window = self._window
        if any(p >= k for p, k in zip(window.pad, window.kernel, strict=True)):
            what = f"pad {size_text(window.pad)} has to be smaller than the kernel, {size_text(window.kernel)}"
            self.fail(what, at="pad")
        if self.p.pool == STOCHASTIC and any(window.pad):
            self.fail("stochastic pooling works without pad only", at="pad")
        out = pooled(window, size, ceil=self.p.round_mode == schema.PoolingParameter.CEIL)
        if any(n < 1 for n in out):
            self._too_large(window)
        return [self.spec((*shape[:2], *out), bottom[0].dtype)] * max(1, len(self.message.top))

    def _whole(self, size: Shape) -> Window:
        for field in ("kernel_size", "kernel_h", "kernel_w", "kernel", "step", "padding"):
            if given(self.p, field):
                self.fail(f"has both global_pooling and {field}", at=field, hint="the window is the whole input")
        for field, wanted in (("pad", 0), ("pad_h", 0), ("pad_w", 0), ("stride", 1), ("stride_h", 1), ("stride_w", 1)):
            if any(v != wanted for v in given(self.p, field)):
                self.fail(f"global_pooling goes with {field}: {wanted} only", at=field)
        return Window(size)

    def _too_large(self, window: Window) -> None:
        least = tuple(k - 2 * p for k, p in zip(window.kernel, window.pad, strict=True))
        self.fail(
            f"kernel {size_text(window.kernel)} does not fit its input",
            at="kernel_size",
            bottom=0,
            hint=needs_text(least),
        )

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        index = pool(self, k, bottom[0], top[0], self._window, self.p.pool)
        if len(top) > 1:
            k.copy(index, top[1])


class SPP(Layer):
    """y = for level l = 0, 1, ...: x pooled into 2^l by 2^l bins; all levels joined into one vector

    Bottom: N C H W (any number of spatial axes from one on). Top: (N, C * number of bins), level by level; with
    pyramid_height 1 (N, C, 1, 1). In level l the kernel is ceil(size / 2^l), the stride as large, the pad
    (kernel * 2^l - size + 1) / 2 rounded down; the methods are those of Pooling.
    """

    param = "spp_param"
    axes = IMAGES

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        shape = bottom[0].shape
        size = shape[2:]
        if not size:
            self.fail(f"wants a bottom of N C and spatial axes (4 axes for images), got {len(shape)} axes", bottom=0)
        if self.p.pyramid_height < 1:
            self.fail("has no pyramid_height", hint="write pyramid_height: 3, say: the number of levels")
        self._windows = [self._level(2**level, size) for level in range(self.p.pyramid_height)]
        if len(self._windows) == 1:
            return [self.spec((*shape[:2], *(1 for _ in size)), bottom[0].dtype)]
        bins = sum(math.prod(out) for _, out in self._windows)
        return [self.spec((shape[0], shape[1] * bins), bottom[0].dtype)]

    def _level(self, bins: int, size: Shape) -> tuple[Window, Shape]:
        kernel = tuple(-(-n // bins) for n in size)
        pad = tuple((k * bins - n + 1) // 2 for k, n in zip(kernel, size, strict=True))
        window = Window(kernel, kernel, pad)
        out = pooled(window, size, ceil=True)
        if any(p >= k for p, k in zip(pad, kernel, strict=True)) or any(n < 1 for n in out):
            self.fail(
                f"its input is too small for {bins} bins an axis",
                at="pyramid_height",
                bottom=0,
                hint="write a smaller pyramid_height",
            )
        return window, out

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        x, y = bottom[0], top[0]
        method = (MAX, AVE, STOCHASTIC)[self.p.pool]
        if len(self._windows) == 1:
            pool(self, k, x, y, self._windows[0][0], method)
            return
        levels = []
        for level, (window, out) in enumerate(self._windows):
            part = k.temp(f"level{level}", (*x.shape[:2], *out))
            pool(self, k, x, part, window, method, str(level))
            levels.append(k.view(part, (x.shape[0], -1)))
        k.concat(levels, y, axis=1)
