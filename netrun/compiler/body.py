"""A net inside a layer: built as any net, from blobs that the layer gives it, and recorded once on placeholders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..config import schema
from ..config.source import Source
from ..errors import ConfigError, Problem
from ..kernels import CHANGES
from ..layers.base import Layer
from ..layers.body import Body, Given, Inner, Loss, Path
from ..layers.context import Context
from ..program import Recorder
from ..types import Tensor
from .nodes import Graph, Node, Value
from .record import Recording, record_layers
from .rules import State


def build_body(
    build: Callable[..., Graph],
    message: schema.LayerParameter,
    source: Source | None,
    path: Path,
    given: Mapping[str, Given],
    before: Body | None,
    state: State,
    context: Context,
) -> Body:
    """The layers at ``path`` of a layer's message as a body.

    Args:
        build: what makes a graph of a net (graph.py, which leans on this module).
        source: positions of that layer's fields.
        given: blobs that the body may read.
        before: the same body in an earlier compilation.
        state, context: those of the net around.

    Raises:
        ConfigError: with every problem of the body.
    """
    inner: Any = message
    for part in path:
        inner = inner[part] if isinstance(part, int) else getattr(inner, part)
    net = schema.NetParameter(name=message.name, layer=inner.layer)
    values = [_outside(name, blob) for name, blob in given.items()]
    graph = build(
        net,
        source.view(*path) if source else None,
        state,
        dtype=context.dtype,
        seed=context.seed,
        folder=context.folder,
        before=before.layers if before is not None else None,
        given=values,
    )
    recording = Recording(graph, Recorder(context.dtype))
    for value in values:
        recording.tensors[value] = Tensor(value.blob, value.spec, "data")
    record_layers(recording)
    _check(graph, recording, source.view(*path) if source else None)
    body = Body(list(recording.recorder.calls), clock=recording.clock)
    body.inputs = {value.blob: recording.tensors[value] for value in values}
    body.blobs = {**body.inputs, **{name: recording.tensors[value] for name, value in graph.blobs.items()}}
    body.layers = {node.position: node.layer for node in graph.nodes}
    _parameters(graph, recording, path, body)
    for node in graph.nodes:
        for i, (value, weight) in enumerate(zip(node.tops, node.loss_weights, strict=True)):
            if weight:
                name = f"{node.name}.{i}" if value.hidden else value.blob
                body.losses.append(Loss(name, recording.tensors[value], weight))
    return body


class _Outside(Layer):
    """Stands for what a body is given."""

    type = ""


def _outside(name: str, blob: Given) -> Value:
    layer = _Outside(schema.LayerParameter(name=blob.origin, top=[name]))
    return Value(name, blob.spec, Node(-1, layer), 0)


def _parameters(graph: Graph, recording: Recording, path: Path, body: Body) -> None:
    placed: set[Tensor] = set()
    for node in graph.nodes:
        given, own = list(node.layer.param_specs()), iter(node.parameters)
        for declared in node.layer.declared:
            outer = replace(declared, name=f"{node.key}.{declared.name}")
            if declared.role == "state":
                body.constants.append((outer, getattr(node.layer, declared.name)))
                continue
            parameter = next(own)
            tensor = recording.parameters[parameter.owner or parameter]
            message = given[parameter.index] if parameter.index < len(given) else schema.ParamSpec()
            at = (*path, "layer", node.position, *node.layer.spec_path(parameter.index))
            body.parameters.append(Inner(outer, message, at, None if tensor in placed else tensor))
            placed.add(tensor)


def _check(graph: Graph, recording: Recording, source: Source | None) -> None:
    """Refuse what cannot stand inside a loop or a branch."""
    problems = []
    changed = {call.origin for call in recording.recorder.calls if call.op.name in CHANGES}
    for node in graph.nodes:
        why = ""
        notes: tuple[str, ...] = ()
        if node.layer.fed:
            why, notes = "brings data in, and stands outside", ("give the blob as a bottom of the layer around",)
        elif node.layer.varying and node.layer.type != "Python":
            why = "makes tops whose shapes depend on values"
        elif node.origin in changed and any(d.role == "statistic" for d in node.layer.declared):
            why = "changes statistics of its own in every forward pass, which a step of many is not"
            notes = ("use_global_stats: true, or a norm without running statistics, goes",)
        elif node.origin in changed:
            why = "carries a state of its own from batch to batch"
            notes = ("let it begin anew: expose_hidden with a first state, or no carry",)
        if why:
            what = f"{node.name} ({node.layer.type}): cannot be part of a body: it {why}"
            problems.append(Problem(what, source.where("layer", node.position) if source else None, notes))
    if problems:
        raise ConfigError.of(problems)


__all__ = ["build_body"]
