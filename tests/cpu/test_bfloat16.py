"""precision BF16 on device cpu: what is stored in 16 bits, and how far results may be from those in float32."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cases.program_nets import NETS, compiled, results

from netrun.compiler.plan import plan
from netrun.cpu import dnnl
from netrun.cpu.fast import Fast
from netrun.cpu.layouts import is_half
from netrun.cpu.reference import Reference
from netrun.errors import DeviceError
from netrun.program import Program
from netrun.solver import Solver
from netrun.types import Numerics

ROOT = Path(__file__).parents[2]
HALVES = Numerics("BF16")
LIBRARY = dnnl.library()
needs_halves = pytest.mark.skipif(
    LIBRARY is None or not LIBRARY.multiplies_halves, reason="this processor does not multiply bfloat16, or no oneDNN"
)


def halved(name: str, train: bool = True) -> tuple[Program, Program]:
    program, _ = compiled(NETS[name], train)
    return program, replace(program, numerics=HALVES)


@needs_halves
@pytest.mark.parametrize("name", NETS)
def test_results_are_near(name: str) -> None:
    """A bfloat16 has 8 significant bits: some layers deep, a hundredth of the length of each vector is what is lost.

    A maximum or a ReLU may decide otherwise here and there, which changes gradients more.
    """
    program, wanted = halved(name)
    got, exact = results(wanted, Fast(), runs=2), results(program, Reference())
    assert got.keys() == exact.keys()
    for key, value in exact.items():
        lost = np.linalg.norm(got[key] - value) / np.linalg.norm(value)
        assert lost < (0.15 if "'" in key else 0.03), (key, lost)
    assert any(not np.array_equal(got[key], exact[key].astype(np.float32)) for key in exact)


@needs_halves
def test_activations_take_half_the_room() -> None:
    program, wanted = halved("residual")
    device = Fast()
    prepared = device.prepare(wanted)
    assert any(is_half(t.spec.layout) for t in prepared.tensors())
    assert all(not is_half(t.spec.layout) for t in prepared.keeps | set(prepared.feeds.values()))
    assert all(t.kind != "learned" or t.spec.layout == "plain" for t in prepared.tensors())
    assert plan(prepared, device).arena < 0.7 * plan(device.prepare(program), device).arena


@needs_halves
def test_training_reaches_the_same_accuracy(tmp_path: Path) -> None:
    """The digits net, 300 iterations: within a point of float32 and far from chance."""
    scores = []
    for precision in ("FP32", "BF16"):
        with Solver(str(ROOT / "configs/digits/solver.prototxt")) as solver:
            message = solver.message
        message.precision = precision
        message.max_iter, message.snapshot_prefix, message.test_interval = 300, str(tmp_path / "d"), 10**6
        message.snapshot_after_train = False
        with Solver(message, folder=str(ROOT / "configs/digits")) as solver:
            solver.solve()
            outputs = {o.name: float(o.values.mean()) for o in solver.test()}
        scores.append(outputs["accuracy"])
    assert min(scores) > 0.95
    assert abs(scores[0] - scores[1]) < 0.01


def test_numpy_refuses() -> None:
    _, wanted = halved("lenet")
    with pytest.raises(DeviceError, match="device cpu: no precision BF16 here, only FP32 and TF32"):
        Fast(numpy=True).prepare(wanted)
