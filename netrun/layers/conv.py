"""Convolution, its transpose, and the column matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..kernels import Kernels
from ..types import Shape, Spec, Window
from .base import IMAGES, Layer
from .windows import needs_text, read_window, size_text


class _Windowed(Layer):
    """What the three types share: axes before ``axis`` are batch, ``axis`` is the channels, the rest are spatial."""

    type = ""
    param = "convolution_param"

    def axes_of(self, i: int) -> str:
        return IMAGES if self.p.axis == 1 else ""

    def read_axes(self, shape: Shape) -> None:
        """Split the bottom's shape and read the window."""
        self._channel = self.axis(self.p.axis, len(shape))
        self._outer, self._channels = shape[: self._channel], shape[self._channel]
        self._size = shape[self._channel + 1 :]
        self._window = read_window(self, len(self._size))

    def blocked(self, shape: Shape) -> Shape:
        """A shape as the kernels want it: N C S, with one spatial axis of length 1 where there is none."""
        outer = math.prod(shape[: self._channel])
        return (outer, shape[self._channel], *(shape[self._channel + 1 :] or (1,)))

    def fit(self) -> Shape:
        """The output size of a convolution, floor((size + 2 pad - extent) / stride) + 1.

        A window that reaches beyond the padded input by less than one stride still makes one output, as in Caffe, where
        integer division rounds towards zero: the padding behind is wider by what is missing.
        """
        w = self._window
        missing = [e - n - p - q for n, e, p, q in zip(self._size, w.extent, w.pad, w.pad_end, strict=True)]
        more = [m if 0 < m < s else 0 for m, s in zip(missing, w.stride, strict=True)]
        self._window = replace(w, pad_end=tuple(q + m for q, m in zip(w.pad_end, more, strict=True)))
        return self._window.output(self._size)

    @property
    def window(self) -> Window:
        """The window over the axes of ``blocked``."""
        return self._window if self._window.rank else Window((1,))

    def check_fits(self, out: Shape) -> None:
        """Refuse a window that is larger than its padded input."""
        if any(n < 1 for n in out):
            window = self._window
            ends = zip(window.extent, window.pad, window.pad_end, window.stride, strict=True)
            least = [e - p - q - s + 1 for e, p, q, s in ends]
            dilated = f" with dilation {size_text(window.dilation)}" if any(d > 1 for d in window.dilation) else ""
            self.fail(
                f"kernel {size_text(window.kernel)}{dilated} does not fit its input",
                at="kernel_size",
                bottom=0,
                hint=needs_text(tuple(least)),
            )


class _Filters(_Windowed):
    """What Convolution and Deconvolution share: filters, bias, groups, and any number of bottoms through them."""

    type = ""
    bottoms = (1, None)
    tops = (1, None)
    weight: Any
    bias: Any

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        if len(self.message.top) not in (0, len(bottom)):
            self.fail(f"has {len(bottom)} bottoms and {len(self.message.top)} tops: it makes one top of each bottom")
        for i, other in enumerate(bottom):
            if other.shape != bottom[0].shape:
                self.fail("its bottoms share the weights and need the same shape", bottom=[0, i])
        self.read_axes(bottom[0].shape)
        outputs, groups = self.p.num_output, self.p.group
        if outputs < 1:
            self.fail("has no num_output", hint="write num_output: 32, say: the number of output channels")
        if groups < 1:
            self.fail("group is 0, and has to be at least 1", at="group")
        for what, count in (("its input channels", self._channels), ("num_output", outputs)):
            if count % groups:
                at = "num_output" if what == "num_output" else "group"
                self.fail(f"{what} ({count}) cannot be divided into {groups} groups", at=at, bottom=0)
        self._groups = groups
        self.learned("weight", (*self.filters(outputs, groups), *self._window.kernel), self.p.weight_filler)
        if self.p.bias_term:
            self.learned("bias", (outputs,), self.p.bias_filler)
        out = self.output(self._size)
        self.check_fits(out)
        return [Spec((*self._outer, outputs, *out), b.dtype) for b in bottom]

    def filters(self, outputs: int, groups: int) -> Shape:
        """The first two axes of the weights."""
        raise NotImplementedError

    def output(self, size: Shape) -> Shape:
        """Spatial size of the top."""
        raise NotImplementedError

    def blocked_weight(self, k: Kernels) -> Any:
        """The weights with as many spatial axes as ``blocked`` gives."""
        return self.weight if self._window.rank else k.view(self.weight, (*self.weight.shape, 1))


