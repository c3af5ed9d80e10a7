"""A loss over very many classes that looks at a few of them: SampledSoftmaxLoss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..config import schema
from ..kernels import Kernels
from ..random import stream_of
from ..types import Spec
from .base import Layer
from .loss import ignored, normalization

_LEFT_OUT = -1  # the label of a position that does not count


class SampledSoftmaxLoss(Layer):
    """loss = sum over the positions of -log(softmax(z)[label]) / norm, z = W x + b; in TRAIN over a sample of classes

    In TRAIN only the rows of W of the label and of num_sampled classes are read, drawn anew in every pass, the same for
    all positions. z of a drawn class is lowered by log(num_sampled * its probability of being drawn), and one that is
    the label does not count beside it: the sum below the softmax is then right on average, and loss and gradient tend
    to those over all classes (Bengio, Senecal, "Quick training of probabilistic neural nets by importance sampling",
    2003). In TEST all classes count.

    Bottoms: x, any axes and then D; labels, one for each position, 0 .. num_output - 1. Top: the loss. ignore_label and
    normalization: those of SoftmaxWithLoss. Parameter blobs: W (num_output D), b (num_output), as of an InnerProduct,
    with which they can be shared.
    """

    param = "sampled_softmax_param"
    bottoms = 2
    tops = (1, 1)
    loss = True
    skips = frozenset({1})
    weight: Any
    bias: Any

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        shape, classes, sampled = bottom[0].shape, self.p.num_output, self.p.num_sampled
        if len(shape) < 2:
            self.fail(f"wants a bottom of at least 2 axes, got {len(shape)}", bottom=0)
        if bottom[1].count != math.prod(shape[:-1]):
            self.fail(f"wants {math.prod(shape[:-1])} labels, one for each position", bottom=[0, 1])
        if classes < 2:
            self.fail(f"num_output is {classes}, and has to be at least 2", at="num_output")
        if not 1 <= sampled <= classes:
            self.fail(f"num_sampled is {sampled}, and has to be in 1 to {classes}, the classes", at="num_sampled")
        self.learned("weight", (classes, shape[-1]), self.p.weight_filler)
        self.learned("bias", (classes,), self.p.bias_filler)
        return [self.spec(())]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        rows, size = math.prod(bottom[0].shape[:-1]), bottom[0].shape[-1]
        x, label, left_out = k.view(bottom[0], (rows, size)), k.view(bottom[1], (rows,)), ignored(self)
        if self.train:
            if left_out is not None:
                known = k.temp("known", (rows,))
                k.pointwise([label], known, expr=f"where(trunc(a) == {left_out}, 0, a)")
            else:
                known = label
            scores, target = self._sampled(k, x, known), k.temp("target", (rows,))
            if left_out is None:
                k.fill(target, value=0.0)
            else:
                k.pointwise([label], target, expr=f"where(trunc(a) == {left_out}, {_LEFT_OUT}, 0)")
                left_out = _LEFT_OUT
        else:
            scores, target = k.temp("scores", (rows, self.p.num_output)), label
            k.gemm(x, self.weight, self.bias, scores, ta=False, tb=True)
        k.softmax_nll(
            scores, target, k.temp("prob", scores.shape), top[0], k.temp("norm", ()),
            axis=1, ignore=left_out, normalize=normalization(self),
        )  # fmt: skip

    def _sampled(self, k: Kernels, x: Any, label: Any) -> Any:
        """The scores of the label and of the classes drawn, N (1 + num_sampled)."""
        (rows, size), sampled = x.shape, self.p.num_sampled
        drawn, chosen = k.temp("drawn", (sampled,)), k.temp("chosen", (sampled,))
        stream = stream_of(self.key, "classes")
        k.random(self.clock, drawn, how="uniform", p=0.0, seed=self.context.seed, stream=stream)
        k.pointwise([drawn], chosen, expr=self._class("a"))
        w, b = k.temp("some_weight", (sampled, size)), k.temp("some_bias", (sampled,))
        own_w, own_b = k.temp("own_weight", (rows, size)), k.temp("own_bias", (rows,))
        for index, weight, bias in ((chosen, w, b), (label, own_w, own_b)):
            k.gather(self.weight, index, weight)
            k.gather(self.bias, index, bias)
        inner, first = k.temp("inner", (rows, 1)), k.temp("first", (rows, 1))
        k.reduce([x, own_w], inner, expr="a * b", how="sum", axes=(1,))
        k.pointwise([inner, k.view(own_b, (rows, 1))], first, expr="a + b")
        product, others = k.temp("product", (rows, sampled)), k.temp("others", (rows, sampled))
        k.gemm(x, w, None, product, ta=False, tb=True)
        k.pointwise(
            [product, k.view(b, (1, sampled)), k.view(chosen, (1, sampled)), k.view(label, (rows, 1))], others,
            expr=f"where(c == trunc(d), -1e30, a + b - {self._chance()})",
        )  # fmt: skip
        scores = k.temp("sampled_scores", (rows, 1 + sampled))
        k.concat([first, others], scores, axis=1)
        return scores

    def _class(self, uniform: str) -> str:
        """The class that a number in 0 to 1 stands for, as an expression."""
        classes, last = self.p.num_output, self.p.num_output - 1
        if self.p.distribution == schema.SampledSoftmaxParameter.UNIFORM:
            return f"min(floor({uniform} * {classes}), {last})"
        return f"max(min(floor(exp({uniform} * {math.log(classes + 1)!r})) - 1, {last}), 0)"

    def _chance(self) -> str:
        """log(num_sampled * the probability that class c is drawn), as an expression."""
        classes, sampled = self.p.num_output, self.p.num_sampled
        if self.p.distribution == schema.SampledSoftmaxParameter.UNIFORM:
            return f"({math.log(sampled / classes)!r})"
        return f"log(log1p(1 / (c + 1)) * {sampled / math.log(classes + 1)!r})"


__all__ = ["SampledSoftmaxLoss"]
