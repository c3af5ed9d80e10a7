"""Normalisation: LRN, BatchNorm, MVN."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..config import schema
from ..expression import rule
from ..kernels import Kernels
from ..types import Spec, Window
from .base import IMAGES, Layer, stop


class LRN(Layer):
    """y = x / (k + alpha / n * sum of x^2 over a neighbourhood) ^ beta

    Bottom: N C and one spatial axis or more (Caffe: exactly two). Top: the same shape. ACROSS_CHANNELS: the local_size
    channels nearest to each, n = local_size. WITHIN_CHANNEL: the square of local_size in the same channel, zeros
    outside, n its area, and k = 1 whatever is written.
    """

    param = "lrn_param"
    axes = IMAGES

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        shape = bottom[0].shape
        if len(shape) < 3:
            self.fail(f"wants a bottom of N C and spatial axes (4 axes for images), got {len(shape)} axes", bottom=0)
        size = self.p.local_size
        if size % 2 == 0:
            self.fail(f"local_size is {size}, and has to be odd", at="local_size", hint=f"write local_size: {size + 1}")
        self._alpha, self._beta, self._k = (float(self.number(name)) for name in ("alpha", "beta", "k"))
        return [bottom[0]]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        x, y, size = bottom[0], top[0], self.p.local_size
        if self.p.norm_region == schema.LRNParameter.ACROSS_CHANNELS:
            scale = k.temp("scale", x.shape)
            k.lrn(x, y, scale, size=size, alpha=self._alpha, beta=self._beta, k=self._k)
            return
        rank = len(x.shape) - 2
        squares, mean = k.temp("squares", x.shape), k.temp("mean", x.shape)
        k.pointwise([x], squares, expr="a * a")
        k.pool_avg(squares, mean, window=Window((size,) * rank, pad=(size // 2,) * rank), count="kernel")
        k.pointwise([x, mean], y, expr=f"a * (1 + {self._alpha!r} * b)^({-self._beta!r})")


class BatchNorm(Layer):
    """y = (x - mean[c]) / sqrt(variance[c] + eps)

    Bottom: N C and any further axes. Top: the same shape; may be in place. In TRAIN mean and variance are those of the
    batch (the biased variance), and the gradient flows through them; with use_global_stats, which is the default in
    TEST, they are the running statistics. Parameter blobs: mean (C,), variance (C,), factor (1,), which no gradient
    reaches. TRAIN updates them, f = moving_average_fraction and m elements a channel:

        mean = f * mean + batch mean;  variance = f * variance + m / (m - 1) * batch variance;  factor = f * factor + 1

    and what is used is mean / factor and variance / factor, 0 while the factor is 0.
    """

    param = "batch_norm_param"
    axes = IMAGES
    mean: Any
    variance: Any
    factor: Any

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        shape = bottom[0].shape
        if len(shape) < 2:
            self.fail(f"wants a bottom of at least 2 axes (N C ...), got {len(shape)}", bottom=0)
        self._eps, fraction = float(self.number("eps")), self.number("moving_average_fraction")
        if self._eps < 0:
            self.fail(f"eps is {self._eps:g}, and cannot be negative", at="eps")
        channels, count = shape[1], math.prod(shape) // max(shape[1], 1)
        self._global = self.p.use_global_stats if self.has("use_global_stats") else not self.train
        self._wide = (1, channels, *(1,) * (len(shape) - 2))
        correction = count / (count - 1) if count > 1 else 1.0
        self._update = rule(
            ["m", "v"], ["mean", "variance"],
            f"mean = {fraction} * mean + m; variance = {fraction} * variance + {correction!r} * v",
        )  # fmt: skip
        self._count = rule([], ["factor"], f"factor = {fraction} * factor + 1")
        self.statistic("mean", (channels,))
        self.statistic("variance", (channels,))
        self.statistic("factor", (1,))
        return [bottom[0]]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        x, y = bottom[0], top[0]
        if self._global:
            self._with_statistics(k, x, y)
            return
        mean, variance = k.temp("batch_mean", self._wide), k.temp("batch_variance", self._wide)
        axes = tuple(i for i in range(len(x.shape)) if i != 1)
        k.normalize(x, y, mean, variance, axes=axes, eps=self._eps)
        given = [k.view(mean, (-1,)), k.view(variance, (-1,))]
        k.update(given, [self.mean, self.variance], rule=self._update)
        k.update([], [self.factor], rule=self._count)

    def _with_statistics(self, k: Kernels, x: Any, y: Any) -> None:
        centre, slope = k.temp("centre", self.mean.shape), k.temp("slope", self.mean.shape)
        share = "where(b == 0, 0, a / where(b == 0, 1, b))"
        k.pointwise([self.mean, self.factor], centre, expr=share)
        k.pointwise([self.variance, self.factor], slope, expr=f"1 / sqrt({share} + {self._eps!r})")
        k.pointwise([x, k.view(centre, self._wide), k.view(slope, self._wide)], y, expr="(a - b) * c")


class MVN(Layer):
    """y = (x - mean) / (deviation + eps), over each channel of each sample, or over each sample (across_channels)

    Bottom: N C and any further axes. Top: the same shape, with axes of length 1 behind it up to 4. The deviation is the
    root of the biased variance; without normalize_variance y = x - mean. The gradient is Caffe's, in which eps counts
    as if it stood under the root: dx = (dy - mean(dy) - y * mean(dy * y)) / (deviation + eps).
    """

    param = "mvn_param"
    axes = IMAGES

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        shape = bottom[0].shape
        if not shape:
            self.fail("wants a bottom of at least 1 axis (N C ...), got a single number", bottom=0)
        if float(self.number("eps")) < 0:
            self.fail(f"eps is {self.p.eps:g}, and cannot be negative", at="eps")
        groups = shape[0] if self.p.across_channels else math.prod(shape[:2])
        self._rows = (groups, math.prod(shape) // max(groups, 1))
        return [self.spec((*shape, *(1,) * (4 - len(shape))), bottom[0].dtype)]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        x, y = k.view(bottom[0], self._rows), k.view(top[0], self._rows)
        share = 1 / self._rows[1]
        column = (self._rows[0], 1)
        mean = k.temp("mean", column)
        k.reduce([x], mean, expr=f"a * {share!r}", how="sum", axes=(1,))
        if not self.p.normalize_variance:
            k.pointwise([x, mean], y, expr="a - b")
            return
        centred, variance, deviation = k.temp("centred", self._rows), k.temp("variance", column), k.temp("dev", column)
        k.pointwise([x, mean], centred, expr="a - b")
        k.reduce([centred], variance, expr=f"a * a * {share!r}", how="sum", axes=(1,))
        root = f"(sqrt(b) + {self.number('eps')})"
        k.pointwise([variance, stop(variance)], deviation, expr=f"{root} + (a - b) * (0.5 / {root})")
        k.pointwise([centred, deviation], y, expr="a / b")
