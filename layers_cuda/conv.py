"""conv, conv_grad_x, conv_grad_w: a cuDNN plan; im2col and matrix products for what cuDNN does not take.

A bias and a ReLU are fused where cuDNN has an engine for it, else one pointwise kernel adds them. With a 16-bit
precision the operands are rounded into scratch first and the result is widened from there. With the attribute ``add``
(adding.py) the result is added to what is there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from netrun.errors import DeviceError
from netrun.program import Call
from netrun.types import Shape, Spec, Window, itemsize

from .dnn import Plan, Problem
from .launch import Step, nothing, sequence
from .plans import Execution
from .precision import PRECISIONS, Precision, narrow, precision_of, widen

if TYPE_CHECKING:
    from .device import Cuda

_KINDS = {"conv": "fprop", "conv_grad_x": "dgrad", "conv_grad_w": "wgrad"}
_LINE = 256


@dataclass(frozen=True)
class Case:
    """One of the three kernels on tensors: x N C S, w K C/groups kernel, y N K S'.

    ``last``: their channels lie innermost in memory. ``within``: y is a part of a tensor of so many channels. ``add``:
    the result is added to what is there.
    """

    kind: str
    x: Shape
    w: Shape
    y: Shape
    dtype: str
    window: Window
    groups: int
    bias: bool = False
    relu: bool = False
    precision: Precision = PRECISIONS["FP32"]
    deterministic: bool = False
    last: bool = False
    within: int = 0
    add: bool = False

    @staticmethod
    def of(call: Call) -> Case:
        """The case of a call; a convolution without spatial axes becomes one over a single point."""
        args: Any = call.args
        window, groups = call.attrs["window"], call.attrs["groups"]
        bias, relu = False, bool(call.attrs.get("relu"))
        if call.op.name == "conv":
            x, w, b, y = args
            bias = b is not None
        elif call.op.name == "conv_grad_x":
            w, y, x = args
        else:
            x, y, w = args
        last = bool(call.attrs.get("last"))
        shapes = [(t.shape[0], t.shape[-1], *t.shape[1:-1]) if last else tuple(t.shape) for t in (x, w, y)]
        within = shapes[2][1] if "begin" in call.attrs else 0
        if within:
            shapes[2] = (shapes[2][0], shapes[1][0], *shapes[2][2:])
        if window.rank == 0:
            shapes, window = [(*s, 1) for s in shapes], Window((1,))
        return Case(
            _KINDS[call.op.name], shapes[0], shapes[1], shapes[2], y.dtype, window, groups, bias, relu,
            precision=precision_of(call), deterministic=bool(call.attrs.get("deterministic")), last=last, within=within,
            add=bool(call.attrs.get("add")),
        )  # fmt: skip

    @property
    def storage(self) -> str:
        """The type that float32 operands are rounded to first; "" if they stay as they are."""
        return self.precision.storage if self.dtype == "float32" else ""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to multiply: the result is zeros."""
        return 0 in self.x or 0 in self.w or 0 in self.y

    @property
    def column_count(self) -> int:
        """Elements of the columns of one image."""
        return self.x[1] * math.prod(self.window.kernel) * math.prod(self.y[2:])

    def problem(self) -> Problem | None:
        """The case for cuDNN, which wants two or three spatial axes; None where it cannot be said."""
        w = self.window
        if w.rank > 3 or w.output(self.x[2:]) != self.y[2:] or min(*w.pad, *w.pad_end) < 0:
            return None
        storage = self.storage
        more = 2 - w.rank
        x, k, y = ((*s[:2], *(1,) * more, *s[2:]) for s in (self.x, self.w, self.y))
        ones, zeros = (1,) * more, (0,) * more
        return Problem(
            self.kind, storage or self.dtype, x, k, y,
            ones + w.stride, zeros + w.pad, zeros + w.pad_end, ones + w.dilation,
            tensor=self.precision.tensor, deterministic=self.deterministic,
            bias=self.bias and not storage, relu=self.relu and not storage, last=self.last,
            within=self.within, add=self.add,
        )  # fmt: skip


def _plan(device: Cuda, case: Case) -> Plan | None:
    """The plan with as much fused as cuDNN has an engine for."""
    problem = case.problem()
    if problem is None or case.empty:
        return None
    tries = [problem]
    if problem.bias and problem.relu:
        tries.append(replace(problem, relu=False))
    if problem.bias or problem.relu:
        tries.append(replace(problem, bias=False, relu=False))
    for wanted in tries:
        plan = device.plans.best(wanted)
        if plan is not None:
            return plan
    return None


def has_plan(device: Cuda, call: Call) -> bool:
    """Whether cuDNN runs a convolution as it stands."""
    case = Case.of(call)
    return not case.empty and case.window.rank >= 2 and _plan(device, case) is not None


def takes_parts(device: Cuda, call: Call) -> bool:
    """Whether cuDNN runs a convolution with the attribute ``begin`` as it stands, with all that is fused into it."""
    case, begin = Case.of(call), call.attrs["begin"]
    step = itemsize(case.dtype) * (1 if case.last else math.prod(case.y[2:]))
    if case.empty or case.storage or case.window.rank < 2 or begin * step % 16 or case.within * step % 16:
        return False
    plan = _plan(device, case)
    return plan is not None and (plan.problem.bias, plan.problem.relu) == (case.bias, case.relu)


def takes_sums(device: Cuda, call: Call) -> bool:
    """Whether a convolution or a product runs with the attribute ``add``."""
    if call.op.name == "gemm":
        return True
    case = Case.of(call)
    return not case.empty and not case.storage and _plan(device, case) is not None


