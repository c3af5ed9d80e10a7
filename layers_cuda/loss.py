"""softmax and softmax_nll, and their adjoints: along one axis of outer x K x inner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from netrun.program import Call
from netrun.types import Shape, Spec

from .geometry import Defines, groups_of, indices, real_of, type_defines
from .launch import BLOCK, CTYPES, Kernel, Step, nothing, sequence

if TYPE_CHECKING:
    from .device import Cuda

MOST = 1024
"""Blocks of softmax_nll: each leaves one partial sum."""


@dataclass(frozen=True)
class Classes:
    """outer x K x inner, and the threads of one position: lanes.cuh."""

    outer: int
    k: int
    inner: int

    @classmethod
    def of(cls, shape: Shape, axis: int) -> Classes:
        """The three numbers of a shape."""
        axis %= len(shape)
        outer, inner = (int(np.prod(part, dtype=np.int64)) for part in (shape[:axis], shape[axis + 1 :]))
        return cls(outer, shape[axis], inner)

    @property
    def positions(self) -> int:
        """Groups of threads."""
        return self.outer * self.inner

    @property
    def count(self) -> int:
        """Elements."""
        return self.positions * self.k

    @property
    def lanes(self) -> int:
        """Threads of one position."""
        if self.inner == 1:
            return 32 if self.k <= 2048 else BLOCK
        return 1 if self.k < 64 else 8

    @property
    def blocks(self) -> int:
        """Blocks so that every position has its group."""
        return -(-self.positions // groups_of(self.lanes))

    def defines(self) -> Defines:
        """LANES and COLUMNS."""
        return ("LANES", str(self.lanes)), ("COLUMNS", str(int(self.inner > 1)))

    def values(self) -> list[Any]:
        """Kernel arguments: positions, k, inner."""
        return indices(self.count, [self.positions, self.k, self.inner])


def _step(device: Cuda, name: str, axis: int, tensors: Sequence[Any]) -> Step:
    shape = Classes.of(tensors[0].shape, axis)
    if not shape.count:
        return nothing
    kernel = Kernel("softmax", name, (*type_defines(tensors[0].dtype.name, shape.count), *shape.defines()))
    return device.launcher.step(kernel, shape.blocks, BLOCK, [*tensors, *shape.values()])


def softmax(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.softmax, bound."""
    return _step(device, "softmax", call.attrs["axis"], args)


def softmax_grad(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.softmax_grad, bound."""
    return _step(device, "softmax_grad", call.attrs["axis"], args)


def _kernel(name: str, shape: Classes, x: Any, label: Any) -> Kernel:
    types = type_defines(x.dtype.name, shape.count, label.dtype.name)
    return Kernel("loss", name, (*types, *shape.defines(), ("LABEL", CTYPES[label.dtype.name])))


def _ignored(ignore: int | None) -> list[Any]:
    return [np.int32(ignore is not None), np.int64(ignore or 0)]


def softmax_nll(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.softmax_nll, bound. A label out of range is reported by ``device.faults``."""
    x, label, prob, loss, norm = args
    shape = Classes.of(x.shape, call.attrs["axis"])
    blocks = min(shape.blocks, MOST)
    real = real_of([x.dtype.name])
    counts = device.array(scratch, 0, Spec((MOST,), "int64"))
    losses = device.array(scratch, MOST * 8, Spec((MOST,), real))
    divisors = {"valid": 0, "full": max(shape.positions, 1), "batch": max(shape.outer, 1), "none": 1}
    hint = f"the scores have {shape.k} classes"
    fault = device.faults.slot(call.origin, "label", label.shape, shape.k, hint)
    values = [x, label, prob, losses, counts, fault, *shape.values(), *_ignored(call.attrs["ignore"])]
    sums = [losses, counts, loss, norm, np.int32(blocks), np.float64(divisors[call.attrs["normalize"]])]
    return sequence([
        device.launcher.step(_kernel("softmax_nll", shape, x, label), blocks, BLOCK, values),
        device.launcher.step(_kernel("softmax_nll_sum", shape, x, label), 1, BLOCK, sums),
    ])  # fmt: skip


def softmax_nll_grad(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.softmax_nll_grad, bound."""
    prob, label, norm, dloss, dx = args
    shape = Classes.of(prob.shape, call.attrs["axis"])
    values = [prob, label, norm, dloss, dx, *indices(shape.count, [shape.count, shape.k, shape.inner])]
    kernel = _kernel("softmax_nll_grad", shape, prob, label)
    return device.launcher.step(
        kernel, device.launcher.blocks(shape.count), BLOCK, values + _ignored(call.attrs["ignore"])
    )


BODIES: dict[str, Callable[[Cuda, Call, Sequence[Any], Any], Step]] = {
    "softmax": softmax,
    "softmax_grad": softmax_grad,
    "softmax_nll": softmax_nll,
    "softmax_nll_grad": softmax_nll_grad,
}
WORKSPACE: dict[str, Callable[[Cuda, Call], int]] = {"softmax_nll": lambda device, call: 2 * 8 * MOST}
