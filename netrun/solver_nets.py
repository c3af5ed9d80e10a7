"""The nets a solver names: each found, read, brought to the current form, with the state it is built for."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from .compiler.rules import State
from .config import schema
from .config.paths import resolve
from .config.source import Source
from .config.upgrade import read_net, upgrade_net
from .errors import ConfigError, UsageError, Where

INSIDE = ("net_param", "train_net_param")
"""Fields that hold a net inside the solver."""
NAMED = ("net", "train_net")
"""Fields that name a net's file."""


@dataclass(frozen=True)
class SolverNet:
    """One net of a solver. ``what`` says where it comes from in the words of Caffe's log ("net file: x.prototxt")."""

    message: schema.NetParameter
    source: Source | None
    state: State
    what: str


def check_counts(solver: schema.SolverParameter, source: Source | None = None) -> None:
    """Refuse a solver whose nets, tests and passes do not add up.

    Raises:
        ConfigError: no training net or several, test_iter that does not fit the test nets, iter_size or average_loss
            below 1, a count below 0, a number that is infinite or none.
    """

    def where(*path: str | int) -> Where | None:
        return source.where(*path) if source else None

    for field in ("iter_size", "average_loss"):
        if getattr(solver, field) < 1:
            raise ConfigError(f"{field} must be at least 1, got {getattr(solver, field)}", where(field))
    for field in ("max_iter", "display", "snapshot", "test_interval"):
        if getattr(solver, field) < 0:
            raise ConfigError(f"{field} must be at least 0, got {getattr(solver, field)}", where(field))
    for i, batches in enumerate(solver.test_iter):
        if batches < 0:
            raise ConfigError(f"test_iter must be at least 0, got {batches}", where("test_iter", i))
    for given, value in solver.ListFields():
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{given.name} must be a finite number, got {value}", where(given.name))
    nets = [n for n in (*NAMED, *INSIDE) if solver.HasField(n)]
    if len(nets) != 1:
        got = ", ".join(nets) or "none"
        raise ConfigError(
            f"the solver must name one training net (net, net_param, train_net or train_net_param), got {got}",
            where(nets[1]) if len(nets) > 1 else where(),
        )
    own = len(solver.test_net) + len(solver.test_net_param)
    count = len(solver.test_iter)
    generic = solver.HasField("net") or solver.HasField("net_param")
    if count < own or (count > own and not generic):
        raise ConfigError(
            f"test_iter is given {count} times for {own} test nets",
            where("test_iter"),
            ["give test_iter once for each test net: how many batches one test takes"],
        )
    if solver.test_state and len(solver.test_state) != count:
        what = f"test_state is given {len(solver.test_state)} times for {count} test nets"
        raise ConfigError(what, where("test_state", 0))
    if count and solver.test_interval <= 0:
        what = "test_iter is given, but test_interval is not: how many iterations lie between two tests"
        raise ConfigError(what, where("test_iter", 0))


def net_to_train(solver: schema.SolverParameter, source: Source | None = None, folder: str = "") -> SolverNet:
    """The training net of a solver that :func:`check_counts` accepts.

    Raises:
        UsageError: its file is not there.
        ConfigError: it does not parse.
    """
    given = solver.train_state if solver.HasField("train_state") else None
    for name in INSIDE:
        if solver.HasField(name):
            message = _as_said(solver, _inside(getattr(solver, name), solver.lenient))
            view = source.view(name) if source else None
            return SolverNet(message, view, merged(schema.TRAIN, message, given), f"{name}")
    field = "train_net" if solver.HasField("train_net") else "net"
    name = getattr(solver, field)
    message, found = _read(name, folder, source.where(field) if source else None, solver.lenient)
    message = _as_said(solver, message)
    return SolverNet(message, found, merged(schema.TRAIN, message, given), f"{field} file: {name}")


def nets_to_test(solver: schema.SolverParameter, source: Source | None = None, folder: str = "") -> list[SolverNet]:
    """The test nets of a solver, in Caffe's order: test_net_param, test_net, then the training net's own file.

    Raises:
        UsageError: a file is not there.
        ConfigError: one does not parse.
    """
    found: list[tuple[schema.NetParameter, Source | None, str]] = []
    for i, inner in enumerate(solver.test_net_param):
        view = source.view("test_net_param", i) if source else None
        found.append((_inside(inner, solver.lenient), view, f"test_net_param (#{i})"))
    for i, name in enumerate(solver.test_net):
        where = source.where("test_net", i) if source else None
        found.append((*_read(name, folder, where, solver.lenient), f"test_net file: {name}"))
    if len(solver.test_iter) > len(found):
        generic = net_to_train(solver, source, folder)
        rest = len(solver.test_iter) - len(found)
        found += [(generic.message, generic.source, generic.what)] * rest
    states = list(solver.test_state)
    return [
        SolverNet(
            _as_said(solver, message), at, merged(schema.TEST, message, states[i] if i < len(states) else None), what
        )
        for i, (message, at, what) in enumerate(found)
    ]


def merged(phase: int, net: schema.NetParameter, given: schema.NetState | None) -> State:
    """The phase of the job, then what the net's own ``state`` says, then what the solver says for this net."""
    state = schema.NetState(phase=schema.Phase.Name(phase))
    state.MergeFrom(net.state)
    if given is not None:
        state.MergeFrom(given)
    return State.of(state)


def _as_said(solver: schema.SolverParameter, net: schema.NetParameter) -> schema.NetParameter:
    """The net with the precision that the solver asks for, where it says something."""
    if solver.HasField("precision"):
        net.precision = solver.precision
    if solver.HasField("deterministic"):
        net.deterministic = solver.deterministic
    return net


def _inside(message: schema.NetParameter, lenient: bool) -> schema.NetParameter:
    net = schema.NetParameter()
    net.CopyFrom(message)
    upgrade_net(net, None, lenient)
    return net


def _read(name: str, folder: str, where: Where | None, lenient: bool) -> tuple[schema.NetParameter, Source]:
    file = resolve(name, folder)
    if not os.path.exists(file):
        raise UsageError(f'the net of the solver: there is no file "{name}"', where)
    return read_net(file, lenient)
