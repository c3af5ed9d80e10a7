"""Stand-ins for libcudnn and libcublas: the same C functions on the memory of fakecupy, in plain NumPy.

They take what layers_cuda hands to ctypes (integers and addresses) and follow the documented meaning: column-major
matrices, descriptors with attributes, plans that are refused. Work goes through fakestream.submit: it can be captured.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import fakestream
import numpy as np
from fakebase import Library, bits_of, memory, quiet, wide_of
from fakectc import Classification
from fakelt import CublasLt

from netrun.cpu.reference import Reference
from netrun.types import Window

REFERENCE = Reference()


# --------------------------------------------------------------------------------------------------------------- cuBLAS
class Cublas(Library):
    """A handle is 1. ``calls`` counts products; ``computes`` are the compute types asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.computes, self.set = 0, list[int](), list[str]()

    def cublasCreate_v2(self, handle: int) -> int:
        ctypes.c_void_p.from_address(handle).value = 1
        return 0

    def cublasDestroy_v2(self, handle: int) -> int:
        return 0

    def cublasSetStream_v2(self, handle: int, stream: int) -> int:
        self.set.append("stream")
        return 0 if stream else 7

    def cublasSetWorkspace_v2(self, handle: int, workspace: int, nbytes: int) -> int:
        self.set.append("workspace")
        return 0 if workspace % 256 == 0 else 7

    def cublasSetMathMode(self, handle: int, mode: int) -> int:
        self.set.append(f"mode {mode}")
        return 0

    def cublasGemmStridedBatchedEx_64(
        self, handle: int, opa: int, opb: int, m: int, n: int, k: int, alpha: int, a: int, ta: int, lda: int, sa: int,
        b: int, tb: int, ldb: int, sb: int, beta: int, c: int, tc: int, ldc: int, sc: int, batch: int, compute: int,
        algo: int,
    ) -> int:  # fmt: skip
        """C = alpha op(A) op(B) + beta C, column-major: element (i, j) of A lies at a + i + j * lda."""
        kinds: dict[int, Any] = {0: np.float32, 1: np.float64, 2: np.float16, 14: np.uint16}
        kind, given = kinds[tc], kinds[ta]
        rows_a, rows_b = k if opa else m, n if opb else k
        if ta != tb or ta != tc != 0 or lda < rows_a or ldb < rows_b or ldc < m or min(m, n, k, batch) < 1:
            return 7
        if (compute == 70) != (kind is np.float64) or (compute in (74, 75, 77) and given is not np.float32):
            return 15
        self.calls += 1
        self.computes.append(compute)
        number = ctypes.c_double if compute == 70 else ctypes.c_float
        one, add = number.from_address(alpha).value, number.from_address(beta).value

        def run() -> None:
            wide = np.float64 if compute == 70 else np.float32
            left = wide_of(memory(a, (batch, rows_a, m + k - rows_a), (sa, 1, lda), given), wide)
            right = wide_of(memory(b, (batch, rows_b, n + k - rows_b), (sb, 1, ldb), given), wide)
            result = memory(c, (batch, m, n), (sc, 1, ldc), kind)
            product = np.matmul(left.swapaxes(1, 2) if opa else left, right.swapaxes(1, 2) if opb else right)
            found = one * product + (add * wide_of(result, wide) if add else 0)
            result[...] = bits_of(found) if kind is np.uint16 else found

        fakestream.submit("gemm", quiet(run))
        return 0


# ---------------------------------------------------------------------------------------------------------------- cuDNN
_ELEMENTS = {3: ctypes.c_int64, 5: ctypes.c_double, 2: ctypes.c_bool, 24: ctypes.c_char}
_POINTERS = (0, 6, 15)
_KINDS = {0: "float32", 1: "float64", 2: "float16", 9: "bfloat16"}


@dataclass
class _Descriptor:
    kind: int
    values: dict[int, Any] = field(default_factory=dict)
    ready: bool = False


