"""Convolutions through cuDNN's backend API, on a stand-in that keeps its descriptors and executes their graphs."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakestream
import numpy as np
import pytest
from cases import KernelCase, compare, run_case
from cases.kernels import KERNELS
from fakelibs import Cudnn

from layers_cuda.capture import Captured, Segment
from layers_cuda.device import Cuda
from layers_cuda.dnn import Dnn, Problem, declare
from layers_cuda.plans import CAP, Execution, Plans
from netrun.cpu.reference import Reference
from netrun.errors import DeviceError
from netrun.types import Spec, Window

CONVOLUTIONS = [case for case in KERNELS if case.op.startswith("conv")]
PROBLEM = Problem("fprop", "float32", (2, 3, 8, 8), (4, 3, 3, 3), (2, 4, 6, 6), (1, 1), (0, 0), (0, 0), (1, 1))
Make = Callable[..., Cuda]


def without_bias(kind: str, bias: bool, relu: bool, dtype: str) -> bool:
    """A cuDNN that fuses nothing."""
    return bias or relu


def everything(kind: str, bias: bool, relu: bool, dtype: str) -> bool:
    """A cuDNN that has no engine for anything."""
    return True


@pytest.mark.parametrize("refuses", [None, without_bias, everything], ids=["fused", "unfused", "by columns"])
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_equals_the_reference(case: KernelCase, refuses: Any, make_device: Make) -> None:
    library = Cudnn(refuses)
    for dtype in ("float32", "float64"):
        compare(case, dtype, run_case(make_device(cudnn=library), case, dtype), run_case(Reference(), case, dtype))
    assert refuses is not everything or not library.executed


def test_strict_float32_avoids_tensor_cores() -> None:
    dnn = Dnn(declare(Cudnn()), 0x100)
    strict = [plan.engine for plan in dnn.plans(PROBLEM, CAP)]
    free = [plan.engine for plan in dnn.plans(replace(PROBLEM, tensor=True), CAP)]
    same = [plan.engine for plan in dnn.plans(replace(PROBLEM, tensor=True, deterministic=True), CAP)]
    small = [plan.engine for plan in dnn.plans(replace(PROBLEM, tensor=True), 1000)]
    assert (strict, free, same, small) == ([2, 3], [1, 2, 3], [1, 3], [1, 3])


def test_a_plan_is_made_once() -> None:
    library = Cudnn()
    plans = Plans(Dnn(declare(library), 0x100), "chip")
    first = plans.best(PROBLEM)
    made = library.planned
    assert plans.best(replace(PROBLEM)) is first
    assert library.planned == made


def test_the_fastest_is_kept_on_disk(tmp_path: Path) -> None:
    library = Cudnn()
    dnn = Dnn(declare(library), 0x100)
    timed: list[int] = []

    def measure(plan: Any, best: float) -> float:
        timed.append(plan.engine)
        return {2: 9.0, 3: 5.0}[plan.engine]

    plan = Plans(dnn, "NVIDIA H200", measure, tmp_path).best(PROBLEM)
    assert plan is not None
    assert (plan.engine, timed) == (3, [2, 3])
    (file,) = tmp_path.iterdir()
    assert file.name == "NVIDIA-H200-91900.json"
    (text,) = json.loads(file.read_text()).values()
    assert json.loads(base64.b64decode(text))["engine"] == 3
    timed.clear()
    again = Plans(dnn, "NVIDIA H200", measure, tmp_path).best(PROBLEM)
    assert again is not None
    assert not timed
    file.write_text("{")
    assert Plans(dnn, "NVIDIA H200", measure, tmp_path).best(PROBLEM) is not None
    assert timed == [2, 3]


def test_tuning_measures_on_the_device(make_device: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library = Cudnn()
    device = make_device(cudnn=library)
    monkeypatch.setattr(device, "tune", True)
    assert device.plans.best(PROBLEM) is not None
    assert len(library.executed) == 2 * 4
    assert len(list(tmp_path.iterdir())) == 1


def test_tuning_has_room_for_the_tensor_around_a_part(make_device: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan whose output lies in a larger tensor writes as far as that one goes."""
    device, sizes = make_device(), []
    allocate = device.allocate
    monkeypatch.setattr(device, "tune", True)
    monkeypatch.setattr(device, "allocate", lambda nbytes: sizes.append(nbytes) or allocate(nbytes))
    part = replace(PROBLEM, within=4 * PROBLEM.y[1])
    assert device.plans.best(part) is not None
    assert 4 * 4 * math.prod(PROBLEM.y) in sizes


