"""The backward pass of recorded calls: their rules, in reverse."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...program import LOSS, Call, Origin, Recorder
from ...types import Tensor
from .base import RULES, Gradients


def needing(calls: Iterable[Call], roots: Iterable[Tensor]) -> set[Tensor]:
    """The roots and everything computed from them by kernels that pass gradients."""
    needed = set(roots)
    for call in calls:
        if call.op.name not in RULES:
            continue
        if any(t.root in needed and not t.is_stopped for t in call.reads()):
            needed.update(t.root for t in call.writes() if t.dtype.startswith("float"))
    return needed


def backward(
    recorder: Recorder,
    calls: Sequence[Call],
    roots: Iterable[Tensor],
    losses: Iterable[tuple[Tensor, float]] = (),
    seeds: Iterable[tuple[Tensor, Tensor]] = (),
) -> dict[Tensor, Tensor]:
    """Record the backward pass of ``calls`` after them.

    Args:
        roots: tensors whose gradients are wanted (parameters, inputs).
        losses: tensors and the constant gradient each starts with (loss weights).
        seeds: tensors and the tensor that holds the gradient each starts with.

    Returns:
        Gradient of every tensor that was reached, the roots among them.
    """
    g = Gradients(recorder, needing(calls, roots))
    for tensor, weight in losses:
        if g.wants(tensor):
            recorder.origin = LOSS.backward
            recorder.fill(g.new(tensor), value=weight)
            g.settle()
    for tensor, seed in seeds:
        if g.wants(tensor):
            g.seed(tensor, seed)
    g.repeated = _repeated(calls)
    for call in reversed(calls):
        if recorder.origin != call.origin.backward:
            g.catch_up()
        function = RULES.get(call.op.name)
        if function is None or not any(g.has(t) for t in call.writes()):
            continue
        if not any(g.wants(t) for t in call.reads()):
            continue
        recorder.origin = call.origin.backward
        function(recorder, g, *call.args, **call.attrs)
        g.settle()
    g.catch_up()
    return g.found()


def _repeated(calls: Iterable[Call]) -> set[tuple[Origin, Tensor]]:
    """Parameters that several calls of one layer read, with the layer."""
    seen: set[tuple[Origin, Tensor]] = set()
    found: set[tuple[Origin, Tensor]] = set()
    for call in calls:
        for weight in dict.fromkeys(t.root for t in call.reads()):
            if weight.kind == "learned":
                key = call.origin, weight
                (found if key in seen else seen).add(key)
    return found
