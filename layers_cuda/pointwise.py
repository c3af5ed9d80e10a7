"""fill, copy and pointwise: one thread a few elements."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from netrun.expression import letters
from netrun.program import Call

from .expressions import cuda_expression
from .geometry import VECTOR, Axes, Cut, Defines, aligned, fold, index_of, indices, real_defines, real_of, vector_of
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
    if "cut" in call.attrs:
        return _within(device, args[0], args[1], call.attrs["expr"], call.attrs["cut"])
    return expression(device, args[0], args[1], call.attrs["expr"])


def expression(device: Cuda, xs: Sequence[Any], y: Any, expr: str) -> Step:
    """y = expr over arrays that broadcast to it; y may lie over one of them that has its shape and type."""
    if not y.size:
        return nothing
    axes = fold(y.shape, [x.shape for x in xs])
    wide = [x for x, mask in zip(xs, axes.masks, strict=True) if axes.wide(mask)]
    width = vector_of(axes, [*wide, y])
    return _launch(device, axes, width, xs, y, expr, axes.count)


def _within(device: Cuda, xs: Sequence[Any], y: Any, expr: str, cut: Cut) -> Step:
    """The same where some of the arrays are parts of larger ones."""
    if not math.prod(cut.shape):
        return nothing
    shapes = [x.shape if begin < 0 else cut.shape for x, begin in zip(xs, cut.begins, strict=False)]
    axes = fold(cut.shape, shapes, cut.inside)
    most = max(a.size for a in (*xs, y))
    parts, pitches = zip(*(cut.part(a, i) for i, a in enumerate((*xs, y))), strict=True)
    wide = [a for a, mask in zip(parts, (*axes.masks, -1), strict=True) if axes.wide(mask)]
    rows = next(k for k in range(axes.rank + 1) if math.prod(axes.sizes[k:]) == cut.run)
    fits = rows < axes.rank and all(n % VECTOR == 0 for n in (axes.sizes[-1], *pitches))
    width = VECTOR if fits and aligned(wide) else 1
    return _launch(device, axes, width, parts[:-1], parts[-1], expr, most, (("ROWS", str(rows)),), pitches)


def _launch(
    device: Cuda,
    axes: Axes,
    width: int,
    xs: Sequence[Any],
    y: Any,
    expr: str,
    most: int,
    more: Defines = (),
    pitches: Sequence[int] = (),
) -> Step:
    dtypes = [x.dtype.name for x in xs]
    kernel = Kernel("pointwise", "pointwise", (
        *real_defines(real_of([y.dtype.name], dtypes), most, y.dtype.name, *dtypes),
        *axes.defines(),
        ("INPUTS(X)", inputs(letters(len(xs)), dtypes, axes.masks)),
        ("OUT", CTYPES[y.dtype.name]),
        ("EXPR", cuda_expression(expr)),
        ("V", str(width)),
        *more,
    ))  # fmt: skip
    values = [*xs, y, *indices(most, [axes.count, *axes.sizes, *pitches])]
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
