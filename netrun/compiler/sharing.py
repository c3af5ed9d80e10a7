"""The parameter blobs of a net: who owns each, who shares it, at which rates they learn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..config import schema
from ..errors import ConfigError, NetrunError, Problem, ShapeError, Where
from ..layers.context import Declared
from ..program import Origin
from ..types import Spec

if TYPE_CHECKING:
    from .nodes import Graph, Node


@dataclass(eq=False)
class Parameter:
    """One blob of parameters. A sharer points to its ``owner``; owners have none."""

    origin: Origin
    """Of the layer whose blob it is."""
    index: int
    declared: Declared
    lr_mult: float
    decay_mult: float
    owner: Parameter | None = None
    sharers: list[Parameter] = field(default_factory=list)
    given: set[str] = field(default_factory=set)
    """Which of lr_mult and decay_mult the prototxt states."""
    key: str = ""
    """Name of its memory: the same in every net that shares weights by layer name."""

    @property
    def layer(self) -> str:
        """The name of that layer."""
        return self.origin.name

    @property
    def spec(self) -> Spec:
        """Shape in the layer that declares it."""
        return self.declared.spec

    @property
    def trained(self) -> bool:
        """True if a gradient may reach it."""
        return self.declared.role == "learned"


def share(nodes: Sequence[Node], where: Callable[..., Where | None]) -> list[Parameter]:
    """Give every node its parameters; returns the owners in order.

    Raises:
        ConfigError: with every problem (too many ``param`` entries, shapes or rates of sharers that disagree).
    """
    owners: list[Parameter] = []
    by_name: dict[str, Parameter] = {}
    keys: set[str] = set()
    problems: list[Problem] = []
    for node in nodes:
        specs = node.layer.param_specs()
        count = len(node.layer.blobs)
        if len(specs) > count:
            what = f"{node.name} ({node.layer.type}): {len(specs)} param entries, the layer has {count} parameter blobs"
            problems.append(Problem(what, where(node.position, *node.layer.spec_path(count))))
            continue
        for i, declared in enumerate(node.layer.blobs):
            message = specs[i] if i < len(specs) else schema.ParamSpec()
            try:
                parameter = _one(node, i, declared, message, by_name, where)
            except NetrunError as error:
                problems += error.problems
                continue
            node.parameters.append(parameter)
            if parameter.owner is None:
                parameter.key = f"{node.key}.{declared.name}"
                while parameter.key in keys:  # a blob "b.c" of layer "a" and a blob "c" of layer "a.b"
                    parameter.key += "@2"
                keys.add(parameter.key)
                owners.append(parameter)
    if problems:
        raise ConfigError.of(problems)
    return owners


def _one(
    node: Node,
    i: int,
    declared: Declared,
    message: schema.ParamSpec,
    by_name: dict[str, Parameter],
    where: Callable[..., Where | None],
) -> Parameter:
    statistic = declared.role == "statistic"
    # An entry without lr_mult says 1. For BatchNorm that is as wrong as saying it; the forks' types take no notice.
    stated = message.HasField("lr_mult") or (node.layer.type == "BatchNorm" and i < len(node.message.param))
    if statistic and stated and message.lr_mult != 0:
        raise ConfigError(
            f"{node.name} ({node.layer.type}): param {i} ({declared.name}) has lr_mult {message.lr_mult:g}, but no "
            "gradient reaches it: the forward pass itself updates it",
            where(node.position, *node.layer.spec_path(i), "lr_mult"),
            ["leave the param entries out, or write lr_mult: 0"],
        )
    for name in ("lr_mult", "decay_mult"):
        if not math.isfinite(getattr(message, name)):
            what = f"{node.name} ({node.layer.type}): {name} is {getattr(message, name)}, and has to be a finite number"
            raise ConfigError(what, where(node.position, *node.layer.spec_path(i), name))
    # Caffe counts these blobs among the learnable ones, at rate 0; weight decay still reaches their history.
    lr = 0.0 if statistic else message.lr_mult
    parameter = Parameter(node.origin, i, declared, lr, message.decay_mult)
    parameter.given = {name for name in ("lr_mult", "decay_mult") if message.HasField(name)}
    if not message.name:
        return parameter
    owner = by_name.setdefault(message.name, parameter)
    if owner is not parameter:
        _join(node, i, parameter, owner, message, where)
    return parameter


def _join(
    node: Node,
    i: int,
    parameter: Parameter,
    owner: Parameter,
    message: schema.ParamSpec,
    where: Callable[..., Where | None],
) -> None:
    own, theirs = parameter.spec, owner.spec
    at = where(node.position, *node.layer.spec_path(i))
    named = f'param "{message.name}" of layer {node.name} is shared with layer {owner.layer}'
    shapes = [f"{owner.layer}  {theirs}", f"{node.name}  {own}"]
    if message.share_mode == schema.ParamSpec.PERMISSIVE:
        if own.count != theirs.count:
            raise ShapeError(f"{named}, but holds {own.count} values instead of {theirs.count}", at, shapes)
    elif own.shape != theirs.shape:
        hint = "share_mode: PERMISSIVE allows another shape of the same count" if own.count == theirs.count else ""
        raise ShapeError(f"{named}, but has another shape", at, [*shapes, *([hint] if hint else [])])
    for name in parameter.given:
        mine, theirs_now = getattr(parameter, name), getattr(owner, name)
        if name in owner.given and mine != theirs_now:
            raise ConfigError(f"{named}, but their {name} differ: {mine:g} here, {theirs_now:g} there", at)
        setattr(owner, name, mine)
        owner.given.add(name)
    parameter.lr_mult, parameter.decay_mult = owner.lr_mult, owner.decay_mult
    parameter.owner, parameter.key = owner, owner.key
    owner.sharers.append(parameter)


def take_over(graph: Graph, other: Graph, what: str) -> None:
    """Give the parameters of a net the memory that those of another net have, layer by layer of the same name.

    Sharing within the two nets may differ: a test net may leave out the layer that owns a blob in the training net.

    Args:
        what: names the net in messages.

    Raises:
        ConfigError: two layers of one name have parameters that differ in number or shape.
    """
    known: dict[str, list[Node]] = {}
    for node in other.nodes:
        known.setdefault(node.name, []).append(node)
    for node in graph.nodes:
        found = known.get(node.name)
        if not found:
            continue
        theirs = found.pop(0) if len(found) > 1 else found[0]
        where = node.layer.context.locate()
        if len(node.parameters) != len(theirs.parameters):
            counts = f"{len(node.parameters)} parameter blobs, in the training net it has {len(theirs.parameters)}"
            raise ConfigError(f"{what}: layer {node.name} has {counts}", where)
        for mine, trained in zip(node.parameters, theirs.parameters, strict=True):
            if mine.spec.shape != trained.spec.shape:
                named = f"{node.name}.{mine.declared.name}"
                shapes = f"has the shape {mine.spec}, in the training net it has {trained.spec}"
                raise ConfigError(f"{what}: {named} {shapes}", where)
            if mine.owner is None:
                mine.key = (trained.owner or trained).key
