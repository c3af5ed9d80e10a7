"""Attention of device "reference", as its definition reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..kernels import Kernels
from .host import whole_numbers

Array = npt.NDArray[Any]


class Looking(Kernels):
    """The kernels attention and attention_grad of device "reference"."""

    def attention(
        self, q: Array, k: Array, v: Array, lengths: Array | None, mask: Array | None, y: Array, lse: Array, *,
        scale: float, causal: bool,
    ) -> None:  # fmt: skip
        seen = visible((*q.shape[:3], k.shape[2]), lengths, mask, causal)
        score = np.where(seen, np.matmul(q, k.swapaxes(2, 3)) * q.dtype.type(scale), -np.inf)
        highest = score.max(axis=3, initial=-np.inf, keepdims=True)
        weight = np.exp(score - np.where(highest == -np.inf, 0, highest))
        total = weight.sum(axis=3, keepdims=True)
        y[...] = over_seen(weight / np.where(total == 0, 1, total), seen, v)
        lse[...] = (highest + np.log(total))[..., 0]

    def attention_grad(
        self, q: Array, k: Array, v: Array, lengths: Array | None, mask: Array | None, y: Array, lse: Array, dy: Array,
        dlse: Array | None, dq: Array, dk: Array, dv: Array, *, scale: float, causal: bool,
    ) -> None:  # fmt: skip
        seen = visible((*q.shape[:3], k.shape[2]), lengths, mask, causal)
        score = np.matmul(q, k.swapaxes(2, 3)) * q.dtype.type(scale)
        weight = np.where(seen, np.exp(score - np.where(lse == -np.inf, 0, lse)[..., None]), 0)
        total = weight.sum(axis=3, keepdims=True)
        weight = weight / np.where(total == 0, 1, total)
        own = (dy * y).sum(axis=3) - (0 if dlse is None else dlse)
        slope = np.where(seen, weight * (np.matmul(dy, v.swapaxes(2, 3)) - own[..., None]), 0) * q.dtype.type(scale)
        dq[...] = over_seen(slope, seen, k)
        dk[...] = over_seen(slope.swapaxes(2, 3), seen.swapaxes(2, 3), q)
        dv[...] = over_seen(weight.swapaxes(2, 3), seen.swapaxes(2, 3), dy)


def visible(places: tuple[int, ...], lengths: Array | None, mask: Array | None, causal: bool) -> npt.NDArray[np.bool_]:
    """Whether a query may look at a key, N H Tq Tk."""
    queries, keys = places[2:]
    seen = np.ones(places, bool)
    if lengths is not None:
        seen &= np.arange(keys) < whole_numbers(lengths)[..., None]
    if mask is not None:
        seen &= mask != 0
    if causal:
        seen &= np.arange(keys) <= np.arange(queries)[:, None] + (keys - queries)
    return seen


def over_seen(weight: Array, seen: Array, x: Array) -> Array:
    """The sum over j of weight[.., i, j] x[.., j, :], over what i may see alone. What is not finite there becomes NaN;
    the weight of what is not seen is 0."""
    finite = np.isfinite(x)
    total: Array = np.matmul(weight, np.where(finite, x, 0))
    if not finite.all():
        total[np.matmul(seen.astype(x.dtype), (~finite).astype(x.dtype)) > 0] = np.nan
    return total


__all__ = ["Looking", "over_seen", "visible"]