class Failing(Cudnn):
    """Refuses to execute some engines: always, or while a graph is captured."""

    def __init__(self, engines: set[int], captured: bool = False) -> None:
        super().__init__()
        self.engines, self.captured = engines, captured

    def cudnnBackendExecute(self, handle: int, plan: int, pack: int) -> int:
        engine = self.descriptors[plan].values["engine"]
        if engine in self.engines and (fakestream.capturing() or not self.captured):
            return self._fail(f"engine {engine} does not run", 3007)
        return super().cudnnBackendExecute(handle, plan, pack)


@pytest.mark.parametrize("captured", [False, True])
def test_a_plan_that_does_not_run_gives_way(captured: bool, make_device: Make) -> None:
    """The next is executed, captured, and chosen from then on; it may need more memory."""
    device = make_device(cudnn=Failing({3}, captured))
    arrays = [device.array(device.allocate(4 * math.prod(s)), 0, Spec(s)) for s in (PROBLEM.x, PROBLEM.w, PROBLEM.y)]
    values = [np.random.default_rng(i).standard_normal(a.shape).astype("float32") for i, a in enumerate(arrays)]
    for array, value in zip(arrays, values, strict=True):
        device.write(array, value)
    problem = replace(PROBLEM, deterministic=False)
    plan = next(p for p in device.dnn.plans(problem, CAP) if p.engine == 3)
    device.plans._found[problem] = plan
    run = device.capture([Execution(device, plan, arrays, device.allocate(plan.workspace))])
    exact = np.empty(PROBLEM.y, "float32")
    Reference().conv(*values[:2], None, exact, window=Window((3, 3)), groups=1)
    for _ in range(4):
        device.write(arrays[2], np.full(PROBLEM.y, np.nan, "float32"))
        run()
        np.testing.assert_allclose(device.read(arrays[2]), exact, 1e-5, 1e-5)
    assert isinstance(run, Captured)
    (segment,) = run.parts
    assert isinstance(segment, Segment)
    assert segment.graph is not None
    best = device.plans.best(problem)
    assert best is not None
    assert (best.engine, best.workspace) == (2, 4096)


def test_no_plan_runs(make_device: Make) -> None:
    device = make_device(cudnn=Failing({1, 2, 3}))
    arrays = [device.array(device.allocate(4 * math.prod(s)), 0, Spec(s)) for s in (PROBLEM.x, PROBLEM.w, PROBLEM.y)]
    plan = device.plans.best(PROBLEM)
    assert plan is not None
    with pytest.raises(DeviceError, match=r"cuDNN: .*status 3007: engine 2 does not run"):
        Execution(device, plan, arrays, device.allocate(plan.workspace))()


def test_planning_without_a_device() -> None:
    dnn = Dnn(declare(Cudnn()), None, "{}")
    plan = next(dnn.plans(PROBLEM, CAP))
    restored = dnn.restored(PROBLEM, dnn.text_of(plan))
    assert restored is not None
    assert restored.workspace == plan.workspace


def test_cudnn_that_does_not_start() -> None:
    class Broken(Cudnn):
        def cudnnCreate(self, handle: int) -> int:
            return self._fail("cudaGetDeviceCount(&count) != cudaSuccess", 1001)

    with pytest.raises(DeviceError, match=r"cuDNN 91900 does not start: .*status 1001: cudaGetDeviceCount"):
        Dnn(declare(Broken()), 0x100)


def test_descriptors_are_given_back(make_device: Make) -> None:
    library = Cudnn()
    device = make_device(cudnn=library)
    case = next(c for c in CONVOLUTIONS if c.op == "conv")
    run_case(device, case, "float32")
    del device
    assert len(library.descriptors) < 60  # the plan and what it refers to, not the 64 slots of every heuristic


@pytest.mark.parametrize("name", ["BF16", "FP16"])
def test_sixteen_bits_are_near(name: str, make_device: Make) -> None:
    for case in CONVOLUTIONS:
        device = make_device()
        for argument, arrays in run_case(device, case, "float32", more={"precision": name}).items():
            for got, wanted in zip(arrays, run_case(Reference(), case, "float32")[argument], strict=True):
                np.testing.assert_allclose(
                    got, wanted, 0.02, 0.02 * float(np.abs(wanted).max(initial=1)), err_msg=str(case)
                )
