"""Pointwise calls put into those that read what they make: less is written and read again.

A pointwise call goes where all who read its result are pointwise calls, reductions or sums that can compute it
themselves, and where fewer tensors then pass through memory. Running statistics, which nobody reads before the next
run, are updated together with the parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from netrun.expression import Apply, Node, Var, letters, parse, substitute, text_of
from netrun.expression import walk as nodes
from netrun.kernels import CHANGES
from netrun.program import Call, Program
from netrun.types import PERSISTENT, Tensor

from .adding import adds
from .batch import SUMS
from .norms import apart

MOST_INPUTS = 10
"""Tensors that one kernel reads at most: each takes registers."""

MOST_NODES = 80
"""The size of an expression."""

SLOW = frozenset(
    {"exp", "expm1", "log", "log1p", "sin", "cos", "erf", "tanh", "sigmoid", "softplus", "elu", "pow", "sqrt", "div"}
)
"""What is not computed twice to save a pass over memory."""

_Key = tuple[Tensor, tuple[int, ...]]


def _never(call: Call) -> bool:
    return False


def fused(program: Program, takes_sums: Callable[[Call], bool] = _never) -> Program:
    """The program with its pointwise calls fused and its normalisations taken apart.

    A program whose layers may run one by one, with somebody looking at what is between them, stays as it is.

    Args:
        takes_sums: whether the device runs a call with the attribute ``add`` (adding.py).
    """
    return program if program.visible else _updated_last(_Fusing(apart(program), takes_sums).run())


class _Fusing:
    def __init__(self, program: Program, takes_sums: Callable[[Call], bool]) -> None:
        self.program = program
        self.added = adds(program, takes_sums)
        self.calls: list[Call | None] = list(program.calls)
        self.readers: dict[Tensor, list[int]] = {}
        self.changes: dict[Tensor, list[int]] = {}
        moved: set[Tensor] = set()
        for i, call in enumerate(program.calls):
            for root in dict.fromkeys(t.root for t in call.reads()):
                self.readers.setdefault(root, []).append(i)
            if call.op.name in CHANGES:
                for t in call.writes():
                    self.changes.setdefault(t.root, []).append(i)
            if call.op.name == "slice":
                moved.add(call.writes()[0].root)
            if call.op.name == "concat":
                moved.update(t.root for t in call.reads())
        self.parts = moved
        """What slices.py may make a part of a larger tensor, which reductions do not read in place."""

    def run(self) -> Program:
        for i, call in enumerate(self.program.calls):
            if call.op.name == "pointwise":
                self._try(i)
        return self.program.having(call for call in self.calls if call is not None)

    def _try(self, i: int) -> None:
        call = self.calls[i]
        assert call is not None
        y, given = call.writes()[0], call.reads()
        after = self.readers.get(y.root, [])
        if not after or y.base is not None or y in self.program.keeps or y.kind in PERSISTENT or y.kind == "grad":
            return
        inner = parse(call.attrs["expr"])
        if len(after) > 1 and any(isinstance(n, Apply) and n.op in SLOW for n in nodes(inner)):
            return
        if len(after) > 1 and self.added(call):
            return
        if any(i < at < max(after) for t in given for at in self.changes.get(t.root, ())):
            return
        big = {_key(t) for t in given if t.spec.count == y.spec.count}
        readers = [self.calls[j] for j in after]
        if len(big) > 1 and any(r is not None and _backward(r) and not _backward(call) for r in readers):
            return  # several tensors would be kept for backward instead of one
        gain, made = len(big) + 1 + len(after), []
        for reader in readers:
            assert reader is not None
            grown = self._inlined(reader, call, inner)
            if grown is None:
                return
            gain -= len(big - {_key(t) for t in reader.reads()})
            made.append(grown)
        if gain <= 0:
            return
        for j, grown in zip(after, made, strict=True):
            self.calls[j] = grown
        self.calls[i] = None
        for root in dict.fromkeys(t.root for t in given):
            self.readers[root] = sorted({*self.readers[root], *after} - {i})

    def _inlined(self, reader: Call, call: Call, inner: Node) -> Call | None:
        """The reader computing for itself what the call makes; None where it cannot."""
        if reader.op.name not in ("pointwise", "reduce") and reader.op is not SUMS:
            return None
        y, xs = call.writes()[0], reader.reads()
        given = call.reads()
        whole = np.broadcast_shapes(*(t.shape for t in xs))
        if reader.op.name == "pointwise":
            whole = reader.writes()[0].shape
        elif any(t.root in self.parts for t in given):
            return None
        if any(t.root is y.root and t.shape != y.shape for t in xs) or tuple(whole) != tuple(y.shape):
            return None
        if any(t.root is w.root for t in given for w in reader.writes()):
            return None
        kept = {_key(t): t for t in xs if t.root is not y.root}
        kept |= {_key(t): t for t in given if _key(t) not in kept}
        if len(kept) > MOST_INPUTS or np.broadcast_shapes(*(t.shape for t in kept.values())) != tuple(whole):
            return None
        names = dict(zip(kept, letters(len(kept)), strict=True))
        inside = substitute(inner, _renamed(given, names))
        outer: dict[Node, Node] = {
            Var(n): inside if t.root is y.root else Var(names[_key(t)])
            for n, t in zip(letters(len(xs)), xs, strict=True)
        }
        attrs = dict(reader.attrs)
        for name in ("expr", "other"):
            if name in attrs:
                tree = substitute(parse(attrs[name]), outer)
                if sum(1 for _ in nodes(tree)) > MOST_NODES:
                    return None
                attrs[name] = text_of(tree)
        return replace(reader, args=(tuple(kept.values()), *reader.args[1:]), attrs=attrs)


def _key(t: Tensor) -> _Key:
    return t.root, tuple(t.shape)


def _renamed(given: list[Tensor], names: Mapping[_Key, str]) -> dict[Node, Node]:
    return {Var(n): Var(names[_key(t)]) for n, t in zip(letters(len(given)), given, strict=True)}


def _backward(call: Call) -> bool:
    return call.origin.is_backward


def _updated_last(program: Program) -> Program:
    """Updates of what nobody touches any more in this run come last: merge.py makes one launch of them."""
    touched: dict[Tensor, int] = {}
    written: dict[Tensor, int] = {}
    for i, call in enumerate(program.calls):
        touched.update((t.root, i) for t in call.tensors())
        written.update((t.root, i) for t in call.writes())
    first: list[Call] = []
    last: list[Call] = []
    for i, call in enumerate(program.calls):
        changed = {t.root for t in call.writes()}
        free = call.op.name == "update" and all(touched[root] == i for root in changed)
        free = free and all(written.get(t.root, i) <= i for t in call.reads())
        (last if free else first).append(call)
    return program.having([*first, *last])


__all__ = ["fused"]