class Cudnn(Classification):
    """Descriptors, heuristics with three engines in mode A, and execution by the reference device.

    ``refuses``: a function of (kind, bias, relu, dtype) that says which graphs have no engine at all. The engines of a
    graph: one on tensor cores, a nondeterministic one with a larger workspace, a plain one.
    """

    def __init__(self, refuses: Callable[[str, bool, bool, str], bool] | None = None) -> None:
        super().__init__()
        self.descriptors: dict[int, _Descriptor] = {}
        self.refuses = refuses or (lambda *_: False)
        self.adds = True  # False: no engine adds to what is there
        self.executed: list[str] = []
        self.planned = 0
        self._next, self._error = 1, b""

    def cudnnGetVersion(self) -> int:
        return 91900

    def cudnnCreate(self, handle: int) -> int:
        ctypes.c_void_p.from_address(handle).value = 1
        return 0

    def cudnnDestroy(self, handle: int) -> int:
        return 0

    def cudnnSetStream(self, handle: int, stream: int) -> int:
        return 0 if stream else 2000

    def cudnnGetLastErrorString(self, buffer: int, size: int) -> None:
        ctypes.memmove(buffer, self._error[: size - 1] + b"\0", min(size, len(self._error) + 1))

    def _fail(self, text: str, status: int = 3000) -> int:
        self._error = text.encode()
        return status

    def cudnnBackendCreateDescriptor(self, kind: int, out: int) -> int:
        self.descriptors[self._next] = _Descriptor(kind)
        ctypes.c_void_p.from_address(out).value = self._next
        self._next += 1
        return 0

    def cudnnBackendDestroyDescriptor(self, pointer: int) -> int:
        del self.descriptors[pointer]
        return 0

    def cudnnBackendSetAttribute(self, pointer: int, attribute: int, kind: int, count: int, values: int) -> int:
        descriptor = self.descriptors[pointer]
        if descriptor.ready:
            return self._fail("already finalised", 2000)
        if kind == 24:
            descriptor.values[attribute] = ctypes.string_at(values, count)
        elif kind in _POINTERS:
            found = [ctypes.c_void_p.from_address(values + 8 * i).value for i in range(count)]
            ready = kind != 15 or all(self.descriptors[p].ready for p in found if p is not None)
            if not ready:
                return self._fail("refers to a descriptor that is not finalised", 2000)
            descriptor.values[attribute] = found
        else:
            element = _ELEMENTS.get(kind, ctypes.c_int)
            descriptor.values[attribute] = list((element * count).from_address(values))
        return 0

    def cudnnBackendFinalize(self, pointer: int) -> int:
        descriptor = self.descriptors[pointer]
        if descriptor.kind == 4:  # heuristics
            graph = self._graph(descriptor.values[201][0])
            asked = (graph.kind, graph.bias is not None, graph.relu, graph.dtype)
            refused = self.refuses(*asked) or (graph.add and not self.adds)
            if refused or descriptor.values[200] == [2]:
                return self._fail("no engine for this graph")
            descriptor.values["engines"] = [1, 2, 3]
        elif descriptor.kind == 5:  # plan
            self.planned += 1
            if 405 in descriptor.values:
                descriptor.values.update(json.loads(descriptor.values[405]))
            else:
                descriptor.values["engine"] = self.descriptors[descriptor.values[401][0]].values["engine"]
                descriptor.values["graph"] = self.descriptors[descriptor.values[401][0]].values["graph"]
        descriptor.ready = True
        return 0

    def cudnnBackendGetAttribute(
        self, pointer: int, attribute: int, kind: int, count: int, found: int, values: int
    ) -> int:
        d = self.descriptors[pointer].values
        given: Any
        if attribute == 202:  # configurations of a heuristic
            slots = (ctypes.c_void_p * count).from_address(values)
            for slot, engine in zip(slots, d["engines"], strict=False):
                self.descriptors[slot].values.update(engine=engine, graph=d[201][0])
                self.descriptors[slot].ready = True
            given = d["engines"]
            ctypes.c_int64.from_address(found).value = len(given)
            return 0
        if attribute == 300:  # the engine of a configuration
            slot = ctypes.c_void_p.from_address(values).value
            self.descriptors[slot].values.update(engine=d["engine"])  # type: ignore[index]
            ctypes.c_int64.from_address(found).value = 1
            return 0
        if attribute == 405:
            text = json.dumps({"engine": d["engine"], "graph": d["graph"]}).encode()
            ctypes.memmove(values, text, len(text))
            ctypes.c_int64.from_address(found).value = len(text)
            return 0
        given = {
            402: [4096 if d["engine"] == 2 else 100],
            1301: [d["engine"]],
            1303: {1: [0], 2: [4], 3: []}[d["engine"]],
            1305: [],
        }[attribute]
        element = _ELEMENTS.get(kind, ctypes.c_int)
        array = (element * count).from_address(values)
        array[: len(given)] = given
        ctypes.c_int64.from_address(found).value = len(given)
        return 0

    # ------------------------------------------------------------------------------------------------------- execution
    def _graph(self, pointer: int) -> Any:
        """The operation graph as (kind, tensors, window, add, bias, relu)."""
        first, *rest = (self.descriptors[p].values for p in self.descriptors[pointer].values[801])
        kind = next(name for mark, name in {704: "fprop", 710: "dgrad", 716: "wgrad"}.items() if mark in first)
        image, filters, output, conv, _, beta = {
            "fprop": (704, 703, 705, 702, 700, 701), "dgrad": (710, 709, 711, 708, 706, 707),
            "wgrad": (716, 715, 717, 714, 712, 713),
        }[kind]  # fmt: skip
        made = self.descriptors[first[conv][0]].values
        kernel = self._tensor(first[filters])[902][2:]
        window = Window(*map(tuple, (kernel, made[103], made[105], made[102], made[104])))
        final, bias, relu = self._tensor(first[output]), None, False
        for operation in rest:
            mode = self.descriptors[operation[750][0]].values[0][0]
            assert self._tensor(operation[751]) is final, "a chain of operations that does not hang together"
            assert final.get(907), "a value within a graph must be virtual"
            final = self._tensor(operation[753])
            if mode == 0:
                bias = self._tensor(operation[752])
            relu |= mode == 100
        assert not final.get(907)
        tensors = [self._tensor(first[image]), self._tensor(first[filters]), final]
        dtype = _KINDS[tensors[0][901][0]]
        return SimpleNamespace(
            kind=kind, tensors=tensors, window=window, add=first[beta][0], bias=bias, relu=relu, dtype=dtype
        )

    def _tensor(self, pointers: list[int]) -> dict[int, Any]:
        return self.descriptors[pointers[0]].values

    def cudnnBackendExecute(self, handle: int, plan: int, pack: int) -> int:
        made, given = self.descriptors[plan].values, self.descriptors[pack].values
        graph = self._graph(made["graph"])
        where = dict(zip(given[1000], given[1001], strict=True))
        assert all(p % 16 == 0 for p in where.values()), "tensors are said to be aligned to 16 bytes"

        def array(tensor: dict[int, Any]) -> Any:
            kind = "uint16" if graph.dtype == "bfloat16" else graph.dtype
            return memory(where[tensor[906][0]], tuple(tensor[902]), tuple(tensor[903]), kind)

        x, w, y = (array(t) for t in graph.tensors)
        bias = None if graph.bias is None else array(graph.bias)
        groups = x.shape[1] // w.shape[1]
        written = {"fprop": y, "dgrad": x, "wgrad": w}[graph.kind]
        wide = np.float64 if graph.dtype == "float64" else np.float32

        def run() -> None:
            self.executed.append(
                graph.kind + " bias" * (bias is not None) + " relu" * graph.relu + " add" * bool(graph.add)
            )
            ctypes.memset(given[1003][0], 0xFF, {2: 4096}.get(made["engine"], 100))  # a workspace is the plan's to use
            a, f, b = (wide_of(v, wide) for v in (x, w, y))
            attrs: Any = {"window": graph.window, "groups": groups}
            if graph.kind == "fprop":
                out = np.empty_like(b)
                REFERENCE.conv(a, f, None if bias is None else wide_of(bias, wide).reshape(-1), out, **attrs)
            elif graph.kind == "dgrad":
                out = np.empty_like(a)
                REFERENCE.conv_grad_x(f, b, out, **attrs)
            else:
                out = np.empty_like(f)
                REFERENCE.conv_grad_w(a, b, out, **attrs)
            out = out + graph.add * wide_of(written, wide) if graph.add else out
            out = np.maximum(out, 0) if graph.relu else out
            written[...] = bits_of(out) if graph.dtype == "bfloat16" else out

        fakestream.submit("cudnn", quiet(run))
        return 0


def libraries(**changed: Any) -> Callable[[str], Any]:
    """What Cuda takes as ``load``: the same stand-in library every time."""
    made = {"cudnn": Cudnn(), "cublas": Cublas(), "cublasLt": CublasLt(), **changed}
    return lambda name: made[name]
