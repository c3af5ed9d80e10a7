"""Sliding windows over any number of spatial axes, one kernel element (a "tap") at a time.

For one tap the inputs it meets are a strided box of the input and the outputs it serves a box of the output: every
window kernel is a loop over taps with one array operation each, and padding never has to be written down.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..types import Window


class Tap(NamedTuple):
    """One kernel element, as indices: of its weight in w, of the inputs it meets in x, of the outputs it serves in y,
    and of its entries in a column matrix seen as N C kernel S'.
    """

    weight: Any
    inputs: Any
    outputs: Any
    column: Any


_ALL = (slice(None), slice(None))


def taps(window: Window, size: Sequence[int], out: Sequence[int]) -> Iterator[Tap]:
    """Every tap that meets an input at all, in row-major order; both boxes of a tap have the same shape."""
    axes = [axis_taps(window, axis, size[axis], out[axis]) for axis in range(window.rank)]
    for found in product(*axes):
        at, inputs, outputs = (tuple(f[i] for f in found) for i in range(3))
        yield Tap((..., *at), (*_ALL, *inputs), (*_ALL, *outputs), (*_ALL, *at, *outputs))


def axis_taps(window: Window, axis: int, size: int, out: int) -> list[tuple[int, slice, slice]]:
    """(kernel index, inputs, outputs) of the taps along one axis that meet an input, in order."""
    stride, found = window.stride[axis], []
    for i in range(window.kernel[axis]):
        offset = i * window.dilation[axis] - window.pad[axis]
        first = max(0, -(offset // stride))  # the first output whose input is not before 0
        last = min(out - 1, (size - 1 - offset) // stride)
        if first <= last:
            start = first * stride + offset
            inputs = slice(start, start + (last - first) * stride + 1, stride)
            found.append((i, inputs, slice(first, last + 1)))
    return found


def divisors(window: Window, size: Sequence[int], out: Sequence[int], count: str) -> npt.NDArray[np.int64]:
    """What pool_avg divides each window's sum by: kernels.Kernels.pool_avg. Shape: out."""
    total: Any = np.ones((), np.int64)
    for axis in range(window.rank):
        starts = np.arange(out[axis]) * window.stride[axis] - window.pad[axis]
        meets = starts[:, None] + np.arange(window.kernel[axis]) * window.dilation[axis]
        if count == "padded":
            counted = meets < size[axis] + window.pad_end[axis]
        elif count == "inside":
            counted = (meets >= 0) & (meets < size[axis])
        else:
            counted = np.ones(meets.shape, bool)
        total = np.multiply.outer(total, counted.sum(axis=1))
    found: npt.NDArray[np.int64] = np.maximum(total, 1) if count == "padded" else total
    return found


def plane(size: Sequence[int]) -> npt.NDArray[np.int32]:
    """Each position's number within its own plane, row-major. Shape: 1 1 size, so that tap boxes index it."""
    return np.arange(int(np.prod(size, dtype=np.int64)), dtype=np.int32).reshape(1, 1, *size)
