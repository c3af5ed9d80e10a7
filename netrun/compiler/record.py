"""A graph becomes calls: every layer's ``forward`` is run once with a recorder; then the total loss."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..errors import NetrunError, ShapeError
from ..expression import letters, parse, text_of
from ..program import LOSS, Call, Program, Recorder
from ..types import Kind, Spec, Tensor
from .nodes import Graph, Node, Value
from .sharing import Parameter


@dataclass
class Recording:
    """The forward pass of a graph as calls, and which tensor stands for what."""

    graph: Graph
    recorder: Recorder
    tensors: dict[Value, Tensor] = field(default_factory=dict)
    parameters: dict[Parameter, Tensor] = field(default_factory=dict)
    """Owners only."""
    states: dict[str, Tensor] = field(default_factory=dict)
    losses: list[tuple[Tensor, float]] = field(default_factory=list)
    """Tops with a loss weight, and the weight."""
    loss: Tensor | None = None
    """The total: sum of weight * sum of the elements. None if no top has a weight."""
    clock: Tensor = field(default_factory=lambda: Tensor("clock", Spec((), "int64"), "control"))
    forward: list[Call] = field(default_factory=list)
    initial: dict[Tensor, Any] = field(default_factory=dict)
    """What states start with, where that is not zero."""

    @property
    def feeds(self) -> dict[str, Tensor]:
        """What the host writes, by blob name."""
        return {v.blob: self.tensors[v] for v in self.graph.inputs}

    def program(self, calls: Iterable[Call], keeps: Iterable[Tensor], **more: Any) -> Program:
        """Calls on the tensors of this net as a program that keeps some of them; ``more`` of its fields by name."""
        numerics, batch = self.graph.numerics, self.graph.batch
        fields = {"initial": self.initial, "numerics": numerics, "batch": batch, **more}
        return Program(tuple(calls), self.feeds, frozenset(keeps), **fields)

    def blob(self, name: str) -> Tensor:
        """The last version of a blob."""
        return self.tensors[self.graph.blobs[name]]


def record(graph: Graph) -> Recording:
    """Record the forward pass of all layers.

    Raises:
        ShapeError: a layer's kernels do not fit its shapes (a mistake in the layer's own class; it is named).
    """
    dtype = graph.nodes[0].layer.context.dtype if graph.nodes else "float32"
    recorder = Recorder(dtype)
    result = Recording(graph, recorder)
    record_layers(result)
    _record_loss(result)
    result.forward = list(recorder.calls)
    return result


def record_layers(result: Recording) -> None:
    """Record the forward pass of all layers alone; what is given to the net has its tensors already.

    Raises:
        as :func:`record`.
    """
    for node in result.graph.nodes:
        for parameter in node.parameters:
            result.recorder.reserve((parameter.owner or parameter).key)
    for node in result.graph.nodes:
        _record_layer(node, result)


def _record_layer(node: Node, result: Recording) -> None:
    recorder, layer = result.recorder, node.layer
    recorder.origin = node.origin
    _give_tensors(node, result)
    bottoms = [result.tensors[v].stop() if node.stops(i) else result.tensors[v] for i, v in enumerate(node.bottoms)]
    kind: Kind = "feed" if layer.fed else "data"
    tops = []
    for value, weight in zip(node.tops, node.loss_weights, strict=True):
        tensor = recorder.new(value.blob, value.spec, kind)
        result.tensors[value] = tensor
        tops.append(tensor)
        if weight:
            result.losses.append((tensor, weight))
    if layer.fed:
        return
    try:
        layer.forward(recorder, bottoms, tops)
    except NetrunError:
        raise
    except Exception as error:  # a mistake in a layer class, perhaps a user's own: name it, keep the cause
        raise ShapeError(f"{node.name} ({layer.type}): its forward() fails: {type(error).__name__}: {error}") from error


def _give_tensors(node: Node, result: Recording) -> None:
    layer, recorder = node.layer, result.recorder
    layer.clock = result.clock
    blobs = iter(node.parameters)
    for declared in layer.declared:
        if declared.role == "state":
            name = f"{node.key}.{declared.name}"
            while name in result.states:  # layers "a.b" and "a" may come to one name
                name += "@2"
            tensor = result.states[name] = recorder.new(name, declared.spec, "state")
            if declared.value is not None:
                result.initial[tensor] = declared.value
        else:
            parameter = next(blobs)
            owner = parameter.owner or parameter
            if owner not in result.parameters:
                kind: Kind = "learned" if owner.trained else "statistic"
                result.parameters[owner] = Tensor(owner.key, owner.spec, kind)
            tensor = result.parameters[owner].view(declared.spec.shape)
        setattr(layer, declared.name, tensor)


def _record_loss(result: Recording) -> None:
    recorder = result.recorder
    recorder.origin = LOSS
    terms = []
    for tensor, weight in result.losses:
        if tensor.spec.count == 1:
            terms.append((tensor.view(()), weight))
            continue
        total = recorder.new(f"{tensor.name}.sum", Spec((), tensor.dtype), "buffer")
        recorder.reduce([tensor], total, expr="a", how="sum", axes=tuple(range(len(tensor.shape))))
        terms.append((total, weight))
    if not terms:
        return
    result.loss = recorder.new("total loss", Spec((), recorder.dtype), "data")
    if len(terms) == 1 and terms[0][1] == 1:
        recorder.copy(terms[0][0], result.loss)
        return
    parts = [f"{weight!r} * {a}" for a, (_, weight) in zip(letters(len(terms)), terms, strict=True)]
    recorder.pointwise([t for t, _ in terms], result.loss, expr=text_of(parse(" + ".join(parts))))
