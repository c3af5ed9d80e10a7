"""Connectionist temporal classification on the host: as the definition reads, and all sequences of a batch at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..kernels import Kernels
from .host import refuse, whole_numbers

Array = npt.NDArray[Any]


def lengths(x: Array, label: Array, steps: Array, count: Array) -> tuple[Array, Array, Array]:
    """Steps and labels of each sequence, and the labels as whole numbers.

    Raises:
        DataError: a label that counts is no class.
    """
    ends, used = (whole_numbers(v).reshape(-1).clip(0, most) for v, most in ((steps, len(x)), (count, label.shape[1])))
    classes = whole_numbers(label)
    bad = (np.arange(label.shape[1]) < used[:, None]) & ((classes < 0) | (classes >= x.shape[2]))
    if bad.any():
        refuse("label", label, bad, x.shape[2], lambda: f"the scores have {x.shape[2]} classes")
    return ends, used, classes


class Alignments(Kernels):
    """The kernel ctc of device "reference": one sequence after another, by the recurrences of the paper."""

    def ctc(self, x: Array, label: Array, steps: Array, count: Array, loss: Array, slope: Array, *, blank: int) -> None:
        ends, used, classes = lengths(x, label, steps, count)
        slope[...], loss[...] = 0, 0
        for n, (end, length) in enumerate(zip(ends, used, strict=True)):
            score = x[:end, n].astype(np.float64)
            log_p = score - np.logaddexp.reduce(score, axis=1, keepdims=True)
            places = np.full(2 * length + 1, blank)
            places[1::2] = classes[n, :length]
            ahead = _walk(log_p, places, blank)
            back = _walk(log_p[::-1], places[::-1], blank)[::-1, ::-1]  # both hold the step's own probability
            total = np.logaddexp.reduce(ahead[-1, -2:]) if end else 0.0 if length == 0 else -np.inf
            if total == -np.inf:
                continue
            loss[n] = -total
            at_place = np.exp(ahead + back - log_p[:, places] - total)
            seen = np.zeros_like(log_p)
            for s, c in enumerate(places):
                seen[:, c] += at_place[:, s]
            slope[:end, n] = np.exp(log_p) - seen


def _walk(log_p: Array, places: Array, blank: int) -> Array:
    """T S: the logarithm of the probability of all ways that are at place s at step t."""
    sums = np.full((len(log_p), len(places)), -np.inf)
    for t, row in enumerate(log_p):
        for s, c in enumerate(places):
            if t == 0:
                reach = 0.0 if s < 2 else -np.inf
            else:
                before = sums[t - 1, max(0, s - 1) : s + 1]
                reach = np.logaddexp.reduce(before)
                if s > 1 and c not in (blank, places[s - 2]):
                    reach = np.logaddexp(reach, sums[t - 1, s - 2])
            sums[t, s] = reach + row[c]
    return sums


# ----------------------------------------------------------------------------------------------------------------- fast
def ctc(
    x: Array, label: Array, steps: Array, count: Array, loss: Array, slope: Array, scratch: Any, *, blank: int
) -> Callable[[], None]:
    """Kernels.ctc, bound: a step of the walk for all places of all sequences at once."""
    most, streams, _ = x.shape
    size = 2 * label.shape[1] + 1
    rows, step_rows = np.arange(streams), np.arange(most)
    ahead = np.full((most, streams, size + 2), -np.inf)  # two places in front that nothing reaches
    back = np.full((most + 1, streams, size + 2), -np.inf)  # and two behind
    places = np.full((streams, size), blank)
    spread = np.arange(size)

    def run() -> None:
        ends, used, classes = lengths(x, label, steps, count)
        places[:, 1::2] = np.where(np.arange(label.shape[1]) < used[:, None], classes, blank)
        inside = spread < 2 * used[:, None] + 1
        skip = np.zeros(places.shape, bool)
        skip[:, 2:] = (places[:, 2:] != blank) & (places[:, 2:] != places[:, :-2])
        highest = x.max(axis=2, keepdims=True)
        np.subtract(x, highest, slope)
        np.exp(slope, slope)
        sums = slope.sum(axis=2, keepdims=True, dtype=np.float64)
        np.divide(slope, sums, slope, casting="same_kind")
        log_p = np.take_along_axis(x, np.broadcast_to(places, (most, *places.shape)), 2) - highest - np.log(sums)
        log_p[:, ~inside] = -np.inf
        closed = np.where(skip, 0.0, -np.inf)
        for t in range(most):
            if t == 0:
                ahead[0, :, 2:] = np.where(spread < 2, log_p[0], -np.inf)
                continue
            old = ahead[t - 1]
            ahead[t, :, 2:] = _log_sum(old[:, 2:], old[:, 1:-1], old[:, :-2] + closed) + log_p[t]
        opened = np.concatenate([closed[:, 2:], np.full((streams, 2), -np.inf)], axis=1)
        target = np.where(np.isin(spread - 2 * used[:, None], (-1, 0)), 0.0, -np.inf)
        back[most] = -np.inf
        for t in reversed(range(most)):
            new = back[t + 1]
            here = _log_sum(new[:, :-2], new[:, 1:-1], new[:, 2:] + opened)
            last = (ends == t + 1)[:, None]
            back[t, :, :-2] = np.where(last, target, here) + log_p[t]
        total = np.where((ends == 0) & (used == 0), 0.0, -np.inf)
        some = ends > 0
        at_end = ahead[ends[some] - 1, rows[some], :][:, 2:]
        total[some] = np.logaddexp.reduce(np.where(target[some] == 0, at_end, -np.inf), axis=1)
        fits = total > -np.inf
        loss[...] = np.where(fits, -total, 0).reshape(loss.shape)
        at_place = np.exp(ahead[:, :, 2:] + back[:most, :, :-2] - np.where(log_p > -np.inf, log_p, 0)
                          - np.where(fits, total, 0)[:, None])  # fmt: skip
        at_place[np.isnan(at_place)] = 0
        for s in range(size):  # a place is one class of each sequence: no two add to the same element
            slope[:, rows, places[:, s]] -= at_place[:, :, s].astype(slope.dtype)
        slope[(step_rows[:, None] >= ends) | ~fits] = 0

    return run


def _log_sum(a: Array, b: Array, c: Array) -> Array:
    total: Array = np.logaddexp(np.logaddexp(a, b), c)
    return total


__all__ = ["Alignments", "ctc", "lengths"]
