"""The only door to cuBLASLt: matrix products that add a bias and apply a ReLU while the result is in registers.

What to run is asked of cuBLASLt's heuristics, once for each shape. Where they know nothing, ``step`` gives None, and
the caller has cuBLAS and a kernel instead.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from .blas import TYPES, Product, check, compute_of
from .launch import Launch, Step
from .precision import Precision

_P, _I, _L, _S = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_size_t
_SIGNATURES = {
    "cublasLtCreate": [_P], "cublasLtDestroy": [_P],
    "cublasLtMatmulDescCreate": [_P, _I, _I], "cublasLtMatmulDescDestroy": [_P],
    "cublasLtMatmulDescSetAttribute": [_P, _I, _P, _S],
    "cublasLtMatrixLayoutCreate": [_P, _I, ctypes.c_uint64, ctypes.c_uint64, _L], "cublasLtMatrixLayoutDestroy": [_P],
    "cublasLtMatmulPreferenceCreate": [_P], "cublasLtMatmulPreferenceDestroy": [_P],
    "cublasLtMatmulPreferenceSetAttribute": [_P, _I, _P, _S],
    "cublasLtMatmulAlgoGetHeuristic": [_P, _P, _P, _P, _P, _P, _P, _I, _P, _P],
    "cublasLtMatmul": [_P, _P, _P, _P, _P, _P, _P, _P, _P, _P, _P, _P, _P, _P, _S, _P],
}  # fmt: skip

# Numbers of cublasLt.h, the same in CUDA 12 and 13.
TRANS_A, TRANS_B, EPILOGUE, BIAS_POINTER = 3, 4, 7, 8
MAX_WORKSPACE, REDUCTIONS, ALIGNMENT_A = 1, 3, 5  # ALIGNMENT_A, then those of B, C and D
RELU, BIAS = 2, 4
HINT = "NETRUN_CUDA_GEMM=blas in the environment keeps cuBLASLt out"
_IN_COMPUTE_TYPE = 2
"""Partial sums are added up in float32, in the workspace: neither rounded to the type of a result nor in any order."""


Algorithm = ctypes.Array[ctypes.c_uint64]
"""cublasLtMatmulAlgo_t, eight words that nobody looks into."""


class Heuristic(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t."""

    _fields_ = (("algo", ctypes.c_uint64 * 8), ("workspace", _S), ("state", _I), ("waves", ctypes.c_float),
                ("reserved", _I * 4))  # fmt: skip


def declare(library: Any) -> Any:
    """Give the functions used here their argument types; returns the library."""
    for name, types in _SIGNATURES.items():
        getattr(library, name).argtypes = types
    return library


class Handle:
    """A descriptor of cuBLASLt: made by <what>Create, given back by <what>Destroy."""

    def __init__(self, library: Any, what: str, *args: int) -> None:
        self._library, self._what, pointer = library, what, ctypes.c_void_p()
        check(getattr(library, what + "Create")(ctypes.addressof(pointer), *args), what + "Create")
        self.pointer = pointer.value

    def set(self, attribute: int, value: Any) -> Handle:
        """Set an attribute to a number of ctypes, whose size is part of the meaning."""
        function = getattr(self._library, self._what + "SetAttribute")
        status = function(self.pointer, attribute, ctypes.addressof(value), ctypes.sizeof(value))
        check(status, f"{self._what}SetAttribute {attribute}")
        return self

    def __del__(self) -> None:
        if getattr(self, "pointer", None):
            getattr(self._library, self._what + "Destroy")(self.pointer)


class _Problem(NamedTuple):
    """What cuBLASLt chooses an algorithm by."""

    shape: Product
    given: int
    kind: int
    compute: int
    epilogue: int
    alignment: tuple[int, ...]


