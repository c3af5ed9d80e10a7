"""ctc: a block a sequence; the gradient comes with the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from netrun.program import Call
from netrun.types import Spec

from .geometry import groups_of, indices, real_of, type_defines
from .launch import BLOCK, CTYPES, Kernel, Step, nothing, sequence

if TYPE_CHECKING:
    from .device import Cuda

LANES = 32
"""Threads that share one sum over the classes."""


def _specs(x: Any, label: Any) -> list[Spec]:
    """norm, alpha, beta, ok."""
    (steps, streams), places = x.shape[:2], 2 * label.shape[1] + 1
    real = real_of([x.dtype if isinstance(x.dtype, str) else x.dtype.name])
    return [
        Spec(shape, real) for shape in ((steps, streams), (steps, streams, places), (2, streams, places), (streams,))
    ]


def ctc(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.ctc, bound. A label out of range is reported by ``device.faults``."""
    x, label, steps, count, loss, slope = args
    most, streams, k = x.shape
    labels = label.shape[1]
    if not x.size:
        return nothing
    at, found = 0, []
    for spec in _specs(x, label):
        found.append(device.array(scratch, at, spec))
        at += -(-spec.nbytes // 256) * 256
    norm, alpha, beta, ok = found
    largest = max(x.size, alpha.size)
    kernels = {
        name: Kernel("ctc", name, (
            *type_defines(x.dtype.name, largest), ("LANES", str(LANES)), ("COLUMNS", "0"),
            ("LABEL", CTYPES[label.dtype.name]), ("LENGTH", CTYPES[steps.dtype.name]),
        ))
        for name in ("ctc_norm", "ctc_walk", "ctc_soft", "ctc_slope")
    }  # fmt: skip
    fault = device.faults.slot(call.origin, "label", label.shape, k, f"the scores have {k} classes")
    launch, blocks = device.launcher.step, device.launcher.blocks

    def numbers(*values: int) -> list[Any]:
        return indices(largest, values)

    blank, rows = call.attrs["blank"], most * streams
    return sequence([
        launch(kernels["ctc_norm"], -(-rows // groups_of(LANES)), BLOCK, [x, norm, *numbers(rows, k)]),
        launch(kernels["ctc_walk"], streams, BLOCK, [x, label, steps, count, norm, alpha, beta, ok, loss, fault,
                                                     *numbers(most, streams, k, labels, blank)]),
        launch(kernels["ctc_soft"], blocks(x.size), BLOCK, [x, norm, ok, steps, slope, *numbers(x.size, streams, k)]),
        launch(kernels["ctc_slope"], blocks(alpha.size), BLOCK, [label, alpha, ok, steps, count, slope,
                                                                 *numbers(alpha.size, streams, k, labels, blank)]),
    ])  # fmt: skip


def _workspace(device: Cuda, call: Call) -> int:
    """Bytes of the sums along the walks."""
    x, label, *_ = call.args
    return sum(-(-spec.nbytes // 256) * 256 for spec in _specs(x, label))


BODIES: dict[str, Callable[[Cuda, Call, Sequence[Any], Any], Step]] = {"ctc": ctc}
WORKSPACE: dict[str, Callable[[Cuda, Call], int]] = {"ctc": _workspace}
