"""Shapes as kernels want them: as few axes as possible, and the numbers and types that go with them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .launch import BLOCK, CTYPES

VECTOR = 4
"""Elements that an elementwise kernel takes at once where memory allows."""

Defines = tuple[tuple[str, str], ...]


# --------------------------------------------------------------------------------------------------------------- types
def real_of(outputs: Iterable[str], inputs: Iterable[str] = ()) -> str:
    """The type to compute in: float64 where the outputs (else the inputs) have it or have no floats at all."""
    for dtypes in (list(outputs), list(inputs)):
        floats = [d for d in dtypes if "float" in d]
        if floats:
            return "float64" if "float64" in floats else "float32"
    return "float64"


def type_defines(storage: str, count: int, *more: str) -> Defines:
    """REAL, STORAGE, INDEX (and HALF) for tensors of the type ``storage`` of at most ``count`` elements."""
    return (*real_defines(real_of((storage,)), count, storage, *more), ("STORAGE", CTYPES[storage]))


def real_defines(real: str, count: int, *dtypes: str) -> Defines:
    """REAL and INDEX; HALF where one of the types is a 16-bit one."""
    found: Defines = (("REAL", CTYPES[real]), ("INDEX", CTYPES[index_of(count)]))
    return (*found, ("HALF", "1")) if {"float16", "bfloat16"} & set(dtypes) else found


def index_of(count: int) -> str:
    """The type of positions: int32 while a grid-stride loop cannot pass its end."""
    return "int32" if count < 2**30 else "int64"


def indices(count: int, values: Iterable[int]) -> list[Any]:
    """Kernel arguments of the type INDEX."""
    kind = np.dtype(index_of(count)).type
    return [kind(value) for value in values]


# ---------------------------------------------------------------------------------------------------------------- axes
@dataclass(frozen=True)
class Axes:
    """A block of elements with neighbouring axes merged where every tensor allows it.

    sizes  of the axes, outermost first; at least one
    masks  for each tensor the axes along which it extends, as in axes.cuh
    """

    sizes: tuple[int, ...]
    masks: tuple[int, ...]

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.sizes)

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.sizes)

    def wide(self, mask: int) -> bool:
        """Whether a tensor of that mask extends along the innermost axis."""
        return bool(mask >> (self.rank - 1) & 1)

    def defines(self) -> Defines:
        """RANK and AXES."""
        return axes_defines(self.rank)


def axes_defines(rank: int) -> Defines:
    """RANK and AXES for that many axes."""
    return (("RANK", str(rank)), ("AXES(X)", " ".join(f"X({j})" for j in range(rank))))


@dataclass(frozen=True)
class Cut:
    """What a call works on where some of its tensors are parts of larger ones.

    shape   of the part, which is that of the others
    axis    along which the larger ones are longer
    begins  for each tensor of the call where its part begins along that axis; -1: it is not larger
    """

    shape: tuple[int, ...]
    axis: int
    begins: tuple[int, ...]

    @property
    def inside(self) -> tuple[bool, ...]:
        """Of each axis whether it is a part of the runs."""
        return tuple(i >= self.axis for i in range(len(self.shape)))

    @property
    def run(self) -> int:
        """Elements of the part that lie side by side."""
        return math.prod(self.shape[self.axis :])

    def part(self, array: Any, position: int) -> tuple[Any, int]:
        """The array of tensor ``position`` from its part on, and how far the runs of the part lie apart in it."""
        begin = self.begins[position]
        if begin < 0:
            return array, self.run
        apart = math.prod(array.shape[self.axis :])
        return array.reshape(-1)[begin * math.prod(array.shape[self.axis + 1 :]) :], apart

    def __str__(self) -> str:
        begins = " ".join("-" if b < 0 else str(b) for b in self.begins)
        return f"({'x'.join(map(str, self.shape))} axis {self.axis} from {begins})"


def fold(shape: Sequence[int], shapes: Sequence[Sequence[int]], apart: Sequence[Any] = ()) -> Axes:
    """Merge the axes of ``shape`` over which the tensors of ``shapes`` broadcast to it.

    Args:
        apart: one value an axis of ``shape``; axes with different values stay apart.
    """
    rank = len(shape)
    sizes: list[int] = []
    keys: list[tuple[Any, ...]] = []
    padded = [(1,) * (rank - len(s)) + tuple(s) for s in shapes]
    for axis, n in enumerate(shape):
        if n == 1:
            continue
        key = (*(s[axis] == n for s in padded), apart[axis] if apart else None)
        if keys and keys[-1] == key:
            sizes[-1] *= n
        else:
            sizes.append(n)
            keys.append(key)
    if not sizes:
        return Axes((1,), (1,) * len(shapes))
    masks = tuple(sum(1 << j for j, key in enumerate(keys) if key[i]) for i in range(len(shapes)))
    return Axes(tuple(sizes), masks)


# -------------------------------------------------------------------------------------------------------------- memory
def aligned(arrays: Iterable[Any]) -> bool:
    """Whether packs of VECTOR elements can be read and written from each array's start on."""
    return all(a.data.ptr % min(16, VECTOR * a.dtype.itemsize) == 0 for a in arrays)


def vector_of(axes: Axes, arrays: Iterable[Any]) -> int:
    """Elements a thread takes at once; ``arrays`` are those that extend along the innermost axis."""
    fits = axes.count >= VECTOR if axes.rank == 1 else axes.sizes[-1] % VECTOR == 0
    return VECTOR if fits and aligned(arrays) else 1


WORDS = {1: "unsigned char", 2: "unsigned short", 4: "unsigned int", 8: "unsigned long long", 16: "Bytes16"}
"""Types that carry so many bytes from one place to another."""


def word_of(arrays: Iterable[Any], nbytes: Iterable[int]) -> int:
    """The largest of WORDS that divides every address and every one of these numbers of bytes."""
    common = math.gcd(16, *(a.data.ptr for a in arrays), *nbytes)
    return common & -common


def groups_of(lanes: int) -> int:
    """Results that one block of threads makes: lanes.cuh."""
    return BLOCK // lanes
