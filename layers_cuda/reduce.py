"""reduce, and how every reduction over axes is laid out on threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from netrun.expression import letters
from netrun.program import Call
from netrun.types import Shape, Spec

from .expressions import cuda_expression
from .geometry import VECTOR, Axes, Defines, aligned, fold, groups_of, indices, real_defines, real_of
from .launch import BLOCK, CTYPES, Kernel, Step, nothing, sequence
from .pointwise import expression, inputs

if TYPE_CHECKING:
    from .device import Cuda

SHARE = 16
"""Elements that a thread walks over before more blocks are worth a second launch."""

RESIDENT = 8
"""Blocks of 256 threads that a multiprocessor holds at a time: fewer do not keep enough reads on their way."""


@dataclass(frozen=True)
class Layout:
    """Which thread walks over what.

    axes     the merged axes; the masks are those of the tensors
    kept     the axes that stay, as a mask
    outputs  results;  length  elements of each
    lanes    threads that share a result;  columns  1 where neighbouring threads have different results (lanes.cuh)
    rows     blocks that share a result, each with ``chunk`` elements
    wide     neighbouring results of one thread: more than 1 only with columns
    """

    axes: Axes
    kept: int
    outputs: int
    length: int
    lanes: int
    columns: int
    rows: int
    chunk: int
    wide: int = 1

    def defines(self) -> Defines:
        """What axes.cuh and lanes.cuh want."""
        threads = ("LANES", str(self.lanes)), ("COLUMNS", str(self.columns))
        return (*self.axes.defines(), ("KEPT", f"{self.kept}u"), *threads)

    @property
    def grid(self) -> tuple[int, int]:
        """Blocks."""
        return -(-self.outputs // (groups_of(self.lanes) * self.wide)), self.rows


def layout(
    shape: Shape, shapes: Sequence[Shape], axes: Shape, processors: int, vector: int = 1, apart: Sequence[bool] = ()
) -> Layout | None:
    """How to reduce ``shape``, to which the tensors broadcast, over ``axes``; None where nothing is reduced.

    Args:
        vector: how many neighbouring results a thread can take at once.
        apart: one value an axis; axes with different values are not merged.
    """
    gone = {a % len(shape) for a in axes} if shape else set()
    result = tuple(1 if i in gone else n for i, n in enumerate(shape))
    merged = fold(shape, [*shapes, result], [(i in gone, *apart[i : i + 1]) for i in range(len(shape))])
    *masks, kept = merged.masks
    merged = Axes(merged.sizes, tuple(masks))
    every = (1 << merged.rank) - 1
    if all(shape[a] == 1 for a in gone) or kept == every:
        return None
    outputs = math.prod(n for j, n in enumerate(merged.sizes) if kept >> j & 1)
    length = merged.count // max(outputs, 1)
    columns = merged.wide(kept)
    wide = vector if columns and merged.sizes[-1] % vector == 0 else 1
    if columns:
        lanes = 8 if outputs >= 16 else 32
        while lanes < BLOCK and groups_of(lanes) * wide >= 2 * outputs:
            lanes *= 2
    else:
        lanes = 32 if length <= 1024 else BLOCK
    blocks = max(1, -(-outputs // (groups_of(lanes) * wide)))
    rows = max(1, min(RESIDENT * processors // blocks, length // (lanes * SHARE)))
    chunk = -(-length // rows)
    return Layout(merged, kept, outputs, length, lanes, int(columns), -(-length // max(chunk, 1)) or 1, chunk, wide)


def reduce(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.reduce, bound."""
    xs, y = args
    return reduction(device, xs, y, call.attrs["expr"], call.attrs["how"], call.attrs["axes"], scratch)


def reduction(device: Cuda, xs: Sequence[Any], y: Any, expr: str, how: str, axes: Shape, scratch: Any) -> Step:
    """y = sum or max of expr over the axes. ``scratch`` has what ``scratch_bytes`` says."""
    if not y.size:
        return nothing
    whole = np.broadcast_shapes(*(x.shape for x in xs))
    if 0 in whole:  # a sum of nothing
        return device.launcher.zero(y)
    vector = VECTOR if aligned(xs) else 1
    plan = layout(whole, [x.shape for x in xs], axes, device.launcher.processors, vector)
    if plan is None:
        return expression(device, [x.reshape(_extended(x.shape, len(whole))) for x in xs], y.reshape(whole), expr)
    dtypes, count = [x.dtype.name for x in xs], plan.axes.count
    real = real_of([y.dtype.name], dtypes)
    common = (
        *real_defines(real, count, y.dtype.name, *dtypes),
        *plan.defines(),
        ("V", str(plan.wide)),
        ("INPUTS(X)", inputs(letters(len(xs)), dtypes, plan.axes.masks)),
        ("OUT", CTYPES[y.dtype.name]),
        ("EXPR", cuda_expression(expr)),
        ("HOW", {"sum": "Sum", "max": "Max"}[how]),
        ("START", {"sum": "(R)0", "max": "(-infinity())"}[how]),
    )
    partial = device.array(scratch, 0, Spec((plan.rows, plan.outputs), real)) if plan.rows > 1 else y
    values = [*xs, y, partial, *indices(count, [plan.outputs, plan.length, plan.chunk, *plan.axes.sizes])]
    steps = [device.launcher.step(Kernel("reduce", "reduce", common), plan.grid, BLOCK, values)]
    if plan.rows > 1:
        values = [partial, y, *indices(count, [plan.outputs]), np.int32(plan.rows)]
        kernel = Kernel("reduce", "reduce_partial", common)
        steps.append(device.launcher.step(kernel, -(-plan.outputs // groups_of(32)), BLOCK, values))
    return sequence(steps)


def _extended(shape: Shape, rank: int) -> Shape:
    return (1,) * (rank - len(shape)) + tuple(shape)


def scratch_bytes(device: Cuda, shapes: Sequence[Shape], axes: Shape) -> int:
    """Bytes of the partial results of ``reduction``, whether or not several results at once can be taken."""
    whole = np.broadcast_shapes(*shapes)
    if 0 in whole:
        return 0
    plans = [layout(whole, shapes, axes, device.launcher.processors, vector) for vector in (1, VECTOR)]
    return max(plan.rows * plan.outputs * 8 if plan and plan.rows > 1 else 0 for plan in plans)


def workspace(device: Cuda, call: Call) -> int:
    """Bytes of the partial results."""
    xs: Any = call.args[0]
    return scratch_bytes(device, [x.shape for x in xs], call.attrs["axes"])


BODIES: dict[str, Callable[[Cuda, Call, Sequence[Any], Any], Step]] = {"reduce": reduce}
WORKSPACE: dict[str, Callable[[Cuda, Call], int]] = {"reduce": workspace}
