"""Scores without gradients: Accuracy, ArgMax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..kernels import Kernels
from ..types import Spec
from .base import Layer


class Accuracy(Layer):
    """y = share of the positions at which fewer than top_k other classes score as high as the label's class

    Bottoms: scores x, with the classes on ``axis``; labels, one for each position (fractions are cut off). Tops: the
    share; if named, the share for each class, (K,), 0 for a class without samples. Positions with ignore_label do not
    count; if none counts the share is 0. A label out of range counts as wrong (Caffe compares with whatever lies
    there); with a second top one of K or more is an error on the host devices. No gradient.
    """

    param = "accuracy_param"
    bottoms = 2
    tops = (1, 2)
    skips = frozenset({0, 1})

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        shape, label = bottom[0].shape, bottom[1].count
        self._axis = axis = self.axis(self.p.axis, len(shape))
        self._positions, self._classes = math.prod(shape) // max(shape[axis], 1), shape[axis]
        if label != self._positions:
            self.fail(
                f"wants {self._positions} labels, one for each position, got {label}",
                bottom=[0, 1],
                hint=f"labels of all axes of the scores but axis {axis}, the classes",
            )
        if not 1 <= self.p.top_k <= self._classes:
            what = f"top_k is {self.p.top_k}, and has to be in 1 to {self._classes}, the number of classes"
            self.fail(what, at="top_k", bottom=0)
        return [self.spec(()), self.spec((self._classes,))][: max(1, len(self.message.top))]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        shape = (self._positions,)
        label, rank, hit = k.view(bottom[1], shape), k.temp("rank", shape), f"(a < {self.p.top_k})"
        k.rank(bottom[0], bottom[1], k.view(rank, bottom[1].shape), axis=self._axis)
        if not self.has("ignore_label"):
            hits = k.temp("hits", ())
            k.reduce([rank], hits, expr=hit, how="sum", axes=(0,))  # whole numbers, and one division: exact
            k.pointwise([hits], top[0], expr=f"a / {max(self._positions, 1)}")
        else:
            counts = f"(trunc(b) != {self.p.ignore_label})"
            hits, total = k.temp("hits", ()), k.temp("total", ())
            k.reduce([rank, label], hits, expr=f"{hit} * {counts}", how="sum", axes=(0,))
            k.reduce([rank, label], total, expr=counts, how="sum", axes=(0,))
            k.pointwise([hits, total], top[0], expr="a / max(b, 1)")
        if len(top) > 1:
            self._per_class(k, label, rank, top[1])

    def _per_class(self, k: Kernels, label: Any, rank: Any, y: Any) -> None:
        shape = (self._positions,)
        index, hit, one = label, k.temp("hit", shape), k.temp("one", shape)
        if self.has("ignore_label"):  # scatter_add drops what is negative
            index = k.temp("class", shape)
            k.pointwise([label], index, expr=f"where(trunc(a) == {self.p.ignore_label}, -1, a)")
        k.pointwise([rank], hit, expr=f"a < {self.p.top_k}")
        k.fill(one, value=1.0)
        hits, total = k.temp("class_hits", y.shape), k.temp("class_total", y.shape)
        k.scatter_add(index, hit, hits)
        k.scatter_add(index, one, total)
        k.pointwise([hits, total], y, expr="a / max(b, 1)")


class ArgMax(Layer):
    """y = the places of the top_k largest x along ``axis``, or over everything behind the batch; of equals the later

    Bottom: N and any further axes. Top with ``axis``: that axis is top_k long, and out_max_val gives the values instead
    of the places. Top without: (N, 1, top_k), with out_max_val (N, 2, top_k), places before values, and further axes of
    length 1 up to those of the bottom. No gradient.
    """

    param = "argmax_param"
    skips = frozenset({0})

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        shape, top_k = bottom[0].shape, self.p.top_k
        by_axis = self.has("axis")
        self._axis = self.axis(self.p.axis, len(shape)) if by_axis else 1
        if not shape:
            self.fail("wants a bottom of at least 1 axis, got a single number", bottom=0)
        self._shape = shape if by_axis else (shape[0], math.prod(shape[1:]))
        length = self._shape[self._axis]
        if not 1 <= top_k <= length:
            what = f"top_k is {top_k}, and has to be in 1 to {length}, the number of values"
            self.fail(what, at="top_k", bottom=0)
        self._out = (*self._shape[: self._axis], top_k, *self._shape[self._axis + 1 :])
        if by_axis:
            return [self.spec(self._out)]
        rest = (1,) * (len(shape) - 3)
        return [self.spec((shape[0], 2 if self.p.out_max_val else 1, top_k, *rest))]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        x, y, shape = k.view(bottom[0], self._shape), top[0], self._out
        both = self.p.out_max_val and not self.has("axis")
        if both:
            values, index = k.temp("values", shape), k.temp("index", shape)
        elif self.p.out_max_val:
            values, index = y, k.temp("index", shape, "int32")
        else:
            values, index = k.temp("values", shape), k.view(y, shape)
        k.topk(x, values, index, axis=self._axis)
        if both:
            parts = [k.view(t, (shape[0], 1, shape[1])) for t in (index, values)]
            k.concat(parts, k.view(y, (shape[0], 2, shape[1])), axis=1)
