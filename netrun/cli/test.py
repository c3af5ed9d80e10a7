"""``netrun test``."""

from __future__ import annotations

import argparse

from ..compiler.graph import State, build
from ..compiler.record import record
from ..config import schema
from ..config.upgrade import read_net
from ..errors import UsageError
from ..params import initialise
from ..runner import Averages, Runner, open_forward
from ..session import Memory
from . import numerics, results
from .device import choose_device
from .loading import load_weights
from .logs import open_log, start_bar, tell
from .train import stages


def run(args: argparse.Namespace) -> int:
    """Score a net over some batches of its own test data; returns the exit code."""
    file = model_file(args)
    if not args.weights:
        raise UsageError("netrun test: no weights are given", None, ["--weights net_iter_1000.caffemodel"])
    log = open_log(args.log)
    message, source = read_net(file, args.lenient)
    numerics.apply(message, args)
    tell(log, source.notices)
    device = choose_device(args.device, args.gpu, log, "test")
    state = State(schema.TEST, args.level or 0, tuple(stages(args.stage)))
    recording = record(build(message, source, state))
    memory = Memory(device)
    initialise(recording, memory, seed=0)
    load_weights(recording, memory, args, log)
    runner = Runner("test0", recording, open_forward(recording, device, memory, frozen=True))
    runner.open()
    bar = start_bar(log, recording.graph.name or "net", args.iterations)
    try:
        log(f"Running for {args.iterations} iterations.", "caffe.cpp:281")
        averages = Averages()
        for batch in range(args.iterations):
            averages.add(runner)
            for output in averages.last:
                for value in output.values.reshape(-1):
                    log(f"Batch {batch}, {output.name} = {value:g}", "caffe.cpp:304")
            if bar is not None:
                bar.update(batch + 1)
    finally:
        if bar is not None:
            bar.clear()
        runner.close()
    loss, means = averages.loss, averages.means
    log(f"Loss: {loss:g}", "caffe.cpp:309")
    for notice in averages.notices:
        log(notice, "caffe.cpp:309", "W")
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
