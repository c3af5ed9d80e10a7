"""Dropout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..kernels import Kernels
from ..random import stream_of
from ..types import Spec
from .base import Layer


class Dropout(Layer):
    """y = x * mask / (1 - dropout_ratio) in TRAIN, mask = 1 with probability 1 - dropout_ratio, else 0; y = x in TEST

    Bottom: any shape. Top: the same shape; may be in place. The mask follows from the seed, the layer's name and the
    number of the forward pass alone. A ratio outside 0 to 1 is refused (Caffe's release build takes any).
    """

    param = "dropout_param"

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        ratio = float(self.number("dropout_ratio"))
        if not 0 <= ratio < 1:
            self.fail(f"dropout_ratio is {ratio:g}, and has to be in 0 to 1, 1 excluded", at="dropout_ratio")
        self._keep = 1 - ratio
        return [bottom[0]]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        if not self.train or self._keep == 1:
            k.copy(bottom[0], top[0])
            return
        mask = k.temp("mask", bottom[0].shape, "uint8")
        stream = stream_of(self.key, "mask")
        k.random(self.clock, mask, how="bernoulli", p=self._keep, seed=self.context.seed, stream=stream)
        k.pointwise([bottom[0], mask], top[0], expr=f"a * b * {1 / self._keep!r}")
