"""Scratch memory of the fast kernels: several arrays carved out of the block that all calls share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Part = tuple[tuple[int, ...], Any]
"""Shape and element type of one array."""

_LINE = 64


def carved_bytes(parts: Sequence[Part]) -> int:
    """Bytes that ``carve`` needs for these arrays."""
    return sum(_size(part) for part in parts)


def carve(scratch: Array | None, parts: Sequence[Part]) -> list[Array]:
    """Arrays of these shapes one after another, each on a cache line of its own; contents undefined.

    They come out of ``scratch``, or out of fresh memory where that is absent or too small.
    """
    needed, at, found = carved_bytes(parts), 0, []
    block = _fresh(needed) if scratch is None or scratch.nbytes < needed else scratch
    for shape, dtype in parts:
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        found.append(block[at : at + nbytes].view(dtype).reshape(shape))
        at += _size((shape, dtype))
    return found


def _fresh(nbytes: int) -> Array:
    return np.empty(nbytes, np.uint8)


def _size(part: Part) -> int:
    nbytes = math.prod(part[0]) * np.dtype(part[1]).itemsize
    return -(-nbytes // _LINE) * _LINE


def chain(steps: Sequence[Callable[[], Any]]) -> Callable[[], None]:
    """The steps as one. Steps are ``functools.partial`` objects: a call of one costs less than a line of Python."""
    if len(steps) == 2:
        first, second = steps

        def two() -> None:
            first()
            second()

        return two
    fixed = tuple(steps)

    def run() -> None:
        for step in fixed:
            step()

    return run
