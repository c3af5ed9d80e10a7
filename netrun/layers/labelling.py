"""Sequences of labels: CTCLoss, CTCDecode, EditDistance, Perplexity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..config import schema
from ..kernels import Kernels
from ..types import Spec
from .base import Count, Layer
from .loss import SoftmaxWithLoss, ignored, normalization

Array = npt.NDArray[Any]


class CTCLoss(Layer):
    """loss = -log of the probability of the labels, softmax(x) along the best and all other ways, summed / N

    Connectionist temporal classification, as in WarpCTC: a way through the T steps gives its classes without the
    repetitions and then without ctc_param.blank. Bottoms: scores x, T N K (no softmax before); labels, N L (and axes of
    1), no gradient; if wanted the steps of each sequence, N, all T without it; if wanted the number of labels of each,
    N, without it all in front of the first that is negative or the blank. Tops: the loss; if named, the loss of each
    sequence, N. loss_param { normalization: NONE } leaves out the division by N. A sequence whose labels do not fit
    into its steps costs nothing and passes no gradient.
    """

    param = "ctc_param"
    bottoms: ClassVar[Count] = (2, 4)
    tops: ClassVar[Count] = (1, 2)
    loss = True
    skips = frozenset({1, 2, 3})

    @property
    def time_first(self) -> bool:
        return True

    def axes_of(self, i: int) -> str:
        return ("T N K", "N L", "N", "N")[i]

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        shape, labels = bottom[0].shape, bottom[1].shape
        if len(shape) != 3:
            self.fail(f"wants scores T N K (steps, streams, classes), got {len(shape)} axes", bottom=0)
        if len(labels) < 2 or labels[0] != shape[1] or math.prod(labels[2:]) != 1:
            self.fail(f"wants labels N L, a row for each of the {shape[1]} sequences", bottom=[0, 1])
        for i in range(2, len(bottom)):
            if bottom[i].count != shape[1]:
                self.fail(
                    f"wants one {('number of steps', 'number of labels')[i - 2]} for each sequence", bottom=[0, i]
                )
        if self.p.blank >= shape[2]:
            self.fail(f"blank is {self.p.blank}, and there are {shape[2]} classes", at="blank", bottom=0)
        return [self.spec(()), self.spec((shape[1],))][: max(1, len(self.message.top))]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        steps, streams, _ = bottom[0].shape
        label = k.view(bottom[1], (streams, -1))
        if len(bottom) > 2:
            ends = k.view(bottom[2], (streams,))
        else:
            ends = k.temp("steps", (streams,))
            k.fill(ends, value=float(steps))
        if len(bottom) > 3:
            count = k.view(bottom[3], (streams,))
        else:
            count = self._count(k, label)
        each = top[1] if len(top) > 1 else k.temp("losses", (streams,))
        k.ctc(bottom[0], label, ends, count, each, k.temp("slope", bottom[0].shape), blank=self.p.blank)
        share = 1 if normalization(self, schema.LossParameter.BATCH_SIZE) == "none" else streams
        k.reduce([each], top[0], expr=f"a * {1 / share!r}", how="sum", axes=(0,))

    def _count(self, k: Kernels, label: Any) -> Any:
        """Labels in front of the first that is none."""
        streams, most = label.shape
        none, found, place = (k.temp(name, (streams, most)) for name in ("none", "found", "place"))
        least, count = k.temp("least", (streams,)), k.temp("count", (streams,))
        k.pointwise([label], none, expr=f"max(trunc(a) < 0, trunc(a) == {self.p.blank})")
        k.topk(none, found, place, axis=1)
        k.reduce([found, place], least, expr=f"-where(a > 0, b, {most})", how="max", axes=(1,))
        k.pointwise([least], count, expr="-a")
        return count


class CTCDecode(Layer):
    """y = the classes that score best at each step, without the repetitions and then without ctc_param.blank

    Bottoms: scores x, T N K; if wanted the steps of each sequence, N. Tops: labels, N T, -1 behind the last; if named,
    their number, N. No gradient.
    """

    param = "ctc_param"
    bottoms: ClassVar[Count] = (1, 2)
    tops: ClassVar[Count] = (1, 2)
    skips = frozenset({0, 1})

    @property
    def time_first(self) -> bool:
        return True

    def axes_of(self, i: int) -> str:
        return ("T N K", "N")[i]

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        shape = bottom[0].shape
        if len(shape) != 3:
            self.fail(f"wants scores T N K (steps, streams, classes), got {len(shape)} axes", bottom=0)
        if len(bottom) > 1 and bottom[1].count != shape[1]:
            self.fail("wants one number of steps for each sequence", bottom=[0, 1])
        if self.p.blank >= shape[2]:
            self.fail(f"blank is {self.p.blank}, and there are {shape[2]} classes", at="blank", bottom=0)
        return [self.spec((shape[1], shape[0])), self.spec((shape[1],))][: len(self.message.top)]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        k.host(list(bottom), list(top), fn=self._decode, grad=None)

    def _decode(self, xs: Sequence[Any], ys: Sequence[Any]) -> None:
        steps, streams, _ = xs[0].shape
        ends = xs[1].reshape(-1).astype(int).clip(0, steps) if len(xs) > 1 else np.full(streams, steps)
        best, blank = xs[0].argmax(axis=2), self.p.blank
        ys[0][...] = -1
        for n, end in enumerate(ends):
            row = best[:end, n]
            kept = row[np.concatenate([[True], row[1:] != row[:-1]])[:end] & (row != blank)]
            ys[0][n, : len(kept)] = kept
            if len(ys) > 1:
                ys[1][n] = len(kept)


class EditDistance(Layer):
    """y = sum of the least numbers of changes that make each guess the truth / sum of the lengths of the truth

    A change replaces, adds or removes one label: with words or letters as labels this is the word or letter error rate.
    Bottoms: guesses, N A; the truth, N B; if wanted both lengths, N each, without them a row ends in front of its first
    negative entry. Tops: the rate, 0 where all truth is empty; if named, the share of guesses that are exactly right.
    No gradient.
    """

    bottoms: ClassVar[Count] = (2, 4)
    tops: ClassVar[Count] = (1, 2)
    skips = frozenset({0, 1, 2, 3})

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        if len(bottom) == 3:
            self.fail("wants 2 or 4 bottoms, got 3", hint="guesses and truth, then the lengths of both or of none")
        rows = bottom[0].shape[:1]
        if not rows or bottom[1].shape[:1] != rows:
            self.fail("wants as many guesses as true sequences", bottom=[0, 1])
        for i in range(2, len(bottom)):
            if bottom[i].count != rows[0]:
                self.fail("wants one length for each sequence", bottom=[i - 2, i])
        return [self.spec(()), self.spec(())][: len(self.message.top)]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        k.host(list(bottom), list(top), fn=self._measure, grad=None)

    def _measure(self, xs: Sequence[Any], ys: Sequence[Any]) -> None:
        guesses, truth = (_rows(xs[i], xs[i + 2] if len(xs) > 2 else None) for i in range(2))
        found = [edit_distance(a, b) for a, b in zip(guesses, truth, strict=True)]
        ys[0][...] = sum(found) / max(1, sum(map(len, truth)))
        if len(ys) > 1:
            ys[1][...] = sum(d == 0 for d in found) / max(1, len(found))


def _rows(x: Array, length: Array | None) -> list[Array]:
    rows = np.trunc(x.reshape(len(x), -1))
    if length is not None:
        return [row[: max(0, int(n))] for row, n in zip(rows, length.reshape(-1), strict=True)]
    ends = [int(np.argmax(row < 0)) if (row < 0).any() else len(row) for row in rows]
    return [row[:n] for row, n in zip(rows, ends, strict=True)]


def edit_distance(a: Array, b: Array) -> int:
    """The least number of entries to replace, add or remove that makes a into b (Levenshtein)."""
    at = np.arange(len(b) + 1)
    row = at.copy()
    for i, entry in enumerate(a):
        new = np.minimum(row[1:] + 1, row[:-1] + (b != entry))
        row = np.minimum.accumulate(np.concatenate([[i + 1], new]) - at) + at
    return int(row[-1])


class Perplexity(SoftmaxWithLoss):
    """y = exp(the mean of -log(p[label]) over the positions that count), p = softmax(x)

    Bottoms, ignore_label and normalization: those of SoftmaxWithLoss. Top: one number; a test shows the mean over its
    batches, which is a little above the perplexity of all of them together. No gradient.
    """

    tops = (1, 1)
    loss = False
    skips = frozenset({0, 1})

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        loss = k.temp("loss", ())
        k.softmax_nll(
            bottom[0], bottom[1], k.temp("prob", bottom[0].shape), loss, k.temp("norm", ()),
            axis=self._axis, ignore=ignored(self), normalize=normalization(self),
        )  # fmt: skip
        k.pointwise([loss], top[0], expr="exp(a)")


__all__ = ["CTCDecode", "CTCLoss", "EditDistance", "Perplexity", "edit_distance"]
