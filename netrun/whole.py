"""A net compiled so that everything in it can be looked at: every blob kept, forward and backward from layer to layer.

Inside, every in-place layer makes a new version of its blob. Whoever looks from outside sees one buffer per name, as in
Caffe: the memory of the last version, and of the gradient of the first one. A part of a pass that begins or ends in
between moves values from or to that buffer (``Whole.moves``); a whole pass moves nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from .compiler.gradients import backward
from .compiler.graph import Graph, Node, Value
from .compiler.record import Recording, record
from .compiler.sharing import Parameter
from .compiler.splits import name_copies
from .expression import rule
from .loss_scale import UNWATCHED
from .program import Call, Origin, Program, Recorder
from .types import Spec, Tensor

_ADD = rule(["g"], ["total"], "total = total + g")
_ADD_SCALED = rule(["g", "scale"], ["total"], "total = total + g / scale")
_SET = rule(["g"], ["total"], "total = g")

SHARING = frozenset({"Split", "Flatten", "Reshape", "Parameter"})
"""Layer types whose tops are the same memory as their bottom, in Caffe too; elsewhere a blob has memory of its own."""
SHARING_ONE = frozenset({"Concat", "Slice"})
"""The same for one bottom and one top."""

Move = tuple[Tensor, Tensor]
"""From where to where."""


@dataclass
class Whole:
    """The program, and which tensor stands for what.

    gradients     of every tensor that backward reaches
    seeds         of what has a loss weight, and (without a loss, or with force_backward) of what nobody reads: the
                  gradient that is put in from outside
    accumulators  of every parameter, owners only: the sum of the gradients since it was cleared
    data, diff    what a blob's name stands for
    scale         in float16: what the gradients of blobs are multiplied by. Whoever looks at one sees it divided, and
                  so are those of parameters before they are added up
    """

    recording: Recording
    program: Program
    gradients: dict[Tensor, Tensor]
    seeds: dict[Value, Tensor]
    accumulators: dict[Parameter, Tensor]
    data: dict[str, Tensor] = field(default_factory=dict)
    diff: dict[str, Tensor] = field(default_factory=dict)
    scale: Tensor | None = None

    def __post_init__(self) -> None:
        nodes = self.recording.graph.nodes
        self._number = {id(node): i for i, node in enumerate(nodes)}
        self._versions: dict[str, list[Value]] = {}
        for node in nodes:
            for value in node.tops:
                if not value.hidden:
                    self._versions.setdefault(value.blob, []).append(value)
        for name, versions in self._versions.items():
            self.data[name] = self.tensor(versions[-1])
            found = [g for g in map(self.gradient, versions) if g is not None]
            seed = self.seeds.get(versions[-1])
            if seed is not None and len(versions) == 1:
                self.diff[name] = seed  # its gradient may be more than that: a layer may read its own top
            elif found:
                self.diff[name] = found[0]
            elif seed is not None:
                self.diff[name] = seed
            else:
                unused = f"{self.data[name].name}' unused"
                self.diff[name] = self.recording.recorder.new(unused, versions[-1].spec, "control")

    def tensor(self, value: Value) -> Tensor:
        """The tensor of one version of a blob."""
        return self.recording.tensors[value]

    def gradient(self, value: Value) -> Tensor | None:
        """The tensor of its gradient, if backward has one: what is put in from outside where nobody reads the value."""
        computed = self.gradients.get(self.tensor(value))
        return computed if computed is None or value.readers else self.seeds.get(value)

    def weights(self) -> Iterator[tuple[Tensor, float]]:
        """Gradients that start as a loss weight."""
        for node in self.recording.graph.nodes:
            for value, weight in zip(node.tops, node.loss_weights, strict=True):
                if weight and value in self.seeds:
                    versions = self._versions.get(value.blob, [value])
                    outside = self.diff.get(value.blob) if value is versions[-1] and not value.readers else None
                    yield (self.seeds[value] if outside is None else outside), weight

    def moves(self, backward: bool, low: int, high: int) -> tuple[list[Move], list[Move]]:
        """What to copy before and after the calls of the layers ``low`` to ``high`` run, forward or backward."""
        before: list[Move] = []
        after: list[Move] = []
        for name, versions in self._versions.items():
            if len(versions) > 1:
                found = self._down(name, versions, low, high) if backward else self._up(name, versions, low, high)
                before += found[0]
                after += found[1]
        return before, after

    def _up(self, name: str, versions: list[Value], low: int, high: int) -> tuple[list[Move], list[Move]]:
        """The buffer of the name holds what the next layer shall read; what was made last goes into it."""
        buffer, before, last = self.data[name], [], None
        for value in versions:
            made = low <= self._at(value.producer) <= high and value.producer.layer.type != "Input"
            if made:
                last = self.tensor(value)
            elif self._read(value, low, high) and self.tensor(value) is not buffer:
                before.append((buffer, self.tensor(value)))
        return before, [(last, buffer)] if last is not None and last is not buffer else []

    def _down(self, name: str, versions: list[Value], low: int, high: int) -> tuple[list[Move], list[Move]]:
        buffer, before, last = self.diff[name], [], None
        for value in reversed(versions):
            gradient = self.gradient(value)
            if gradient is None:
                continue
            if value.readers and self._read(value, low, high):
                last = gradient
            elif low <= self._at(value.producer) <= high and gradient is not buffer:
                before.append((buffer, gradient))
        return before, [(last, buffer)] if last is not None and last is not buffer else []

    def _at(self, node: Node) -> int:
        return self._number[id(node)]

    def _read(self, value: Value, low: int, high: int) -> bool:
        return any(low <= self._at(node) <= high for node, _ in value.readers)


def compile_whole(graph: Graph, both_ways: bool = True) -> Whole:
    """Forward and derived backward of a graph with all blobs and their gradients kept. Names the copies of blobs that
    several layers read (changes the graph).

    Args:
        both_ways: False leaves backward out, and all that only backward needs.
    """
    name_copies(graph)
    recording = record(graph)
    recorder = recording.recorder
    uses = _separate_uses(recording)
    seeds: dict[Value, Tensor] = {}
    weighted = {id(v) for n in graph.nodes for v, w in zip(n.tops, n.loss_weights, strict=True) if w}
    # As in Caffe, what is no part of the loss takes no part in backward, unless there is no loss or it is forced.
    anywhere = graph.force_backward or not weighted
    for node in graph.nodes:
        for value in node.tops:
            if id(value) in weighted or (anywhere and not value.readers):
                name = f"{recording.tensors[value].name}' from outside"
                seeds[value] = recorder.new(name, value.spec, "control")
    roots = [tensor for p, _, tensor in uses if p.trained and (p.lr_mult != 0 or graph.force_backward)]
    if graph.force_backward:
        roots += [recording.tensors[v] for v in graph.inputs]
    # propagate_down: true asks for a gradient where nothing below needs one.
    asked = [(n, i) for n in graph.nodes for i, wanted in enumerate(n.message.propagate_down) if wanted]
    roots += [recording.tensors[n.bottoms[i]] for n, i in asked if not n.stops(i)]
    half = both_ways and graph.numerics.precision == "FP16"
    scale = Tensor("(loss).scale", Spec(()), "control") if half else None
    pairs = [(recording.tensors[value], _scaled(recorder, value, seed, scale)) for value, seed in seeds.items()]
    gradients = backward(recorder, recording.forward, roots, seeds=pairs) if both_ways else {}
    accumulators = {p: recorder.new(f"{t.name}.diff", t.spec, "control") for p, t in recording.parameters.items()}
    position = {node.origin: i for i, node in enumerate(graph.nodes)}  # the last layer adds first
    for parameter, layer, tensor in sorted(uses, key=lambda use: -position[use[1]]):
        if tensor in gradients and parameter.trained:
            recorder.origin = layer.backward
            total = accumulators[parameter]
            if scale is None:
                _accumulate(recorder, gradients[tensor], total, bool(parameter.sharers))
            else:
                recorder.update([gradients[tensor], scale], [total], rule=_ADD_SCALED)
    blobs = set(recording.tensors.values())
    keeps = {*blobs, *(g for t, g in gradients.items() if t in blobs)}
    if recording.loss is not None:
        keeps.add(recording.loss)
    keeps |= _crossing(recorder.calls)
    apart = _apart(graph.nodes, recording, gradients)
    outputs = {recording.tensors[value] for _, value in graph.outputs}
    program = recording.program(
        recorder.calls,
        keeps,
        initial=recording.initial if scale is None else {**recording.initial, scale: np.float32(UNWATCHED)},
        apart=apart,
        visible=frozenset(keeps - outputs - {recording.loss}),
        scales={} if scale is None else {g: scale for g in gradients.values() if g in keeps},
    )
    return Whole(recording, program, gradients, seeds, accumulators, scale=scale)


def _scaled(recorder: Recorder, value: Value, seed: Tensor, scale: Tensor | None) -> Tensor:
    """The gradient that backward starts with, of what is put in from outside."""
    if scale is None:
        return seed
    recorder.origin = value.producer.origin.backward
    made = recorder.new(f"{seed.name}, scaled", seed.spec, "diff")
    recorder.pointwise([seed, scale], made, expr="a * b")
    return made


def _accumulate(recorder: Recorder, gradient: Tensor, total: Tensor, shared: bool) -> None:
    """Record total = total + gradient.

    Where layers share a bias, Caffe adds row after row to one buffer. What its layers contribute may cancel to nothing
    but rounding, so the rounding has to be the same: the rows and the total before are one sum, rounded once.
    """
    made = next(call for call in reversed(recorder.calls) if any(t.root is gradient for t in call.writes()))
    if not shared or made.op.name != "reduce" or made.attrs["expr"] != "a" or made.attrs["axes"] != (0,):
        recorder.update([gradient], [total], rule=_ADD)
        return
    (rows,) = made.reads()
    width = rows.spec.count // rows.shape[0]
    both = recorder.temp(f"{total.name} and rows", (rows.shape[0] + 1, width))
    recorder.concat([total.view((1, width)), rows.view((rows.shape[0], width))], both, axis=0)
    added = recorder.temp(f"{total.name} added", total.shape)
    recorder.reduce([both], added.view((width,)), expr="a", how="sum", axes=(0,))
    recorder.update([added], [total], rule=_SET)


def _separate_uses(recording: Recording) -> list[tuple[Parameter, Origin, Tensor]]:
    """(owner, layer, tensor) of every use of a parameter: layers that share one get a tensor each, on one memory.

    The gradient of each use then is added up by its own layer, also when only some of the layers run backward.
    """
    found = [(p, p.origin, t) for p, t in recording.parameters.items()]
    twins: dict[Origin, dict[Tensor, Tensor]] = {}
    for node in recording.graph.nodes:
        for parameter in node.parameters:
            if parameter.owner is not None and parameter.owner.origin != node.origin:
                own = recording.parameters[parameter.owner]
                if own not in twins.setdefault(node.origin, {}):
                    twin = twins[node.origin][own] = replace(own)
                    found.append((parameter.owner, node.origin, twin))
    if twins:
        for calls in (recording.recorder.calls, recording.forward):
            for i, call in enumerate(calls):
                mine: Mapping[Tensor, Tensor] = twins.get(call.origin, {})
                if mine and any(t.root in mine for t in call.tensors()):
                    calls[i] = call.map(partial(_replaced, mine))
    return found


def _replaced(twins: Mapping[Tensor, Tensor], tensor: Tensor) -> Tensor:
    return twins[tensor.root].view(tensor.shape) if tensor.root in twins else tensor


def _crossing(calls: Iterable[Call]) -> set[Tensor]:
    """What one layer, or one way through it, writes and another reads: parts of a pass run in any order, and more than
    once, so nothing may lie over it."""
    writer: dict[Tensor, Origin] = {}
    found: set[Tensor] = set()
    for call in calls:
        found.update(t.root for t in call.reads() if writer.get(t.root, call.origin) != call.origin)
        for tensor in call.writes():
            writer.setdefault(tensor.root, call.origin)
    return found


def _apart(nodes: Iterable[Node], recording: Recording, gradients: Mapping[Tensor, Tensor]) -> frozenset[Tensor]:
    """What must not become a view of something else though it is a copy: another blob, that a person may write to."""
    found: set[Tensor] = set()
    for node in nodes:
        single = len(node.bottoms) == len(node.tops) == 1
        if node.layer.type in SHARING or (single and node.layer.type in SHARING_ONE):
            continue
        names = [value.blob for value in node.bottoms]
        found.update(recording.tensors[value] for value in node.tops if value.blob not in names)
        tops = {value.blob for value in node.tops}
        slopes = [gradients.get(recording.tensors[v]) for v in node.bottoms if v.blob not in tops]
        found.update(g for g in slopes if g is not None)
    return frozenset(found)


__all__ = ["Whole", "compile_whole"]
