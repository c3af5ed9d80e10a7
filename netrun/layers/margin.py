"""Losses over margins and given probabilities: HingeLoss, ContrastiveLoss, MultinomialLogisticLoss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..config import schema
from ..kernels import Kernels
from ..types import Spec
from .base import Layer, stop


def one_hot(k: Kernels, label: Any, samples: int, classes: int) -> Any:
    """A tensor (samples, classes) with 1 at each label and 0 elsewhere.

    The vocabulary has no kernel for it, but the gradient of a softmax loss is (p - onehot) * dloss / norm. The gather
    makes labels out of range an error on the host devices.
    """
    ones, chosen = k.temp("ones", (classes,)), k.temp("chosen", (samples, 1))
    k.fill(ones, value=1.0)
    k.gather(ones, k.view(label, (samples, 1)), chosen)
    zeros, hot = k.temp("zeros", (samples, classes)), k.temp("hot", (samples, classes))
    k.fill(zeros, value=0.0)
    norm, minus = k.temp("one", ()), k.temp("minus", ())
    k.fill(norm, value=1.0)
    k.fill(minus, value=-1.0)
    k.softmax_nll_grad(zeros, label, norm, minus, hot, axis=1, ignore=None)
    marked = k.temp("marked", (samples, classes))
    k.pointwise([hot, chosen], marked, expr="a * b")
    return marked


class _OverClasses(Layer):
    """What HingeLoss and MultinomialLogisticLoss share: N samples of K values, and N labels."""

    type = ""
    bottoms = 2
    loss = True
    skips = frozenset({1})

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        shape = bottom[0].shape
        if not shape or bottom[1].count != shape[0] or bottom[1].shape[:1] not in ((), shape[:1]):
            self.fail("needs one label for each sample, N or N 1 ...", bottom=[0, 1])
        self._sizes = shape[0], math.prod(shape[1:])
        return [self.spec(())]


class HingeLoss(_OverClasses):
    """loss = sum over samples and classes of max(0, 1 - t * x) / N, t = 1 for the label's class and -1 for the others

    Bottoms: scores x, N and K values each; labels 0 .. K - 1 (fractions are cut off), N of them, to which no gradient
    passes. Top: the loss. norm L2 squares each part. A label out of range is an error on the host devices
    (Caffe writes whatever lies there).
    """

    param = "hinge_loss_param"

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        samples, classes = self._sizes
        hot = one_hot(k, bottom[1], samples, classes)
        part = "relu(1 + a * (1 - 2 * b), 0)"
        if self.p.norm == schema.HingeLossParameter.L2:
            part = f"{part} * {part}"
        x = k.view(bottom[0], self._sizes)
        k.reduce([x, hot], top[0], expr=f"{part} * {1 / max(samples, 1)!r}", how="sum", axes=(0, 1))


class MultinomialLogisticLoss(_OverClasses):
    """loss = sum over the samples of -log(max(p[label], 1e-20)) / N

    Bottoms: probabilities p, N and K values each; labels 0 .. K - 1 (fractions are cut off), N of them, to which no
    gradient passes. Top: the loss. The gradient at the label is -1 / (N * max(p, 1e-20)), also below 1e-20. A label out
    of range is an error on the host devices (Caffe reads whatever lies there).
    """

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        samples, classes = self._sizes
        hot = one_hot(k, bottom[1], samples, classes)
        p = k.view(bottom[0], self._sizes)
        # b is p as a constant: the gradient is that of (a - b) / max(b, 1e-20).
        part = "(log(max(b, 1e-20)) + (a - b) / max(b, 1e-20)) * c"
        k.reduce([p, stop(p), hot], top[0], expr=f"{part} * {-1 / max(samples, 1)!r}", how="sum", axes=(0, 1))


class ContrastiveLoss(Layer):
    """loss = sum over the pairs of d^2 if they are alike, else max(margin - d, 0)^2, / (2 N), d = |a - b|

    Bottoms: a and b, N and as many values each; N labels, of which those that are not 0 with their fraction cut off say
    "alike", and to which no gradient passes. Top: the loss. legacy_version: unlike pairs cost max(margin - d^2, 0). The
    gradient of an unlike pair is -(margin - d) / (d + 1e-4) * (a - b) / N: the summand 1e-4, Caffe's, keeps it finite
    where a = b.
    """

    param = "contrastive_loss_param"
    bottoms = 3
    loss = True
    skips = frozenset({2})

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        first, second, label = (b.shape for b in bottom)
        if not first or first[:1] != second[:1] or bottom[0].count != bottom[1].count:
            self.fail("needs pairs of vectors: as many values for each sample in both", bottom=[0, 1])
        if math.prod(label) != first[0]:
            self.fail(f"wants {first[0]} labels, one for each pair, got {math.prod(label)}", bottom=[0, 2])
        self._sizes = first[0], math.prod(first[1:])
        margin = self.number("margin")
        if self.p.legacy_version:
            unlike = f"where({margin} - a > 0, {margin} - a, 0)"
        else:
            # a: d^2, b: the same as a constant. The first part has the value, the second the gradient.
            room = f"max({margin} - sqrt(b), 0)"
            unlike = f"({room} * {room} - (a - b) * {room} / (sqrt(b) + 0.0001))"
        self._expr = f"where(trunc(c) != 0, a, {unlike}) * {0.5 / max(first[0], 1)!r}"
        return [self.spec(())]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        a, b = (k.view(t, self._sizes) for t in bottom[:2])
        squared = k.temp("squared", self._sizes[:1])
        k.reduce([a, b], squared, expr="(a - b) * (a - b)", how="sum", axes=(1,))
        label = k.view(bottom[2], self._sizes[:1])
        k.reduce([squared, stop(squared), label], top[0], expr=self._expr, how="sum", axes=(0,))
