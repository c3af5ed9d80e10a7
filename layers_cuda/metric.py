"""rank and topk: one group of threads a position."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from netrun.program import Call

from .geometry import indices, type_defines
from .launch import BLOCK, CTYPES, Kernel, Step, nothing
from .loss import Classes

if TYPE_CHECKING:
    from .device import Cuda


def rank(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.rank, bound."""
    x, label, _ = args
    shape = Classes.of(x.shape, call.attrs["axis"])
    types = type_defines(x.dtype.name, shape.count, label.dtype.name)
    kernel = Kernel("metric", "rank_of_label", (*types, *shape.defines(), ("LABEL", CTYPES[label.dtype.name])))
    return device.launcher.step(kernel, shape.blocks, BLOCK, [*args, *shape.values()])


def topk(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.topk, bound. Reads the scores once for each place that is asked for."""
    x, values, index = args
    axis = call.attrs["axis"]
    shape = Classes.of(x.shape, axis)
    if not values.size:
        return nothing
    types = type_defines(x.dtype.name, shape.count, index.dtype.name)
    kernel = Kernel("metric", "topk", (*types, *shape.defines(), ("PLACE", CTYPES[index.dtype.name])))
    top = indices(shape.count, [values.shape[axis]])
    return device.launcher.step(kernel, shape.blocks, BLOCK, [*args, *shape.values(), *top])


BODIES: dict[str, Callable[[Cuda, Call, Sequence[Any], Any], Step]] = {"rank": rank, "topk": topk}
WORKSPACE: dict[str, Callable[[Cuda, Call], int]] = {}
