"""``netrun test``."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from ..compiler.graph import State, build
from ..compiler.record import record
from ..config import schema
from ..config.upgrade import read_net
from ..errors import UsageError
from ..params import initialise, load
from ..runner import Output, Runner, forward_program
from ..session import Memory, Session
from . import results
from .device import choose_device
from .logs import open_log, start_bar, tell
from .train import stages


def run(args: argparse.Namespace) -> int:
    """Score a net over some batches of its own test data; returns the exit code."""
    file = model_file(args)
    if not args.weights:
        raise UsageError("netrun test: no weights are given", None, ["--weights net_iter_1000.caffemodel"])
    log = open_log(args.log)
    message, source = read_net(file)
    tell(log, source.notices)
    device = choose_device(args.device, args.gpu, log, "test")
    state = State(schema.TEST, args.level or 0, tuple(stages(args.stage)))
    recording = record(build(message, source, state))
    memory = Memory(device)
    initialise(recording, memory, seed=0)
    for name in args.weights.split(","):
        for line in load(recording, memory, name.strip()).lines():
            log(line, "net.cpp:744")
    runner = Runner("test0", recording, Session(forward_program(recording), device, memory))
    runner.open()
    bar = start_bar(log, recording.graph.name or "net", args.iterations)
    try:
        log(f"Running for {args.iterations} iterations.", "caffe.cpp:281")
        sums: list[np.ndarray[Any, Any]] = []
        outputs: list[Output] = []
        total = 0.0
        for batch in range(args.iterations):
            runner.feed()
            runner.session.run()
            outputs = runner.outputs()
            total += runner.loss()
            values = [o.values.astype(np.float64) for o in outputs]
            sums = [a + b for a, b in zip(sums, values, strict=True)] if sums else values
            for output in outputs:
                for value in output.values.reshape(-1):
                    log(f"Batch {batch}, {output.name} = {value:g}", "caffe.cpp:304")
            if bar is not None:
                bar.update(batch + 1)
    finally:
        if bar is not None:
            bar.clear()
        runner.close()
    loss = total / args.iterations
    means = [Output(o.name, s / args.iterations, o.weight) for o, s in zip(outputs, sums, strict=True)]
    log(f"Loss: {loss:g}", "caffe.cpp:309")
    for line in results.lines(means):
        log(line, "caffe.cpp:321")
    if args.json:
        results.print_json({"iterations": args.iterations, "loss": loss, "outputs": results.values(means)})
    else:
        for line in results.lines(means):
            print(line)
    return 0


def model_file(args: argparse.Namespace) -> str:
    """The net that ``--model`` or the bare argument names.

    Raises:
        UsageError: neither does, or both do.
    """
    if args.file and args.model:
        raise UsageError(f"two nets are given, {args.model} and {args.file}")
    file: str = args.model or args.file or ""
    if not file:
        raise UsageError("no net is given", None, ["--model net.prototxt"])
    return file
