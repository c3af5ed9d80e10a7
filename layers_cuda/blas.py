"""The only door to cuBLAS: a handle of our own, because CuPy's refuses to be captured into a graph."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from netrun.errors import DeviceError

from .launch import Launch, Step, nothing, sequence
from .precision import Precision

WORKSPACE = 32 << 20
"""Bytes cuBLAS works in: what NVIDIA advises for Hopper. Without one of ours every captured graph allocates its own."""

TYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}
"""cudaDataType of every element type."""
_COMPUTE_64F, _COMPUTE_32F = 70, 68
_P, _I, _L = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong
_GEMM = [_P, _I, _I, _L, _L, _L, _P, _P, _I, _L, _L, _P, _I, _L, _L, _P, _P, _I, _L, _L, _L, _I, _I]
_SUMS_IN_FLOAT32 = 16
"""Math mode: no partial sum is rounded to the 16 bits of a result on its way; nothing else departs from the default."""


def declare(library: Any) -> Any:
    """Give the functions used here their argument types; returns the library."""
    library.cublasCreate_v2.argtypes = [_P]
    library.cublasDestroy_v2.argtypes = [_P]
    library.cublasSetStream_v2.argtypes = [_P, _P]
    library.cublasSetWorkspace_v2.argtypes = [_P, _P, ctypes.c_size_t]
    library.cublasSetMathMode.argtypes = [_P, _I]
    library.cublasGemmStridedBatchedEx_64.argtypes = _GEMM  # sizes in 64 bits: tall matrices have over 2^31 rows
    return library


@dataclass(frozen=True)
class Product:
    """Y = op(A) op(B) for ``batch`` row-major matrices: Y is m x n, op(A) m x k. Strides count elements."""

    m: int
    n: int
    k: int
    ta: bool
    tb: bool
    batch: int = 1
    stride_a: int = 0
    stride_b: int = 0
    stride_y: int = 0


class Blas:
    """Matrix products of one device on one stream.

    Args:
        library: libcublas (see ``declare``), or a stand-in with the same functions.
        stream: the stream's pointer.
        workspace: a device array; kept for as long as the handle lives.

    Raises:
        DeviceError: cuBLAS cannot be started.
    """

    def __init__(self, library: Any, stream: int, workspace: Any) -> None:
        self._library, self.workspace = library, workspace
        handle = ctypes.c_void_p()
        check(library.cublasCreate_v2(ctypes.addressof(handle)), "cublasCreate")
        self._handle = handle.value
        check(library.cublasSetStream_v2(self._handle, stream), "cublasSetStream")
        # After the stream: setting a stream puts cuBLAS back to its own workspace.
        pointer, size = workspace.data.ptr, workspace.nbytes
        check(library.cublasSetWorkspace_v2(self._handle, pointer, size), "cublasSetWorkspace")
        check(library.cublasSetMathMode(self._handle, _SUMS_IN_FLOAT32), "cublasSetMathMode")
        self._scalars: dict[tuple[str, float], Any] = {}

    def product(
        self, a: Any, b: Any, y: Any, shape: Product, precision: Precision, add: bool = False,
        offsets: Sequence[int] = (0, 0, 0),
    ) -> Step:  # fmt: skip
        """A step for the product; ``add`` adds to what y holds.

        Args:
            a, b, y: contiguous device arrays; a and b of one element type, y of the same, or float32 over 16-bit ones.
            offsets: elements from the beginning of each to its first matrix.
        """
        p, dtype = shape, y.dtype.name
        if 0 in (p.m, p.n, p.batch):
            return nothing
        if p.k == 0:
            raise ValueError("a product over nothing is the caller's")
        kind, given = TYPES[dtype], TYPES[a.dtype.name]
        if a.dtype.name != b.dtype.name:
            raise ValueError(f"a product of {a.dtype.name} and {b.dtype.name}")
        compute = compute_of(a.dtype.name, precision)
        where = [m.data.ptr + o * m.dtype.itemsize for m, o in zip((a, b, y), offsets, strict=True)]
        one, beta = self._scalar(dtype, 1.0), self._scalar(dtype, float(add))
        # Row-major Y = A B is column-major Y' = B' A': the operands change places, nothing is transposed.
        call = partial(
            self._library.cublasGemmStridedBatchedEx_64, self._handle, int(p.tb), int(p.ta), p.n, p.m, p.k,
            one, where[1], given, p.k if p.tb else p.n, p.stride_b, where[0], given, p.m if p.ta else p.k, p.stride_a,
            beta, where[2], kind, p.n, p.stride_y, p.batch, compute, -1,
        )  # fmt: skip

        return Launch.of((a, b, y, self), _run, call, shape)

    def matmul(self, a: Any, b: Any, y: Any, ta: bool, tb: bool, precision: Precision, add: bool = False) -> Step:
        """y = op(a) op(b), with the leading axes a batch that broadcasts as in numpy.matmul."""
        m, n = y.shape[-2:]
        k = a.shape[-2] if ta else a.shape[-1]
        lead = y.shape[:-2]
        at_a, at_b = _numbers(a.shape[:-2], lead), _numbers(b.shape[:-2], lead)
        batch = len(at_a)
        if not batch:
            return nothing
        if batch > 1 and not ta and not at_b.any() and (at_a == np.arange(batch)).all():
            return self.product(a, b, y, Product(batch * m, n, k, ta, tb), precision, add)
        steps: list[Step] = []
        for first, count in _runs(at_a, at_b):
            move_a, move_b = (int(at[first + 1] - at[first]) if count > 1 else 0 for at in (at_a, at_b))
            shape = Product(m, n, k, ta, tb, count, move_a * m * k, move_b * k * n, m * n)
            begin = (int(at_a[first]) * m * k, int(at_b[first]) * k * n, first * m * n)
            steps.append(self.product(a, b, y, shape, precision, add, begin))
        return sequence(steps)

    def _scalar(self, dtype: str, value: float) -> int:
        """The address of a number that lives as long as the handle."""
        kind = "float64" if dtype == "float64" else "float32"
        made = ctypes.c_double(value) if kind == "float64" else ctypes.c_float(value)
        return ctypes.addressof(self._scalars.setdefault((kind, value), made))

    def close(self) -> None:
        """Give the handle back."""
        if self._handle:
            self._library.cublasDestroy_v2(self._handle)
            self._handle = None


def compute_of(dtype: str, precision: Precision) -> int:
    """The compute type of a product of matrices of that element type."""
    return {"float64": _COMPUTE_64F, "float32": precision.compute}.get(dtype, _COMPUTE_32F)


def _run(call: Callable[[], int], shape: Product) -> None:
    status = call()
    if status:
        check(status, f"cublasGemmStridedBatchedEx_64 {shape}")


def _numbers(lead: Sequence[int], wanted: Sequence[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """For each matrix of the result the number of the operand's matrix."""
    count = int(np.prod(lead, dtype=np.int64))
    return np.broadcast_to(np.arange(count).reshape(tuple(lead)), tuple(wanted)).reshape(-1)


def _runs(*numbers: np.ndarray[Any, np.dtype[np.int64]]) -> list[tuple[int, int]]:
    """(first, count) of stretches in which every operand moves on by the same number each time."""
    total, found, first = len(numbers[0]), [], 0
    while first < total:
        count = min(2, total - first)
        moves = [int(n[first + count - 1] - n[first]) for n in numbers]
        while first + count < total and all(
            int(n[first + count] - n[first + count - 1]) == move for n, move in zip(numbers, moves, strict=True)
        ):
            count += 1
        if count > 1 and min(moves) < 0:
            count = 1
        found.append((first, count))
        first += count
    return found


def check(status: int, what: str, *notes: str) -> None:
    """Raise DeviceError, with further lines, unless status, cuBLAS' or cuBLASLt's, is 0."""
    if status:
        names = {
            1: "not initialised",
            3: "no memory",
            7: "invalid value",
            8: "not on this chip",
            13: "failed",
            15: "not supported",
        }
        raise DeviceError(f"{what}: cuBLAS status {status} ({names.get(status, 'unknown')})", None, list(notes))
