"""What convolutions that are nothing but matrix products share: products and copies of a recipe, pixels outermost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..program import Call
from ..types import Spec
from . import dnnl
from .dnnl import Handle, Library
from .layouts import nbytes, of, strides
from .onednn_spatial import quick
from .recipe import Operand, Recipe

Matrix = npt.NDArray[np.float64]

Side = tuple[Operand, Sequence[int], Sequence[int]]
"""A factor or a result: its memory, shape and steps."""


def convolved(call: Call) -> tuple[Spec, Spec, Spec] | None:
    """x, w and y of a convolution or one of its gradients; None where its result meets other operands, too."""
    args: Any = call.args
    name = call.op.name
    if name in ("conv", "conv_then", "conv_keep"):
        x, w, _, *rest = args
        y = rest[name == "conv_then"]
        if name == "conv_then" and args[3]:
            return None
    elif name == "conv_grad_x":
        w, y, x = args
    elif name == "conv_grads":
        _, w, y, _, _, x = args
    else:
        x, y, w, *_ = args
    return x.spec, w.spec, y.spec


class MatrixSteps:
    """A recipe of products, for ``images`` of a convolution's images at a time."""

    def __init__(self, lib: Library, x: Spec, y: Spec, images: int) -> None:
        self.lib, self.recipe = lib, Recipe(lib)
        self.images, self.inputs, self.outputs = images, x.shape[1], y.shape[1]
        self.chunks = x.shape[0] // images
        self._constants: dict[Any, Operand] = {}
        self._products: dict[Any, tuple[list[Handle], Handle]] = {}

    def area(self, *counts: int) -> Operand:
        """Scratch for the largest of some counts of floats."""
        return self.recipe.area(self.lib.strided((max(counts),), (1,)))

    def constant(self, values: Matrix) -> Operand:
        """A matrix that is always the same."""
        key = values.shape, values.tobytes()
        if key not in self._constants:
            self._constants[key] = self.recipe.constant(self.lib.strided(values.shape, strides(values.shape)), values)
        return self._constants[key]

    def product(
        self, sides: Sequence[Side], more: bool = False, bias: Side | None = None, post: Sequence[tuple[Any, ...]] = ()
    ) -> None:
        """left right = result, each (memory, shape, steps); ``more``: added to what is there. Then ``bias``, a row that
        every row gets, and ``post``."""
        sides = [*sides, bias] if bias else sides
        post = [("sum", 1.0)] if more else post
        key = *((tuple(shape), tuple(steps)) for _, shape, steps in sides), *post
        if key not in self._products:
            self._products[key] = self._described(sides, post)
        mds, pd = self._products[key]
        operands = [replace(memory, md=md) for md, (memory, *_) in zip(mds, sides, strict=True)]
        roles = (dnnl.SRC, dnnl.WEIGHTS, dnnl.DST, dnnl.BIAS)
        self.recipe.run(pd, dict(zip(roles, operands, strict=False)))

    def _described(self, sides: Sequence[Side], post: Sequence[tuple[Any, ...]]) -> tuple[list[Handle], Handle]:
        """Descriptions of the sides and of their product."""
        lib = self.lib
        mds = [lib.strided(shape, steps) for _, shape, steps in sides]
        bias = mds[3] if len(mds) > 3 else None
        return mds, quick(lib, lib.describe("matmul", mds[0], mds[1], bias, mds[2], lib.attributes(post)))

    def at(self, area: Operand, count: int) -> Operand:
        """What lies so many floats further on."""
        return replace(area, offset=area.offset + 4 * count)

    def part(self, name: str, spec: Spec, number: int) -> tuple[Operand, Handle]:
        """A chunk of the images of an argument, and how it is described with pixels outermost."""
        shape = (self.images, *spec.shape[1:])
        _, c, _, wide = shape
        given = Operand(of(self.lib, replace(spec, shape=shape)), (name, 0), number * (nbytes(spec) // self.chunks))
        return given, self.lib.strided(shape, (c, 1, wide * self.images * c, self.images * c))

    def take(self, name: str, spec: Spec, number: int, into: Operand) -> None:
        """A chunk of an argument with its pixels outermost."""
        given, seen = self.part(name, spec, number)
        self.recipe.reorder(given, Operand(seen, into.place))

    def give(self, name: str, spec: Spec, number: int, source: Operand) -> None:
        """Back into the layout of an argument."""
        home, seen = self.part(name, spec, number)
        self.recipe.reorder(Operand(seen, source.place), home)

    def repeated(self, bias: Operand) -> Operand:
        """One value a channel, once for each image."""
        made, ones = self.area(self.images * self.outputs), self.constant(np.ones((self.images, 1)))
        self.product([(ones, (self.images, 1), (1, 1)), (bias, (1, self.outputs), (self.outputs, 1)),
                      (made, (self.images, self.outputs), (self.outputs, 1))])  # fmt: skip
        return made

    def summed(self, seeds: Operand, pixels: int, more: bool) -> None:
        """The argument db from dy with its pixels outermost; ``more``: added to what is there."""
        rows, outputs = pixels * self.images, self.outputs
        self.product([(self.constant(np.ones((1, rows))), (1, rows), (rows, 1)), (seeds, (rows, outputs), (outputs, 1)),
                      (Operand(seeds.md, ("db", 0)), (1, outputs), (outputs, 1))], more)  # fmt: skip
