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
from netrun.errors import DataError, DeviceError
from netrun.program import Origin
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


def test_what_cuda_reports_is_one_message(device: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(*_: object) -> None:
        raise fakecupy.CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")

    with pytest.raises(DeviceError, match=r"^device cuda:0: cudaErrorIllegalAddress.*\n.*NETRUN_CUDA_DEBUG=1"):
        device.capture([step])()
    array = device.array(device.allocate(4), 0, Spec(()))
    device.stream.synchronize = step
    with pytest.raises(DeviceError, match="illegal memory access"):
        device.read(array)
    monkeypatch.setattr(fakecupy.runtime, "memcpyAsync", step)
    for call in (lambda: device.write(array, 1.0), lambda: device.later(array)):  # what comes next meets it first
        with pytest.raises(DeviceError, match="illegal memory access"):
            call()
    monkeypatch.setattr(fakecupy, "empty", step)
    with pytest.raises(DeviceError, match="illegal memory access"):
        device.allocate(4)


def test_a_kernel_that_does_not_compile_is_one_message(device: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object, name: str) -> None:
        raise RuntimeError("Failed to find CUDA headers.\nInstall them.")

    monkeypatch.setattr(fakecupy.RawModule, "get_function", refuse)
    with pytest.raises(
        DeviceError, match=r"the kernel narrow cannot be compiled or loaded\n +Failed to find CUDA head"
    ):
        device.launcher.step(Kernel("precision", "narrow", (("STORAGE", "__half"),)), 1, 64, [])


def test_nothing_is_collected_while_a_stream_captures(device: Cuda) -> None:
    """To give back what the collector finds can wait for the device, and that breaks off a capture."""
    seen = []
    run = device.capture([lambda: seen.append(gc.isenabled())])
    run()
    run()
    assert seen == [True, False]
    assert gc.isenabled()


def test_slots_for_faults_are_used_again(device: Cuda) -> None:
    """A process that binds programs again and again reads no more slots than there are calls; a fault that nobody
    looked at is not reported for another layer."""
    first = device.faults.slot(Origin("a"), "label", (3,), 10)
    kept = device.faults.slot(Origin("b"), "label", (3,), 10)
    place = first.data.ptr
    np.asarray(first)[...] = (1 << 32, 1)
    del first
    gc.collect()
    again = device.faults.slot(Origin("c"), "label", (3,), 10)
    assert again.data.ptr == place != kept.data.ptr
    device.synchronize()
    np.asarray(again)[...] = (2 << 32, 1)
    with pytest.raises(DataError, match="layer c: label 0 at position 2"):
        device.synchronize()


def test_slots_go_with_the_array(device: Cuda) -> None:
    """Of arrays that are gone no page-locked memory and no buffers are left; another view is the same array."""
    blocks = [device.allocate(LARGE) for _ in range(2)]
    spec = Spec((LARGE // 4,))
    for i in range(OFTEN + 1):
        for block in blocks:
            device.write(device.array(block, 0, spec), np.full(LARGE // 4, i, "float32"))
    owners = device._uploads._own
    assert len(owners) == 2
    found = list(owners.values())
    device.write(device.array(blocks[0], 0, spec), np.zeros(LARGE // 4, "float32"))
    assert list(owners.values()) == found
    larger = device.allocate(2 * LARGE)
    sizes = [Spec((LARGE // 4 * n,)) for n in (2, 1)]  # batches whose images change their size
    for i in range(OFTEN + 4):
        array = device.array(larger, 0, sizes[i % 2])
        device.write(array, np.full(array.shape, i, "float32"))
        assert (device.read(array) == i).all()
    assert len(owners) == 3
    del array, larger
    del block, blocks[1], found
    gc.collect()
    device.allocate(4)
    assert len(owners) == 1  # blocks[0]


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

    def measure(plan: Plan, best: float) -> float:
        if plan.workspace < 4096:
            raise DeviceError("cuDNN: status 5000")
        return 1.0

    device.plans.measure = measure
    tensor = replace(problem, tensor=True)
    chosen = device.plans.best(tensor)
    assert chosen is not None
    assert chosen.workspace == 4096
    device.plans.measure = lambda plan, best: measure(replace(plan, workspace=0), best)
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
