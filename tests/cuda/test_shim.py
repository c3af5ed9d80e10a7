"""The shim notices what it is for: each test plants a mistake into a kernel that is otherwise right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cpukernels
import numpy as np
import pytest
import shim
from cases import KernelCase, compare, run_case
from shim import CASES, Device, KernelError, TrespassError

from layers_cuda import source
from netrun.cpu.reference import Reference
from netrun.types import Spec

pytestmark = pytest.mark.skipif(cpukernels.COMPILER is None, reason="no g++: the shim compiles the kernels with it")


def planted(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    """Put a mistake into the text of the kernels."""
    real = source.source_of

    def changed(file: str, given: Any = ()) -> str:
        text = real(file, given)
        assert old in text
        return text.replace(old, new, 1)

    monkeypatch.setattr(shim, "source_of", changed)


def row_named(op: str, note: str) -> KernelCase:
    return next(c for c in CASES if (c.op, c.note) == (op, note))


def _long(op: str) -> KernelCase:
    """A case in which every barrier of the kernel's file has work to do."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return rng.standard_normal(shape).astype("float32")

    one = Spec((), "float32")
    given: Any = {
        "softmax": lambda: ((normal(3, 5000), Spec((3, 5000))), {"axis": 1}),
        "topk": lambda: ((normal(2, 2100), Spec((2, 3)), Spec((2, 3), "int32")), {"axis": 1}),
        "softmax_nll": lambda: (
            (normal(700, 5), rng.integers(0, 5, 700), Spec((700, 5)), one, one),
            {"axis": 1, "ignore": 2, "normalize": "valid"},
        ),
        "transpose": lambda: ((normal(300, 300), Spec((300, 300))), {"axes": (1, 0)}),
        "scatter_add": lambda: ((rng.integers(0, 40, 900), normal(900, 3), Spec((40, 3))), {}),
        "merge_rows": lambda: ((rng.integers(0, 40, 900), normal(900, 3), Spec((900,), "int32"), Spec((900, 3))), {}),
        "gemm": lambda: ((normal(70, 50), normal(50, 30), None, Spec((70, 30))), {"ta": False, "tb": False}),
    }[op]()
    return KernelCase(op, "large", lambda r, t: given, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op", ["softmax", "topk", "softmax_nll", "transpose", "scatter_add", "merge_rows", "gemm"])
def test_a_missing_barrier_is_caught(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take out each __syncthreads() in turn: in some order of the warps the result is another one."""
    case, device = _long(op), Device(processors=1)
    wanted = run_case(Reference(), case, "float32")
    compare(case, "float32", run_case(device, case, "float32"), wanted)
    kernels, real = list(device.kernels), source.source_of

    def without(which: int) -> Callable[..., str]:
        def changed(file: str, given: Any = ()) -> str:
            parts = real(file, given).split("__syncthreads();")
            return "__syncthreads();".join(parts[: which + 1]) + ";" + "__syncthreads();".join(parts[which + 1 :])

        return changed

    count = min(real(k.file, k.defines).count("__syncthreads();") for k in kernels)
    assert count > 1
    unused = 2 if op in ("scatter_add", "merge_rows") else 0  # they include across_lanes and do not call it
    for which in range(unused, count):
        monkeypatch.setattr(shim, "source_of", without(which))
        for seed in range(12):
            try:
                with shim.shuffled(seed):
                    compare(case, "float32", run_case(Device(processors=1), case, "float32"), wanted)
            except AssertionError:
                break
        else:
            pytest.fail(f"nothing noticed that barrier {which} of {count} is missing")
    monkeypatch.undo()
    for seed in range(3):
        with shim.shuffled(seed):
            compare(case, "float32", run_case(Device(processors=1), case, "float32"), wanted)


def test_a_write_outside_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, "i < (count)", "i <= (count)")
    with pytest.raises(TrespassError, match="pool_max wrote behind"):
        run_case(Device(), row_named("pool_max", "1x1"), "float32")


def test_a_barrier_that_not_all_reach_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, "  const Softmax of", "  if (!mine) return;\n  const Softmax of")
    with pytest.raises(KernelError, match="had left the kernel"):
        run_case(Device(), row_named("softmax", "rows"), "float32")


def test_an_output_not_written_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, "i < (count)", "i + 1 < (count)")
    case = row_named("pool_max", "1x1")
    with pytest.raises(AssertionError):
        compare(case, "float32", run_case(Device(), case, "float32"), run_case(Reference(), case, "float32"))
