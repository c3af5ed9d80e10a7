"""Matrix products through the C interface of cuBLAS, on a stand-in that follows its column-major meaning."""

from __future__ import annotations

from typing import Any

import fakecupy
import numpy as np
import pytest
from fakelibs import Cublas

from layers_cuda.blas import Blas, declare
from layers_cuda.precision import PRECISIONS
from netrun.errors import DeviceError

FP32 = PRECISIONS["FP32"]


def start(library: Any) -> Blas:
    return Blas(declare(library), 0x100, fakecupy.empty(1024, np.uint8))


def rows(*shape: int, dtype: str = "float32") -> Any:
    return fakecupy.asarray(np.random.default_rng(len(shape)).standard_normal(shape).astype(dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("ta", [False, True])
@pytest.mark.parametrize("tb", [False, True])
def test_every_transposition(ta: bool, tb: bool, dtype: str) -> None:
    a, b, y = (rows(*shape, dtype=dtype) for shape in ((4, 3) if ta else (3, 4), (5, 4) if tb else (4, 5), (3, 5)))
    left, right = np.asarray(a), np.asarray(b)
    wanted = (left.T if ta else left) @ (right.T if tb else right)
    start(Cublas()).matmul(a, b, y, ta, tb, FP32)()
    np.testing.assert_allclose(y, wanted, 1e-5)


def test_adding() -> None:
    a, b, y = rows(3, 4), rows(4, 5), rows(3, 5)
    wanted = np.asarray(y) + np.asarray(a) @ np.asarray(b)
    start(Cublas()).matmul(a, b, y, False, False, FP32, add=True)()
    np.testing.assert_allclose(y, wanted, 1e-5)


@pytest.mark.parametrize(
    ("a", "b", "y", "calls"),
    [
        ((6, 3, 4), (6, 4, 5), (6, 3, 5), 1),
        ((6, 3, 4), (1, 4, 5), (6, 3, 5), 1),
        ((3, 4), (6, 4, 5), (6, 3, 5), 1),
        ((2, 6, 3, 4), (4, 5), (2, 6, 3, 5), 1),
        ((2, 1, 3, 4), (1, 3, 4, 5), (2, 3, 3, 5), 2),
        ((2, 1, 3, 4), (2, 3, 4, 5), (2, 3, 3, 5), 2),
        ((3, 3, 4), (2, 3, 4, 5), (2, 3, 3, 5), 2),
        ((0, 3, 4), (0, 4, 5), (0, 3, 5), 0),
    ],
)
def test_batches_broadcast_in_few_calls(a: Any, b: Any, y: Any, calls: int) -> None:
    library = Cublas()
    left, right, result = rows(*a), rows(*b), rows(*y)
    start(library).matmul(left, right, result, False, False, FP32)()
    np.testing.assert_allclose(result, np.matmul(np.asarray(left), np.asarray(right)), 1e-5)
    assert library.calls == calls


@pytest.mark.parametrize(("name", "compute"), [("FP32", 68), ("TF32", 77), ("BF16", 75), ("FP16", 74)])
def test_one_word_decides_what_is_multiplied(name: str, compute: int) -> None:
    library = Cublas()
    blas = start(library)
    blas.matmul(rows(3, 4), rows(4, 5), rows(3, 5), False, False, PRECISIONS[name])()
    wide = [rows(*s, dtype="float64") for s in ((3, 4), (4, 5), (3, 5))]
    blas.matmul(*wide, False, False, PRECISIONS[name])()
    assert library.computes == [compute, 70]


def test_the_workspace_is_set_after_the_stream() -> None:
    library = Cublas()
    start(library)
    assert library.set == ["stream", "workspace", "mode 16"]


def test_an_error_names_the_product() -> None:
    class Broken(Cublas):
        def cublasGemmStridedBatchedEx_64(self, *args: Any) -> int:
            return 13

    step = start(Broken()).matmul(rows(3, 4), rows(4, 5), rows(3, 5), False, False, FP32)
    with pytest.raises(DeviceError, match=r"m=3, n=5, k=4.*cuBLAS status 13 \(failed\)"):
        step()
