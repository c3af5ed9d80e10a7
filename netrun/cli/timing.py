"""``netrun time``: how long every layer takes, forward and backward, and how close it comes to what the machine can."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

from ..compiler.cost import multiply_adds
from ..compiler.gradients import backward
from ..compiler.graph import Graph
from ..compiler.record import Recording, record
from ..compiler.summary import table
from ..config.upgrade import read_net
from ..device import Device
from ..errors import printable
from ..log import Log
from ..params import initialise
from ..program import Program
from ..runner import Runner, kept
from ..session import Memory
from ..types import Tensor
from ..varying import open_session
from . import data_speed, numerics, results
from .device import choose_device
from .files import build_with, state_of
from .logs import open_log, tell
from .peak import peak_flops
from .test import model_file


@dataclass
class Times:
    """Seconds of one layer, summed over all iterations, and its multiply-adds in one iteration.

    ``layer`` is its name; several layers may have it, and each has a row.
    """

    layer: str
    forward: float = 0.0
    backward: float = 0.0
    forward_work: int = 0
    backward_work: int = 0


@dataclass
class Measured:
    """What ``measure`` found: rows in the order of layers; seconds summed over iterations."""

    rows: list[Times]
    iterations: int
    forward: float = 0.0
    backward: float = 0.0
    total: float = 0.0


def run(args: argparse.Namespace) -> int:
    """Time a net, or with --data its data layers alone; returns the exit code."""
    log = open_log("caffe" if args.caffe_log else args.log)
    message, source = read_net(model_file(args), args.lenient)
    numerics.apply(message, args)
    tell(log, source.notices)
    state = state_of(args)
    if args.data:
        return data_speed.run(build_with(message, source, state, args.input_shape), args)
    device = choose_device(args.device, args.gpu, log, "time")
    graph = build_with(message, source, state, args.input_shape)
    found = measure(graph, device, args.iterations, log)
    _log_times(found, log)
    if args.caffe_log:
        return 0
    peak = None if device.name == "null" else peak_flops(device, 256 if device.name == "reference" else 1024)
    if args.json:
        results.print_json({"device": device.name, **as_json(found, peak)})
    else:
        print("\n".join(as_table(found, peak)))
    return 0


def _log_times(found: Measured, log: Log) -> None:
    """The means in Caffe's words."""
    count = found.iterations
    width = max([10, *(len(row.layer) for row in found.rows)])
    log("Average time per layer: ", "caffe.cpp:397")
    for row in found.rows:
        log(f"{row.layer:>{width}}\tforward: {_ms(row.forward, count)} ms.", "caffe.cpp:400")
        log(f"{row.layer:>{width}}\tbackward: {_ms(row.backward, count)} ms.", "caffe.cpp:403")
    log(f"Average Forward pass: {_ms(found.forward, count)} ms.", "caffe.cpp:408")
    log(f"Average Backward pass: {_ms(found.backward, count)} ms.", "caffe.cpp:410")
    log(f"Average Forward-Backward: {_ms(found.total, count)} ms.", "caffe.cpp:412")
    log(f"Total Time: {found.total * 1e3:g} ms.", "caffe.cpp:414")
    log("*** Benchmark ends ***", "caffe.cpp:415")


def as_json(found: Measured, peak: float | None) -> dict[str, object]:
    """The means as --json prints them; ``peak`` in operations a second."""
    count = found.iterations
    return {
        "iterations": count,
        "peak_gflops": None if peak is None else peak / 1e9,
        "forward_ms": found.forward * 1e3 / count,
        "backward_ms": found.backward * 1e3 / count,
        "layers": [
            {
                "name": row.layer,
                "forward_ms": row.forward * 1e3 / count,
                "backward_ms": row.backward * 1e3 / count,
                "forward_gflops": _speed(row.forward_work, row.forward, count),
                "backward_gflops": _speed(row.backward_work, row.backward, count),
            }
            for row in found.rows
        ],
    }


