"""What goes wrong on a GPU alone: lifetimes, captures that break off, memory that runs out, errors that come late.

The stand-in is in order always and never loses memory; these tests look at what the device does about it.
"""

from __future__ import annotations

import ast
import gc
import re
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fakecupy
import numpy as np
import pytest

import layers_cuda
from layers_cuda.device import Cuda
from layers_cuda.dnn import Plan, Problem
from layers_cuda.launch import Kernel
from layers_cuda.transfer import LARGE, OFTEN
from netrun.errors import DeviceError
from netrun.types import Spec


def test_a_step_keeps_its_arrays(device: Cuda) -> None:
    """A graph holds bare addresses: memory that the pool gives away meanwhile would be written by the next replay."""
    spec = Spec((64,))
    kernel = Kernel("precision", "narrow", (("STORAGE", "__half"),))
    for make in (
        lambda a, b: device.launcher.step(kernel, 1, 64, [a, b, np.int64(32)]),
        lambda a, b: device.launcher.copy(a, b),
        lambda a, b: device.launcher.zero(a),
    ):
        a, b = (device.array(device.allocate(spec.nbytes), 0, spec) for _ in range(2))
        alive = weakref.ref(a)
        run = device.capture([make(a, b)])
        run()
        run()
        del a, b
        gc.collect()
        assert alive() is not None
        run()
        del run
        gc.collect()
        assert alive() is None


def test_ctrl_c_ends_a_capture(device: Cuda) -> None:
    calls = []

    def step() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    run = device.capture([step])
    run()
    with pytest.raises(KeyboardInterrupt):
        run()
    assert not device.stream.is_capturing()
    run()


def test_what_cuda_reports_is_one_message(device: Cuda) -> None:
    def step() -> None:
        raise fakecupy.CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")

    with pytest.raises(DeviceError, match=r"^device cuda:0: cudaErrorIllegalAddress.*\n.*NETRUN_CUDA_DEBUG=1"):
        device.capture([step])()
    array = device.array(device.allocate(4), 0, Spec(()))
    device.stream.synchronize = step
    with pytest.raises(DeviceError, match="illegal memory access"):
        device.read(array)


def test_no_memory_for_slots_of_its_own(device: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches then go through the ring."""
    array = device.array(device.allocate(LARGE), 0, Spec((LARGE // 4,)))
    monkeypatch.setattr(fakecupy, "FREE", LARGE - 1)
    for i in range(2 * OFTEN):
        device.write(array, np.full(LARGE // 4, i, "float32"))
        assert float(device.read(array)[-1]) == i
    assert not device._uploads._own


def test_a_loss_nobody_read_keeps_its_slot(device: Cuda) -> None:
    """Freed while the copy is on its way, page-locked memory would be somebody else's when it arrives."""
    array = device.array(device.allocate(4), 0, Spec(()))
    device.write(array, 2.0)
    device.later(array)
    again = device.later(array)
    assert float(again()) == float(again()) == 2.0
    assert len(device._downloads._free[4]) == 1
    del again
    gc.collect()
    assert len(device._downloads._free[4]) == 1


def test_a_plan_that_cannot_be_measured_is_passed_over(
    make_device: Callable[..., Cuda], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETRUN_CUDA_TUNE", "1")
    problem = Problem("fprop", "float32", (1, 2, 4, 4), (3, 2, 3, 3), (1, 3, 2, 2), (1, 1), (0, 0), (0, 0), (1, 1))
    device = make_device()

    def measure(plan: Plan) -> float:
        if plan.workspace < 4096:
            raise DeviceError("cuDNN: status 5000")
        return 1.0

    device.plans.measure = measure
    tensor = replace(problem, tensor=True)
    chosen = device.plans.best(tensor)
    assert chosen is not None
    assert chosen.workspace == 4096
    device.plans.measure = lambda plan: measure(replace(plan, workspace=0))
    other = device.plans.best(problem)
    assert other is not None


def test_cuda_stands_in_cu_files_alone() -> None:
    """No string of Python holds CUDA C but one-line expressions and names of types."""
    found = []
    for path in sorted(Path(layers_cuda.__file__).parent.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        told = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
                code = re.search(
                    r"__global__ void|__device__|__shared__|threadIdx|blockIdx|\bfor \(|\bif \(|;\s*\n", node.value
                )
                if code:
                    found.append(f"{path.name}:{node.lineno}: {code.group()}")
    assert not found
