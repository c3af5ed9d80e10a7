"""Statistics over most of a tensor by many blocks for each result: those of batch normalisation, and the sums of its
gradient. The kernels ``moments`` and ``sums`` are this device's own: ``norms.py`` puts them into programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from netrun.expression import letters
from netrun.kernels import Argument, Op
from netrun.program import Call
from netrun.types import Shape, Spec

from .expressions import cuda_expression
from .geometry import VECTOR, Axes, aligned, indices, real_defines, real_of, type_defines
from .launch import BLOCK, Kernel, Step, sequence
from .pointwise import inputs
from .reduce import Layout, layout

if TYPE_CHECKING:
    from .device import Cuda

MOMENTS = Op(
    "moments",
    (Argument("x", "r", False, False), *(Argument(name, "w", False, False) for name in ("mean", "var", "inverse"))),
    ("axes", "eps"),
)
"""Mean and variance over axes, and 1 / sqrt(var + eps); in at least float32."""

SUMS = Op(
    "sums",
    (Argument("xs", "r", True, False), *(Argument(name, "w", False, False) for name in ("total", "product"))),
    ("expr", "other", "axes"),
)
"""The sums of expr and of expr * other over axes of the inputs' broadcast shape."""

_WARPS = BLOCK // 32


def _plan(device: Cuda, shape: Shape, shapes: Sequence[Shape], axes: Shape, vector: int) -> Layout:
    """How to walk; where nothing is reduced, every element is a result of its own."""
    found = layout(shape, shapes, axes, device.launcher.processors, vector)
    if found is not None:
        return found
    count = int(np.prod(shape, dtype=np.int64))
    if any(tuple(s) != tuple(shape) for s in shapes):
        raise ValueError(f"sums over nothing of {shapes}")
    return Layout(Axes((count, 1), (3,) * len(shapes)), 1, count, 1, 1, 1, 1, 1)


def moments(
    device: Cuda, x: Any, mean: Any, var: Any, inverse: Any, axes: Shape, eps: float, scratch: Any
) -> Step:  # fmt: skip
    """A step for MOMENTS; ``scratch`` has what ``scratch_bytes`` says."""
    real = real_of([x.dtype.name])
    plan = _plan(device, x.shape, [x.shape], axes, VECTOR if aligned([x]) else 1)
    defines = (*type_defines(x.dtype.name, plan.axes.count), *plan.defines(), ("V", str(plan.wide)))
    partial = device.array(scratch, 0, Spec((plan.rows, plan.outputs, 3), real))
    numbers = indices(plan.axes.count, [plan.outputs, plan.length, plan.chunk, *plan.axes.sizes])
    outputs, launch = indices(plan.axes.count, [plan.outputs]), device.launcher.step
    return sequence([
        launch(Kernel("moments", "moments", defines), plan.grid, BLOCK, [x, partial, *numbers]),
        launch(Kernel("moments", "moments_partial", defines), -(-plan.outputs // _WARPS), BLOCK,
               [partial, mean, var, inverse, *outputs, np.int32(plan.rows), np.dtype(real).type(eps)]),
    ])  # fmt: skip


def sums(
    device: Cuda, xs: Sequence[Any], total: Any, product: Any, expr: str, other: str, axes: Shape, scratch: Any
) -> Step:
    """A step for SUMS; ``scratch`` has what ``scratch_bytes`` says."""
    dtypes = [x.dtype.name for x in xs]
    real = real_of([total.dtype.name], dtypes)
    whole = np.broadcast_shapes(*(x.shape for x in xs))
    plan = _plan(device, whole, [x.shape for x in xs], axes, VECTOR if aligned(xs) else 1)
    defines = (
        *real_defines(real, plan.axes.count, *dtypes),
        *plan.defines(),
        ("V", str(plan.wide)),
        ("INPUTS(X)", inputs(letters(len(xs)), dtypes, plan.axes.masks)),
        ("EXPR", cuda_expression(expr)),
        ("OTHER", cuda_expression(other)),
    )
    partial = device.array(scratch, 0, Spec((plan.rows, plan.outputs, 2), real))
    numbers = indices(plan.axes.count, [plan.outputs, plan.length, plan.chunk, *plan.axes.sizes])
    outputs, launch = indices(plan.axes.count, [plan.outputs]), device.launcher.step
    return sequence([
        launch(Kernel("sums", "sums", defines), plan.grid, BLOCK, [*xs, partial, *numbers]),
        launch(Kernel("sums", "sums_partial", defines), -(-plan.outputs // _WARPS), BLOCK,
               [partial, total, product, *outputs, np.int32(plan.rows)]),
    ])  # fmt: skip


def scratch_bytes(device: Cuda, shape: Shape, shapes: Sequence[Shape], axes: Shape) -> int:
    """Bytes of the partial results of either, whether or not several results at once can be taken."""
    plans = [_plan(device, shape, shapes, axes, vector) for vector in (1, VECTOR)]
    return max(plan.rows * plan.outputs for plan in plans) * 3 * 8


def _moments(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    x, mean, var, inverse = args
    return moments(device, x, mean, var, inverse, call.attrs["axes"], call.attrs["eps"], scratch)


def _sums(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    xs, total, product = args
    return sums(device, xs, total, product, call.attrs["expr"], call.attrs["other"], call.attrs["axes"], scratch)


def _workspace(device: Cuda, call: Call) -> int:
    given: Any = call.args[0]
    shapes = [t.shape for t in (given if isinstance(given, tuple) else (given,))]
    return scratch_bytes(device, np.broadcast_shapes(*shapes), shapes, call.attrs["axes"])


BODIES: Mapping[str, Callable[[Cuda, Call, Sequence[Any], Any], Step]] = {"moments": _moments, "sums": _sums}
"""Beside those of the vocabulary."""

WORKSPACE: Mapping[str, Callable[[Cuda, Call], int]] = dict.fromkeys(BODIES, _workspace)
