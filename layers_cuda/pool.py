"""Pooling: one thread an output, or for the adjoints an input."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from netrun.program import Call
from netrun.types import Shape, Window

from .geometry import indices, type_defines
from .launch import BLOCK, Kernel, Step
from .reduce import reduction, scratch_bytes
from .windows import sizes, window_defines

if TYPE_CHECKING:
    from .device import Cuda


_COUNTING = {"padded": "Padded", "inside": "Inside", "kernel": "Whole"}
"""The attribute ``count`` -> what src/pool.cu calls it."""


def _step(device: Cuda, name: str, call: Call, tensors: Sequence[Any], x: Any, y: Any, over: Any) -> Step:
    """One thread an element of ``over``; x is the side of the inputs, y that of the windows."""
    count, last = max(x.size, y.size), bool(call.attrs.get("last"))
    told = [("LAST", "1")] if last else []
    if "count" in call.attrs:
        told.append(("COUNTING", _COUNTING[call.attrs["count"]]))
    numbers = [over.size, x.shape[-1]] if last else [over.size]
    cut = call.attrs.get("cut")
    if cut is not None:  # y is a part of a larger tensor
        position = next(i for i, begin in enumerate(cut.begins) if begin >= 0)
        part, apart = cut.part(y, position)
        tensors = [*tensors[:position], part, *tensors[position + 1 :]]
        told.append(("PART", "1"))
        numbers = [math.prod(cut.shape) if over is y else over.size, *numbers[1:], cut.run, apart]
    kernel = Kernel("pool", name, (*type_defines(x.dtype.name, count), *window_defines(call.attrs["window"]), *told))
    values = [*tensors, *indices(count, numbers), *sizes(_space(x.shape, last), _space(y.shape, last))]
    return device.launcher.step(kernel, device.launcher.blocks(numbers[0]), BLOCK, values)


def pool_max(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.pool_max, bound."""
    x, y, _ = args
    return _step(device, "pool_max", call, args, x, y, y)


def pool_max_grad(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.pool_max_grad, bound: each input asks the windows over it whether it won."""
    _, dy, dx = args
    return _step(device, "pool_max_grad", call, args, dx, dy, dx)


def _space(shape: Shape, last: bool) -> Shape:
    """The spatial axes of N C S, or of N S C."""
    return tuple(shape[1:-1] if last else shape[2:])


def _whole(window: Window, inputs: Shape, outputs: Shape) -> bool:
    """Whether there is one window and it is the whole plane: then no thread walks over a plane alone."""
    plain = set(window.pad) <= {0} and set(window.dilation) <= {1}
    return plain and window.kernel == inputs and set(outputs) <= {1}


def _flat(x: Shape, y: Shape, last: bool) -> Shape:
    """The shape under which a mean over whole planes is one over the second axis."""
    planes = math.prod(y)
    return (x[0], math.prod(x) // max(planes, 1), x[-1]) if last else (planes, math.prod(x) // max(planes, 1))


def pool_avg(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.pool_avg, bound."""
    x, y = args
    last = bool(call.attrs.get("last"))
    if _whole(call.attrs["window"], _space(x.shape, last), _space(y.shape, last)) and x.size:
        flat = x.reshape(*_flat(x.shape, y.shape, last))
        result = y.reshape(y.shape[0], y.shape[-1]) if last else y.reshape(y.size)
        return reduction(device, [flat], result, f"a / {flat.shape[1]}", "sum", (1,), scratch)
    return _step(device, "pool_avg", call, args, x, y, y)


def pool_avg_grad(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.pool_avg_grad, bound."""
    dy, dx = args
    return _step(device, "pool_avg_grad", call, args, dx, dy, dx)


def pool_random(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.pool_random, bound."""
    x, _, y, _ = args
    return _step(device, "pool_random", call, args, x, y, y)


def whole_planes(call: Call) -> bool:
    """Whether a pool_avg is a mean over whole planes."""
    x, y = call.tensors()
    last = bool(call.attrs.get("last"))
    return x.spec.count > 0 and _whole(call.attrs["window"], _space(x.shape, last), _space(y.shape, last))


def workspace(device: Cuda, call: Call) -> int:
    """Bytes of the partial results of a mean over whole planes."""
    x, y = call.tensors()
    last = bool(call.attrs.get("last"))
    return scratch_bytes(device, [_flat(x.shape, y.shape, last)], (1,)) if whole_planes(call) else 0


BODIES: dict[str, Callable[[Cuda, Call, Sequence[Any], Any], Step]] = {
    "pool_max": pool_max,
    "pool_max_grad": pool_max_grad,
    "pool_avg": pool_avg,
    "pool_avg_grad": pool_avg_grad,
    "pool_random": pool_random,
}
WORKSPACE: dict[str, Callable[[Cuda, Call], int]] = {"pool_avg": workspace}
