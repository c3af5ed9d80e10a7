"""PositionEncoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..config import schema
from ..expression import rule
from ..kernels import Kernels
from ..types import Spec
from .base import Count, Layer

_COUNT = rule(["a"], ["x"], "x = a")


class PositionEncoding(Layer):
    """y[n,t] = x[n,t] + e[p], p = t + offset[n]: e[p,2i] = sin(p / base^(2i/D)), e[p,2i+1] = cos(p / base^(2i/D))

    or a learned row e[p]. Bottoms: x, N T D (T N D with time_major); if wanted the position of the first step of each
    sequence, N, or with carry cont, N, 0 where a sequence begins with this forward; no gradient passes to it. Top: as
    x. Parameter blob, if learned: max_length D; a position beyond is an error (with an offset on the CPU alone: a GPU
    does not tell). With carry the number of steps so far lives on from forward to forward. (Vaswani et al., "Attention
    is all you need", 2017.)
    """

    param = "position_encoding_param"
    bottoms: ClassVar[Count] = (1, 2)
    skips = frozenset({1})
    rows: Any
    table: Any
    steps: Any
    rates: Any
    turns: Any
    position: Any

    @property
    def time_first(self) -> bool:
        return bool(self.p.time_major)

    def axes_of(self, i: int) -> str:
        return ("T N D" if self.p.time_major else "N T D", "N")[i]

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        shape = bottom[0].shape
        if len(shape) != 3:
            self.fail(f"wants a bottom of 3 axes (N T D, or T N D with time_major), got {len(shape)}", bottom=0)
        streams, steps = (shape[1], shape[0]) if self.p.time_major else shape[:2]
        if len(bottom) > 1 and bottom[1].shape != (streams,):
            what = "cont" if self.p.carry else "the position of the first step"
            self.fail(f"wants one number a sequence (N = {streams}) of its second bottom, {what}", bottom=[0, 1])
        base, self._size = float(self.number("base")), shape[2]
        if base <= 0:
            self.fail(f"base is {base:g}, and has to be above 0", at="base")
        for field in ("max_length", "weight_filler"):
            if self.has(field) and not self.p.learned:
                self.fail(f"{field} goes with learned: true; sines and cosines have no end", at=field)
        self._moves = len(bottom) > 1 or self.p.carry
        length = self.p.max_length or steps
        if self.p.learned:
            if steps > length:
                self.fail(f"the bottom has {steps} steps, max_length is {length}", at="max_length", bottom=0)
            normal = schema.FillerParameter(type="gaussian", std=0.02)
            filler = self.p.weight_filler if self.has("weight_filler") else normal
            self.learned("rows", (length, shape[2]), filler)
        rates = base ** (-(np.arange(shape[2]) // 2 * 2) / shape[2])
        turns = np.arange(shape[2]) % 2 * (np.pi / 2)
        if self._moves:
            self.state("steps", (1, steps, 1), np.arange(steps)[None, :, None])
            if not self.p.learned:
                self.state("rates", (shape[2],), rates)
                self.state("turns", (shape[2],), turns)
        elif not self.p.learned:
            self.state("table", (steps, shape[2]), np.sin(np.arange(steps)[:, None] * rates + turns))
        if self.p.carry:
            self.state("position", (streams,), streams=0)
        return [bottom[0]]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        x, y = bottom[0], top[0]
        streams, steps = (x.shape[1], x.shape[0]) if self.p.time_major else x.shape[:2]
        if not self._moves:
            rows = self.rows if self.p.learned else self.table
            if rows.shape[0] != steps:
                rows = k.temp("rows", (steps, self._size))
                k.slice(self.rows, rows, begin=(0, 0))
            wide = (steps, 1, self._size) if self.p.time_major else (1, steps, self._size)
            k.pointwise([x, k.view(rows, wide)], y, expr="a + b")
            return
        first = k.view(self._first(k, bottom), (streams, 1, 1))
        now, times = k.temp("now", (streams, steps, 1)), self.steps
        k.pointwise([times, first], now, expr="a + b")
        if self.p.learned:
            made = k.temp("encoded", (streams, steps, self._size))
            k.gather(self.rows, k.view(now, (streams, steps)), made)
        else:
            made = k.temp("encoded", (streams, steps, self._size))
            k.pointwise([now, self.rates, self.turns], made, expr="sin(a * b + c)")
        if self.p.time_major:
            turned = k.temp("turned", x.shape)
            k.transpose(made, turned, axes=(1, 0, 2))
            made = turned
        k.pointwise([x, made], y, expr="a + b")

    def _first(self, k: Kernels, bottom: Sequence[Any]) -> Any:
        """The position of the first step, N."""
        if not self.p.carry:
            return bottom[1]
        first, after = (k.temp(name, self.position.shape) for name in ("first", "after"))
        if len(bottom) > 1:
            k.pointwise([bottom[1], self.position], first, expr="where(a == 0, 0, b)")
        else:
            k.copy(self.position, first)
        k.pointwise([first], after, expr=f"a + {self.steps.shape[1]}")
        k.update([after], [self.position], rule=_COUNT)
        return first


__all__ = ["PositionEncoding"]