def as_table(found: Measured, peak: float | None) -> list[str]:
    """The means as a table: milliseconds, GFLOP/s (a multiply-add is two) and the share of the measured peak."""
    whole = Times("all", found.forward, found.backward)
    whole.forward_work = sum(row.forward_work for row in found.rows)
    whole.backward_work = sum(row.backward_work for row in found.rows)
    cells = [("layer", "forward ms", "GFLOP/s", "of peak", "backward ms", "GFLOP/s", "of peak")]
    for row in (*found.rows, whole):
        forward = _cells(row.forward_work, row.forward, found.iterations, peak)
        backward = _cells(row.backward_work, row.backward, found.iterations, peak)
        cells.append((row.layer, *forward, *backward))
    lines = table(cells, right=(1, 2, 3, 4, 5, 6))
    if peak is not None:
        lines.append(f"peak: {peak / 1e9:,.0f} GFLOP/s measured here, in a matrix product or a 7x7 convolution;")
        lines.append(
            "a multiply-add is two operations, padding counts as data, a layer fused into another takes no time"
        )
    return lines


def _cells(work: int, seconds: float, count: int, peak: float | None) -> tuple[str, str, str]:
    speed = _speed(work, seconds, count)
    share = f"{speed * 1e9 / peak:.0%}" if speed is not None and peak else ""
    return _ms(seconds, count), "" if speed is None else f"{speed:.4g}", share


def _speed(work: int, seconds: float, count: int) -> float | None:
    """GFLOP/s; None for a layer without multiply-adds."""
    return 2e-9 * work * count / seconds if work and seconds else None


def measure(graph: Graph, device: Device, iterations: int, log: Log) -> Measured:
    """Run forward and backward some times, waiting after every call. Reading data counts for the layer that does it."""

    def compiled(graph: Graph) -> tuple[Recording, Program]:
        made = record(graph)
        return made, forward_backward(made)

    recording, program = compiled(graph)
    memory = Memory(device)
    initialise(recording, memory, seed=0)
    session = open_session((recording, program), compiled, device, memory)
    runner = Runner("train", recording, session)
    runner.open()
    try:
        log("Performing Forward", "caffe.cpp:351")
        runner.feed()
        session.run()
        log(f"Initial loss: {runner.loss():g}", "caffe.cpp:356")
        log("Performing Backward", "caffe.cpp:357")
        log("*** Benchmark begins ***", "caffe.cpp:365")
        log(f"Testing for {iterations} iterations.", "caffe.cpp:366")
        rows = {node.origin: Times(printable(node.name)) for node in graph.nodes}
        data = next((node.origin for node in graph.nodes if node.key in runner.feeders), None)
        for call in program.calls:  # as recorded: a device may fuse calls
            row = rows.get(call.origin.forward)
            if row is not None and call.origin.is_backward:
                row.backward_work += multiply_adds(call)
            elif row is not None:
                row.forward_work += multiply_adds(call)
        found = Measured(list(rows.values()), iterations)
        began = time.perf_counter()
        for iteration in range(iterations):
            start = time.perf_counter()
            runner.feed()
            reading = time.perf_counter() - start
            found.forward += reading
            if data is not None:
                rows[data].forward += reading
            for timing in session.time(1):
                row, is_backward = rows.get(timing.call.origin.forward), timing.call.origin.is_backward
                found.forward += 0.0 if is_backward else timing.seconds
                found.backward += timing.seconds if is_backward else 0.0
                if row is not None and is_backward:
                    row.backward += timing.seconds
                elif row is not None:
                    row.forward += timing.seconds
            spent = (time.perf_counter() - start) * 1e3
            log(f"Iteration: {iteration + 1} forward-backward time: {spent:g} ms.", "caffe.cpp:394")
        found.total = time.perf_counter() - began
        return found
    finally:
        runner.close()


def forward_backward(recording: Recording) -> Program:
    """Forward, and the gradients of all parameters; a net without a loss starts backward at its outputs."""
    roots = [t for p, t in recording.parameters.items() if p.trained and (p.lr_mult or recording.graph.force_backward)]
    seeds: list[tuple[Tensor, Tensor]] = []
    if not recording.losses:
        for name, value in recording.graph.outputs:
            seeds.append((recording.tensors[value], recording.recorder.new(f"{name}' given", value.spec, "control")))
    found = backward(recording.recorder, recording.forward, roots, losses=recording.losses, seeds=seeds)
    gradients = {found[t] for t in roots if t in found}
    return recording.program(recording.recorder.calls, kept(recording) | gradients)


def _ms(seconds: float, count: int) -> str:
    return f"{seconds * 1e3 / count:.6g}"
