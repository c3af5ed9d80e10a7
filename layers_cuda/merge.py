"""The updates of many parameters as few launches: a net has one update a parameter, and most follow the same rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .capture import Bound
from .launch import Step
from .update import together

if TYPE_CHECKING:
    from .device import Cuda


def merged(device: Cuda, steps: Sequence[Step]) -> list[Step]:
    """The steps with each stretch of updates grouped by rule, where the order within the stretch does not matter."""
    found: list[Step] = []
    stretch: list[Bound] = []
    for step in steps:
        if isinstance(step, Bound) and step.call.op.name == "update":
            stretch.append(step)
            continue
        found += [*_grouped(device, stretch), step]
        stretch = []
    return found + _grouped(device, stretch)


def _grouped(device: Cuda, stretch: Sequence[Bound]) -> list[Step]:
    if len(stretch) < 2 or not _independent(stretch):
        return list(stretch)
    groups: dict[Any, list[Bound]] = {}
    for step in stretch:
        kinds = tuple(tuple(a.dtype.name for a in arrays) for arrays in step.args)
        groups.setdefault((step.call.attrs["rule"], kinds), []).append(step)
    found: list[Step] = []
    for (rule, _), group in groups.items():
        one = together(device, rule, [(xs, vs) for xs, vs in (step.args for step in group)]) if len(group) > 1 else None
        found += group if one is None else [one]
    return found


def _independent(stretch: Sequence[Bound]) -> bool:
    """Whether nothing that one of the calls changes is touched by another."""
    changed: dict[int, int] = {}
    for i, step in enumerate(stretch):
        for array in step.args[1]:
            if changed.setdefault(array.data.ptr, i) != i:
                return False
    return all(changed.get(x.data.ptr, i) == i for i, step in enumerate(stretch) for x in step.args[0])
