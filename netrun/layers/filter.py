"""Filter: the one layer of the vocabulary whose output is as long as the data says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from ..kernels import Kernels
from ..types import Shape, Spec
from .base import Count, Layer


class Filter(Layer):
    """y_i = the rows of x_i whose selector != 0, in their order

    Bottoms: one or more x_i, N and any further axes; the selector, N numbers (further axes of length 1), to which no
    gradient passes. Tops: one for each x_i, as many rows as are selected, perhaps none. How many is known only in the
    forward pass: until then, and while a net is planned, the tops have N rows.
    """

    bottoms: ClassVar[Count] = (2, None)
    tops: ClassVar[Count] = (1, None)
    varying = True

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        if len(self.message.top) != len(bottom) - 1:
            self.fail(f"wants a top for each bottom but the selector: {len(bottom) - 1}, got {len(self.message.top)}")
        selector = bottom[-1].shape
        if not selector or any(n != 1 for n in selector[1:]):
            self.fail("wants a selector of one number for each sample", bottom=len(bottom) - 1)
        for i, x in enumerate(bottom[:-1]):
            if x.shape[:1] != selector[:1]:
                self.fail(f"its selector has {selector[0]} numbers", bottom=[i, len(bottom) - 1])
        measured = self.context.measured
        self._rows = measured[0][0] if measured else selector[0]
        return [self.spec((self._rows, *x.shape[1:]), x.dtype) for x in bottom[:-1]]

    def measure(self, values: Callable[[int], Any]) -> Sequence[Shape]:
        rows = int(np.count_nonzero(values(len(self.bottom_specs) - 1)))
        return [(rows, *x.shape[1:]) for x in self.bottom_specs[:-1]]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        if not self._rows:
            for y in top:
                k.fill(y, value=0.0)
            return
        samples, rows = self.bottom_specs[-1].shape[0], self._rows
        # The largest `rows` of 1 (selected) and 0 are the selected ones, the last first; the same again turns them
        # round. Positions are exact as floats up to 2^24.
        chosen, ones = k.temp("chosen", (samples,)), k.temp("ones", (rows,))
        last_first, order = k.temp("last_first", (rows,)), k.temp("order", (rows,))
        k.pointwise([k.view(bottom[-1], (samples,))], chosen, expr="a != 0")
        k.topk(chosen, ones, last_first, axis=0)
        negative, rising, index = k.temp("negative", (rows,)), k.temp("rising", (rows,)), k.temp("index", (rows,))
        k.pointwise([last_first], negative, expr="-a")
        k.topk(negative, rising, order, axis=0)
        k.pointwise([rising], index, expr="-a")
        for x, y in zip(bottom, top, strict=False):
            k.gather(x, index, y)
