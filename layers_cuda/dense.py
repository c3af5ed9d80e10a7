"""gemm: a cuBLAS call, after the addend has been spread over the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from netrun.program import Call

from .launch import Step, nothing, sequence
from .precision import precision_of

if TYPE_CHECKING:
    from .device import Cuda


def gemm(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.gemm, bound."""
    a, b, c, y = args
    ta, tb = call.attrs["ta"], call.attrs["tb"]
    if y.size == 0:
        return nothing
    spread = [] if c is None else [device.part("pointwise", ((c,), y), call.origin, scratch, expr="a")]
    if 0 in a.shape:  # nothing to sum
        return sequence(spread or [device.launcher.zero(y)])
    return sequence([*spread, device.blas.matmul(a, b, y, ta, tb, precision_of(call), add=bool(spread))])


BODIES: dict[str, Callable[[Cuda, Call, Sequence[Any], Any], Step]] = {"gemm": gemm}
WORKSPACE: dict[str, Callable[[Cuda, Call], int]] = {}