def _sizes(case: Case, plan: Plan | None) -> list[int]:
    """Bytes of the areas of the scratch: 16-bit image, filter and output, then the workspace; or the columns."""
    if plan is None:
        return [0 if case.empty else case.column_count * itemsize(case.dtype)]
    half = case.storage
    return [*(2 * math.prod(s) if half else 0 for s in (case.x, case.w, case.y)), plan.workspace]


def _workspace(device: Cuda, call: Call) -> int:
    case = Case.of(call)
    return sum(_round(n) for n in _sizes(case, _plan(device, case)))


def _round(nbytes: int) -> int:
    return -(-nbytes // _LINE) * _LINE


def _carve(scratch: Any, sizes: Sequence[int]) -> list[Any]:
    at, areas = 0, []
    for nbytes in sizes:
        areas.append(scratch[at : at + nbytes] if nbytes else scratch[:1])
        at += _round(nbytes)
    return areas


# ---------------------------------------------------------------------------------------------------------- the kernels
def conv(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.conv, bound; with the attribute ``relu`` the result is rectified."""
    x, w, b, y = args
    case = Case.of(call)
    plan = _plan(device, case)
    y = _own(case, call, y)
    fused = plan.problem if plan is not None else None
    wide = () if case.last else (1,) * (args[-1].ndim - 2)
    bias = b if b is None or (fused and fused.bias) else b.reshape(-1, *wide)
    bias_left, relu_left = b is not None and not (fused and fused.bias), case.relu and not (fused and fused.relu)
    steps = [_product(device, call, case, plan, (x, w, y), bias if b is not None and not bias_left else None, scratch)]
    expr = "a + b" if bias_left else "a"
    if bias_left or relu_left:
        given = (y, bias) if bias_left else (y,)
        expr = f"relu({expr}, 0)" if relu_left else expr
        steps.append(device.part("pointwise", (given, y), call.origin, scratch, expr=expr))
    return sequence(steps)


def conv_grad_x(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.conv_grad_x, bound."""
    w, dy, dx = args
    case = Case.of(call)
    return _product(device, call, case, _plan(device, case), (dx, w, _own(case, call, dy)), None, scratch)


def conv_grad_w(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.conv_grad_w, bound."""
    x, dy, dw = args
    case = Case.of(call)
    return _product(device, call, case, _plan(device, case), (x, dw, _own(case, call, dy)), None, scratch)


def _own(case: Case, call: Call, y: Any) -> Any:
    """The output from the call's own channels on; nothing but its address is asked for."""
    return y.reshape(-1)[call.attrs["begin"] * (1 if case.last else math.prod(case.y[2:])) :] if case.within else y


def _product(
    device: Cuda, call: Call, case: Case, plan: Plan | None, arrays: Sequence[Any], bias: Any, scratch: Any
) -> Step:
    """The convolution itself over image, filter and output, one of which is written."""
    written = {"dgrad": 0, "wgrad": 1, "fprop": 2}[case.kind]
    result = arrays[written]
    if case.empty:
        return device.launcher.zero(result) if result.size else nothing
    areas = _carve(scratch, _sizes(case, plan))
    if plan is None and (case.last or case.add):
        raise DeviceError("cuDNN has no plan for it " + ("that adds" if case.add else "with channels last"))
    if plan is None:
        shaped = [a.reshape(s) for a, s in zip(arrays, (case.x, case.w, case.y), strict=True)]
        return _by_columns(device, call, case, shaped, areas[0])
    half = case.storage
    if not half:
        return Execution(device, plan, [*arrays, *([] if bias is None else [bias])], areas[-1])
    small = [area.view("uint16") for area in areas[:3]]
    steps = [narrow(device, arrays[i], small[i], half) for i in range(3) if i != written]
    steps.append(Execution(device, plan, small, areas[-1]))
    return sequence([*steps, widen(device, small[written], result, half)])


def _by_columns(device: Cuda, call: Call, case: Case, arrays: Sequence[Any], area: Any) -> Step:
    """Image by image: columns of one image are all the memory it takes."""
    x, w, y = arrays
    g, k, c = case.groups, case.y[1], case.x[1]
    depth, positions = c // g * math.prod(case.window.kernel), math.prod(case.y[2:])
    columns = device.array(area, 0, Spec((case.column_count,), case.dtype))
    spread = columns.reshape(1, c * math.prod(case.window.kernel), *case.y[2:])
    matrix, filters = columns.reshape(g, depth, positions), w.reshape(g, k // g, depth)
    steps: list[Step] = []
    for n in range(case.x[0]):
        image, maps = x[n : n + 1], y[n].reshape(g, k // g, positions)
        if case.kind == "dgrad":
            steps.append(device.blas.matmul(filters, maps, matrix, True, False, case.precision))
            steps.append(device.part("col2im", (spread, image), call.origin, window=case.window))
            continue
        steps.append(device.part("im2col", (image, spread), call.origin, window=case.window))
        if case.kind == "fprop":
            steps.append(device.blas.matmul(filters, matrix, maps, False, False, case.precision))
        else:
            steps.append(device.blas.matmul(maps, matrix, filters, False, True, case.precision, add=n > 0))
    return sequence(steps)


BODIES: dict[str, Callable[[Cuda, Call, Sequence[Any], Any], Step]] = {
    "conv": conv, "conv_grad_x": conv_grad_x, "conv_grad_w": conv_grad_w,
}  # fmt: skip
WORKSPACE: dict[str, Callable[[Cuda, Call], int]] = dict.fromkeys(BODIES, _workspace)
