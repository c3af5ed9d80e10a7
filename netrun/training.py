"""The training iteration as a program: forward, backward, clipping and the update of every parameter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .compiler.gradients import backward, needing
from .compiler.graph import Graph
from .compiler.recompute import recompute
from .compiler.record import Recording, record
from .compiler.sharing import Parameter
from .config import schema
from .expression import letters, rule
from .loss_scale import LossScale
from .program import SOLVER, Call, Program, Recorder
from .runner import kept
from .sparse import lookups, record_merge, rows_of
from .types import Spec, Tensor
from .updates import METHODS, is_trusted, moves_without_gradient, told, trust_ratio, update_rule

_NOTHING = rule([], ["moved"], "moved = 0")
_FIRST = rule(["g", "first"], ["total"], "total = where(first, 0, total) + g")


@dataclass
class Training:
    """What is compiled for training.

    step       forward and backward; with iter_size 1 the update too
    update     the update alone where gradients add up over iter_size passes, else None
    saved      with snapshot_diff: by parameter what the last update subtracted, which Caffe leaves in its diff
    history    of every parameter the solver trains: the tensors it carries, in the order of a solver state
    """

    recording: Recording
    step: Program
    update: Program | None
    history: dict[Parameter, list[Tensor]] = field(default_factory=dict)
    gradients: dict[Tensor, Tensor] = field(default_factory=dict)
    saved: dict[Tensor, Tensor] = field(default_factory=dict)
    lr: Tensor = field(default_factory=lambda: Tensor("lr", Spec(()), "control"))
    correction: Tensor = field(default_factory=lambda: Tensor("correction", Spec(()), "control"))
    lookups: dict[Parameter, Call] = field(default_factory=dict)
    """Tables of which an iteration changes only the rows it used, and the gather that takes them."""
    rows: dict[Parameter, Tensor] = field(default_factory=dict)
    """Of those, the numbers of the rows to which the gradient belongs."""
    notices: list[str] = field(default_factory=list)
    """Lines for the log."""
    scaling: LossScale | None = None
    """What the loss is multiplied by in float16."""
    first: Tensor = field(default_factory=lambda: Tensor("first pass", Spec(()), "control"))

    @property
    def programs(self) -> list[Program]:
        """All of them, in the order of an iteration."""
        return [self.step] + ([self.update] if self.update else [])


def compile_training(graph: Graph, solver: schema.SolverParameter, keep_all: bool = False) -> Training:
    """Forward, derived backward and update of a graph as programs.

    Args:
        keep_all: keep every blob and gradient readable after a run (debug_info).
    """
    if solver.iter_size > 1:
        _check_branches(graph)
    recording = record(graph)
    recorder = recording.recorder
    trained = {
        parameter: tensor
        for parameter, tensor in recording.parameters.items()
        if parameter.trained and (parameter.lr_mult != 0 or graph.force_backward)
    }
    _check_targets(recording, set(trained.values()))
    scales = graph.numerics.precision == "FP16" and recording.losses and trained
    scaling = LossScale.of(recording) if scales else None
    tables, notices = lookups(recording, solver)
    roots = [t for p, t in trained.items() if p not in tables or keep_all]  # who looks at a gradient sees a whole one
    roots += [rows_of(call) for p, call in tables.items() if p in trained]
    if scaling is None:
        found = backward(recorder, recording.forward, roots, losses=recording.losses)
    else:
        seeds = scaling.seeds(recorder, recording.losses)
        found = backward(recorder, recording.forward, roots, seeds=seeds)
    result = Training(recording, Program(()), None, {}, found, lookups=tables, notices=notices, scaling=scaling)
    keeps = set(kept(recording))
    shown: dict[str, Any] = {}
    if keep_all:
        blobs = set(recording.tensors.values())
        slopes = {g for t, g in found.items() if t in blobs or t.kind == "learned"}
        shown["visible"] = frozenset((blobs | slopes) - keeps)
        keeps |= blobs | slopes
        if scaling is not None:
            keeps.add(scaling.factor)
            shown["scales"] = dict.fromkeys(slopes, scaling.factor)
    gradients = {}
    for parameter, tensor in trained.items():
        reached = rows_of(tables[parameter]).root if parameter in tables else tensor
        if reached not in found:
            continue
        gradients[parameter] = found[reached]
        if parameter in tables:
            merged = record_merge(recorder, parameter, tables[parameter], found[reached])
            result.rows[parameter], gradients[parameter] = merged
    for parameter in recording.parameters:
        names = [f"{parameter.key}.{name}" for name in METHODS[solver.type].history]
        result.history[parameter] = [recorder.new(name, parameter.spec, "history") for name in names]
    start = len(recorder.calls)
    if solver.iter_size > 1:
        gradients = _accumulate(recorder, gradients, result)
        start = len(recorder.calls)
    record_update(recorder, gradients, result, solver)
    calls = tuple(recorder.calls)
    if solver.iter_size > 1:
        calls, update = calls[:start], calls[start:]
        result.update = Program(update, numerics=graph.numerics)
    result.step = recording.program(calls, keeps, **shown)
    if solver.recompute:
        result.step = recompute(result.step)
    return result


def _check_branches(graph: Graph) -> None:
    """Refuse what would add up gradients of parameters that only some of the passes use.

    Raises:
        ShapeError: it names the layer.
    """
    for node in graph.nodes:
        if node.layer.type == "If":
            hint = "a larger batch in place of iter_size goes, or a solver without it"
            node.layer.fail("cannot be trained with iter_size above 1: each pass may take another branch", hint=hint)


def _check_targets(recording: Recording, trained: set[Tensor]) -> None:
    """Refuse a loss whose labels are trained: no gradient passes there, so it is a slip (bottoms in the wrong order).

    Caffe stops in the first backward pass.
    """
    reached = needing(recording.forward, trained)
    for node in recording.graph.nodes:
        if not (node.layer.loss and any(node.loss_weights)):
            continue
        for i in sorted(node.layer.skips):
            said = node.message.propagate_down and not node.message.propagate_down[i]
            if i < len(node.bottoms) and not said and recording.tensors[node.bottoms[i]].root in reached:
                what = f'"{node.bottoms[i].blob}" would have to learn, but no gradient passes through bottom {i}'
                hint = "are the bottoms in the right order? propagate_down: false for it says that this is meant"
                node.layer.fail(what, bottom=i, hint=hint)


def _accumulate(recorder: Recorder, gradients: dict[Parameter, Tensor], result: Training) -> dict[Parameter, Tensor]:
    """Add each pass's gradients to sums that outlive the pass; the first pass of an iteration starts them."""
    sums = {}
    for parameter, gradient in gradients.items():
        sums[parameter] = recorder.new(f"{parameter.key}.sum", gradient.spec, "control")
        recorder.origin = parameter.origin.backward
        recorder.update([gradient, result.first], [sums[parameter]], rule=_FIRST)
    return sums