class Lt:
    """Products with an epilogue, of one device on one stream.

    Args:
        library: libcublasLt (see ``declare``), or a stand-in with the same functions.
        stream: the stream's pointer.
        workspace: a device array; it may be cuBLAS', whose calls are on the same stream.

    Raises:
        DeviceError: cuBLASLt cannot be started.
    """

    def __init__(self, library: Any, stream: int, workspace: Any) -> None:
        self._library, self._stream, self._workspace = library, stream, workspace
        self._handle = Handle(library, "cublasLt")
        self._found: dict[_Problem, Algorithm | None] = {}
        self._one, self._zero = ctypes.c_float(1), ctypes.c_float(0)

    def step(
        self, a: Any, b: Any, bias: Any, y: Any, shape: Product, precision: Precision, relu: bool = False
    ) -> Step | None:
        """A step for y = relu(op(a) op(b) + bias), or None where cuBLASLt has no algorithm for it.

        Args:
            a, b, y: as ``Blas.product`` takes them, of one product.
            bias: n numbers of y's type, one for each column of y; None for none.
        """
        kind, given = TYPES[y.dtype.name], TYPES[a.dtype.name]
        if "float64" in (y.dtype.name, a.dtype.name) or a.dtype.name != b.dtype.name:
            return None
        p, compute = shape, compute_of(a.dtype.name, precision)
        epilogue = BIAS * (bias is not None) | RELU * relu
        matmul = Handle(self._library, "cublasLtMatmulDesc", compute, TYPES["float32"])
        matmul.set(EPILOGUE, ctypes.c_uint32(epilogue or 1))
        # Row-major Y = A B is column-major Y' = B' A', as in blas.py; the bias runs along the rows of Y'.
        matmul.set(TRANS_A, ctypes.c_int32(p.tb)).set(TRANS_B, ctypes.c_int32(p.ta))
        if bias is not None:
            matmul.set(BIAS_POINTER, ctypes.c_void_p(bias.data.ptr))
        first = self._layout(given, p.n, p.k, p.tb)
        second = self._layout(given, p.k, p.m, p.ta)
        result = self._layout(kind, p.n, p.m, False)
        layouts = [first, second, result, result]
        pointers = [m.data.ptr for m in (b, a, y, y)]
        alignment = tuple(min(256, where & -where) for where in (*pointers, *([] if bias is None else [bias.data.ptr])))
        problem = _Problem(p, given, kind, compute, epilogue, alignment)
        if problem not in self._found:
            self._found[problem] = self._search(problem, matmul, layouts)
        algo = self._found[problem]
        if algo is None:
            return None
        call = partial(
            self._library.cublasLtMatmul, self._handle.pointer, matmul.pointer, ctypes.addressof(self._one),
            pointers[0], first.pointer, pointers[1], second.pointer, ctypes.addressof(self._zero),
            pointers[2], result.pointer, pointers[3], result.pointer, ctypes.addressof(algo),
            self._workspace.data.ptr, self._workspace.nbytes, self._stream,
        )  # fmt: skip
        return Launch.of((a, b, bias, y, matmul, layouts, algo, self), _run, call, p)

    def _layout(self, kind: int, rows: int, columns: int, turned: bool) -> Handle:
        """A column-major matrix that is rows x columns once it is transposed where ``turned``."""
        high, wide = (columns, rows) if turned else (rows, columns)
        return Handle(self._library, "cublasLtMatrixLayout", kind, high, wide, high)

    def _search(self, problem: _Problem, matmul: Handle, layouts: list[Handle]) -> Algorithm | None:
        """The algorithm that the heuristics put first."""
        wish = Handle(self._library, "cublasLtMatmulPreference")
        wish.set(MAX_WORKSPACE, ctypes.c_uint64(self._workspace.nbytes))
        wish.set(REDUCTIONS, ctypes.c_uint32(_IN_COMPUTE_TYPE))
        for i, bytes_ in enumerate(problem.alignment[:4]):
            wish.set(ALIGNMENT_A + i, ctypes.c_uint32(bytes_))
        best, count = Heuristic(), ctypes.c_int()
        where = [layout.pointer for layout in layouts]
        status = self._library.cublasLtMatmulAlgoGetHeuristic(
            self._handle.pointer, matmul.pointer, *where, wish.pointer, 1, ctypes.addressof(best),
            ctypes.addressof(count),
        )  # fmt: skip
        if status or not count.value or best.state or best.workspace > self._workspace.nbytes:
            return None
        algo: Algorithm = type(best.algo).from_buffer_copy(best.algo)
        return algo


def _run(call: Callable[[], int], shape: Product) -> None:
    status = call()
    if status:
        check(status, f"cublasLtMatmul {shape}", HINT)
