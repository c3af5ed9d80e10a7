"""Small updates become one: what they change and what they read lies side by side, as one flat tensor each.

A net has an update a parameter, and most parameters are small: to start their updates takes longer than to compute
them. Those that follow one rule with the same numbers become a single update of flat tensors. The parameters, their
gradients and what the solver carries for them stay tensors of their own, with memory of their own within the flat ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ..program import SOLVER, UPDATE, Call, Program
from ..types import PERSISTENT, PLAIN, Spec, Tensor
from .plan import places

LARGEST = 64 * 1024
"""Elements of a parameter from which on an update of its own is as good.

What is joined has its place in the arena as long as the first and the last of it are needed, so large gradients are
not: all of them together would lie there while the backward pass begins, which is when most else does too.
"""

Column = tuple[Tensor, ...]
"""Tensors that lie side by side: an argument of all the calls that become one."""


@dataclass(eq=False)
class _Group:
    """Update calls that may become one, in the place of the last of them."""

    calls: list[Call] = field(default_factory=list)
    rows: list[tuple[Tensor, ...]] = field(default_factory=list)
    """Of every call the arrays it takes, in order: inputs that are no single numbers, then variables."""
    read: set[Tensor] = field(default_factory=set)
    changed: set[Tensor] = field(default_factory=set)

    @property
    def columns(self) -> list[Column]:
        return list(zip(*self.rows, strict=True))

    def bears(self, call: Call) -> bool:
        """Whether it makes no difference that this call runs before all of the group."""
        return not (
            self.changed.intersection(t.root for t in call.tensors())
            or self.read.intersection(t.root for t in call.writes())
        )

    def add(self, call: Call, row: tuple[Tensor, ...]) -> None:
        self.calls.append(call)
        self.rows.append(row)
        self.read.update(t.root for t in call.reads())
        self.changed.update(t.root for t in call.writes())


def columns(program: Program) -> list[list[Column]]:
    """What would have to lie side by side for every set of updates that may become one. Without the tensors that live
    only within a run, for which the planner finds a place."""
    kept = [[c for c in group.columns if c[0].kind in PERSISTENT] for group in _groups(program)]
    return [group for group in kept if group]


def together(program: Program, lie: Callable[[list[Column]], bool]) -> Program:
    """The program with updates joined.

    Args:
        lie: whether these tensors, which outlive a run, lie side by side.
    """
    found = [g for g in _groups(program) if lie([c for c in g.columns if c[0].kind in PERSISTENT])]
    if not found:
        return program
    flats: dict[Tensor, Column] = {}
    gone = {id(call) for group in found for call in group.calls[:-1]}
    changed = {id(group.calls[-1]): _joined(group, number, flats) for number, group in enumerate(found, 1)}
    calls = (changed.get(id(call), call) for call in program.calls if id(call) not in gone)
    return replace(program, calls=tuple(calls), flats=flats)


def _joined(group: _Group, number: int, flats: dict[Tensor, Column]) -> Call:
    """The calls of a group as one; ``flats`` gets the tensors it takes."""
    last = group.calls[-1]
    args: Any = last.args
    names = iter([*last.attrs["rule"].inputs, *last.attrs["rule"].variables])
    made = iter(group.columns)
    row = set(group.rows[-1])

    def flat(tensor: Tensor) -> Tensor:
        name = next(names)
        if tensor.root not in row:
            return tensor
        members = next(made)
        kind = tensor.root.kind if tensor.root.kind in PERSISTENT else "buffer"
        spec = Spec((places(members)[1] // 4,), tensor.dtype)
        found = Tensor(f"({len(members)} updates {number}).{name}", spec, kind)
        flats[found] = members
        return found

    found = tuple(tuple(flat(t) for t in arg) for arg in args)
    return replace(last, args=found, origin=SOLVER if last.origin.way == UPDATE else last.origin)


def _groups(program: Program) -> list[_Group]:
    """The sets of updates that may become one, without those that have one call only."""
    if program.visible:  # the calls of a layer may run alone
        return []
    found: list[_Group] = []
    open_: dict[Any, _Group] = {}
    taken: set[Tensor] = set()
    for call in program.calls:
        key, row = _kind(call, program)
        for other, group in list(open_.items()):
            if not group.bears(call):
                del open_[other]
        if key is None or taken.intersection(row):
            continue
        if key not in open_:
            open_[key] = _Group()
            found.append(open_[key])
        open_[key].add(call, row)
        taken.update(row)
    return [group for group in found if len(group.calls) > 1]


def _kind(call: Call, program: Program) -> tuple[Any, tuple[Tensor, ...]]:
    """What updates must have in common to become one (None: it stays alone), and the arrays of this one."""
    if call.op.name != "update":
        return None, ()
    args: Any = call.args
    xs, vs = args
    shape, count = vs[0].shape, vs[0].spec.count
    single = [x.shape != shape for x in xs]
    row = tuple(t.root for t in (*(x for x, one in zip(xs, single, strict=True) if not one), *vs))
    if not shape or not 0 < count <= LARGEST or any(v.kind not in PERSISTENT for v in vs):
        return None, ()
    if any(x.spec.count != 1 for x, one in zip(xs, single, strict=True) if one) or len({*row}) != len(row):
        return None, ()
    if any(t.spec.count != count or t.dtype != "float32" or t.spec.layout != PLAIN for t in row):
        return None, ()
    if any(t in program.keeps or t in program.homes or t in program.scales or t.kind == "feed" for t in row):
        return None, ()
    shared = tuple((x.root, x.shape) for x, one in zip(xs, single, strict=True) if one)
    kinds = tuple(t.kind if t.kind in PERSISTENT else "" for t in row)
    return (call.attrs["rule"], tuple(single), shared, kinds, call.origin.way), row


__all__ = ["Column", "columns", "together"]
