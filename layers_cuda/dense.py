"""gemm: one call of cuBLASLt where a bias or a ReLU belongs to it; else of cuBLAS, after the addend has been spread
over the result."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from netrun.program import Call
from netrun.types import Spec

from .blas import Product
from .launch import Step, nothing, sequence
from .precision import precision_of

if TYPE_CHECKING:
    from .device import Cuda


def gemm(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.gemm, bound; with the attribute ``relu`` the result is rectified, with ``add`` added to what is there."""
    a, b, c, y = args
    ta, tb, relu = call.attrs["ta"], call.attrs["tb"], bool(call.attrs.get("relu"))
    if y.size == 0:
        return nothing
    at_once = _at_once(device, call, args, scratch, relu)
    if at_once is not None:
        return at_once
    steps = [] if c is None else [device.part("pointwise", ((c,), y), call.origin, scratch, expr="a")]
    add = bool(call.attrs.get("add"))
    if 0 not in a.shape:
        steps.append(device.blas.matmul(a, b, y, ta, tb, precision_of(call), add=add or c is not None))
    elif c is None and not add:  # nothing to sum
        steps.append(device.launcher.zero(y))
    if relu:
        steps.append(device.part("pointwise", ((y,), y), call.origin, scratch, expr="relu(a, 0)"))
    return sequence(steps)


def _at_once(device: Cuda, call: Call, args: Sequence[Any], scratch: Any, relu: bool) -> Step | None:
    """The product with what belongs to it as one call, None where that cannot be."""
    a, b, c, y = args
    if c is None and not relu:
        return None
    if 0 in a.shape or device.lt is None or not _one_product(call) or not _is_bias(c, y):
        return None
    ta, tb = call.attrs["ta"], call.attrs["tb"]
    n = y.shape[-1]
    shape = Product(math.prod(y.shape[:-1]), n, a.shape[-2 if ta else -1], ta, tb)
    bias, before = c, []
    if c is not None and c.dtype.name != y.dtype.name:
        bias = device.array(scratch, 0, Spec((n,), y.dtype.name))
        before = [device.part("copy", (c.reshape(n), bias), call.origin)]
    step = device.lt.step(a, b, bias, y, shape, precision_of(call), relu)
    return None if step is None else sequence([*before, step])


def _one_product(call: Call) -> bool:
    """Whether the leading axes are no batch of products, but more rows of one."""
    args: Any = call.args
    a, b, y = args[0].shape, args[1].shape, args[3].shape
    alone = all(len(s) == 2 for s in (a, b, y))
    return alone or (len(b) == 2 and not call.attrs["ta"] and a[:-1] == y[:-1])


def _is_bias(c: Any, y: Any) -> bool:
    """Whether an addend is one number for each column."""
    n = y.shape[-1]
    return c is None or (len(c.shape) > 0 and tuple(c.shape[-1:]) == (n,) and math.prod(c.shape) == n)


def _workspace(device: Cuda, call: Call) -> int:
    """Bytes of a bias in the type of the result."""
    args: Any = call.args
    _, _, c, y = args
    if c is None or c.dtype == y.dtype or not _is_bias(c, y):
        return 0
    return Spec(y.shape[-1:], y.dtype).nbytes


BODIES: dict[str, Callable[[Cuda, Call, Sequence[Any], Any], Step]] = {"gemm": gemm}
WORKSPACE: dict[str, Callable[[Cuda, Call], int]] = {"gemm": _workspace}
