"""``netrun check``: every mistake in nets and solvers that can be found without running them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ..compiler.graph import State, build
from ..compiler.record import record
from ..compiler.rules import is_included
from ..config import schema
from ..config.explain import index
from ..config.paths import resolve
from ..config.source import Source
from ..errors import NetrunError, Problem
from ..layers.base import Layer
from ..params import LoadOptions
from ..schedule import check as check_schedule
from ..schedule import last_number
from ..solver_nets import SolverNet, check_counts, net_to_train, nets_to_test
from ..updates import method_of
from . import results
from .files import read_any

CONFIG_EXIT = 2


@dataclass
class Report:
    """What was found in one file and the files it refers to."""

    file: str
    kind: str = ""
    checked: list[str] = field(default_factory=list)
    """Nets that were built, with their state and size."""
    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def attempt(self, step: Callable[[], Any]) -> Any:
        """Run a step and keep its errors, none twice; returns its result or None."""
        try:
            return step()
        except NetrunError as error:
            self.errors += [p for p in error.problems if p not in self.errors]
            return None

    def warn(self, problem: Problem) -> None:
        """Add a warning, unless it is there already."""
        if problem not in self.warnings:
            self.warnings.append(problem)


def run(args: argparse.Namespace) -> int:
    """Check all files; returns the exit code: 2 if any has an error."""
    reports = [check_file(path, args.lenient) for path in args.files]
    if args.json:
        results.print_json([_as_json(report) for report in reports])
        return CONFIG_EXIT if any(report.errors for report in reports) else 0
    for report in reports:
        for problem in report.errors:
            print(problem, file=sys.stderr)
        for problem in report.warnings:
            print(f"warning: {problem}", file=sys.stderr)
        if not report.errors:
            print(f"{report.file}: ok ({report.kind}{''.join(f'; {text}' for text in report.checked)})")
    return CONFIG_EXIT if any(report.errors for report in reports) else 0


def check_file(path: str, lenient: bool = False) -> Report:
    """Everything that is wrong with one net or solver; ``lenient`` as for ``read_net``."""
    report = Report(path)
    found = report.attempt(lambda: read_any(path, lenient))
    if found is None:
        return report
    message, source = found
    for notice in source.notices:
        report.warn(Problem(notice))
    if isinstance(message, schema.SolverParameter):
        report.kind = "solver"
        _check_solver(message, source, report)
    else:
        report.kind = "net"
        states = [State(phase).inside(message) for phase in (schema.TRAIN, schema.TEST)]
        # A net of its own for one phase has no data in the other: nothing can be said about it there.
        states = [s for s in states if _has_inputs(message, s)] or states
        for state in states:
            _check_net(SolverNet(message, source, state, ""), source.folder, report)
    return report


def _check_solver(message: schema.SolverParameter, source: Source, report: Report) -> None:
    report.attempt(lambda: method_of(message, source))
    report.attempt(lambda: check_schedule(message, source))
    last = last_number(message)
    if last is not None and last + 1 < message.max_iter:
        what = f"from iteration {last + 1} on the learning rate is no number, and training ends there"
        notes = (f"inv: 1 + gamma * iter is negative, and has no power of {-message.power:g}",)
        report.warn(Problem(what, source.where("gamma"), notes))
    report.attempt(lambda: LoadOptions.of(message.load))
    for i, entry in enumerate(message.weights):
        for name in entry.split(","):
            _exists(name.strip(), source.folder, "the weights", source, ("weights", i), report)
    counts = len(report.errors)
    report.attempt(lambda: check_counts(message, source))
    if len(report.errors) > counts:
        return
    train = report.attempt(lambda: net_to_train(message, source, source.folder))
    tests = report.attempt(lambda: nets_to_test(message, source, source.folder))
    seen = []
    for net in [train] * (train is not None) + (tests or []):
        if (net.message, net.state) in seen:
            continue
        seen.append((net.message, net.state))
        if net.source is not None:
            for notice in net.source.notices:
                report.warn(Problem(notice))
        _check_net(net, source.folder, report)


SOURCES = ("data_param", "hdf5_data_param", "image_data_param", "window_data_param", "sequence_data_param")
"""Parameters that name a source."""


def _check_net(net: SolverNet, folder: str, report: Report) -> None:
    source = net.source or Source(report.file, folder)
    blind = False
    for position, layer in _included(net.message, net.state):
        where = ("layer", position)
        for block, own in _unread(layer):
            what = f"{layer.name} ({layer.type}): {block} is not read by this type{f', {own} is' if own else ''}"
            report.warn(Problem(what, source.where(*where, block)))
        for block in SOURCES:
            name = getattr(layer, block).source if layer.HasField(block) else ""
            if name and not _exists(name, source.folder, f"{layer.name}: the source", source, (*where, block), report):
                known = layer.data_param.HasField("record_shape") or layer.transform_param.crop_size
                blind |= block == "data_param" and not known
        mean = layer.transform_param.mean_file
        if mean:
            _exists(mean, source.folder, f"{layer.name}: mean_file", source, (*where, "transform_param"), report)
    name = net.what.partition(" file: ")[2]
    title = f"{name}{' ' if name else ''}{net.state}"
    if blind:
        report.checked.append(f"{title}: not checked, its data would tell the shapes")
        return
    graph = report.attempt(lambda: build(net.message, source, net.state, folder=source.folder))
    if graph is not None and report.attempt(lambda: record(graph)) is not None:
        report.checked.append(f"{title}: {len(graph.nodes)} layer{'s' * (len(graph.nodes) != 1)}")


def _exists(name: str, folder: str, what: str, source: Source, path: tuple[str | int, ...], report: Report) -> bool:
    if os.path.exists(resolve(name, folder)):
        return True
    report.warn(Problem(f"{what} {name} is not there", source.where(*path)))
    return False


def _unread(layer: schema.LayerParameter) -> Iterator[tuple[str, str]]:
    """Blocks of parameters that a layer's type has no use for, each with the one that it has, or ""."""
    kind = Layer.registry.get(layer.type)
    if kind is None:
        return
    readers = index().readers()
    for block, _ in layer.ListFields():
        if block.name in readers and block.name != kind.param and layer.type not in readers[block.name]:
            yield block.name, "" if layer.HasField(kind.param or block.name) else kind.param


def _included(net: schema.NetParameter, state: State) -> Iterator[tuple[int, schema.LayerParameter]]:
    for position, layer in enumerate(net.layer):
        try:
            if is_included(layer, state, lambda *path: None):
                yield position, layer
        except NetrunError:
            continue  # building the graph reports it, with its place


def _has_inputs(net: schema.NetParameter, state: State) -> bool:
    return any(layer.type in Layer.registry and Layer.registry[layer.type].fed for _, layer in _included(net, state))


def _as_json(report: Report) -> dict[str, Any]:
    def entry(problem: Problem) -> dict[str, Any]:
        where = problem.where
        return {
            "file": where.file if where else report.file,
            "line": where.line if where else 0,
            "column": where.column if where else 0,
            "message": problem.what,
            "notes": list(problem.lines),
        }

    return {
        "file": report.file,
        "kind": report.kind,
        "ok": not report.errors,
        "errors": [entry(p) for p in report.errors],
        "warnings": [entry(p) for p in report.warnings],
    }
