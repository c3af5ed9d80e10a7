"""Products of every step of a sequence with the same weights: packed once a pass by oneDNN, or NumPy's BLAS.

A product of a few rows with a large matrix is mostly the reading of that matrix; BLAS would lay it out anew at every
step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np

from . import dnnl
from .dnnl import Library, Unsupported
from .memory import Array, Part, chain
from .recipe import Operand, Recipe

Step = Callable[[], Any]
LEAST = 1 << 16
"""Elements of the weights below which BLAS is as fast."""


class Packed:
    """y = a w (turned: a w') + c for row-major a (M K), w and y (M N), with w in the library's own layout.

    Raises:
        Unsupported: the library has no fast product of these sizes.
    """

    def __init__(self, lib: Library, m: int, n: int, k: int, turned: bool, add: bool) -> None:
        self._lib = lib
        row = partial(lib.strided, (m, n), (n, 1))
        self._a, self._y, self._c = lib.strided((m, k), (k, 1)), row(), row()
        self._plain = lib.strided((k, n), (1, k) if turned else (n, 1))
        post: list[tuple[Any, ...]] = [("binary", dnnl.ADD, self._c)] if add else []
        self._pd = lib.describe("matmul", self._a, lib.tagged((k, n), dnnl.ANY), None, self._y, lib.attributes(post))
        if "ref" in lib.implementation(self._pd):
            raise Unsupported("matmul")
        self._w = lib.query(self._pd, dnnl.WEIGHTS)
        self.nbytes = lib.nbytes(self._w)

    def pack(self, w: Array, room: Array) -> Step:
        """The step that lays w out in ``room`` (``nbytes`` bytes)."""
        recipe = Recipe(self._lib)
        recipe.reorder(Operand(self._plain, ("w", 0)), Operand(self._w, ("room", 0)))
        return recipe.bind({"w": (w,), "room": (room,)}, _room(recipe))

    def products(self, rows: Sequence[tuple[Array, Array | None, Array]], room: Array) -> list[Step]:
        """A step for each (a, c, y)."""
        recipe = Recipe(self._lib)
        operands = {dnnl.SRC: Operand(self._a, ("a", 0)), dnnl.WEIGHTS: Operand(self._w, ("room", 0)),
                    dnnl.DST: Operand(self._y, ("y", 0))}  # fmt: skip
        if rows and rows[0][1] is not None:
            operands[dnnl.post_op(0)] = Operand(self._c, ("c", 0))
        recipe.run(self._pd, operands)
        pad = _room(recipe)
        return [
            recipe.bind({"a": (a,), "room": (room,), "y": (y,), **({} if c is None else {"c": (c,)})}, pad)
            for a, c, y in rows
        ]


def _room(recipe: Recipe) -> Array:
    return np.empty(recipe.scratch + 64, np.uint8)


@lru_cache(maxsize=256)
def _packed(lib: Library, m: int, n: int, k: int, turned: bool, add: bool) -> Packed | None:
    try:
        return Packed(lib, m, n, k, turned, add)
    except Unsupported:
        return None


def packed(lib: Library | None, dtype: Any, m: int, n: int, k: int, turned: bool, add: bool) -> Packed | None:
    """The library's product of these sizes; None where BLAS does it."""
    if lib is None or np.dtype(dtype) != np.float32 or n * k < LEAST or not m:
        return None
    return _packed(lib, m, n, k, turned, add)


class Products:
    """The products of one pass with one matrix of weights.

    Args:
        add: every product adds to another array.
        room: from ``part``, carved by the caller.
    """

    def __init__(self, lib: Library | None, w: Array, m: int, turned: bool, add: bool, room: Array) -> None:
        n, k = w.shape if turned else w.shape[::-1]
        self._w, self._room = w.T if turned else w, room
        self._packed = packed(lib, w.dtype, m, n, k, turned, add)
        self.start: list[Step] = [] if self._packed is None else [self._packed.pack(w, room)]
        """What has to run before the first product of a pass."""

    @staticmethod
    def part(lib: Library | None, shape: tuple[int, ...], dtype: Any, m: int, turned: bool, add: bool) -> Part:
        """The scratch for weights of that shape."""
        n, k = shape if turned else shape[::-1]
        found = packed(lib, dtype, m, n, k, turned, add)
        return (0 if found is None else found.nbytes,), np.uint8

    def __call__(self, rows: Sequence[tuple[Array, Array | None, Array]]) -> list[Step]:
        """A step for each (a, c, y): y = a w + c. All have a c, or none."""
        if self._packed is not None:
            return self._packed.products(rows, self._room)
        return [_plain(a, self._w, c, y) for a, c, y in rows]


def _plain(a: Array, w: Array, c: Array | None, y: Array) -> Step:
    product = partial(np.dot, a, w, y)
    return product if c is None else chain([product, partial(np.add, y, c, y)])


__all__ = ["LEAST", "Packed", "Products", "packed"]
