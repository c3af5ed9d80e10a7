"""What a pointwise call makes and the sums of it in one kernel: the gradient behind a ReLU is not read again for the
gradient of the bias before it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from netrun.expression import letters
from netrun.kernels import Argument, Op
from netrun.program import Call, Program
from netrun.types import Shape, Spec

from .expressions import cuda_expression
from .geometry import VECTOR, Axes, Cut, aligned, indices, real_defines, real_of
from .launch import BLOCK, CTYPES, Kernel, Step, sequence
from .pointwise import inputs
from .reduce import Layout, layout

if TYPE_CHECKING:
    from .device import Cuda

SUMMED = Op(
    "summed",
    (Argument("xs", "r", True, False), Argument("y", "w", False, False), Argument("total", "w", False, False)),
    ("expr", "axes"),
    over=("xs", "y"),
)
"""y = expr, as ``pointwise``, and its sums over axes."""

_WARPS = BLOCK // 32


def summed(program: Program) -> Program:
    """The program with sums over what a pointwise call makes as a part of that call.

    A program whose layers may run one by one, with somebody looking at what is between them, stays as it is.
    """
    if program.visible:
        return program
    writers = Counter(t.root for call in program.calls for t in call.writes())
    makers = {c.writes()[0]: c for c in program.calls if c.op.name == "pointwise" and writers[c.writes()[0]] == 1}
    instead: dict[Call, Call] = {}
    gone: set[Call] = set()
    for call in program.calls:
        maker = makers.get(call.reads()[0]) if call.op.name == "reduce" and len(call.reads()) == 1 else None
        if maker is not None and maker not in instead and _fits(maker, call):
            args = (maker.args[0], maker.args[1], call.writes()[0])
            instead[maker] = replace(maker, op=SUMMED, args=args, attrs={**maker.attrs, "axes": call.attrs["axes"]})
            gone.add(call)
    if not gone:
        return program
    return program.having(instead.get(call, call) for call in program.calls if call not in gone)


def _fits(maker: Call, total: Call) -> bool:
    """Whether it is a plain sum over some, not all axes of a floating-point tensor that lies in memory of its own."""
    y, made = maker.writes()[0], total.writes()[0]
    cut: Cut | None = maker.attrs.get("cut")
    if (total.attrs["expr"], total.attrs["how"]) != ("a", "sum") or y.spec.count == 0 or made.dtype == "float64":
        return False
    if (cut is not None and cut.begins[-1] >= 0) or made.root in {t.root for t in maker.tensors()}:
        return False
    gone = {a % len(y.shape) for a in total.attrs["axes"]}
    return y.dtype != "float64" and any(y.shape[a] > 1 for a in gone) and made.spec.count > 1


def _shapes(shapes: Sequence[Shape], cut: Cut | None) -> list[Shape]:
    """The shapes of what the inputs are, or the parts of them that are read."""
    if cut is None:
        return list(shapes)
    return [s if begin < 0 else cut.shape for s, begin in zip(shapes, cut.begins, strict=False)]


def _plan(device: Cuda, shape: Shape, shapes: Sequence[Shape], axes: Shape, cut: Cut | None, vector: int) -> Layout:
    found = layout(shape, shapes, axes, device.launcher.processors, vector, () if cut is None else cut.inside)
    if found is None:
        raise ValueError(f"sums over nothing of {shape}")  # _fits has looked
    return found


def _summed(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    xs, y, total = args
    cut: Cut | None = call.attrs.get("cut")
    shapes = _shapes([x.shape for x in xs], cut)
    parts, pitches = [*xs, y], []
    if cut is not None:
        found = [cut.part(a, i) for i, a in enumerate(parts)]
        parts, pitches = [a for a, _ in found], [pitch for _, pitch in found]
    whole = [p for p, s in zip(parts, [*shapes, y.shape], strict=True) if math.prod(s) == y.size]
    fits = aligned(whole) and all(pitch % VECTOR == 0 for pitch in pitches)
    narrow = [p for p in parts[:-1] if p.size > 1 and not any(p is w for w in whole)]
    plan = _plan(device, y.shape, shapes, call.attrs["axes"], cut, VECTOR if fits and aligned(narrow) else 1)
    axes, dtypes = plan.axes, [x.dtype.name for x in xs]
    most = max(a.size for a in (*xs, y))
    defines = (
        *real_defines(real_of([y.dtype.name], dtypes), most, y.dtype.name, total.dtype.name, *dtypes),
        *plan.defines(),
        ("V", str(plan.wide)),
        ("INPUTS(X)", inputs(letters(len(xs)), dtypes, axes.masks)),
        ("OUT", CTYPES[y.dtype.name]),
        ("TOTAL", CTYPES[total.dtype.name]),
        ("EXPR", cuda_expression(call.attrs["expr"])),
        *([] if cut is None else [("ROWS", str(_rows(axes, cut)))]),
    )
    partial = device.array(scratch, 0, Spec((plan.rows, plan.outputs))) if plan.rows > 1 else total
    values = [*parts, total, partial, *indices(most, [plan.outputs, plan.length, plan.chunk, *axes.sizes, *pitches])]
    steps = [device.launcher.step(Kernel("summed", "summed", defines), plan.grid, BLOCK, values)]
    if plan.rows > 1:
        values = [partial, total, *indices(most, [plan.outputs]), np.int32(plan.rows)]
        grid = -(-plan.outputs // _WARPS)
        steps.append(device.launcher.step(Kernel("summed", "summed_partial", defines), grid, BLOCK, values))
    return sequence(steps)


def _rows(axes: Axes, cut: Cut) -> int:
    """The first of the axes that are a run."""
    return next(k for k in range(axes.rank + 1) if math.prod(axes.sizes[k:]) == cut.run)


def _workspace(device: Cuda, call: Call) -> int:
    """Bytes of the partial results, whether or not several results at once can be taken."""
    xs: Any = call.args[0]
    y: Any = call.args[1]
    cut = call.attrs.get("cut")
    shapes = _shapes([x.shape for x in xs], cut)
    plans = [_plan(device, y.shape, shapes, call.attrs["axes"], cut, vector) for vector in (1, VECTOR)]
    return max(plan.rows * plan.outputs * 4 if plan.rows > 1 else 0 for plan in plans)


BODIES: Mapping[str, Callable[[Cuda, Call, Sequence[Any], Any], Step]] = {"summed": _summed}
"""Beside those of the vocabulary."""

WORKSPACE: Mapping[str, Callable[[Cuda, Call], int]] = {"summed": _workspace}

__all__ = ["SUMMED", "summed"]
