"""The updates of many parameters as few launches: a net has one update a parameter, and most follow the same rule. So
have casts between element types, where several follow one another."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from netrun.expression import rule

from .capture import Bound
from .launch import Step
from .turned import UPDATE_TURNED
from .turned import together as turned_together
from .update import together

if TYPE_CHECKING:
    from .device import Cuda


UPDATES = ("update", UPDATE_TURNED.name)

CAST = rule(["x"], ["y"], "y = x")
"""A cast as an update, many of which are one launch."""


def merged(device: Cuda, steps: Sequence[Step]) -> list[Step]:
    """The steps with each stretch of updates, and of casts, grouped where their order does not matter."""
    found: list[Step] = []
    stretch: list[Bound] = []
    now = ""
    for step in steps:
        kind = _kind(step)
        if kind != now or (kind == "copy" and isinstance(step, Bound) and not _apart(stretch, step)):
            found += _grouped(device, stretch)
            stretch = []
        now = kind
        if kind and isinstance(step, Bound):
            stretch.append(step)
        else:
            found.append(step)
    return found + _grouped(device, stretch)


def _kind(step: Step) -> str:
    """ "update", "copy" for a cast, or "" for anything else."""
    if not isinstance(step, Bound):
        return ""
    name = step.call.op.name
    cast = name == "copy" and step.args[0].dtype.name != step.args[1].dtype.name and step.args[0].size > 0
    return "update" if name in UPDATES else name if cast else ""


def _apart(stretch: Sequence[Bound], step: Bound) -> bool:
    """Whether a cast touches nothing that others touch, of which one of the two writes: memory is used again."""
    x, y = (_span(a) for a in step.args)
    for other in stretch:
        a, b = (_span(o) for o in other.args)
        if _meet(y, a) or _meet(y, b) or _meet(x, b):
            return False
    return True


def _span(array: Any) -> tuple[int, int]:
    return int(array.data.ptr), int(array.data.ptr) + int(array.nbytes)


def _meet(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] < b[1] and b[0] < a[1]


def _grouped(device: Cuda, stretch: Sequence[Bound]) -> list[Step]:
    if len(stretch) < 2 or (_kind(stretch[0]) == "update" and not _independent(stretch)):
        return list(stretch)
    groups: dict[Any, list[tuple[Bound, Any]]] = {}
    turned: dict[Any, list[Bound]] = {}
    for step in stretch:
        if step.call.op is UPDATE_TURNED:
            kinds = tuple(tuple(a.dtype.name for a in arrays) for arrays in step.args)
            turned.setdefault((step.call.attrs["rule"], step.call.attrs["turned"], kinds), []).append(step)
            continue
        cast = _kind(step) == "copy"
        xs, vs = ((step.args[0].reshape(-1),), (step.args[1].reshape(-1),)) if cast else step.args
        kinds = tuple(tuple(a.dtype.name for a in arrays) for arrays in (xs, vs))
        groups.setdefault((CAST if cast else step.call.attrs["rule"], kinds), []).append((step, (xs, vs)))
    found: list[Step] = []
    for (how, _), group in groups.items():
        one = together(device, how, [arrays for _, arrays in group]) if len(group) > 1 else None
        found += [step for step, _ in group] if one is None else [one]
    for (how, at, _), steps in turned.items():
        found.append(turned_together(device, how, at, [step.args for step in steps]) if len(steps) > 1 else steps[0])
    return found


def _independent(stretch: Sequence[Bound]) -> bool:
    """Whether nothing that one of the calls changes is touched by another. Arrays may lie within others: small
    parameters and states do, side by side in one that a single update changes (compiler/together.py)."""
    written: list[tuple[int, int, int]] = []
    for i, step in enumerate(stretch):
        arrays = (*step.args[1], *(step.args[2] if len(step.args) > 2 else ()))
        written += [(*_span(a), i) for a in arrays if a.nbytes]
    written.sort()
    if any(end > begin for (_, end, _), (begin, _, _) in pairwise(written)):
        return False
    for i, step in enumerate(stretch):
        for begin, end in (_span(x) for x in step.args[0] if x.nbytes):
            at = bisect_left(written, (end,)) - 1  # the last that begins before the end of what is read
            while at >= 0 and written[at][1] > begin:
                if written[at][2] != i:
                    return False
                at -= 1
    return True
