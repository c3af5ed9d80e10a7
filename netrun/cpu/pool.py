"""Pooling, bound: loops over the elements of the window, not over its positions, and over few images at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..program import Call
from ..types import Shape, Window
from .memory import Array, Part, carve, carved_bytes, chain
from .windows import axis_taps, divisors, plane, taps

Step = Callable[[], Any]
BLOCK = 64 * 1024
"""Elements of a chunk of images: several buffers of it fit into the second-level cache."""


def _chunk(n: int, per_image: int) -> int:
    return max(1, min(n, BLOCK // max(1, per_image)))


def _ranges(n: int, chunk: int) -> list[tuple[int, int]]:
    return [(a, min(n, a + chunk)) for a in range(0, n, chunk)]


def _strides(size: Shape) -> list[int]:
    return [math.prod(size[i + 1 :]) for i in range(len(size))]


# ------------------------------------------------------------------------------------------------------------- maximum
def _max_parts(y: Shape, dtype: Any, window: Window) -> list[Part]:
    images = _chunk(y[0], math.prod(y[1:]))
    count = (images * math.prod(y[1:]),)
    code = _code_type(window)
    return [(count, dtype), (count, np.dtype(bool)), (count, code), (count, code)]


def _code_type(window: Window) -> np.dtype[Any]:
    return np.dtype(np.uint8 if math.prod(window.kernel) <= 256 else np.uint32)


def pool_max(x: Array, y: Array, index: Array, scratch: Any, *, window: Window) -> Step:
    """Kernels.pool_max, bound.

    The winner is kept as the number of its tap: later taps have larger numbers, so "take the new number where the
    new value is larger" is the maximum of the old number and number * (new > best).
    """
    size, out = x.shape[2:], y.shape[2:]
    work = carve(scratch, _max_parts(y.shape, y.dtype, window))
    every = list(taps(window, size, out))
    numbers = [int(np.ravel_multi_index(tap.weight[1:], window.kernel)) if window.rank else 0 for tap in every]
    first, jumps, base = _first_taps(window, size, out, every, numbers)
    outside = first < 0
    start_code = np.maximum(first, 0).astype(work[2].dtype)
    covered = bool(every) and every[0].outputs[2:] == tuple(slice(0, o) for o in out)
    lowest = np.finfo(y.dtype).min
    steps: list[Step] = []
    for a, b in _ranges(y.shape[0], _chunk(y.shape[0], math.prod(y.shape[1:]))):
        shape = y[a:b].shape
        value, mask, new, code = (part[: math.prod(shape)].reshape(shape) for part in work)
        best = y[a:b]
        if covered:
            steps += [partial(np.copyto, best, x[a:b][every[0].inputs]), partial(code.fill, numbers[0])]
        else:
            steps += [partial(best.fill, -np.inf), partial(np.copyto, code, start_code)]
        for tap, number in list(zip(every, numbers, strict=True))[covered:]:
            box = tap.outputs
            steps.append(partial(np.copyto, value[box], x[a:b][tap.inputs]))
            steps.append(partial(np.greater, value[box], best[box], mask[box]))
            steps.append(partial(np.maximum, best[box], value[box], out=best[box]))
            steps.append(partial(np.multiply, mask.view(np.uint8)[box], work[2].dtype.type(number), new[box]))
            steps.append(partial(np.maximum, code[box], new[box], out=code[box]))
        at = index[a:b]
        steps += [partial(np.take, jumps, code, None, at, "clip"), partial(np.add, at, base, at)]
        if outside.any():
            steps.append(partial(np.copyto, best, lowest, where=outside))
            steps.append(partial(np.copyto, at, np.int32(-1), where=outside))
    return chain(steps)


def _first_taps(
    window: Window, size: Shape, out: Shape, every: Sequence[Any], numbers: Sequence[int]
) -> tuple[Any, Any, Any]:
    """Number of each window's first tap inside x (-1: none); how far each tap lies from the start of its window, and
    where that start is, as plane positions (the start may lie in the padding).
    """
    first = np.full((1, 1, *out), -1, np.int64)
    for tap, number in zip(reversed(every), reversed(numbers), strict=True):
        first[tap.outputs] = number
    jumps: Any = np.zeros((), np.int64)
    base: Any = np.zeros((), np.int64)
    for axis, stride in enumerate(_strides(size)):
        jumps = np.add.outer(jumps, np.arange(window.kernel[axis]) * window.dilation[axis] * stride)
        base = np.add.outer(base, (np.arange(out[axis]) * window.stride[axis] - window.pad[axis]) * stride)
    return first, jumps.reshape(-1).astype(np.int32), base.astype(np.int32)


def _apart(window: Window) -> bool:
    """No input lies in two windows."""
    return all(s >= e for s, e in zip(window.stride, window.extent, strict=True))


def _grad_parts(y: Shape, window: Window) -> list[Part]:
    count = (_chunk(y[0], math.prod(y[1:])) * math.prod(y[1:]),)
    return [(count, np.dtype(bool) if _apart(window) else np.dtype(np.intp))]


def pool_max_grad(index: Array, dy: Array, dx: Array, scratch: Any, *, window: Window) -> Step:
    """Kernels.pool_max_grad, bound. Windows that lie apart put each gradient into its place, tap by tap; others add
    them up plane by plane as a weighted histogram (in float64).
    """
    size, out = dx.shape[2:], dy.shape[2:]
    (work,) = carve(scratch, _grad_parts(dy.shape, window))
    ranges = _ranges(dy.shape[0], _chunk(dy.shape[0], math.prod(dy.shape[1:])))
    steps: list[Step] = []
    if _apart(window):
        positions, every = plane(size), list(taps(window, size, out))
        for a, b in ranges:
            mask = work[: dy[a:b].size].reshape(dy[a:b].shape)
            steps.append(partial(dx[a:b].fill, 0))
            for tap in every:
                box = tap.outputs
                steps.append(partial(np.equal, index[a:b][box], positions[tap.inputs], mask[box]))
                steps.append(partial(np.copyto, dx[a:b][tap.inputs], dy[a:b][box], where=mask[box]))
        return chain(steps)
    bins = math.prod(size) + 1  # one more a plane, at its start, for the index -1
    for a, b in ranges:
        planes = (b - a) * dy.shape[1]
        place = work[: dy[a:b].size].reshape(planes, -1)
        starts = (np.arange(planes) * bins + 1)[:, None]
        at, grads = index[a:b].reshape(planes, -1), dy[a:b].reshape(-1)
        steps.append(partial(np.add, at, starts, place))
        steps.append(partial(_histogram, place.reshape(-1), grads, dx[a:b].reshape(planes, bins - 1)))
    return chain(steps)


def _histogram(places: Array, weights: Array, home: Array) -> None:
    planes, count = home.shape
    sums = np.bincount(places, weights, planes * (count + 1))
    home[...] = sums.reshape(planes, count + 1)[:, 1:]


# ------------------------------------------------------------------------------------------------------------- average
def _between(x: Shape, y: Shape) -> list[Shape]:
    """Shapes on the way from x to y, one axis after another (x itself left out)."""
    return [(*y[: axis + 1], *x[axis + 1 :]) for axis in range(2, len(x))]


def _average_parts(x: Shape, y: Shape, dtype: Any) -> list[Part]:
    images = _chunk(x[0], math.prod(x[1:]))
    shapes = [x, *_between(x, y)] if len(x) > 2 else [x, y]
    return [((images * math.prod(shape[1:]),), dtype) for shape in shapes[1:]]


def pool_avg(x: Array, y: Array, scratch: Any, *, window: Window, count: str) -> Step:
    """Kernels.pool_avg, bound: sums along one axis after another, then one division."""
    if not window.rank:
        return partial(np.divide, x, _shares(window, x, y, count), y)
    work = carve(scratch, _average_parts(x.shape, y.shape, y.dtype))
    share = _shares(window, x, y, count)
    steps: list[Step] = []
    for a, b in _ranges(x.shape[0], _chunk(x.shape[0], math.prod(x.shape[1:]))):
        source = x[a:b]
        for axis, (memory, shape) in enumerate(zip(work, _between(x.shape, y.shape), strict=True)):
            sums = memory[: (b - a) * math.prod(shape[1:])].reshape(b - a, *shape[1:])
            steps += _sum_axis(window, axis, source, sums)
            source = sums
        steps.append(partial(np.divide, source, share, y[a:b]))
    return chain(steps)


def _shares(window: Window, x: Array, y: Array, count: str) -> Array:
    shares: Array = np.maximum(divisors(window, x.shape[2:], y.shape[2:], count), 1).astype(y.dtype)
    return shares


def _along(axis: int, rows: Any) -> Any:
    return (slice(None),) * (2 + axis) + (rows,)


def _sum_axis(window: Window, axis: int, source: Array, sums: Array) -> list[Step]:
    """Steps for the window sums along one spatial axis."""
    found = axis_taps(window, axis, source.shape[2 + axis], sums.shape[2 + axis])
    if sums.shape[2 + axis] == 1 and found:
        inside = slice(found[0][1].start, found[-1][1].stop, window.dilation[axis])
        return [partial(np.add.reduce, source[_along(axis, inside)], 2 + axis, None, sums, True)]
    steps: list[Step] = [partial(sums.fill, 0)]
    for _, inputs, outputs in found:
        part = sums[_along(axis, outputs)]
        steps.append(partial(np.add, part, source[_along(axis, inputs)], part))
    return steps


def pool_avg_grad(dy: Array, dx: Array, scratch: Any, *, window: Window, count: str) -> Step:
    """Kernels.pool_avg_grad, bound: divide, then spread along one axis after another."""
    share = _shares(window, dx, dy, count)
    if not window.rank:
        return partial(np.divide, dy, share, dx)
    work = carve(scratch, _average_parts(dx.shape, dy.shape, dx.dtype))
    shapes = _between(dx.shape, dy.shape)
    steps: list[Step] = []
    for a, b in _ranges(dx.shape[0], _chunk(dx.shape[0], math.prod(dx.shape[1:]))):
        parts = [m[: (b - a) * math.prod(s[1:])].reshape(b - a, *s[1:]) for m, s in zip(work, shapes, strict=True)]
        homes = [dx[a:b], *parts]
        steps.append(partial(np.divide, dy[a:b], share, homes[-1]))
        for axis in reversed(range(window.rank)):
            steps += _spread_axis(window, axis, homes[axis + 1], homes[axis])
    return chain(steps)


def _spread_axis(window: Window, axis: int, source: Array, home: Array) -> list[Step]:
    """Steps for the adjoint of _sum_axis."""
    found = axis_taps(window, axis, home.shape[2 + axis], source.shape[2 + axis])
    steps: list[Step] = [partial(home.fill, 0)]
    if source.shape[2 + axis] == 1 and found:
        inside = slice(found[0][1].start, found[-1][1].stop, window.dilation[axis])
        return [*steps, partial(np.copyto, home[_along(axis, inside)], source)]
    for _, inputs, outputs in found:
        part = home[_along(axis, inputs)]
        steps.append(partial(np.add, part, source[_along(axis, outputs)], part))
    return steps


# ------------------------------------------------------------------------------------------------------------- scratch
def workspace(call: Call) -> int:
    """Scratch bytes of a pooling call."""
    shapes: Any = [(arg.shape, arg.dtype) for arg in call.args if arg is not None and not isinstance(arg, tuple)]
    window = call.attrs["window"]
    if call.op.name == "pool_max":
        return carved_bytes(_max_parts(shapes[1][0], shapes[1][1], window))
    if call.op.name == "pool_max_grad":
        return carved_bytes(_grad_parts(shapes[1][0], window))
    (first, dtype), (second, _) = shapes
    x, y = (first, second) if call.op.name == "pool_avg" else (second, first)
    return carved_bytes(_average_parts(x, y, dtype))
