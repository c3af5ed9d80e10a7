"""fill, copy and pointwise: one thread a few elements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from netrun.expression import letters
from netrun.program import Call

from .expressions import cuda_expression
from .geometry import Axes, fold, index_of, indices, real_defines, real_of, vector_of
from .launch import BLOCK, CTYPES, Kernel, Step, nothing

if TYPE_CHECKING:
    from .device import Cuda


def fill(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.fill, bound."""
    (y,), value = args, call.attrs["value"]
    if value == 0:
        return device.launcher.zero(y)
    kernel = _copier("fill", "float32", y.dtype.name, y.size, 1)
    values = [y, *indices(y.size, [y.size]), np.float64(value)]
    return device.launcher.step(kernel, device.launcher.blocks(y.size), BLOCK, values)


def copy(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.copy, bound."""
    x, y = args
    if x.dtype == y.dtype:
        return device.launcher.copy(x, y)
    width = vector_of(Axes((y.size,), ()), (x, y))
    kernel = _copier("copy", x.dtype.name, y.dtype.name, y.size, width)
    return device.launcher.step(
        kernel, device.launcher.blocks(-(-y.size // width)), BLOCK, [x, y, *indices(y.size, [y.size])]
    )


def pointwise(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.pointwise, bound."""
    return expression(device, args[0], args[1], call.attrs["expr"])


def expression(device: Cuda, xs: Sequence[Any], y: Any, expr: str) -> Step:
    """y = expr over arrays that broadcast to it; y may lie over one of them that has its shape and type."""
    if not y.size:
        return nothing
    axes = fold(y.shape, [x.shape for x in xs])
    wide = [x for x, mask in zip(xs, axes.masks, strict=True) if axes.wide(mask)]
    width = vector_of(axes, [*wide, y])
    dtypes = [x.dtype.name for x in xs]
    kernel = Kernel("pointwise", "pointwise", (
        *real_defines(real_of([y.dtype.name], dtypes), axes.count, y.dtype.name, *dtypes),
        *axes.defines(),
        ("INPUTS(X)", inputs(letters(len(xs)), dtypes, axes.masks)),
        ("OUT", CTYPES[y.dtype.name]),
        ("EXPR", cuda_expression(expr)),
        ("V", str(width)),
    ))  # fmt: skip
    values = [*xs, y, *indices(axes.count, [axes.count, *axes.sizes])]
    return device.launcher.step(kernel, device.launcher.blocks(-(-axes.count // width)), BLOCK, values)


def inputs(names: Sequence[str], dtypes: Sequence[str], masks: Sequence[int]) -> str:
    """INPUTS(X): the name, the C++ type and the mask of each input."""
    rows = zip(names, dtypes, masks, strict=True)
    return " ".join(f"X({name}, {CTYPES[dtype]}, {mask}u)" for name, dtype, mask in rows)


def _copier(name: str, given: str, made: str, count: int, width: int) -> Kernel:
    half = (("HALF", "1"),) if {"float16", "bfloat16"} & {given, made} else ()
    types = (("INDEX", CTYPES[index_of(count)]), ("IN", CTYPES[given]), ("OUT", CTYPES[made]), ("V", str(width)))
    return Kernel("copy", name, half + types)


BODIES: dict[str, Callable[[Cuda, Call, Sequence[Any], Any], Step]] = {
    "fill": fill,
    "copy": copy,
    "pointwise": pointwise,
}
WORKSPACE: dict[str, Callable[[Cuda, Call], int]] = {}
