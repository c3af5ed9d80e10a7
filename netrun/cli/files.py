"""Nets and solvers by file name, told apart by what they hold; and the graph a command shall look at."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from ..compiler.graph import Graph, State, build
from ..config import schema, text
from ..config.source import Source
from ..config.upgrade import read_net, read_solver
from ..errors import ConfigError, UsageError, nearest
from ..layers.base import Layer
from ..solver_nets import check_counts, net_to_train
from ..types import Shape
from . import numerics
from .train import stages

_LAYER = re.compile(r"^\s*layers?\s*\{", re.MULTILINE)


def read_any(
    path: str, lenient: bool = False, upgraded: bool = True
) -> tuple[schema.NetParameter | schema.SolverParameter, Source]:
    """A net or a solver, in the current form or (not ``upgraded``) as it stands; ``lenient`` as for ``read_net``.

    Raises:
        UsageError: there is no such file.
        ConfigError: it is wrong; as the kind it has fewer mistakes as.
    """
    try:
        return read_net(path, lenient) if upgraded else text.read(path, schema.NetParameter, lenient)
    except ConfigError as as_net:
        try:
            return read_solver(path, lenient) if upgraded else text.read(path, schema.SolverParameter, lenient)
        except ConfigError as as_solver:
            if text.is_other_kind(as_solver) != text.is_other_kind(as_net):
                raise (as_net if text.is_other_kind(as_solver) else as_solver) from None
            if len(as_net.problems) == len(as_solver.problems):
                raise (as_net if _has_layers(path) else as_solver) from None
            raise min(as_net, as_solver, key=lambda error: len(error.problems)) from None


def _has_layers(path: str) -> bool:
    with open(path, "rb") as stream:
        return bool(_LAYER.search(stream.read().decode("utf-8", "replace")))


def phase_of(name: str) -> int:
    """The number of a phase.

    Raises:
        UsageError: it is not TRAIN or TEST.
    """
    if name not in ("TRAIN", "TEST"):
        raise UsageError(f"--phase wants TRAIN or TEST, got {name}")
    return schema.Phase.Value(name)


def state_of(args: argparse.Namespace) -> State:
    """The state that the flags --phase, --level and --stage ask for."""
    return State(phase_of(args.phase), args.level or 0, tuple(stages(args.stage)))


def open_graph(args: argparse.Namespace) -> tuple[Graph, schema.SolverParameter | None]:
    """The graph of ``args.file``: of the net in the state asked for, or of a solver's training net (and the solver).

    Raises:
        ConfigError, UsageError: file, net or a shape given is wrong.
    """
    message, source = read_any(args.file, args.lenient)
    if hasattr(args, "precision"):  # not every command that looks at a net runs it
        numerics.apply(message, args)
    if isinstance(message, schema.SolverParameter):
        check_counts(message, source)
        net = net_to_train(message, source, source.folder)
        given = State(net.state.phase, net.state.level if args.level is None else args.level, net.state.stages)
        state = State(given.phase, given.level, (*given.stages, *stages(args.stage)))
        return build_with(net.message, net.source or source, state, args.input_shape), message
    return build_with(message, source, state_of(args), args.input_shape), None


def build_with(net: schema.NetParameter, source: Source, state: State, given: Sequence[str]) -> Graph:
    """The graph of a net with other shapes for its inputs: ``given`` has entries like "data=1,3,224,224".

    A data layer whose tops are named becomes an Input layer of these shapes (labels it also has follow), so that no
    data need be there.
    """
    shapes = dict(_shape(entry) for entry in given)
    fed = [m for m in net.layer if m.type in Layer.registry and Layer.registry[m.type].fed]
    tops = {top for message in fed for top in message.top}
    for name in shapes:
        if name not in tops:
            known = ", ".join(sorted(tops)) or "none"
            raise UsageError(f'--input-shape: the net has no input "{name}"{nearest(name, tops)} (inputs: {known})')
    for message in fed:
        if message.type != "Input" and any(top in shapes for top in message.top):
            first = next(shapes[top] for top in message.top if top in shapes)
            message.type = "Input"
            for top in message.top:
                shapes.setdefault(top, first[:1])
    return build(net, source, state, shapes=shapes)


def _shape(entry: str) -> tuple[str, Shape]:
    name, equals, numbers = entry.partition("=")
    dims = [part.strip() for part in re.split("[,x]", numbers)]
    if not name or not equals or not all(d.isdigit() and int(d) for d in dims):
        raise UsageError(f"--input-shape wants BLOB=N,C,H,W, got {entry}", None, ["--input-shape data=1,3,224,224"])
    return name, tuple(map(int, dims))
