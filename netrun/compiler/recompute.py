"""Less memory for more arithmetic: what is cheap to compute is not kept for backward but computed a second time.

Cheap is what moves numbers more than it works on them: activations, pooling, normalisation, concat, masks. A value of a
forward pass that backward reads is dropped if all that its call reads is there anyway when backward needs it (a
parameter, an input, something another layer keeps), or was dropped itself, a few calls deep. Its call then stands in
the program a second time, right before the first call of backward that reads the value. After T. Chen et al.,
"Training deep nets with sublinear memory cost", 2016, with the segments chosen by cost instead of by length.
"""

from __future__ import annotations

from collections.abc import Callable

from ..kernels import CHANGES
from ..program import Call, Program
from ..types import PERSISTENT, Tensor
from .passes import drop_unread, elide_copies
from .plan import plan

CHEAP = frozenset({
    "fill", "copy", "pointwise", "concat", "split", "slice", "place", "transpose", "pool_max", "pool_avg",
    "pool_random", "lrn", "normalize", "softmax", "random", "gather",
})  # fmt: skip
"""Kernels worth running twice."""

DEPTHS = (2, 4, 8, 16)
"""Calls that one value may take to bring back: longer chains store less, but a chain that is brought back is alive at
once. Which is best depends on the net, so each is planned."""


def recompute(program: Program) -> Program:
    """The program with cheap values computed again in backward; itself where that would save nothing."""
    return min((program, *(_rewritten(program, _dropped(program, deepest)) for deepest in DEPTHS)), key=_bytes)


def _bytes(program: Program) -> int:
    """What a session of it would plan between calls."""
    return plan(drop_unread(elide_copies(program)[0])).arena


def _is_backward(call: Call) -> bool:
    return call.origin.is_backward


def _dropped(program: Program, deepest: int) -> dict[Tensor, Call]:
    """Every tensor that backward can have computed again, and the call that makes it."""
    first: dict[Tensor, int] = {}
    last: dict[Tensor, int] = {}
    changes: dict[Tensor, list[int]] = {}
    for at, call in enumerate(program.calls):
        if _is_backward(call):
            for t in call.reads():
                first.setdefault(t.root, at)
        for t in call.reads():
            last[t.root] = at
        if call.op.name in CHANGES:
            for t in call.writes():
                changes.setdefault(t.root, []).append(at)
    turn = next((i for i, call in enumerate(program.calls) if _is_backward(call)), len(program.calls))
    depth: dict[Tensor, int] = {}  # of what can be brought back; absent: cannot
    found: dict[Tensor, Call] = {}
    for at, call in enumerate(program.calls[:turn]):
        made = [t.root for t in call.writes()]
        stays = any(t in program.keeps or t.kind in PERSISTENT for t in made)
        needed = min((first[t] for t in made if t in first), default=turn)

        def cost(x: Tensor, at: int = at, needed: int = needed) -> int:
            if x in depth:
                return depth[x]
            there = x.kind in PERSISTENT or x in program.keeps or (last.get(x, 0) >= needed and x in first)
            return 0 if there and not any(at < c <= needed for c in changes.get(x, ())) else deepest

        deep = 1 + max((cost(t.root) for t in call.reads()), default=0)
        if call.op.name in CHEAP and not stays and deep <= deepest:
            depth.update(dict.fromkeys(made, deep))
            found.update(dict.fromkeys(made, call))
    return found


def _rewritten(program: Program, dropped: dict[Tensor, Call]) -> Program:
    again: dict[Tensor, Tensor] = {}
    calls: list[Call] = []

    def bring_back(tensor: Tensor) -> Tensor:
        root = tensor.root
        if root not in dropped:
            return tensor
        if root not in again:
            made = dropped[root]
            read = made.map(_keeping(made, bring_back))
            for t in made.writes():
                again.setdefault(t.root, Tensor(f"{t.root.name}~", t.root.spec, t.root.kind))
            written = {t.root for t in made.writes()}
            call = read.map(lambda t: again[t.root].view(t.shape) if t.root in written else t)
            calls.append(Call(call.op, call.args, call.attrs, made.origin.backward))
        return again[root].view(tensor.shape)

    for call in program.calls:
        calls.append(call.map(_keeping(call, bring_back)) if _is_backward(call) else call)
    return program.having(calls)


def _keeping(call: Call, change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """``change`` for what the call reads; what it writes stays."""
    written = {t.root for t in call.writes()}
    return lambda t: t if t.root in written else change(t)


__all__ = ["recompute"]
