"""Normalisation of each sample by itself: LayerNorm, RMSNorm, GroupNorm, InstanceNorm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..config import schema
from ..kernels import Kernels
from ..types import Shape, Spec
from .base import IMAGES, Layer

_ONE = schema.FillerParameter(type="constant", value=1)


class _Normalization(Layer):
    """What the four share: eps, and a learned scale and shift behind the normalisation."""

    type = ""
    param = "normalization_param"
    scale: Any
    shift: Any
    shifted = True

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        self._eps = float(self.number("eps"))
        if self._eps < 0:
            self.fail(f"eps is {self._eps:g}, and cannot be negative", at="eps")
        if not self.shifted and self.p.shift and self.has("shift"):
            self.fail("has no shift, only a scale", at="shift")
        shape = bottom[0].shape
        own = self.read(shape)
        self._wide = self.widened(shape, own)
        if self.p.scale:
            self.learned("scale", own, self.p.scale_filler if self.has("scale_filler") else _ONE)
        if self.p.shift and self.shifted:
            self.learned("shift", own, self.p.shift_filler)
        return [bottom[0]]

    def read(self, shape: Shape) -> Shape:
        """Check the bottom's shape; returns the shape of scale and shift."""
        raise NotImplementedError

    def widened(self, shape: Shape, own: Shape) -> Shape:
        """Scale and shift under a shape that broadcasts to the bottom's: along the last axes, unless overridden."""
        return own

    def finish(self, k: Kernels, normal: Any, y: Any) -> None:
        """y = scale * normal + shift, as far as there are any."""
        scaled, moved = self.p.scale, self.p.shift and self.shifted
        if scaled and moved:
            k.pointwise([normal, k.view(self.scale, self._wide), k.view(self.shift, self._wide)], y, expr="a * b + c")
        elif scaled:
            k.pointwise([normal, k.view(self.scale, self._wide)], y, expr="a * b")
        elif moved:
            k.pointwise([normal, k.view(self.shift, self._wide)], y, expr="a + b")
        else:
            k.copy(normal, y)

    def normalized(self, k: Kernels, x: Any, rows: Shape) -> Any:
        """x, seen as ``rows`` with the axis to normalise last, brought to mean 0 and variance 1 along it."""
        normal = k.temp("normal", rows)
        moments = (*rows[:-1], 1)
        k.normalize(
            k.view(x, rows), normal, k.temp("mean", moments), k.temp("variance", moments),
            axes=(len(rows) - 1,), eps=self._eps,
        )  # fmt: skip
        return k.view(normal, x.shape)


class _Trailing(_Normalization):
    """Over the axes from ``axis`` on, together; scale and shift have their shape."""

    type = ""

    def read(self, shape: Shape) -> Shape:
        if not shape:
            self.fail("wants a bottom of at least 1 axis, got a single number", bottom=0)
        first = self.axis(self.p.axis, len(shape))
        self._rows = (math.prod(shape[:first]), math.prod(shape[first:]))
        return shape[first:]


class LayerNorm(_Trailing):
    """y = scale * (x - mean) / sqrt(variance + eps) + shift, over the axes from ``axis`` on

    Bottom: any shape. Top: the same. mean and (biased) variance are those of each sample's own values; scale and shift
    have the shape of the normalised axes. (Ba, Kiros, Hinton, "Layer normalization", 2016.)
    """

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        self.finish(k, self.normalized(k, bottom[0], self._rows), top[0])


class RMSNorm(_Trailing):
    """y = scale * x / sqrt(mean(x^2) + eps), over the axes from ``axis`` on

    Bottom: any shape. Top: the same. The scale has the shape of the normalised axes. (Zhang, Sennrich, "Root mean
    square layer normalization", 2019.)
    """

    shifted = False

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        rows, count = self._rows
        x, square, normal = k.view(bottom[0], self._rows), k.temp("square", (rows, 1)), k.temp("normal", self._rows)
        k.reduce([x], square, expr=f"a * a * {1 / count!r}", how="sum", axes=(1,))
        k.pointwise([x, square], normal, expr=f"a / sqrt(b + {self._eps!r})")
        self.finish(k, k.view(normal, bottom[0].shape), top[0])


class _Channels(_Normalization):
    """Over groups of channels with all their positions; scale and shift have a value for each channel."""

    type = ""
    axes = IMAGES

    def widened(self, shape: Shape, own: Shape) -> Shape:
        return (1, shape[1], *(1,) * (len(shape) - 2))


class GroupNorm(_Channels):
    """y = scale[c] * (x - mean) / sqrt(variance + eps) + shift[c], over the channels of a group and all positions

    Bottom: N C and any further axes. Top: the same shape. The channels form ``groups`` groups of neighbours; mean and
    (biased) variance are those of one group of one sample. (Wu, He, "Group normalization", 2018.)
    """

    def read(self, shape: Shape) -> Shape:
        if len(shape) < 2:
            self.fail(f"wants a bottom of at least 2 axes (N C ...), got {len(shape)}", bottom=0)
        groups = self.p.groups
        if groups < 1 or shape[1] % groups:
            what = f"{shape[1]} channels cannot be divided into {groups} groups"
            self.fail(what, at="groups", bottom=0, hint="write groups: 1, say, or another divisor")
        self._rows = (shape[0], groups, math.prod(shape[1:]) // groups)
        return (shape[1],)

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        self.finish(k, self.normalized(k, bottom[0], self._rows), top[0])


class InstanceNorm(_Channels):
    """y = scale[c] * (x - mean) / sqrt(variance + eps) + shift[c], over the positions of one channel of one sample

    Bottom: N C and one spatial axis or more. Top: the same shape. (Ulyanov, Vedaldi, Lempitsky, "Instance
    normalization", 2016.)
    """

    def read(self, shape: Shape) -> Shape:
        if len(shape) < 3:
            self.fail(f"wants a bottom of N C and spatial axes, got {len(shape)} axes", bottom=0)
        self._rows = (*shape[:2], math.prod(shape[2:]))
        return (shape[1],)

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        self.finish(k, self.normalized(k, bottom[0], self._rows), top[0])
