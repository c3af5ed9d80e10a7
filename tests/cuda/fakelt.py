"""A stand-in for libcublasLt: descriptors with attributes of fixed sizes, heuristics that may refuse, products with an
epilogue computed by NumPy."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import fakestream
import numpy as np
from fakebase import Library, bits_of, memory, quiet, wide_of

KINDS: dict[int, Any] = {0: np.float32, 1: np.float64, 2: np.float16, 14: np.uint16}
SIZES = {
    "desc": {3: 4, 4: 4, 7: 4, 8: 8},
    "preference": {1: 8, 3: 4, 5: 4, 6: 4, 7: 4, 8: 4},
}
"""Attribute -> bytes of its value; any other size is refused, as by the library."""


class CublasLt(Library):
    """``refuses``: a function of (m, n, k, epilogue, type of the result) that says for which products nothing is known;
    sizes are those of the column-major result. ``asked`` and ``calls`` count heuristics and products."""

    def __init__(self, refuses: Callable[[int, int, int, int, int], bool] | None = None) -> None:
        super().__init__()
        self.refuses = refuses or (lambda *_: False)
        self.made: dict[int, dict[Any, Any]] = {}
        self.asked, self.calls, self.epilogues, self.computes = 0, 0, list[int](), list[int]()
        self._next = 0x1000

    def _new(self, out: int, **values: Any) -> int:
        self._next += 16
        self.made[self._next] = dict(values)
        ctypes.c_void_p.from_address(out).value = self._next
        return 0

    def _set(self, what: str, pointer: int, attribute: int, value: int, nbytes: int) -> int:
        if SIZES[what].get(attribute) != nbytes or self.made[pointer]["what"] != what:
            return 7
        self.made[pointer][attribute] = int.from_bytes(ctypes.string_at(value, nbytes), "little")
        return 0

    def _drop(self, pointer: int) -> int:
        del self.made[pointer]
        return 0

    def cublasLtCreate(self, out: int) -> int:
        return self._new(out, what="handle")

    def cublasLtDestroy(self, pointer: int) -> int:
        return self._drop(pointer)

    def cublasLtMatmulDescCreate(self, out: int, compute: int, scale: int) -> int:
        return self._new(out, what="desc", compute=compute, scale=scale)

    def cublasLtMatmulDescDestroy(self, pointer: int) -> int:
        return self._drop(pointer)

    def cublasLtMatmulDescSetAttribute(self, pointer: int, attribute: int, value: int, nbytes: int) -> int:
        return self._set("desc", pointer, attribute, value, nbytes)

    def cublasLtMatrixLayoutCreate(self, out: int, kind: int, rows: int, columns: int, apart: int) -> int:
        return self._new(out, what="layout", kind=kind, rows=rows, columns=columns, apart=apart)

    def cublasLtMatrixLayoutDestroy(self, pointer: int) -> int:
        return self._drop(pointer)

    def cublasLtMatmulPreferenceCreate(self, out: int) -> int:
        return self._new(out, what="preference")

    def cublasLtMatmulPreferenceDestroy(self, pointer: int) -> int:
        return self._drop(pointer)

    def cublasLtMatmulPreferenceSetAttribute(self, pointer: int, attribute: int, value: int, nbytes: int) -> int:
        return self._set("preference", pointer, attribute, value, nbytes)

    def _fits(self, desc: Any, a: Any, b: Any, d: Any) -> tuple[int, int, int] | None:
        """m, n and k of D (m x n) = op(A) op(B) of column-major matrices; None where they do not fit."""
        m, k = (a["rows"], a["columns"]) if not desc.get(3) else (a["columns"], a["rows"])
        k2, n = (b["rows"], b["columns"]) if not desc.get(4) else (b["columns"], b["rows"])
        apart = all(one["apart"] >= one["rows"] for one in (a, b, d))
        same = a["kind"] == b["kind"] and d["kind"] in (0, a["kind"]) and a["kind"] != 1
        return (m, n, k) if k == k2 and (d["rows"], d["columns"]) == (m, n) and apart and same else None

    def cublasLtMatmulAlgoGetHeuristic(
        self, handle: int, desc: int, a: int, b: int, c: int, d: int, wish: int, most: int, results: int, found: int
    ) -> int:
        self.asked += 1
        made, first, second, third, last, want = (self.made[p] for p in (desc, a, b, c, d, wish))
        sizes = self._fits(made, first, second, last)
        assert third is last, "C and D are one matrix here"
        assert want[3] == 2, "partial sums in the type of the result"
        assert all(want[i] & (want[i] - 1) == 0 for i in (5, 6, 7, 8)), "an alignment is a power of two"
        if sizes is None or want[1] < 1024:
            return 7
        known = not self.refuses(*sizes, made.get(7, 1), last["kind"])
        ctypes.c_int.from_address(found).value = int(known)
        if known:
            words = (ctypes.c_uint64 * 9).from_address(results)
            words[0], words[8] = 42, 1024
            ctypes.c_int.from_address(results + 72).value = 0
        return 0 if known else 15

    def cublasLtMatmul(
        self, handle: int, desc: int, alpha: int, a: int, at: int, b: int, bt: int, beta: int, c: int, ct: int, d: int,
        dt: int, algo: int, workspace: int, nbytes: int, stream: int,
    ) -> int:  # fmt: skip
        """D = epilogue(alpha op(A) op(B) + beta C): the bias is added to every column, ReLU comes last."""
        made, first, second, last = (self.made[p] for p in (desc, at, bt, dt))
        sizes = self._fits(made, first, second, last)
        if sizes is None or not stream or ctypes.c_uint64.from_address(algo).value != 42 or nbytes < 1024:
            return 7
        m, n, _ = sizes
        one, zero = (ctypes.c_float.from_address(p).value for p in (alpha, beta))
        epilogue = made.get(7, 1)
        assert (one, zero, made["scale"], c == d) == (1, 0, 0, True)
        self.calls += 1
        self.epilogues.append(epilogue)
        self.computes.append(made["compute"])
        kinds = [KINDS[one["kind"]] for one in (first, second, last)]

        def run() -> None:
            ctypes.memset(workspace, 0xFF, 1024)
            left, right = (
                wide_of(memory(where, (one["rows"], one["columns"]), (1, one["apart"]), kind), np.float32)
                for where, one, kind in zip((a, b), (first, second), kinds, strict=False)
            )
            product = (left.T if made.get(3) else left) @ (right.T if made.get(4) else right)
            if epilogue & 4:
                product = product + wide_of(memory(made[8], (m,), (1,), kinds[2]), np.float32)[:, None]
            if epilogue & 2:
                product = np.maximum(product, 0)
            memory(d, (m, n), (1, last["apart"]), kinds[2])[...] = (
                bits_of(product) if kinds[2] is np.uint16 else product
            )

        fakestream.submit("matmul", quiet(run))
        return 0
