"""ctc: a block a sequence; the gradient comes with the loss. Where that is chosen, cuDNN computes the sequences that
are within what it promises, and the own kernels the others, behind it in the same graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from netrun.program import Call
from netrun.types import Spec

from .dnn_ctc import MOST_LABELS
from .geometry import groups_of, indices, real_of, type_defines
from .launch import BLOCK, CTYPES, Kernel, Step, nothing, sequence

if TYPE_CHECKING:
    from .device import Cuda

LANES = 32
"""Threads that share one sum over the classes."""

NOTHING = np.int64(0)
"""A null pointer."""


def _specs(x: Any, label: Any) -> list[Spec]:
    """norm, alpha, beta, ok."""
    (steps, streams), places = x.shape[:2], 2 * label.shape[1] + 1
    real = real_of([x.dtype if isinstance(x.dtype, str) else x.dtype.name])
    return [
        Spec(shape, real) for shape in ((steps, streams), (steps, streams, places), (2, streams, places), (streams,))
    ]


def _given(label: Any) -> list[Spec]:
    """What cuDNN is given: labels, counts, steps; which sequences it is not for; where the labels of each begin."""
    streams, most = label.shape
    return [Spec((max(streams * most, streams),), "int32"), *[Spec((streams,), "int32")] * 4]


def _by_cudnn(device: Cuda, shape: Sequence[int], dtype: str, label: Any, blank: int) -> int | None:
    """Bytes that cuDNN works in; None where the own kernels do it all."""
    plain = dtype == "float32" and blank == 0 and shape[2] > 1 and label.shape[1] <= MOST_LABELS
    return device.ctc.workspace(tuple(shape)) if plain and device.ctc is not None else None


def _room(device: Cuda, scratch: Any, specs: Sequence[Spec], at: int = 0) -> tuple[list[Any], int]:
    """Arrays one behind the other in the scratch, and where they end."""
    found = []
    for spec in specs:
        found.append(device.array(scratch, at, spec))
        at += -(-spec.nbytes // 256) * 256
    return found, at


def ctc(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.ctc, bound. A label out of range is reported by ``device.faults``."""
    x, label, steps, count, loss, slope = args
    most, streams, k = x.shape
    labels, blank = label.shape[1], call.attrs["blank"]
    if not x.size:
        return nothing
    (norm, alpha, beta, ok), at = _room(device, scratch, _specs(x, label))
    largest = max(x.size, alpha.size)
    kernels = {
        name: Kernel("ctc", name, (
            *type_defines(x.dtype.name, largest), ("LANES", str(LANES)), ("COLUMNS", "0"),
            ("LABEL", CTYPES[label.dtype.name]), ("LENGTH", CTYPES[steps.dtype.name]),
        ))
        for name in ("ctc_given", "ctc_norm", "ctc_walk", "ctc_soft", "ctc_slope")
    }  # fmt: skip
    fault = device.faults.slot(call.origin, "label", label.shape, k, f"the scores have {k} classes")
    launch, blocks = device.launcher.step, device.launcher.blocks

    def numbers(*values: int) -> list[Any]:
        return indices(largest, values)

    run: list[Step] = []
    odd: Any = NOTHING
    if _by_cudnn(device, x.shape, x.dtype.name, label, blank) is not None and device.ctc is not None:
        given, at = _room(device, scratch, _given(label), at)
        packed, counts, ends, odd, _ = given
        made = [label, steps, count, *given, *numbers(most, streams, k, labels, blank)]
        run.append(launch(kernels["ctc_given"], 1, BLOCK, made))
        run.append(device.ctc.step(x, packed, counts, ends, loss, slope, scratch[at:]))
    rows = most * streams
    return sequence([
        *run,
        launch(kernels["ctc_norm"], -(-rows // groups_of(LANES)), BLOCK, [x, norm, odd, *numbers(rows, streams, k)]),
        launch(kernels["ctc_walk"], streams, BLOCK, [x, label, steps, count, norm, alpha, beta, ok, loss, odd, fault,
                                                     *numbers(most, streams, k, labels, blank)]),
        launch(kernels["ctc_soft"], blocks(x.size), BLOCK, [x, norm, ok, steps, odd, slope,
                                                            *numbers(x.size, streams, k)]),
        launch(kernels["ctc_slope"], blocks(alpha.size), BLOCK, [label, alpha, ok, steps, count, odd, slope,
                                                                 *numbers(alpha.size, streams, k, labels, blank)]),
    ])  # fmt: skip


def _workspace(device: Cuda, call: Call) -> int:
    """Bytes of the sums along the walks, and of what cuDNN is given and works in."""
    args: Any = call.args
    x, label, *_ = args
    specs = _specs(x, label)
    more = _by_cudnn(device, x.shape, x.dtype, label, call.attrs["blank"]) if x.spec.count else None
    specs += [] if more is None else _given(label)
    return sum(-(-spec.nbytes // 256) * 256 for spec in specs) + (more or 0)


BODIES: dict[str, Callable[[Cuda, Call, Sequence[Any], Any], Step]] = {"ctc": ctc}
WORKSPACE: dict[str, Callable[[Cuda, Call], int]] = {"ctc": _workspace}
