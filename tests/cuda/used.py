"""Which variants of the .cu files programs really use: every layer row and every net of configs/, in every precision.

Programs are bound to a device on stand-ins whose compiler only writes down what it is asked for; nothing runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fakecupy
import fakelibs
from cases.layers import LAYERS

from layers_cuda.device import Cuda
from netrun.cli.timing import forward_backward
from netrun.compiler.graph import Graph, State, build
from netrun.compiler.record import record
from netrun.config import schema
from netrun.config.upgrade import read_net
from netrun.errors import NetrunError
from netrun.program import Program
from netrun.session import Session
from netrun.training import compile_training

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
NETS = sorted(p for p in CONFIGS.rglob("*.prototxt") if "solver" not in p.name)
PRECISIONS = ("FP32", "TF32", "BF16", "FP16")
Variant = tuple[str, tuple[tuple[str, str], ...]]


class _Module:
    """A RawModule that compiles nothing."""

    def __init__(self, **_: Any) -> None:
        pass

    def get_function(self, name: str) -> Any:
        return SimpleNamespace(kernel=SimpleNamespace(ptr=1), max_dynamic_shared_size_bytes=1 << 20)


def device() -> Cuda:
    """A stand-in GPU that binds everything and runs nothing."""
    driver = SimpleNamespace(launchKernel=lambda *_: None, CUDADriverError=fakecupy.CUDADriverError)
    cuda = SimpleNamespace(**{**vars(fakecupy.cuda), "driver": driver})
    return Cuda(0, SimpleNamespace(**{**vars(fakecupy), "cuda": cuda, "RawModule": _Module}), fakelibs.libraries())


def programs() -> Iterator[Program]:
    """Forward and backward of every layer row; the training iterations, or forward passes, of every net."""
    for precision in PRECISIONS:
        for case in LAYERS:
            message = case.net()
            message.precision = precision  # type: ignore[assignment]
            try:
                yield forward_backward(record(build(message, None, _state(case.phase), seed=0)))
            except NetrunError:  # an optional package is missing, or no gradient comes back
                continue
        for path in NETS:
            for phase in (schema.TRAIN, schema.TEST):
                yield from _net(path, precision, phase)


def _net(path: Path, precision: str, phase: int) -> Iterator[Program]:
    message, source = read_net(str(path))
    message.precision = precision  # type: ignore[assignment]
    try:
        graph: Graph = build(message, source, _state(phase), seed=0, folder=str(path.parent))
        if phase == schema.TRAIN:
            solver = schema.SolverParameter(base_lr=0.1, lr_policy="fixed", momentum=0.9, clip_gradients=1)
            yield from compile_training(graph, solver).programs
        else:
            yield forward_backward(record(graph))
    except NetrunError:  # its data is not here, or it has no loss
        return


def _state(phase: int) -> State:
    return State.of(schema.NetState(phase=schema.Phase.Name(phase)))


def variants() -> list[Variant]:
    """File and #define lines of everything that binding the programs compiles."""
    found: dict[Variant, None] = {}
    for program in programs():
        gpu = device()
        Session(program, gpu)
        found.update(dict.fromkeys(gpu.launcher._modules))
    return list(found)