def record_update(
    recorder: Recorder, gradients: dict[Parameter, Tensor], result: Training, solver: schema.SolverParameter
) -> None:
    """Record clipping and the update of every parameter, from its gradient summed over iter_size passes."""
    recorder.origin = SOLVER
    scaling = result.scaling
    scale = recorder.temp("scale", ())
    if scaling is not None:
        if solver.iter_size > 1 or scaling.divided:
            scaling.begin(recorder)
        scaling.look(recorder, list(gradients.values()))
    if solver.clip_gradients >= 0 and gradients:
        _clip(recorder, list(gradients.values()), scale, solver, scaling)
    elif scaling is not None:
        recorder.pointwise([scaling.factor], scale, expr=f"1 / (a * {solver.iter_size})")
    else:
        recorder.fill(scale, value=1.0 / solver.iter_size)
    finite = [] if scaling is None else [scaling.finite]
    corrections = [result.correction] if METHODS[solver.type].correction else []
    for parameter, tensor in result.recording.parameters.items():
        recorder.origin = parameter.origin.update
        variables = [tensor, *result.history[parameter]]
        gradient = gradients.get(parameter)
        body = update_rule(solver, parameter.lr_mult, parameter.decay_mult, gradient is not None)
        rows = result.rows.get(parameter)
        moves = gradient is not None or (
            parameter not in result.lookups and moves_without_gradient(solver, parameter.lr_mult, parameter.decay_mult)
        )
        if solver.snapshot_diff and moves and tensor not in result.saved:
            result.saved[tensor] = recorder.new(f"{parameter.key}.moved", tensor.spec, "control")
            variables.append(result.saved[tensor])
            if rows is not None:  # the rows that do not move
                recorder.update([], [result.saved[tensor]], rule=_NOTHING)
            body = rule(body.inputs, [*body.variables, "last"], "; ".join([*told(body), "last = moved"]))
        if gradient is not None:
            inputs = [gradient, result.lr, scale, *corrections]
            if is_trusted(solver, parameter.decay_mult):
                inputs.append(_trust(recorder, gradient, tensor, scale, trust_ratio(solver, parameter.decay_mult)))
            body = scaling.guarded(body) if scaling else body
            if rows is None:
                recorder.update([*inputs, *finite], variables, rule=body)
            else:
                recorder.update_rows(rows, [*inputs, *finite], variables, rule=body)
        elif moves:
            recorder.update(
                [result.lr, *corrections, *finite], variables, rule=scaling.guarded(body) if scaling else body
            )
    if scaling is not None:
        scaling.adapt(recorder)


def _trust(recorder: Recorder, gradient: Tensor, parameter: Tensor, scale: Tensor, expr: str) -> Tensor:
    """A number from the lengths of a parameter and its gradient.

    ``update`` works element by element, so the lengths are measured in front of it, and reach it as one more input.
    """
    squares = [_square(recorder, tensor) for tensor in (gradient, parameter)]
    ratio = recorder.temp("trust", ())
    recorder.pointwise([*squares, scale], ratio, expr=expr)
    return ratio


def _square(recorder: Recorder, tensor: Tensor) -> Tensor:
    """The sum of the squares of a tensor."""
    square = recorder.temp("square", ())
    recorder.reduce([tensor], square, expr="a * a", how="sum", axes=tuple(range(len(tensor.shape))))
    return square


def _clip(
    recorder: Recorder,
    gradients: list[Tensor],
    scale: Tensor,
    solver: schema.SolverParameter,
    scaling: LossScale | None,
) -> None:
    """scale = min(1, clip_gradients / norm of all summed gradients) / iter_size: clipped first, averaged then."""
    squares = [_square(recorder, gradient) for gradient in gradients]
    norm = recorder.temp("norm", ())
    recorder.pointwise(squares, norm, expr=f"sqrt({' + '.join(letters(len(squares)))})")
    limit = repr(solver.clip_gradients)
    if scaling is None:
        recorder.pointwise([norm], scale, expr=f"where(a > {limit}, {limit} / a, 1) / {solver.iter_size}")
    else:
        expr = f"where(a > {limit} * b, {limit} * b / a, 1) / ({solver.iter_size} * b)"
        recorder.pointwise([norm, scaling.factor], scale, expr=expr)
