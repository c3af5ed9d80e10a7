"""Attention by the library, all of its threads on one piece after the other: see ``attention``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..program import Call
from ..types import PLAIN, Shape, Tensor
from . import dnnl
from .attention import Plain, Step, Work, limited
from .dnnl import Handle, Library, Unsupported
from .memory import Array
from .onednn_spatial import quick
from .recipe import LINE, Recipe, execution

Made = tuple[Handle, list[tuple[int, Handle]], Handle]
"""A primitive, its arguments by the library's numbers, and its scratch memory."""


BINARY = {"subtract": dnnl.SUB, "multiply": dnnl.MUL, "divide": dnnl.DIV}


class Primitives:
    """What computes on the matrices of a piece, as they lie in memory."""

    def __init__(self, lib: Library) -> None:
        self.lib, self.pad = lib, 0
        self._made: dict[Any, Made] = {}

    def product(
        self, a: Array, b: Array, y: Array, pad: Array, *, scale: float = 1.0, add: bool = False,
        limits: Sequence[Array] = (), less: Array | None = None, exp: bool = False, times: Array | None = None,
    ) -> list[Step]:  # fmt: skip
        """y = scale * a b and what follows: inside the product where it is one, by another primitive where not."""
        one = len(a) == 1
        post: list[tuple[Any, ...]] = [("eltwise", dnnl.LINEAR, scale, 0.0)] if scale != 1 else []
        post += [("sum", 1.0)] if add else []
        others: list[tuple[int, Array]] = []
        then, seconds = self._then([limit[0] for limit in limits], less, exp, times, len(post))
        if one:
            post, others = post + then, seconds
        steps = [self._run("matmul", post, {dnnl.SRC: a, dnnl.WEIGHTS: b, dnnl.DST: y}, others, pad)]
        if one or not then:
            return steps
        steps += [limited(y, limit) for limit in limits]
        if less is not None:
            then, seconds = self._then([], None, exp, times, 0)
            steps.append(self._run("subtract", then, {dnnl.SRC: y, dnnl.SRC_1: less, dnnl.DST: y}, seconds, pad))
        return steps

    def _then(
        self, limits: Sequence[Array], less: Array | None, exp: bool, times: Array | None, at: int
    ) -> tuple[list[tuple[Any, ...]], list[tuple[int, Array]]]:
        """Post-operations from number ``at`` on, and their second operands."""
        post: list[tuple[Any, ...]] = []
        others: list[tuple[int, Array]] = []
        binary = [(dnnl.MIN, limit) for limit in limits] + ([(dnnl.SUB, less)] if less is not None else [])
        for kind, array in binary:
            others.append((dnnl.post_op(at + len(post)), array))
            post.append(("binary", kind, self._md(array)))
        if exp:
            post.append(("eltwise", dnnl.EXP, 0.0, 0.0))
        if times is not None:
            others.append((dnnl.post_op(at + len(post)), times))
            post.append(("binary", dnnl.MUL, self._md(times)))
        return post, others

    def rows(self, x: Array, y: Array, pad: Array, largest: bool = False) -> Step:
        """y = the sums of the rows of x, or their largest values."""
        return self._run("largest" if largest else "sums", [], {dnnl.SRC: x, dnnl.DST: y}, [], pad)

    def exponentials(self, x: Array, less: Array, pad: Array) -> Step:
        """x = exp(x - less)."""
        post = [("eltwise", dnnl.EXP, 0.0, 0.0)]
        return self._run("subtract", post, {dnnl.SRC: x, dnnl.SRC_1: less, dnnl.DST: x}, [], pad)

    def elementwise(self, how: str, a: Array, b: Array, y: Array, pad: Array) -> Step:
        """y = a * b, or a / b, where b may have a number for each row: by NumPy where parts of several heads are."""
        try:
            return self._run(how, [], {dnnl.SRC: a, dnnl.SRC_1: b, dnnl.DST: y}, [], pad)
        except Unsupported:
            return Plain().elementwise(how, a, b, y, pad)

    def _run(
        self, kind: str, post: list[tuple[Any, ...]], arrays: Mapping[int, Array], others: list[tuple[int, Array]],
        pad: Array,
    ) -> Step:  # fmt: skip
        named = [*arrays.items(), *others]
        operations = tuple((p[0], p[1], *(() if p[0] == "binary" else p[2:])) for p in post)
        key = kind, operations, tuple((number, _form(x)) for number, x in named)
        if key not in self._made:
            self._made[key] = self._make(kind, post, [(number, self._md(x)) for number, x in named])
        primitive, arguments, scratch = self._made[key]
        places = [(number, md, int(x.ctypes.data)) for (number, md), (_, x) in zip(arguments, named, strict=True)]
        places.append((dnnl.SCRATCHPAD, scratch, int(pad.ctypes.data)))
        return execution(self.lib, primitive, places, (named, pad))

    def _make(self, kind: str, post: list[tuple[Any, ...]], arguments: list[tuple[int, Handle]]) -> Made:
        lib, mds, attributes = self.lib, [md for _, md in arguments], self.lib.attributes(post)
        if kind == "matmul":
            pd = lib.describe("matmul", mds[0], mds[1], None, mds[2], attributes)
        elif kind in BINARY:
            pd = lib.describe("binary", BINARY[kind], *mds[:3], attributes)
        else:
            how = dnnl.REDUCE_MAX if kind == "largest" else dnnl.SUM
            pd = lib.describe("reduction", how, *mds[:2], 0.0, 0.0, attributes)
        pad = lib.query(quick(lib, pd), dnnl.SCRATCHPAD)
        self.pad = max(self.pad, -(-lib.nbytes(pad) // LINE) * LINE)
        return lib.primitive(pd), arguments, pad

    def _md(self, x: Array) -> Handle:
        return self.lib.strided(*_form(x))


def _form(x: Array) -> tuple[Shape, Shape]:
    """Shape and steps in elements. Where there is one matrix, the step to the next is that of matrices which lie close:
    the library has faster products for those."""
    steps = tuple(step // x.itemsize for step in x.strides)
    if x.shape[-1] == 1:  # a new axis of NumPy's has no step
        steps = (*steps[:-1], 1)
    if len(x) == 1:
        steps = (max(n * step for n, step in zip(x.shape[1:], steps[1:], strict=True)), *steps[1:])
    return x.shape, steps


class Pieces(Recipe):
    """A call as pieces, one after the other."""

    def __init__(self, lib: Library, call: Call) -> None:
        super().__init__(lib)
        shapes = {a.name: t.shape for a, t in zip(call.op.arguments, call.args, strict=True) if isinstance(t, Tensor)}
        self.work, self._maker = Work(shapes, call.attrs, np.float32, dnnl.cores()), Primitives(lib)
        self._with_threads(lambda: self._measure({n: np.empty(s, np.float32) for n, s in shapes.items()}))

    @property
    def scratch(self) -> int:
        """Bytes."""
        return self.work.room(self._maker.pad)

    def _measure(self, arrays: Mapping[str, Array]) -> None:
        """Make the primitives of every form of a piece; the arrays are memory that nobody touches."""
        room = np.empty(self.work.room(0), np.uint8)
        for piece in {(p.heads, p.rows, p.keys, p.adds): p for p in self.work.pieces()}.values():
            self.work.piece(piece, arrays, room, self._maker, [])

    def bind(self, arrays: Mapping[str, Sequence[Array]], scratch: Array | None) -> Step:
        """The steps on these arrays."""
        assert scratch is not None
        given = {name: found[0] for name, found in arrays.items()}
        made: Step = self._with_threads(lambda: self.work.steps(given, scratch, self._maker))
        return made

    def _with_threads(self, make: Callable[[], Any]) -> Any:
        """What is made for as many threads as the work is worth."""
        before = self.lib.threads()
        self.lib.use_threads(1 if self.work.alone else before)
        try:
            return make()
        finally:
            self.lib.use_threads(before)


def attention(lib: Library, call: Call) -> Recipe:
    """Kernels.attention and attention_grad."""
    names = {"lengths", "mask"}
    for marks, t in zip(call.op.arguments, call.args, strict=True):
        if not isinstance(t, Tensor):
            continue
        if t.spec.layout != PLAIN or 0 in t.shape or (t.dtype != "float32" and marks.name not in names):
            raise Unsupported("type, layout or size")
    return Pieces(lib, call)
