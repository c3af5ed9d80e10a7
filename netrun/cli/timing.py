"""``netrun time``: how long every layer takes, forward and backward."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

from ..compiler.gradients import backward
from ..compiler.graph import Graph
from ..compiler.record import LOSS, Recording, record
from ..compiler.summary import table
from ..config.upgrade import read_net
from ..device import Device
from ..log import Log
from ..params import initialise
from ..program import Program
from ..runner import Runner, kept
from ..session import Memory
from ..types import Tensor
from ..varying import open_session
from . import numerics, results
from .device import choose_device
from .files import build_with, state_of
from .logs import open_log, tell
from .test import model_file


@dataclass
class Times:
    """Seconds of one layer, summed over all iterations."""

    layer: str
    forward: float = 0.0
    backward: float = 0.0


def run(args: argparse.Namespace) -> int:
    """Time a net; returns the exit code."""
    log = open_log(args.log)
    message, source = read_net(model_file(args))
    numerics.apply(message, args)
    tell(log, source.notices)
    state = state_of(args)
    device = choose_device(args.device, args.gpu, log, "time")
    graph = build_with(message, source, state, args.input_shape)
    rows, forward_s, backward_s, total_s = measure(graph, device, args.iterations, log)
    count = args.iterations
    width = max([10, *(len(row.layer) for row in rows)])
    log("Average time per layer: ", "caffe.cpp:397")
    for row in rows:
        log(f"{row.layer:>{width}}\tforward: {_ms(row.forward, count)} ms.", "caffe.cpp:400")
        log(f"{row.layer:>{width}}\tbackward: {_ms(row.backward, count)} ms.", "caffe.cpp:403")
    log(f"Average Forward pass: {_ms(forward_s, count)} ms.", "caffe.cpp:408")
    log(f"Average Backward pass: {_ms(backward_s, count)} ms.", "caffe.cpp:410")
    log(f"Average Forward-Backward: {_ms(total_s, count)} ms.", "caffe.cpp:412")
    log(f"Total Time: {total_s * 1e3:g} ms.", "caffe.cpp:414")
    log("*** Benchmark ends ***", "caffe.cpp:415")
    if args.json:
        results.print_json(
            {
                "device": device.name,
                "iterations": count,
                "forward_ms": forward_s * 1e3 / count,
                "backward_ms": backward_s * 1e3 / count,
                "layers": [
                    {
                        "name": row.layer,
                        "forward_ms": row.forward * 1e3 / count,
                        "backward_ms": row.backward * 1e3 / count,
                    }
                    for row in rows
                ],
            }
        )
        return 0
    cells = [("layer", "forward ms", "backward ms")]
    cells += [(row.layer, _ms(row.forward, count), _ms(row.backward, count)) for row in rows]
    cells.append(("all", _ms(forward_s, count), _ms(backward_s, count)))
    print("\n".join(table(cells, right=(1, 2))))
    return 0


def measure(graph: Graph, device: Device, iterations: int, log: Log) -> tuple[list[Times], float, float, float]:
    """Run forward and backward some times, waiting after every call.

    Returns:
        What each layer took, and the seconds of all forwards, all backwards, and of everything; sums over iterations.
        Reading data counts for the layer that does it.
    """

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
        rows = {node.name: Times(node.name) for node in graph.nodes}
        forward_s = backward_s = 0.0
        began = time.perf_counter()
        for iteration in range(iterations):
            start = time.perf_counter()
            runner.feed()
            reading = time.perf_counter() - start
            forward_s += reading
            if runner.feeders:
                rows[next(iter(runner.feeders))].forward += reading
            for timing in session.time(1):
                name = timing.call.origin.rstrip("'")
                is_backward = timing.call.origin.endswith("'")
                forward_s += 0.0 if is_backward else timing.seconds
                backward_s += timing.seconds if is_backward else 0.0
                if name == LOSS or name not in rows:
                    continue
                if is_backward:
                    rows[name].backward += timing.seconds
                else:
                    rows[name].forward += timing.seconds
            spent = (time.perf_counter() - start) * 1e3
            log(f"Iteration: {iteration + 1} forward-backward time: {spent:g} ms.", "caffe.cpp:394")
        return list(rows.values()), forward_s, backward_s, time.perf_counter() - began
    finally:
        runner.close()


def forward_backward(recording: Recording) -> Program:
    """Forward, and the gradients of all parameters; a net without a loss starts backward at its outputs."""
    roots = [t for p, t in recording.parameters.items() if p.trained and (p.lr_mult or recording.graph.force_backward)]
    seeds: list[tuple[Tensor, Tensor]] = []
    if not recording.losses:
        for name, value in recording.graph.outputs:
            seeds.append((recording.tensors[value], Tensor(f"{name}' given", value.spec, "control")))
    found = backward(recording.recorder, recording.forward, roots, losses=recording.losses, seeds=seeds)
    gradients = {found[t] for t in roots if t in found}
    calls, numerics = tuple(recording.recorder.calls), recording.graph.numerics
    return Program(calls, recording.feeds, kept(recording) | gradients, recording.initial, numerics=numerics)


def _ms(seconds: float, count: int) -> str:
    return f"{seconds * 1e3 / count:.6g}"
