"""``netrun features``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..compiler.graph import Graph, State, build
from ..compiler.record import Recording, record
from ..config import schema
from ..config.upgrade import read_net
from ..data.feature_files import write_features
from ..errors import UsageError, nearest
from ..params import initialise
from ..program import Program
from ..runner import Runner
from ..session import Memory
from ..types import Tensor
from ..varying import open_session
from . import numerics
from .device import choose_device
from .loading import load_weights
from .logs import open_log, tell
from .progress import Bar, is_terminal
from .test import model_file
from .train import stages


def run(args: argparse.Namespace) -> int:
    """Run a net over its own data in the TEST phase and write the values of some blobs; returns the exit code."""
    file = model_file(args)
    if not args.weights:
        raise UsageError("netrun features: no weights are given", None, ["--weights net_iter_1000.caffemodel"])
    log = open_log(args.log)
    message, source = read_net(file, args.lenient)
    tell(log, source.notices)
    numerics.apply(message, args)
    device = choose_device(args.device, args.gpu, log, "test")
    graph = build(message, source, State(schema.TEST, args.level or 0, tuple(stages(args.stage))))
    names = _wanted(graph, args.blobs)

    def compiled(graph: Graph) -> tuple[Recording, Program]:
        made = record(graph)
        return made, made.program(made.forward, (made.blob(name) for name in names))

    recording, program = compiled(graph)
    tensors = {name: recording.blob(name) for name in names}
    memory = Memory(device)
    initialise(recording, memory, seed=0)
    load_weights(recording, memory, args, log)
    runner = Runner("test0", recording, open_session((recording, program), compiled, device, memory, frozen=True))
    runner.open()
    bar = Bar(sys.stderr, "features", args.batches) if is_terminal(sys.stderr) else None
    try:
        made = write_features(args.out, _batches(runner, tensors, args.batches, bar), args.backend or "")
    finally:
        runner.close()
        if bar:
            bar.clear()
    for path in made:
        print(path)
    return 0


def _batches(
    runner: Runner, tensors: dict[str, Tensor], count: int, bar: Bar | None
) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    for batch in range(count):
        runner.feed()
        runner.session.run()
        yield {name: runner.session.read(tensor) for name, tensor in tensors.items()}
        if bar:
            bar.update(batch + 1)


def _wanted(graph: Graph, text: str) -> Sequence[str]:
    """The blobs that ``--blobs`` names.

    Raises:
        UsageError: there is no such blob, or the net waits for values that nobody feeds.
    """
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise UsageError("--blobs names no blob", None, ["--blobs fc7,prob"])
    for name in names:
        if name not in graph.blobs:
            raise UsageError(
                f'the net has no blob "{name}"{nearest(name, graph.blobs)}', None, [f"blobs: {', '.join(graph.blobs)}"]
            )
    waiting = [top for node in graph.nodes if node.layer.type == "Input" for top in node.message.top]
    if waiting:
        raise UsageError(
            f'nobody feeds the input "{waiting[0]}"; features wants a net with data layers, as netrun test does',
            None,
            ["put a Data or ImageData layer in the place of the Input layer"],
        )
    return names


__all__ = ["run"]
