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

    Args:
        add: there is a c.
        gates: y becomes scale tanh(scale y) + shift: sigmoid where scale and shift are 1/2 (the first three quarters of
            a row), tanh where they are 1 and 0 (the last one).

    Raises:
        Unsupported: the library has no fast product of these sizes.
    """

    def __init__(self, lib: Library, m: int, n: int, k: int, turned: bool, add: bool, gates: bool) -> None:
        self._lib = lib
        row = partial(lib.strided, (m, n), (n, 1))
        self._a, self._y, self._c = lib.strided((m, k), (k, 1)), row(), row()
        self._plain = lib.strided((k, n), (1, k) if turned else (n, 1))
        self._wide = lib.strided((1, n), (n, 1))
        self._scale, self._shift = np.full((1, n), 0.5, np.float32), np.full((1, n), 0.5, np.float32)
        self._scale[:, 3 * n // 4 :], self._shift[:, 3 * n // 4 :] = 1, 0
        self._post: list[tuple[int, str]] = [(0, "c")] if add else []
        post: list[tuple[Any, ...]] = [("binary", dnnl.ADD, self._c)] if add else []
        if gates:
            scaled = ("binary", dnnl.MUL, self._wide)
            self._post += [(len(post), "scale"), (len(post) + 2, "scale"), (len(post) + 3, "shift")]
            post += [scaled, ("eltwise", dnnl.TANH, 0.0, 0.0), scaled, ("binary", dnnl.ADD, self._wide)]
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
        for index, name in self._post:
            operands[dnnl.post_op(index)] = Operand(self._c if name == "c" else self._wide, (name, 0))
        recipe.run(self._pd, operands)
        pad = _room(recipe)
        same = {"room": (room,), "scale": (self._scale,), "shift": (self._shift,)}
        return [
            recipe.bind({"a": (a,), "y": (y,), **same, **({} if c is None else {"c": (c,)})}, pad) for a, c, y in rows
        ]


def _room(recipe: Recipe) -> Array:
    return np.empty(recipe.scratch + 64, np.uint8)


@lru_cache(maxsize=256)
def _packed(lib: Library, m: int, n: int, k: int, turned: bool, add: bool, gates: bool) -> Packed | None:
    try:
        return Packed(lib, m, n, k, turned, add, gates)
    except Unsupported:
        return None


def packed(
    lib: Library | None, dtype: Any, m: int, n: int, k: int, turned: bool, add: bool, gates: bool = False
) -> Packed | None:
    """The library's product of these sizes; None where BLAS does it."""
    if lib is None or np.dtype(dtype) != np.float32 or n * k < LEAST or not m:
        return None
    return _packed(lib, m, n, k, turned, add, gates)


class Products:
    """The products of one pass with one matrix of weights.

    Args:
        add: every product adds to another array.
        room: from ``part``, carved by the caller.
        gates: apply the activations of ``Packed`` where the library does the products (see ``activates``).
    """

    def __init__(
        self, lib: Library | None, w: Array, m: int, turned: bool, add: bool, room: Array, gates: bool = False
    ) -> None:
        n, k = w.shape if turned else w.shape[::-1]
        self._w, self._room = w.T if turned else w, room
        self._packed = packed(lib, w.dtype, m, n, k, turned, add, gates)
        self.activates = gates and self._packed is not None
        """Whether what comes out has gone through the activations."""
        self.start: list[Step] = [] if self._packed is None else [self._packed.pack(w, room)]
        """What has to run before the first product of a pass."""

    @staticmethod
    def part(
        lib: Library | None, shape: tuple[int, ...], dtype: Any, m: int, turned: bool, add: bool, gates: bool = False
    ) -> Part:
        """The scratch for weights of that shape."""
        n, k = shape if turned else shape[::-1]
        found = packed(lib, dtype, m, n, k, turned, add, gates)
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
