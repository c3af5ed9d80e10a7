"""Layer types that are widely used though BVLC's Caffe lacks them; each docstring names where it comes from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..config import schema
from ..expression import rule
from ..kernels import Kernels
from ..types import Spec
from .base import IMAGES, Layer
from .conv import Convolution
from .norm import BatchNorm


class Permute(Layer):
    """y = x with axis order[i] in place i (the SSD fork)

    Bottom: any shape. Top: its sizes in the new order; axes that ``order`` leaves out follow in their own order.
    """

    param = "permute_param"

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        shape, order = bottom[0].shape, list(self.p.order)
        for i in order:
            if i >= len(shape) or order.count(i) > 1:
                text = " ".join(map(str, order))
                self.fail(f"order {text} has to name axes of the bottom, each once", at="order", bottom=0)
        self._axes = (*order, *(i for i in range(len(shape)) if i not in order))
        return [self.spec([shape[i] for i in self._axes], bottom[0].dtype)]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        k.transpose(bottom[0], top[0], axes=self._axes)


class Normalize(Layer):
    """y = scale * x / sqrt(sum of x^2 + eps), the sum over a sample or, without across_spatial, over the channels (SSD)

    Bottom: N C and any further axes. Top: the same shape. The scale is learned: one number, or (C,) without
    channel_shared; ones at first.
    """

    param = "norm_param"
    axes = IMAGES
    scale: Any

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        shape = bottom[0].shape
        if len(shape) < 2:
            self.fail(f"wants a bottom of at least 2 axes (N C ...), got {len(shape)}", bottom=0)
        if float(self.number("eps")) < 0:
            self.fail(f"eps is {self.p.eps:g}, and cannot be negative", at="eps")
        ones = schema.FillerParameter(type="constant", value=1)
        filler = self.p.scale_filler if self.has("scale_filler") else ones
        self.learned("scale", () if self.p.channel_shared else (shape[1],), filler)
        self._axes = tuple(range(1, len(shape))) if self.p.across_spatial else (1,)
        self._sums = tuple(1 if i in self._axes else n for i, n in enumerate(shape))
        self._wide = (1,) * len(shape) if self.p.channel_shared else (1, shape[1], *(1,) * (len(shape) - 2))
        return [bottom[0]]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        squares = k.temp("squares", self._sums)
        k.reduce([bottom[0]], squares, expr="a * a", how="sum", axes=self._axes)
        scale = k.view(self.scale, self._wide)
        k.pointwise([bottom[0], squares, scale], top[0], expr=f"c * a / sqrt(b + {self.number('eps')})")


class DepthwiseConvolution(Convolution):
    """y[n,c,s] = bias[c] + sum over i of weight[c,0,i] * x[n, c, s * stride - pad + i * dilation] (the MobileNet forks)

    A Convolution with a group for each channel. Bottoms: N C and any number of spatial axes. Tops: N num_output and the
    spatial axes; num_output is a multiple of C and may be left out where it is C. Weights: (num_output, 1, kernel).
    """

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        rank = len(bottom[0].shape)
        channels = bottom[0].shape[self.axis(self.message.convolution_param.axis, rank)]
        given = self.message.convolution_param
        if given.HasField("group") and given.group not in (1, channels):
            self.fail(f"group is {given.group}, and can only be the number of channels, {channels}", at="group")
        # The message itself stays as it was written.
        self.p = schema.ConvolutionParameter()
        self.p.CopyFrom(given)
        self.p.group = channels
        if not given.HasField("num_output"):
            self.p.num_output = channels
        return super().setup(bottom)


class Axpy(Layer):
    """z = a * x + y, one factor for each channel of each sample (the squeeze-and-excitation fork)

    Bottoms: a, N C (further axes of length 1 allowed); x, N C and any further axes; y, the shape of x. Top: that shape.
    """

    bottoms = 3

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        a, x, y = (b.shape for b in bottom)
        if len(x) < 2 or a[:2] != x[:2] or math.prod(a) != math.prod(x[:2]):
            self.fail("the first bottom has to hold one number for each sample and channel", bottom=[0, 1])
        if x != y:
            self.fail("the second and the third bottom need the same shape", bottom=[1, 2])
        self._wide = (*x[:2], *(1,) * (len(x) - 2))
        return [bottom[1]]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        k.pointwise([k.view(bottom[0], self._wide), bottom[1], bottom[2]], top[0], expr="a * b + c")


class ShuffleChannel(Layer):
    """y[:, j * group + i] = x[:, i * (C / group) + j]: the channels of all groups, one of each in turn (ShuffleNet)

    Bottom: N C and any further axes. Top: the same shape. ``group`` divides the channels.
    """

    param = "shuffle_channel_param"
    axes = IMAGES

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        shape, group = bottom[0].shape, self.p.group
        if len(shape) < 2:
            self.fail(f"wants a bottom of at least 2 axes (N C ...), got {len(shape)}", bottom=0)
        if not group or shape[1] % group:
            self.fail(f"group is {group}, and has to divide the channels, {shape[1]}", at="group", bottom=0)
        self._split = (shape[0], group, shape[1] // group, math.prod(shape[2:]))
        return [bottom[0]]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        n, group, rest, inner = self._split
        k.transpose(k.view(bottom[0], self._split), k.view(top[0], (n, rest, group, inner)), axes=(0, 2, 1, 3))


class Upsample(Layer):
    """y[n,c,s] = x[n, c, floor(s / scale)] (the YOLO forks)

    Bottom: N C and one spatial axis or more. Top: N C and the spatial axes, ``scale`` times as long.
    """

    param = "upsample_param"
    axes = IMAGES

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        shape, scale = bottom[0].shape, self.p.scale
        if len(shape) < 3:
            self.fail(f"wants a bottom of N C and spatial axes (4 axes for images), got {len(shape)} axes", bottom=0)
        if scale < 1:
            self.fail(f"scale is {scale}, and has to be at least 1", at="scale")
        self._from = (*shape[:2], *(m for n in shape[2:] for m in (n, 1)))
        self._into = (*shape[:2], *(m for n in shape[2:] for m in (n, scale)))
        return [self.spec((*shape[:2], *(n * scale for n in shape[2:])), bottom[0].dtype)]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        k.pointwise([k.view(bottom[0], self._from)], k.view(top[0], self._into), expr="a")


class SmoothL1Loss(Layer):
    """loss = sum of outside * f(inside * (x - target)) / N, f(d) = (sigma d)^2 / 2 if |d| < 1 / sigma^2, else
    |d| - 1 / (2 sigma^2) (the Fast R-CNN fork)

    Bottoms: x and target of one shape with N as its first axis; inside and outside of that shape, or neither (ones).
    Top: one number.
    """

    param = "smooth_l1_loss_param"
    bottoms = (2, 4)
    loss = True
    skips = frozenset({2, 3})

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        if len(bottom) == 3:
            self.fail("has 3 bottoms: weights are given inside and outside (4 bottoms), or not at all (2)")
        shape = bottom[0].shape
        for i, other in enumerate(bottom):
            if math.prod(other.shape) != math.prod(shape):
                self.fail("its bottoms need the same number of values", bottom=[0, i])
        if not shape:
            self.fail("wants bottoms of at least 1 axis (N ...), got a single number", bottom=0)
        sigma = float(self.number("sigma"))
        if sigma <= 0:
            self.fail(f"sigma is {sigma:g}, and has to be above 0", at="sigma")
        square = sigma**2
        difference = "((a - b) * c)" if len(bottom) == 4 else "(a - b)"
        near, far = f"{0.5 * square!r} * {difference} * {difference}", f"abs({difference}) - {0.5 / square!r}"
        chosen = f"where(abs({difference}) < {1 / square!r}, {near}, {far})"
        share = f" * {1 / max(shape[0], 1)!r}"
        self._expr = (f"d * {chosen}" if len(bottom) == 4 else chosen) + share
        self._count = math.prod(shape)
        return [self.spec(())]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        k.reduce([k.view(b, (self._count,)) for b in bottom], top[0], expr=self._expr, how="sum", axes=(0,))


class BatchNormScale(BatchNorm):
    """y = scale[c] * (x - mean[c]) / sqrt(variance[c] + eps) + bias[c] (BatchNorm with scale_bias in NVIDIA's Caffe)

    As BatchNorm with a Scale behind it, whose two parameters follow the three of BatchNorm. Bottom: N C and any further
    axes. Top: the same shape. Scales are ones and biases zeros at first.
    """

    scale: Any
    bias: Any

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        tops = super().setup(bottom)
        shape = bottom[0].shape
        ones = schema.FillerParameter(type="constant", value=1)
        self.learned("scale", (shape[1],), self.p.scale_filler if self.has("scale_filler") else ones)
        self.learned("bias", (shape[1],), self.p.bias_filler)
        self._channels = (1, shape[1], *(1,) * (len(shape) - 2))
        return tops

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        normal = k.temp("normal", bottom[0].shape)
        super().forward(k, bottom, [normal])
        factors = [k.view(self.scale, self._channels), k.view(self.bias, self._channels)]
        k.pointwise([normal, *factors], top[0], expr="a * b + c")


class BN(Layer):
    """y = slope[c] * (x - mean[c]) / sqrt(variance[c] + eps) + bias[c] (PSPNet, temporal segment networks)

    Bottom: N C and any further axes. Top: the same shape. In TRAIN mean and variance are those of the batch, and
    running = momentum * running + (1 - momentum) * batch for both; in TEST, or if it is ``frozen``, the running ones
    are used. Parameter blobs: slope, bias, mean, variance, each (1, C, 1, ...); no gradient reaches the last two.
    """

    param = "bn_param"
    axes = IMAGES
    slope: Any
    bias: Any
    mean: Any
    variance: Any

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        shape = bottom[0].shape
        if len(shape) < 2:
            self.fail(f"wants a bottom of at least 2 axes (N C ...), got {len(shape)}", bottom=0)
        self._eps, kept = float(self.number("eps")), self.number("momentum")
        if self._eps < 0:
            self.fail(f"eps is {self._eps:g}, and cannot be negative", at="eps")
        self._wide = (1, shape[1], *(1,) * (len(shape) - 2))
        ones = schema.FillerParameter(type="constant", value=1)
        self.learned("slope", self._wide, self.p.slope_filler if self.has("slope_filler") else ones)
        self.learned("bias", self._wide, self.p.bias_filler)
        self.statistic("mean", self._wide)
        self.statistic("variance", self._wide, ones)
        self._update = rule(
            ["m", "v"], ["mean", "variance"],
            f"mean = {kept} * mean + (1 - {kept}) * m; variance = {kept} * variance + (1 - {kept}) * v",
        )  # fmt: skip
        return [bottom[0]]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        x = bottom[0]
        if not self.train or self.p.frozen:
            expr = f"d * (a - b) / sqrt(c + {self._eps!r}) + e"
            k.pointwise([x, self.mean, self.variance, self.slope, self.bias], top[0], expr=expr)
            return
        normal, mean, variance = k.temp("normal", x.shape), k.temp("m", self._wide), k.temp("v", self._wide)
        axes = tuple(i for i in range(len(x.shape)) if i != 1)
        k.normalize(x, normal, mean, variance, axes=axes, eps=self._eps)
        k.update([mean, variance], [self.mean, self.variance], rule=self._update)
        k.pointwise([normal, self.slope, self.bias], top[0], expr="a * b + c")
