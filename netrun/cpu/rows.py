"""merge_rows and update_rows, bound: the work grows with the rows of a batch, not with those of the table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..expression import Rule
from ..kernels import OPS
from ..program import Call
from ..types import Tensor
from . import pointwise
from .host import refuse, whole_numbers
from .memory import Array, Part, carve, carved_bytes, chain

Step = Callable[[], Any]


def merge_rows(index: Array, x: Array, rows: Array, y: Array, scratch: Any) -> Step:
    """Kernels.merge_rows, bound: a stable sort brings equal indices together, in their order."""
    given, flat = index.reshape(-1), x.reshape(y.shape)

    def run() -> None:
        numbers = whole_numbers(given)
        order = np.argsort(numbers, kind="stable")
        order = order[np.searchsorted(numbers[order], 0) :]  # without the negative ones
        numbers = numbers[order]
        rows.fill(-1)
        y.fill(0)
        if not order.size:
            return
        begins = np.flatnonzero(np.concatenate([[True], numbers[1:] != numbers[:-1]]))
        homes, lengths = order[begins], np.diff(begins, append=order.size)
        rows[homes] = numbers[begins]
        y[homes] = flat[homes]
        several = lengths > 1  # sums of one cost far more than copies
        if several.any():
            parts = order[np.repeat(several, lengths)]
            starts = np.cumsum(lengths[several]) - lengths[several]
            y[homes[several]] = np.add.reduceat(flat[parts], starts, axis=0)

    return run


def update_rows(index: Array, xs: Sequence[Array], vs: Sequence[Array], scratch: Any, *, rule: Rule) -> Step:
    """Kernels.update_rows, bound: the rows copied out of the tables, the rule run on them, the rows copied back.

    Entries that are passed over have a row as well (the first of the table), which is not copied back: so the blocks
    have one size, and the rule is bound once.
    """
    shape = (index.size, *vs[0].shape[1:])
    parts: list[Part] = [(shape, v.dtype) for v in vs]
    blocks = carve(scratch, parts)
    rest = None if scratch is None else scratch[carved_bytes(parts) :]
    body = pointwise.update(xs, blocks, rest, rule=rule) if index.size else chain([])
    limit = vs[0].shape[0]

    def run() -> None:
        rows = whole_numbers(index)
        if (rows >= limit).any():
            refuse("index", index, rows >= limit, limit)
        for v, block in zip(vs, blocks, strict=True):
            np.take(v, rows, axis=0, out=block, mode="clip")
        body()
        used = rows >= 0
        rows = rows[used]
        for v, block in zip(vs, blocks, strict=True):
            v[rows] = block[used]

    return run


def workspace(call: Call) -> int:
    """Scratch bytes of update_rows: the copied rows, and what the rule takes."""
    index, xs, vs = call.args
    assert isinstance(index, Tensor)
    assert isinstance(vs, tuple)
    blocks = tuple(Tensor(v.name, replace(v.spec, shape=(index.spec.count, *v.shape[1:])), "buffer") for v in vs)
    parts: list[Part] = [(b.shape, np.dtype(b.dtype)) for b in blocks]
    rule = Call(OPS["update"], (xs, blocks), call.attrs, call.origin)
    return carved_bytes(parts) + (pointwise.workspace(rule) if math.prod(blocks[0].shape) else 0)


__all__ = ["merge_rows", "update_rows", "workspace"]
