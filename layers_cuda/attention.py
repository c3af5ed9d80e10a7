"""attention and its adjoint: cuBLAS' products over some heads at a time, and a kernel for what stands between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from netrun.program import Call
from netrun.types import Spec

from .geometry import Defines, groups_of, indices, real_of, type_defines
from .launch import BLOCK, CTYPES, Kernel, Step, nothing, sequence
from .precision import Precision, precision_of

if TYPE_CHECKING:
    from .device import Cuda

SCORES = 1 << 26
"""Scores of the heads that are computed together: 256 MiB of scratch in float32."""

NOTHING = np.int64(0)
"""A null pointer."""


class Heads:
    """Sizes, kernels and scratch of a call.

    Args:
        call: of attention or attention_grad.
    """

    def __init__(self, call: Call) -> None:
        given: Any = {a.name: t for a, t in zip(call.op.arguments, call.args, strict=True)}
        shape: tuple[int, ...] = given["q"].shape
        self.samples, self.heads, self.queries, self.inner = shape
        shape = given["v"].shape
        self.keys, self.outer = shape[2:]
        self.dtype, self.lengths, self.mask = given["q"].dtype, given["lengths"], given["mask"]
        self.grad, self.scale, self.causal = "dy" in given, call.attrs["scale"], bool(call.attrs["causal"])
        self.real = real_of([self.dtype])
        self.all = self.samples * self.heads
        self.together = max(1, min(self.all, SCORES // max(1, self.queries * self.keys)))
        self.hides = self.causal or self.lengths is not None or self.mask is not None

    def specs(self) -> list[Spec]:
        """Scores, weights; in backward gradients of weights, slopes. Those of 16 bits have memory of their own."""
        shape = self.together, self.queries, self.keys
        one = [Spec(shape, self.real), *([Spec(shape, self.dtype)] if self.dtype != self.real else [])]
        return one * (2 if self.grad else 1)

    def scratch(self, device: Cuda, memory: Any) -> list[Any]:
        """The arrays of ``specs``; two names for one array where types are the same."""
        found, at = [], 0
        for spec in self.specs():
            array = device.array(memory, at, spec)
            found += [array] if self.dtype != self.real else [array, array]
            at += -(-spec.nbytes // 256) * 256
        return found

    def kernel(self, name: str, width: int) -> tuple[Kernel, int]:
        """A kernel whose rows have that many elements, and the rows of a block."""
        lanes = 32 if width <= 2048 else BLOCK
        more: Defines = (("LANES", str(lanes)), ("COLUMNS", "0"))
        more += (("LENGTH", CTYPES[self.lengths.dtype]),) if self.lengths is not None else ()
        more += (("MASK", CTYPES[self.mask.dtype]),) if self.mask is not None else ()
        types = type_defines(self.dtype, self.count, *(t.dtype for t in (self.lengths, self.mask) if t is not None))
        return Kernel("attention", name, (*types, *more)), groups_of(lanes)

    @property
    def count(self) -> int:
        """The most elements that a position numbers."""
        steps, size = max(self.queries, self.keys), max(self.inner, self.outer)
        sights: list[int] = [t.spec.count for t in (self.lengths, self.mask) if t is not None]
        return max(self.together * self.queries * self.keys, self.all * steps * size, *sights)

    def numbers(self, *values: int) -> list[Any]:
        """Kernel arguments of the type INDEX."""
        return indices(self.count, values)

    def sights(self, first: int, lengths: Any, mask: Any) -> list[Any]:
        """What queries may look at, as the kernels take it; ``first``: the number of the first head of these."""
        found = [*self.numbers(first * self.queries, self.heads, self.queries, self.keys), np.int32(self.causal)]
        for array, rank in ((lengths, 3), (mask, 4)):
            shape = (1,) * rank if array is None else array.shape
            steps = [math.prod(shape[i + 1 :]) if n != 1 else 0 for i, n in enumerate(shape)]
            found += [NOTHING if array is None else array, *self.numbers(*steps)]
        return found

    def number(self) -> Any:
        """The scale, in the type that is computed in."""
        return np.dtype(self.real).type(self.scale)


def _flat(array: Any) -> Any:
    return array.reshape(array.shape[0] * array.shape[1], *array.shape[2:])


def attention(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.attention, bound."""
    q, k, v, lengths, mask, y, lse = args
    work, precision, steps = Heads(call), precision_of(call), []
    if not lse.size:
        return nothing
    scores, weights = work.scratch(device, scratch)
    kernel, each = work.kernel("attention_weights", work.keys)
    q, k, v, y, lse = (_flat(a) for a in (q, k, v, y, lse))
    for first in range(0, work.all, work.together):
        part = slice(first, min(first + work.together, work.all))
        s, w = (a[: part.stop - first] for a in (scores, weights))
        rows, sights = (part.stop - first) * work.queries, work.sights(first, lengths, mask)
        if s.size:
            steps.append(_product(device, q[part], k[part], s, precision, tb=True))
        given = [s, w, lse[part], *work.numbers(rows), work.number(), *sights]
        steps.append(device.launcher.step(kernel, -(-rows // each), BLOCK, given))
        steps.append(_product(device, w, v[part], y[part], precision))
        steps.append(_mended(device, work, w, v[part], y[part], False, sights))
    return sequence(steps)


def _product(
    device: Cuda, a: Any, b: Any, y: Any, precision: Precision, ta: bool = False, tb: bool = False
) -> Step:  # fmt: skip
    """y = op(a) op(b)."""
    if not y.size:
        return nothing
    if not a.size:  # sums over nothing
        zero: Step = device.launcher.zero(y)
        return zero
    step: Step = device.blas.matmul(a, b, y, ta, tb, precision)
    return step


def _mended(device: Cuda, work: Heads, w: Any, x: Any, y: Any, turned: bool, sights: Sequence[Any]) -> Step:
    """What is no number in a product, once more over what is seen alone."""
    if not work.hides or not y.size:
        return nothing
    kernel, each = work.kernel("attention_mend", y.shape[2])
    rows = y.shape[0] * y.shape[1]
    given = [w, x, y, *work.numbers(rows, y.shape[2]), np.int32(turned), *sights]
    return device.launcher.step(kernel, -(-rows // each), BLOCK, given)


def attention_grad(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.attention_grad, bound."""
    q, k, v, lengths, mask, y, lse, dy, dlse, dq, dk, dv = args
    work, precision, steps = Heads(call), precision_of(call), []
    if not (q.size or k.size or v.size):
        return nothing
    scores, weights, seeds, slopes = work.scratch(device, scratch)
    kernel, each = work.kernel("attention_slopes", work.keys)
    q, k, v, y, lse, dy, dq, dk, dv = (_flat(a) for a in (q, k, v, y, lse, dy, dq, dk, dv))
    dlse = None if dlse is None else _flat(dlse)
    for first in range(0, work.all, work.together):
        part = slice(first, min(first + work.together, work.all))
        s, w, d, g = (a[: part.stop - first] for a in (scores, weights, seeds, slopes))
        rows, sights = (part.stop - first) * work.queries, work.sights(first, lengths, mask)
        if s.size:
            steps.append(_product(device, q[part], k[part], s, precision, tb=True))
            steps.append(_product(device, dy[part], v[part], d, precision, tb=True))
            numbers, seed = work.numbers(rows, work.outer), NOTHING if dlse is None else dlse[part]
            given = [s, d, y[part], dy[part], lse[part], seed, w, g, *numbers, work.number(), *sights]
            steps.append(device.launcher.step(kernel, -(-rows // each), BLOCK, given))
        for weight, x, out, turned in ((g, k, dq, False), (g, q, dk, True), (w, dy, dv, True)):
            steps.append(_product(device, weight, x[part], out[part], precision, ta=turned))
            steps.append(_mended(device, work, weight, x[part], out[part], turned, sights))
    return sequence(steps)


def _workspace(device: Cuda, call: Call) -> int:
    """Bytes of scores and weights."""
    return sum(-(-spec.nbytes // 256) * 256 for spec in Heads(call).specs())


BODIES: dict[str, Callable[[Cuda, Call, Sequence[Any], Any], Step]] = {
    "attention": attention,
    "attention_grad": attention_grad,
}
WORKSPACE: dict[str, Callable[[Cuda, Call], int]] = {"attention": _workspace, "attention_grad": _workspace}
