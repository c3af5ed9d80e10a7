"""The whole vocabulary on the stand-in GPU, from the one table of cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from cases import KernelCase, compare, run_case
from cases.kernels import KERNELS
from fakelibs import REFERENCE

from layers_cuda.device import Cuda
from layers_cuda.families import _FAMILIES, BODIES, WORKSPACE
from netrun.kernels import OPS


def test_every_kernel_has_one_body() -> None:
    names = [name for family in _FAMILIES for name in family.BODIES]
    assert sorted(names) == sorted(OPS)
    assert set(BODIES) == set(OPS)
    assert set(WORKSPACE) <= set(OPS)


@pytest.mark.parametrize("case", KERNELS, ids=str)
def test_equals_the_reference(case: KernelCase, device: Cuda) -> None:
    """In float32; test_kernels_shim.py has float64 too, and test_dnn.py for convolutions."""
    compare(case, "float32", run_case(device, case, "float32"), run_case(REFERENCE, case, "float32"))


@pytest.mark.parametrize("case", [c for c in KERNELS if c.op == "gemm"], ids=str)
def test_products_in_float64(case: KernelCase, device: Cuda) -> None:
    compare(case, "float64", run_case(device, case, "float64"), run_case(REFERENCE, case, "float64"))


@pytest.mark.parametrize("op", sorted(set(OPS) - {"host"}))
def test_a_graph_does_what_the_first_run_did(op: str, make_device: Callable[..., Cuda]) -> None:
    """The second run is a replay: from the same memory as the first it must make the same, outputs poisoned again."""
    case = next(c for c in KERNELS if c.op == op and 0 not in _sizes(c))
    device = make_device()
    blocks: list[Any] = []
    runs: list[Any] = []
    allocate, capture = device.allocate, device.capture

    def remembered(nbytes: int) -> Any:
        blocks.append(allocate(nbytes))
        return blocks[-1]

    def twice(steps: Sequence[Any]) -> Any:
        runs.append(capture(steps))

        def both() -> None:
            before = [np.array(block) for block in blocks]
            runs[0]()
            for block, values in zip(blocks, before, strict=True):
                np.asarray(block)[...] = values
            runs[0]()

        return both

    device.allocate, device.capture = remembered, twice  # type: ignore[method-assign, assignment]
    compare(case, "float32", run_case(device, case, "float32"), run_case(REFERENCE, case, "float32"))
    assert [part.graph is not None for part in runs[0].parts] == [True]


def _sizes(case: KernelCase) -> list[int]:
    given, _ = case.build("float32")
    return [n for a in given for b in (a if isinstance(a, tuple) else (a,)) if b is not None for n in b.shape]
