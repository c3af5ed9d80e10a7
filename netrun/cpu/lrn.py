"""Local response normalisation, bound: sums over neighbouring channels as shifted additions, a few images at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..program import Call
from ..types import Shape
from .memory import Array, Part, carve, carved_bytes, chain

Step = Callable[[], Any]
BLOCK = 64 * 1024


def _parts(shape: Shape, size: int, dtype: Any) -> list[Part]:
    """The summands with a border of zero channels, and two buffers like the images."""
    inner = math.prod(shape[2:])
    images = _images(shape)
    plain = ((images * shape[1] * inner,), dtype)
    return [((images * (shape[1] + size - 1) * inner,), dtype), plain, plain]


def _images(shape: Shape) -> int:
    return max(1, min(shape[0], BLOCK // max(1, math.prod(shape[1:]))))


def _power(scale: Array, beta: float, root: Array, out: Array) -> list[Step]:
    """out = scale ^ beta; ``root`` is room for one of the roots."""
    if beta == 1:
        return [partial(np.copyto, out, scale)]
    if beta == 0.5:
        return [partial(np.sqrt, scale, out)]
    if beta == 0.75:
        return [partial(np.sqrt, scale, root), partial(np.sqrt, root, out), partial(np.multiply, root, out, out)]
    return [partial(np.power, scale, scale.dtype.type(beta), out)]


def _sum(padded: Array, size: int, total: Array) -> list[Step]:
    """total = the sum of ``size`` neighbouring channels of the padded array."""
    channels = total.shape[1]
    if size == 1:
        return [partial(np.copyto, total, padded)]
    shifted = [padded[:, i : i + channels] for i in range(size)]
    steps: list[Step] = [partial(np.add, shifted[0], shifted[1], total)]
    return steps + [partial(np.add, total, part, total) for part in shifted[2:]]


def _views(scratch: Any, shape: Shape, size: int, dtype: Any) -> Callable[[int], tuple[Array, Array, Array]]:
    memory = carve(scratch, _parts(shape, size, dtype))
    inner = math.prod(shape[2:])

    def views(count: int) -> tuple[Array, Array, Array]:
        shapes = [(count, shape[1] + size - 1, inner), (count, shape[1], inner), (count, shape[1], inner)]
        first, second, third = (m[: math.prod(s)].reshape(s) for m, s in zip(memory, shapes, strict=True))
        return first, second, third

    return views


def _flat(x: Array) -> Array:
    return x.reshape(x.shape[0], x.shape[1], -1)


def lrn(
    x: Array, y: Array, scale: Array, scratch: Any, *, size: int, alpha: float, beta: float, k: float
) -> Callable[[], None]:
    """Kernels.lrn, bound."""
    number, before = x.dtype.type, (size - 1) // 2
    views, images = _views(scratch, x.shape, size, x.dtype), _images(x.shape)
    steps: list[Step] = []
    for a in range(0, x.shape[0], images):
        source, home, scaled = (_flat(t[a : a + images]) for t in (x, y, scale))
        padded, power, root = views(len(source))
        middle = padded[:, before : before + x.shape[1]]
        steps += [partial(padded.fill, 0), partial(np.multiply, source, source, middle)]
        steps += _sum(padded, size, scaled)
        steps.append(partial(np.multiply, scaled, number(alpha / size), scaled))
        steps.append(partial(np.add, scaled, number(k), scaled))
        steps += [*_power(scaled, beta, root, power), partial(np.divide, source, power, home)]
    return chain(steps)


def lrn_grad(
    x: Array, y: Array, scale: Array, dy: Array, dx: Array, scratch: Any, *,
    size: int, alpha: float, beta: float, k: float,
) -> Callable[[], None]:  # fmt: skip
    """Kernels.lrn_grad, bound."""
    number, after = x.dtype.type, size - 1 - (size - 1) // 2
    views, images = _views(scratch, x.shape, size, x.dtype), _images(x.shape)
    steps: list[Step] = []
    for a in range(0, x.shape[0], images):
        source, out, scaled, seed, home = (_flat(t[a : a + images]) for t in (x, y, scale, dy, dx))
        padded, total, root = views(len(source))
        middle = padded[:, after : after + x.shape[1]]
        steps += [partial(padded.fill, 0), partial(np.multiply, seed, out, middle)]
        steps += [partial(np.divide, middle, scaled, middle), *_sum(padded, size, total)]
        steps.append(partial(np.multiply, total, source, total))
        steps.append(partial(np.multiply, total, number(2 * alpha * beta / size), total))
        steps += [*_power(scaled, beta, root, home), partial(np.divide, seed, home, home)]
        steps.append(partial(np.subtract, home, total, home))
    return chain(steps)


def workspace(call: Call) -> int:
    """Scratch bytes of an LRN call."""
    x: Any = call.args[0]
    return carved_bytes(_parts(x.shape, call.attrs["size"], x.dtype))
