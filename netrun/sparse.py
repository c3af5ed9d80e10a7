"""Tables of which an iteration uses few rows: what is recorded so that it touches no others.

Their gradient is that of the gathered rows, so nothing of the table's size is made: it goes to ``merge_rows``, which
adds up what belongs to one row, and from there to clipping and ``update_rows``: the lazy form of a solver's rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from .compiler.record import Recording
from .compiler.sharing import Parameter
from .config import schema
from .program import Call, Recorder
from .types import Spec, Tensor
from .updates import is_trusted


def asked_for(parameters: Iterable[Parameter]) -> list[Parameter]:
    """Those, owners only, that a layer declares as sparse."""
    return [p for p in parameters if any(one.declared.sparse for one in (p, *p.sharers))]


def is_dense(parameter: Parameter, why: str) -> str:
    """The line of the log for a table whose gradient is dense all the same."""
    return f"sparse_gradient of layer {parameter.layer} has no effect, its gradient is dense: {why}"


def lookups(recording: Recording, solver: schema.SolverParameter) -> tuple[dict[Parameter, Call], list[str]]:
    """The one gather of every table that is trained by rows, and a line for every other that was to be."""
    found: dict[Parameter, Call] = {}
    notices = []
    for parameter in asked_for(recording.parameters):
        table = recording.parameters[parameter]
        uses = [call for call in recording.forward if any(t.root is table for t in call.reads())]
        layers = list(dict.fromkeys(call.origin for call in uses))
        if solver.iter_size > 1:
            why = f"iter_size {solver.iter_size} adds up the gradients of several batches"
        elif is_trusted(solver, parameter.decay_mult):
            why = f"{solver.type} measures the whole table"
        elif len(layers) > 1:
            why = f"layers {', '.join(map(str, layers))} use the table together"
        elif len(uses) != 1 or uses[0].op.name != "gather" or uses[0].args[0] is not table:
            why = f"it is used {len(uses)} times in an iteration"
        else:
            found[parameter] = uses[0]
            continue
        notices.append(is_dense(parameter, why))
    return found, notices


def rows_of(call: Call) -> Tensor:
    """What a gather takes out of its table."""
    rows = call.args[2]
    assert isinstance(rows, Tensor)
    return rows


def record_merge(recorder: Recorder, parameter: Parameter, call: Call, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Record the sums of the rows' gradients: the rows' numbers (-1: none) and their gradients."""
    table, index = call.args[:2]
    assert isinstance(table, Tensor)
    assert isinstance(index, Tensor)
    count = math.prod(index.shape)
    recorder.origin = call.origin.backward
    rows = recorder.new(f"{parameter.key}.rows", Spec((count,), "int32"), "buffer")
    sums = recorder.new(f"{parameter.key}'", Spec((count, *table.shape[1:]), gradient.dtype), "grad")
    recorder.merge_rows(index, gradient, rows, sums)
    return rows, sums


__all__ = ["asked_for", "is_dense", "lookups", "record_merge", "rows_of"]
