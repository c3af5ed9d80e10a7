"""Kernels that only move elements, and random numbers: views made once, then copies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from ..types import Shape
from .memory import Array, chain
from .noise import Noise

Step = Callable[[], Any]


def fill(y: Array, scratch: Any, *, value: float) -> Step:
    """Kernels.fill, bound."""
    return partial(y.fill, value)


def copy(x: Array, y: Array, scratch: Any) -> Step:
    """Kernels.copy, bound."""
    return partial(np.copyto, y, x.reshape(y.shape), casting="unsafe")


def concat(xs: Sequence[Array], y: Array, scratch: Any, *, axis: int) -> Step:
    """Kernels.concat, bound."""
    return _copies(list(zip(_cuts(y, [x.shape[axis] for x in xs], axis), xs, strict=True)))


def split(x: Array, ys: Sequence[Array], scratch: Any, *, axis: int) -> Step:
    """Kernels.split, bound."""
    return _copies(list(zip(ys, _cuts(x, [y.shape[axis] for y in ys], axis), strict=True)))


def _cuts(whole: Array, lengths: Sequence[int], axis: int) -> list[Array]:
    ends = np.cumsum([0, *lengths]).tolist()
    return [whole[(slice(None),) * axis + (slice(a, b),)] for a, b in pairwise(ends)]


def _copies(pairs: Sequence[tuple[Array, Array]]) -> Step:
    steps = [partial(np.copyto, home, source, casting="unsafe") for home, source in pairs]
    return steps[0] if len(steps) == 1 else chain(steps)


def slice_(x: Array, y: Array, scratch: Any, *, begin: Shape) -> Step:
    """Kernels.slice, bound."""
    return _copies([(y, x[_box(begin, y.shape)])])


def place(x: Array, y: Array, scratch: Any, *, begin: Shape) -> Step:
    """Kernels.place, bound."""
    inside = np.asarray(y)[_box(begin, x.shape)]
    put = partial(np.copyto, inside, x, casting="unsafe")
    return put if inside.shape == y.shape else chain([partial(y.fill, 0), put])


def _box(begin: Shape, shape: Shape) -> Any:
    return (..., *(slice(b, b + n) for b, n in zip(begin, shape, strict=True)))


def transpose(x: Array, y: Array, scratch: Any, *, axes: Shape) -> Step:
    """Kernels.transpose, bound."""
    return _copies([(y, x.transpose(axes))])


def random(counter: Array, y: Array, scratch: Any, *, how: str, p: float, seed: int, stream: int) -> Step:
    """Kernels.random, bound."""
    noise, number, flat, limit = Noise(y.size, seed, stream), counter.reshape(()), y.reshape(-1), np.float32(p)

    def draw() -> None:
        drawn = noise.uniform(int(number))
        np.copyto(flat, drawn if how == "uniform" else drawn < limit, casting="unsafe")

    return draw
