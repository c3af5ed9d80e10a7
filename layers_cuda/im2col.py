"""im2col and col2im: one thread an element of the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from netrun.program import Call

from .geometry import indices, type_defines
from .launch import BLOCK, Kernel, Step
from .windows import sizes, window_defines

if TYPE_CHECKING:
    from .device import Cuda


def _step(device: Cuda, name: str, call: Call, given: Any, made: Any, x: Any, y: Any) -> Step:
    count = max(x.size, y.size)
    kernel = Kernel("im2col", name, (*type_defines(x.dtype.name, count), *window_defines(call.attrs["window"])))
    values = [given, made, *indices(count, [made.size]), *sizes(x.shape[2:], y.shape[2:])]
    return device.launcher.step(kernel, device.launcher.blocks(made.size), BLOCK, values)


def im2col(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.im2col, bound."""
    x, y = args
    return _step(device, "im2col", call, x, y, x, y)


def col2im(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.col2im, bound."""
    y, x = args
    return _step(device, "col2im", call, y, x, x, y)


BODIES: dict[str, Callable[[Cuda, Call, Sequence[Any], Any], Step]] = {"im2col": im2col, "col2im": col2im}
WORKSPACE: dict[str, Callable[[Cuda, Call], int]] = {}
