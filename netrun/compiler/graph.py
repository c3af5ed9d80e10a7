"""A net message becomes a graph: which layers are in, who reads whose tops, every shape, every shared parameter.

All problems of a net are collected and raised together. What the graph holds is already Caffe's meaning: rules by
phase, level and stage, in-place tops as new versions of a blob, loss weights, sharing, the order of the outputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..config import schema
from ..config.source import Source
from ..errors import ConfigError, NetrunError, Problem, Where, nearest
from ..layers.base import Layer
from ..layers.body import Body, Build, Given, Path
from ..layers.context import Context, Declared
from ..layers.lookup import layer_type
from ..types import Numerics, Shape, Spec
from .body import build_body
from .nodes import AUTOMATIC, Graph, Node, Value
from .rules import State, is_included
from .sharing import Parameter, share


def build(
    net: schema.NetParameter,
    source: Source | None = None,
    state: State | None = None,
    *,
    dtype: str = "float32",
    seed: int = 0,
    shapes: Mapping[str, Shape] | None = None,
    folder: str | None = None,
    before: Mapping[int, Layer] | None = None,
    given: Sequence[Value] = (),
) -> Graph:
    """The graph of a net (already upgraded to the current schema) in one state.

    Args:
        source: positions of the message's fields, for messages to the user.
        shapes: other shapes for tops of Input layers, by top name.
        folder: what relative file names are looked up in besides the working directory; the source's by default.
        before: layers of an earlier graph of the net by position, for what they carry on in Python.
        given: blobs that are there before the first layer: the net stands inside a layer.

    Raises:
        ConfigError: with every problem that was found; its cause is the first error of a user's class, if there is one.
    """
    builder = _Builder(net, source, (state or State()).inside(net), dtype, seed, shapes or {}, folder)
    builder.before = before or {}
    builder.current = {value.blob: value for value in given}
    builder.inside = bool(given)
    return builder.build()


class _Builder:
    def __init__(
        self,
        net: schema.NetParameter,
        source: Source | None,
        state: State,
        dtype: str,
        seed: int,
        shapes: Mapping[str, Shape],
        folder: str | None,
    ) -> None:
        self.net, self.source, self.state, self.shapes = net, source, state, shapes
        self.dtype, self.seed = dtype, seed
        self.folder = folder if folder is not None else source.folder if source else ""
        self.problems: list[Problem] = []
        self.nodes: list[Node] = []
        self.current: dict[str, Value] = {}
        self.broken: set[str] = set()
        self.cause: BaseException | None = None
        self.measured: Mapping[int, Sequence[Shape]] = {}
        self.before: Mapping[int, Layer] = {}
        self.inside = False
        self.keys: dict[str, int] = {}

    def again(self, measured: Mapping[int, Sequence[Shape]]) -> Graph:
        """A new graph of the same net with these shapes for the tops of varying layers."""
        folder = self.folder
        other = _Builder(self.net, self.source, self.state, self.dtype, self.seed, self.shapes, folder)
        other.measured, other.before = measured, {n.position: n.layer for n in self.nodes}
        return other.build()

    def where(self, position: int, *path: str | int, into: int | None = None) -> Where | None:
        """The place of a field of a layer; ``into``: of one character of its text."""
        if self.source is None:
            return None
        whole = ("layer", position, *(p for p in path if p != ""))
        return self.source.where(*whole) if into is None else self.source.inside(into, *whole)

    def build(self) -> Graph:
        for position, message in enumerate(self.net.layer):
            try:
                if is_included(message, self.state, lambda *p, at=position: self.where(at, *p)):
                    self.add(position, message)
            except NetrunError as error:
                self.problems += error.problems
                self.cause = self.cause or error.__cause__
                self.broken.update(message.top)
        parameters: list[Parameter] = []
        try:
            parameters = share(self.nodes, self.where)
        except NetrunError as error:
            self.problems += error.problems
        if self.problems:
            raise ConfigError.of(self.problems) from self.cause
        self.clear_loss_weights()
        phase = self.state.phase
        force = self.net.force_backward
        numerics = Numerics(schema.Precision.Name(self.net.precision), self.net.deterministic)
        outputs = self.outputs()
        return Graph(self.net.name, phase, self.nodes, self.current, parameters, outputs, force, numerics, self.again)

    def add(self, position: int, message: schema.LayerParameter) -> None:
        cls = layer_type(message.type, self.where(position, "type"), message.name)
        missing = [b for b in message.bottom if b not in self.current]
        self.unknown_bottoms(position, message)
        if missing or any(b in self.broken for b in message.bottom):
            self.broken.update(message.top)
            return
        bottoms = [self.current[b] for b in message.bottom]
        phase = message.phase if message.HasField("phase") else self.state.phase
        context = Context(
            phase=phase,
            dtype=self.dtype,
            seed=self.seed,
            folder=self.folder,
            locate=lambda *path, into=None: self.where(position, *path, into=into),
            producers=[self.origin(v) for v in bottoms],
            measured=self.measured.get(position),
            before=self.before.get(position),
            inside=self.inside,
            key=self.key_of(message.name),
        )
        source = self.source.view("layer", position) if self.source else None
        context.inner = inner_of(message, source, self.state, context)
        if any(top in self.shapes for top in message.top) and cls.fed:
            message = _with_shapes(message, self.shapes)
        node = Node(position, cls(message, context), bottoms)
        specs = node.layer.configure([v.spec for v in bottoms])
        self.check_counts(node)
        for i, value in enumerate(bottoms):
            value.readers.append((node, i))
        self.connect_tops(node, specs)
        node.loss_weights = self.loss_weights(node)
        self.nodes.append(node)

    def key_of(self, name: str) -> str:
        """The name; "name@2" for the second layer that has it."""
        count = self.keys[name] = self.keys.get(name, 0) + 1
        if count == 1:
            return name
        return self.key_of(name) if f"{name}@{count}" in self.keys else self.key_of(f"{name}@{count}")

    def unknown_bottoms(self, position: int, message: schema.LayerParameter) -> None:
        for i, bottom in enumerate(message.bottom):
            if bottom in self.current or bottom in self.broken:
                continue
            later = [(at, other) for at, other in enumerate(self.net.layer) if bottom in other.top and at != position]
            notes = []
            for at, other in later[:1]:
                where = self.where(at)
                line = self.beside(where)
                if at > position:
                    notes.append(f"layer {other.name}{line} makes it, but comes later: move it above")
                else:
                    notes.append(f"layer {other.name}{line} makes it, but is not part of the net in {self.state}")
            hint = "" if later else nearest(bottom, self.current)
            what = f'{message.name} ({message.type}): no blob "{bottom}" above this layer{hint}'
            self.problems.append(Problem(what, self.where(position, "bottom", i), tuple(notes)))

    def origin(self, value: Value) -> str:
        node = value.producer
        if node.position < 0:  # given to a net inside a layer
            return f", {node.name}"
        return f", from layer {node.name}{self.beside(self.where(node.position))}"

    def beside(self, where: Where | None) -> str:
        """`` at line 12``; the whole position where it is in another file than the net's."""
        if where is None or not where.line or self.source is None:
            return ""
        return f" at line {where.line}" if where.file == self.source.file else f" at {where}"

    def check_counts(self, node: Node) -> None:
        message, layer = node.message, node.layer
        asked = message.propagate_down
        if asked and len(asked) != len(message.bottom):
            layer.fail(
                f"propagate_down is given {len(asked)} times, the layer has {len(message.bottom)} bottoms",
                hint="give it once for each bottom, or not at all",
            )
        tops = max(len(message.top), 1 if layer.loss else 0)  # a loss that nobody names is a top all the same
        if message.loss_weight and len(message.loss_weight) != tops:
            layer.fail(
                f"loss_weight is given {len(message.loss_weight)} times, the layer has {tops} tops",
                hint="give it once for each top, or not at all",
            )

        if not all(map(math.isfinite, message.loss_weight)):
            weights = " ".join(f"{w:g}" for w in message.loss_weight)
            layer.fail(f"loss_weight is {weights}, and has to be a finite number")

    def connect_tops(self, node: Node, specs: Sequence[Spec]) -> None:
        bottoms = list(node.message.bottom)
        for i, (top, spec) in enumerate(zip(node.message.top, specs, strict=False)):
            in_place = i < len(bottoms) and bottoms[i] == top
            if top in self.current and not in_place:
                what = f'{node.name} ({node.layer.type}): the blob "{top}" is already made'
                note = self.origin(self.current[top]).lstrip(", ") + "; give this top a name of its own"
                self.problems.append(Problem(what, self.where(node.position, "top", i), (note,)))
                continue
            if in_place:
                self.check_in_place(node, i, spec)
            value = Value(top, spec, node, i)
            node.tops.append(value)
            self.current[top] = value
        if node.layer.loss and not node.message.top:  # its loss counts all the same, only nobody can name it
            node.tops.append(Value(AUTOMATIC, specs[0], node, 0, hidden=True))
        for spec, _ in node.layer.unnamed_tops():
            node.tops.append(Value(AUTOMATIC, spec, node, len(node.tops), hidden=True))

    def check_in_place(self, node: Node, i: int, spec: Spec) -> None:
        """Refuse to overwrite what somebody else uses, as in Caffe, or what has another shape."""
        value = node.bottoms[i]
        if spec.shape != value.spec.shape and not node.layer.varying:
            what = f"{value.spec} becomes {spec}: that cannot be in place"
            node.layer.fail(what, bottom=i, hint="give this top a name of its own")
        others = [reader for reader, bottom in value.readers if (reader, bottom) != (node, i)]
        producer = value.producer
        weighted = bool(producer.message.loss_weight) and producer.loss_weights[value.index] != 0
        if not others and not weighted:
            return
        who = f"layer {others[0].name} reads it too" if others else f"layer {producer.name} gives it a loss_weight"
        what = f'{node.name} ({node.layer.type}): changes "{value.blob}" in place, but {who}'
        where = self.where(node.position, "top", i)
        self.problems.append(Problem(what, where, ("give this top a name of its own",)))

    def clear_loss_weights(self) -> None:
        """Where a top with a ``loss_weight`` of the prototxt has readers, the layer's other weights are dropped.

        That is Caffe's way: the weight moves to a copy of the top, and the layer loses all the others it was given.
        """
        for node in self.nodes:
            moved = [bool(w and value.readers) for w, value in zip(node.loss_weights, node.tops, strict=True)]
            if node.message.loss_weight and any(moved):
                kept = [m or v.hidden for m, v in zip(moved, node.tops, strict=True)]
                node.loss_weights = [w if k else 0.0 for w, k in zip(node.loss_weights, kept, strict=True)]

    def loss_weights(self, node: Node) -> list[float]:
        given = [float(w) for w in node.message.loss_weight] or node.layer.top_weights()[: len(node.tops)]
        hidden = [weight for _, weight in node.layer.unnamed_tops()]
        return given + [0.0] * (len(node.tops) - len(given) - len(hidden)) + hidden

    def outputs(self) -> list[tuple[str, Value]]:
        found: list[tuple[str, Value]] = []
        for node in self.nodes:
            explicit = bool(node.message.loss_weight)
            for i, value in enumerate(node.tops):
                if value.hidden:
                    continue
                if not value.readers:
                    found.append((value.blob, value))
                elif explicit and node.loss_weights[i] and i < len(node.loss_weights):
                    found.append((split_name(value, 0), value))
        return sorted(found, key=lambda pair: pair[0])


def inner_of(message: schema.LayerParameter, source: Source | None, state: State, context: Context) -> Build:
    """Builds what stands inside a layer, for the context of that layer.

    Args:
        source: positions of the layer's fields.
        state: that of the net around.
    """

    def build_inner(path: Path, given: Mapping[str, Given], before: Body | None) -> Body:
        return build_body(build, message, source, path, given, before, replace(state, phase=context.phase), context)

    return build_inner


def split_name(value: Value, part: int) -> str:
    """The name Caffe gives to one of several copies of a blob that several layers read."""
    return f"{value.blob}_{value.producer.name}_{value.index}_split_{part}"


def _with_shapes(message: schema.LayerParameter, shapes: Mapping[str, Shape]) -> schema.LayerParameter:
    changed = schema.LayerParameter()
    changed.CopyFrom(message)
    given = list(message.input_param.shape)
    del changed.input_param.shape[:]
    for i, top in enumerate(message.top):
        old = given[min(i, len(given) - 1)].dim if given else ()
        changed.input_param.shape.add().dim.extend(shapes.get(top, tuple(old)))
    return changed


__all__ = ["AUTOMATIC", "Declared", "Graph", "Node", "State", "Value", "build", "inner_of", "split_name"]
