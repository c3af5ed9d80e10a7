"""Changes to a program that every device profits from. Each returns a new program; the meaning stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import replace

from ..kernels import CHANGES, EFFECTS
from ..program import Call, Program
from ..types import PERSISTENT, Tensor

_TRANSIENT = frozenset({"data", "diff", "buffer", "grad"})


def elide_copies(program: Program) -> tuple[Program, dict[Tensor, Tensor]]:
    """A copy between tensors that are written once becomes a view: no call, no memory. Also returns what became what.
    What joins the same parts once more (the gates' gradients of all steps of a loop) is such a copy too.

    Copies stay where one side changes later (parameters, statistics, states: ``update`` writes in place), where the
    element types differ, and where the program wants both sides apart.
    """
    changed = {t.root for call in program.calls if call.op.name in CHANGES for t in call.writes()}
    alias: dict[Tensor, Tensor] = {}
    joined: dict[tuple[Tensor, ...], Tensor] = {}

    def follow(tensor: Tensor) -> Tensor:
        target = alias.get(tensor.root)
        return tensor if target is None else target.view(tensor.shape)

    calls = []
    for call in program.calls:
        if call.op.name == "copy":
            x, y = call.tensors()
            x = follow(x)
            apart = y.root in program.apart or x.root in changed
            if x.dtype == y.dtype and y.root.kind in _TRANSIENT and not apart:
                alias[y.root] = x.view(y.root.shape)  # y may be a view, but a view shows all of its root
                continue
        call = call.map(follow)
        if call.op.name == "concat" and call.attrs["axis"] == 0:
            *xs, y = call.tensors()
            parts = tuple(x.root for x in xs)
            plain = y.root.kind in _TRANSIENT and y.root not in program.apart
            if plain and parts in joined and joined[parts].dtype == y.dtype:
                alias[y.root] = joined[parts].view(y.root.shape)
                continue
            if plain and not any(part in changed for part in parts):
                joined.setdefault(parts, y)
        calls.append(call)
    keeps = frozenset(follow(t).root for t in program.keeps)
    hidden = {follow(t).root for t in program.keeps - program.visible}
    visible = frozenset(follow(t).root for t in program.visible) - hidden
    scales = {follow(t).root: scale for t, scale in program.scales.items()}
    return replace(program, calls=tuple(calls), keeps=keeps, visible=visible, scales=scales), alias


def drop_unread(program: Program) -> Program:
    """Leave out calls whose results nobody reads and nobody keeps."""
    wanted = {t.root for t in program.keeps}
    kept = []
    for call in reversed(program.calls):
        outs = [t.root for t in call.writes()]
        if call.op.name in EFFECTS or any(t in wanted for t in outs):
            kept.append(call)
            wanted.update(t.root for t in call.reads())
    return program.having(reversed(kept))


def renewed_calls(program: Program, kinds: Collection[str]) -> list[Call]:
    """The calls that bring tensors of those kinds (parameters) into another form, where whoever changes a tensor in the
    program makes that form anew as well: they have to run only when somebody else has changed it."""
    changers: dict[Tensor, list[Call]] = {}
    makers: dict[Tensor, Call] = {}
    readers: dict[Tensor, list[Call]] = {}
    for call in program.calls:
        for t in call.writes():
            if call.op.changes:
                changers.setdefault(t.root, []).append(call)
            else:
                makers[t.root] = call
        for t in call.reads():
            readers.setdefault(t.root, []).append(call)
    found: set[Call] = set()
    for form, call in makers.items():
        if form not in changers or len(call.reads()) != 1 or call.op.name not in ("copy", "transpose"):
            continue
        chain, source = [call], call.reads()[0].root
        if source in makers and source not in changers and readers[source] == [call]:
            chain.append(makers[source])
            source = chain[-1].reads()[0].root if len(chain[-1].reads()) == 1 else source
        if source.kind in kinds and changers.get(source) == changers[form]:
            found.update(chain)
    return [call for call in program.calls if call in found]


def constant_calls(program: Program, kinds: Collection[str]) -> list[Call]:
    """The calls that give the same in every run as long as tensors of those kinds (parameters) stay as they are."""
    changed = {t.root for call in program.calls if call.op.changes for t in call.writes()}
    known: set[Tensor] = set()
    found = []
    for call in program.calls:
        reads = [t.root for t in call.reads()]
        made = [t.root for t in call.writes()]
        still = reads and all(t in known or (t.kind in kinds and t not in changed) for t in reads)
        plain = (
            call.op.name != "random"
            and call.op.name not in EFFECTS
            and not any(t in program.keeps or t.kind in PERSISTENT for t in made)
        )
        if still and plain:
            known.update(made)
            found.append(call)
    return found


LITTLE = 4096
"""Bytes of what a session keeps filled: a place of its own for more would cost more memory than it saves time."""


def filled_calls(program: Program) -> list[Call]:
    """The calls that fill little tensors with a number, the same in every run: what nobody else writes or sees."""
    changed = {t.root for call in program.calls if call.op.changes for t in call.writes()}
    changed |= {t.root for call in program.calls if call.op.name == "host" for t in call.tensors()}  # in a user's hands
    written = Counter(t.root for call in program.calls for t in call.writes())

    def lasts(t: Tensor) -> bool:
        own = t.kind in PERSISTENT or t in program.keeps or t in changed
        return not own and t.spec.nbytes <= LITTLE and written[t] == 1

    return [call for call in program.calls if call.op.name == "fill" and all(lasts(t.root) for t in call.writes())]