class Convolution(_Filters):
    """y[n,k,s] = bias[k] + sum over c, i of weight[k,c,i] * x[n, c, s * stride - pad + i * dilation]

    Bottoms: N C and any number of spatial axes (or none); x is 0 outside. Tops: N num_output and the spatial axes, of
    size floor((size + 2 pad - dilation * (kernel - 1) - 1) / stride) + 1, and 1 where the window is larger than the
    padded input by less than the stride. Weights: (num_output, C / group, kernel);
    bias: (num_output,). With ``axis`` all axes in front of it are batch. Several bottoms, each with its top, share the
    weights. One spatial axis makes it a temporal convolution (``causal``: no output sees later inputs), three a
    convolution over volumes or clips.
    """

    def filters(self, outputs: int, groups: int) -> Shape:
        return outputs, self._channels // groups

    def output(self, size: Shape) -> Shape:
        return self.fit()

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        bias = self.bias if self.p.bias_term else None
        weight = self.blocked_weight(k)
        for x, y in zip(bottom, top, strict=True):
            into = k.view(y, self.blocked(y.shape))
            k.conv(k.view(x, self.blocked(x.shape)), weight, bias, into, window=self.window, groups=self._groups)


class SeparableConvolution(_Windowed):
    """y[n,k,s] = bias[k] + sum over c of point[k,c] * middle[n,c,s]; middle[n,c] = one channel of x * depth[c]

    Bottom: N C and one spatial axis or more. Top: N num_output and the spatial axes of a convolution. Weights: depth,
    (C * depth_multiplier, 1, kernel), as of a Convolution with as many groups as channels; point, (num_output,
    C * depth_multiplier, 1...); bias, (num_output,). ``weight_filler`` fills both.
    """

    depth: Any
    point: Any
    bias: Any

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        self.read_axes(bottom[0].shape)
        outputs, rank = self.p.num_output, self._window.rank
        if rank == 0:
            self.fail("wants a bottom of N C and spatial axes", bottom=0)
        if outputs < 1:
            self.fail("has no num_output", hint="write num_output: 32, say: the number of output channels")
        if self.p.depth_multiplier < 1:
            self.fail("depth_multiplier is 0, and has to be at least 1", at="depth_multiplier")
        if self.p.group != 1:
            self.fail(f"group is {self.p.group}; the depthwise part has a group for each channel", at="group")
        self._middle = self._channels * self.p.depth_multiplier
        self.learned("depth", (self._middle, 1, *self._window.kernel), self.p.weight_filler)
        self.learned("point", (outputs, self._middle, *(1,) * rank), self.p.weight_filler)
        if self.p.bias_term:
            self.learned("bias", (outputs,), self.p.bias_filler)
        self._out = self.fit()
        self.check_fits(self._out)
        return [self.spec((*self._outer, outputs, *self._out), bottom[0].dtype)]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        x = k.view(bottom[0], self.blocked(bottom[0].shape))
        y = k.view(top[0], self.blocked(top[0].shape))
        middle = k.temp("middle", (x.shape[0], self._middle, *self._out))
        k.conv(x, self.depth, None, middle, window=self._window, groups=self._channels)
        bias = self.bias if self.p.bias_term else None
        k.conv(middle, self.point, bias, y, window=Window((1,) * self._window.rank), groups=1)


class Deconvolution(_Filters):
    """y = the transpose of a convolution applied to x, + bias: each x[n,c,s] adds weight[c,k,i] * x to
    y[n, k, s * stride - pad + i * dilation]

    Bottoms: N C and any number of spatial axes. Tops: N num_output and the spatial axes, of size
    stride * (size - 1) + dilation * (kernel - 1) + 1 - 2 pad. Weights: (C, num_output / group, kernel); bias:
    (num_output,). ``axis`` and several bottoms as in Convolution.
    """

    def filters(self, outputs: int, groups: int) -> Shape:
        return self._channels, outputs // groups

    def output(self, size: Shape) -> Shape:
        return self._window.transposed(size)

    def check_fits(self, out: Shape) -> None:
        if self.p.causal:
            self.fail("causal is for convolutions, not for their transpose", at="causal")
        if any(n < 1 for n in out):
            what = f"pad {size_text(self._window.pad)} leaves nothing of the top (its size would be {size_text(out)})"
            self.fail(what, at="pad", bottom=0)

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        weight = self.blocked_weight(k)
        for x, y in zip(bottom, top, strict=True):
            into = k.view(y, self.blocked(y.shape))
            wide = k.view(x, self.blocked(x.shape))
            if not self.p.bias_term:
                k.conv_grad_x(weight, wide, into, window=self.window, groups=self._groups)
                continue
            spread = k.temp("spread", into.shape)
            k.conv_grad_x(weight, wide, spread, window=self.window, groups=self._groups)
            bias = k.view(self.bias, (1, -1, *(1,) * self.window.rank))
            k.pointwise([spread, bias], into, expr="a + b")


class Im2col(_Windowed):
    """y[n, (c, i), s] = x[n, c, s * stride - pad + i * dilation]: the inputs of every window as a column

    Bottom: N C and any number of spatial axes; x is 0 outside. Top: N (C * kernel) and the spatial axes of a
    convolution.
    """

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        self.read_axes(bottom[0].shape)
        out = self.fit()
        self.check_fits(out)
        columns = self._channels * math.prod(self._window.kernel)
        return [self.spec((*self._outer, columns, *out), bottom[0].dtype)]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        x, y = bottom[0], top[0]
        k.im2col(k.view(x, self.blocked(x.shape)), k.view(y, self.blocked(y.shape)), window=self.window)
