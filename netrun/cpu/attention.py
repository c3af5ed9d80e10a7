"""Attention on the host: some heads and queries at a time, so that their scores stay in the caches of the cores.

A piece goes from its scores to its result before the next one begins, all cores at work on it. Who computes is given:
NumPy, or the library (``onednn_attention``). Where something is hidden, a weight of 0 still meets it in a product; if
a result is no number there, everything is computed again as the definition reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from ..program import Call
from ..types import Shape, Tensor
from .memory import Array, Part, carve, carved_bytes, chain
from .reference import Reference

Step = Callable[[], Any]

SCORES = 1 << 17
"""Scores of a piece for each core: 512 KiB, and twice that in backward. Half of it is as fast, a quarter slower."""

FEWEST = 64
"""Queries of a piece at least for each core, where there are as many: products of fewer rows run slower."""

CAUSAL = 64
"""Queries of a piece with ``causal``, for each core: what lies behind the last of them is left out."""

ALONE = 1 << 14
"""Scores up to which one thread is as fast as many."""

LINE = 64


class Maker(Protocol):
    """What computes on the matrices of a piece. All arrays are a batch of matrices; ``pad`` is scratch."""

    pad: int
    """Bytes of scratch that everything made so far needs."""

    def product(
        self, a: Array, b: Array, y: Array, pad: Array, *, scale: float = 1.0, add: bool = False,
        limits: Sequence[Array] = (), less: Array | None = None, exp: bool = False, times: Array | None = None,
    ) -> list[Step]:  # fmt: skip
        """y = scale * a b; with ``add`` y += a b. What follows, in this order: no more than each of the limits (and
        they, where it is no number), minus a number for each row, exp of that, times an array."""

    def rows(self, x: Array, y: Array, pad: Array, largest: bool = False) -> Step:
        """y = the sums of the rows of x, or their largest values; y has one column."""

    def exponentials(self, x: Array, less: Array, pad: Array) -> Step:
        """x = exp(x - less), where ``less`` has a number for each row."""

    def elementwise(self, how: str, a: Array, b: Array, y: Array, pad: Array) -> Step:
        """y = a * b ("multiply") or a / b ("divide"), where b may have a number for each row."""


class Plain:
    """By NumPy."""

    pad = 0

    def product(
        self, a: Array, b: Array, y: Array, pad: Array, *, scale: float = 1.0, add: bool = False,
        limits: Sequence[Array] = (), less: Array | None = None, exp: bool = False, times: Array | None = None,
    ) -> list[Step]:  # fmt: skip
        """y = scale * a b and what follows."""
        if add:
            return [lambda: np.add(y, np.matmul(a, b), y)]
        steps: list[Step] = [partial(np.matmul, a, b, y)]
        steps += [partial(np.multiply, y, scale, y)] if scale != 1 else []
        steps += [limited(y, limit) for limit in limits]
        steps += [partial(np.subtract, y, less, y)] if less is not None else []
        steps += [partial(np.exp, y, y)] if exp else []
        return steps + ([partial(np.multiply, y, times, y)] if times is not None else [])

    def rows(self, x: Array, y: Array, pad: Array, largest: bool = False) -> Step:
        """y = the sums of the rows of x, or their largest values."""
        return partial((np.maximum if largest else np.add).reduce, x, x.ndim - 1, None, y, True)

    def exponentials(self, x: Array, less: Array, pad: Array) -> Step:
        """x = exp(x - less)."""
        return chain([partial(np.subtract, x, less, x), partial(np.exp, x, x)])

    def elementwise(self, how: str, a: Array, b: Array, y: Array, pad: Array) -> Step:
        """y = a * b, or a / b."""
        return partial(getattr(np, how), a, b, y)


def limited(x: Array, limit: Array) -> Step:
    """The last columns of x = min(x, limit), or the limit where x is no number. The axes of a limit: samples, heads,
    rows, columns, where each may be 1; the columns are the last ones."""
    samples, heads = limit.shape[:2]
    if samples == 1 and heads > 1:
        samples = len(x) // heads
    whole = x.reshape(samples, len(x) // samples, *x.shape[1:])
    tail = whole[..., -limit.shape[3] :] if limit.shape[3] > 1 else whole
    return partial(np.fmin, tail, limit, tail)


@dataclass(frozen=True)
class Piece:
    """Heads ``first`` to ``last`` of all samples, queries ``begin`` to ``end``, keys up to ``keys``."""

    first: int
    last: int
    begin: int
    end: int
    keys: int
    adds: bool
    """Whether the gradients of its keys and values add to what a piece before made."""

    @property
    def heads(self) -> int:
        """How many."""
        return self.last - self.first

    @property
    def rows(self) -> int:
        """Queries of a head."""
        return self.end - self.begin


class Work:
    """How a call is cut into pieces, and what a piece does.

    Args:
        shapes: of the arguments, by name; of those that are there.
        attrs: of the call.
        dtype: of the numbers.
        threads: that work on it.
    """

    def __init__(self, shapes: Mapping[str, Shape], attrs: Mapping[str, Any], dtype: Any, threads: int) -> None:
        self.samples, self.heads, self.queries, self.inner = shapes["q"]
        self.keys, self.outer = shapes["v"][2:]
        self.scale, self.causal, self.dtype = attrs["scale"], attrs["causal"], np.dtype(dtype)
        self.grad = "dy" in shapes
        self.sights = {name: shapes[name] for name in ("lengths", "mask") if name in shapes}
        self.hides = bool(self.sights) or self.causal
        self._known: dict[tuple[int, int, int, int], Array] = {}
        self.alone = self.samples * self.heads * self.queries * self.keys <= ALONE
        """Whether one thread is enough."""
        most = max(FEWEST * threads, SCORES * threads // self.keys // 16 * 16)
        self.keeps = "weights" in shapes
        self.rows = min(self.queries, most, *([CAUSAL * threads] if self.causal else []))
        self.rows = self.queries if self.keeps else self.rows  # the weights of a piece then lie side by side
        self.together = self._together(max(1, SCORES * threads // (self.rows * self.keys)))

    def _together(self, most: int) -> int:
        """Heads of a piece: a part of a sample's that comes out even, or all of some samples."""
        if most >= self.heads:
            return most // self.heads * self.heads
        return max(n for n in range(1, most + 1) if self.heads % n == 0)

    def pieces(self) -> list[Piece]:
        """All pieces; those of the same heads from the last queries, which see all keys, to the first."""
        found: list[Piece] = []
        total = self.samples * self.heads
        for first in range(0, total, self.together):
            for begin in reversed(range(0, self.queries, self.rows)):
                end = min(begin + self.rows, self.queries)
                keys = max(1, min(self.keys, end + self.keys - self.queries)) if self.causal else self.keys
                last = min(first + self.together, total)
                found.append(Piece(first, last, begin, end, keys, end < self.queries))
        return found

    # -------------------------------------------------------------------------------------------------------- scratch
    def parts(self, piece: Piece) -> list[Part]:
        """Scores, rows; limits and what they are made of; of backward the gradient of the scores and dy y."""
        rows, real = (piece.heads, piece.rows), self.dtype
        scores = ((*rows, piece.keys), real)
        kept = ((0,), real) if self.keeps else scores
        found: list[Part] = [kept, ((*rows, 1), real), ((*rows, 1), real)]
        limit = self._limit(piece)
        found += [(limit, bool), (limit, bool), (limit, real)]
        return found + ([scores, ((*rows, self.outer), real)] if self.grad else [])

    def _limit(self, piece: Piece) -> Shape:
        """The shape of what the lengths and the mask allow in a piece."""
        shape, samples = [0, 0, 0, 0], self._samples(piece)
        for name, given in self.sights.items():
            full = (*given, self.keys) if name == "lengths" else given
            sizes = samples, piece.heads // samples, piece.rows, piece.keys
            shape = [max(n, 1 if m == 1 else s) for n, m, s in zip(shape, full, sizes, strict=True)]
        return tuple(shape)

    def _samples(self, piece: Piece) -> int:
        return max(1, piece.heads // self.heads)

    def room(self, pad: int) -> int:
        """Bytes of scratch."""
        forms = {(p.heads, p.rows, p.keys): p for p in self.pieces()}
        return max(carved_bytes(self.parts(piece)) for piece in forms.values()) + pad

    # ---------------------------------------------------------------------------------------------------------- steps
    def steps(self, arrays: Mapping[str, Array], scratch: Array, maker: Maker) -> Step:
        """Everything."""
        lost: list[bool] = []
        every = chain([step for at in self.pieces() for step in self.piece(at, arrays, scratch, maker, lost)])
        if not self.hides:
            return every
        order = [arrays.get(name) for name in (GRADIENT if self.grad else FORWARD)]
        method = getattr(Reference(), "attention_grad" if self.grad else "attention")
        carefully = partial(method, *order, scale=self.scale, causal=self.causal)

        def step() -> None:
            lost.clear()
            every()
            if lost:
                carefully()

        return step

    def piece(
        self, at: Piece, arrays: Mapping[str, Array], room: Array, maker: Maker, lost: list[bool]
    ) -> list[Step]:  # fmt: skip
        """The steps of one piece; ``lost`` is no longer empty where a result is no number."""
        made = carve(room, self.parts(at))
        if self.keeps:
            made[0] = _flat(arrays["weights"])[at.first : at.last]
        pad = room[carved_bytes(self.parts(at)) :]
        flat = {name: _flat(array) for name, array in arrays.items() if name not in self.sights}
        heads, rows, keys = slice(at.first, at.last), slice(at.begin, at.end), slice(0, at.keys)
        part = {name: x[heads, keys if name in KEYED else rows] for name, x in flat.items()}
        part |= {name: part[name][..., None] for name in ("lse", "dlse") if name in part}
        limits, before = self._limits(at, arrays, made) if not (self.keeps and self.grad) else ([], [])
        return before + (self._grad if self.grad else self._forward)(at, part, made, limits, pad, maker, lost)

    def _forward(
        self, at: Piece, part: Mapping[str, Array], made: Sequence[Array], limits: list[Array], pad: Array,
        maker: Maker, lost: list[bool],
    ) -> list[Step]:  # fmt: skip
        scores, highest, total = made[:3]
        y, lse, keys = part["y"], part["lse"], part["k"].swapaxes(1, 2)
        steps = maker.product(part["q"], keys, scores, pad, scale=self.scale, limits=limits)
        steps.append(maker.rows(scores, highest, pad, largest=True))
        if self.hides:
            steps.append(partial(np.maximum, highest, np.finfo(self.dtype).min, out=highest))
        steps += [maker.exponentials(scores, highest, pad), maker.rows(scores, total, pad)]
        steps += maker.product(scores, part["v"], y, pad)
        steps += [partial(np.log, total, lse), partial(np.add, lse, highest, lse)]
        if self.hides:  # else a sum is 1 at least
            steps.append(partial(np.maximum, total, 1, out=total))
        steps.append(maker.elementwise("divide", y, total, y, pad))
        if self.keeps:
            steps.append(maker.elementwise("divide", scores, total, scores, pad))
        return steps + ([partial(_check, y, lost)] if self.hides else [])

    def _grad(
        self, at: Piece, part: Mapping[str, Array], made: Sequence[Array], limits: list[Array], pad: Array,
        maker: Maker, lost: list[bool],
    ) -> list[Step]:  # fmt: skip
        weights, highest, total, *_, slopes, share = made
        q, k, v, dy, dq, dk, dv = (part[name] for name in ("q", "k", "v", "dy", "dq", "dk", "dv"))
        steps: list[Step] = [maker.elementwise("multiply", dy, part["y"], share, pad), maker.rows(share, total, pad)]
        if "dlse" in part:
            steps.append(partial(np.subtract, total, part["dlse"], total))
        steps.append(partial(np.multiply, total, self.scale, total))
        seed = dy
        if not self.keeps:
            lse, turned = part["lse"], k.swapaxes(1, 2)
            if self.hides:
                steps.append(partial(np.maximum, lse, np.finfo(self.dtype).min, out=highest))
                lse = highest
            steps += maker.product(q, turned, weights, pad, scale=self.scale, limits=limits, less=lse, exp=True)
            # Rows sum up to 1, but for the digits that lse does not have: what multiplies them is divided instead.
            steps.append(maker.rows(weights, highest, pad))
            if self.hides:
                steps.append(partial(_fill, highest))
            steps.append(maker.elementwise("divide", dy, highest, share, pad))
            steps.append(partial(np.divide, total, highest, total))
            seed = share
        steps += maker.product(weights.swapaxes(1, 2), seed, dv, pad, add=at.adds)
        steps += maker.product(seed, v.swapaxes(1, 2), slopes, pad, scale=self.scale, less=total, times=weights)
        steps += maker.product(slopes, k, dq, pad)
        steps += maker.product(slopes.swapaxes(1, 2), q, dk, pad, add=at.adds)
        if self.hides:
            steps += [partial(_check, x, lost) for x in (dq, *((dk, dv) if at.begin == 0 else ()))]
        return steps

    # --------------------------------------------------------------------------------------------------------- hidden
    def _limits(
        self, at: Piece, arrays: Mapping[str, Array], made: Sequence[Array]
    ) -> tuple[list[Array], list[Step]]:  # fmt: skip
        """What scores are limited to, infinity or -infinity, and the steps that make it."""
        found: list[Array] = []
        steps: list[Step] = []
        if self.sights:
            seen, more, limit = made[3:6]
            for into, name in zip((seen, more), self.sights, strict=False):
                part = self._part(at, arrays[name] if name == "mask" else arrays[name][..., None])
                steps.append(partial(np.not_equal, part, 0, into) if name == "mask" else
                             partial(_before, np.arange(at.keys), part, into))  # fmt: skip
            if len(self.sights) > 1:
                steps.append(partial(np.logical_and, seen, more, seen))
            steps.append(partial(np.subtract, seen, self.dtype.type(0.5), limit))
            steps.append(partial(np.multiply, limit, self.dtype.type(np.inf), limit))
            found.append(limit)
        if self.causal:
            past = at.begin + self.keys - self.queries + 1  # keys that the first query sees, and with it all others
            begin = min(max(past, 0), at.keys)
            if begin < at.keys:
                begin = min(begin, at.keys - 2) if at.heads > 1 and at.keys > 1 else 0
                found.append(self._steps(begin, at.keys, past, at.rows))
        return found, steps

    def _steps(self, begin: int, end: int, past: int, rows: int) -> Array:
        """Infinity where row i of so many may look at a key, below past + i; else -infinity. For keys begin to end."""
        key = begin, end, past, rows
        if key not in self._known:
            seen = np.arange(begin, end) < past + np.arange(rows)[:, None]
            self._known[key] = np.where(seen, np.inf, -np.inf).astype(self.dtype)[None, None]
        return self._known[key]

    def _part(self, at: Piece, array: Array) -> Array:
        """What a piece has of an array whose axes are N H Tq Tk, or 1 each."""
        samples = self._samples(at)
        begin = at.first // self.heads, at.first % self.heads, at.begin, 0
        sizes = samples, at.heads // samples, at.rows, at.keys
        axes = zip(array.shape, begin, sizes, strict=True)
        return array[tuple(slice(None) if n == 1 else slice(b, b + s) for n, b, s in axes)]


FORWARD = ("q", "k", "v", "lengths", "mask", "y", "lse")
GRADIENT = ("q", "k", "v", "lengths", "mask", "y", "lse", "dy", "dlse", "dq", "dk", "dv")
KEYED = frozenset({"k", "v", "dk", "dv"})
"""Arrays with a row a key, not a query."""


def _flat(array: Array) -> Array:
    """Samples and heads as one axis."""
    flat: Array = array.reshape(len(array) * array.shape[1], *array.shape[2:])
    return flat


def _before(steps: Array, lengths: Array, seen: Array) -> None:
    np.less(steps, np.trunc(lengths), seen)


def _fill(sums: Array) -> None:
    """1 where there was nothing to sum up."""
    sums[sums == 0] = 1


def _check(x: Array, lost: list[bool]) -> None:
    if np.isnan(np.maximum.reduce(x, None)):
        lost.append(True)


# ------------------------------------------------------------------------------------------------------------- by NumPy
def _bound(op: str, args: Sequence[Any], attrs: Mapping[str, Any]) -> Step:
    *args, scratch = args
    arrays = {name: a for name, a in zip(GRADIENT if "grad" in op else FORWARD, args, strict=True) if a is not None}
    if _nothing(arrays):
        return partial(getattr(Reference(), op), *args, **attrs)
    work = Work({name: a.shape for name, a in arrays.items()}, attrs, args[0].dtype, 1)
    (room,) = carve(scratch, [((work.room(0),), np.uint8)])
    return work.steps(arrays, room, Plain())


def _nothing(arrays: Mapping[str, Any]) -> bool:
    """Whether there is nothing to look at, or nobody to look."""
    return 0 in (*arrays["q"].shape, *arrays["v"].shape)


def attention(*args: Any, **attrs: Any) -> Step:
    """Kernels.attention, bound; the last argument is the scratch."""
    return _bound("attention", args, attrs)


def attention_grad(*args: Any, **attrs: Any) -> Step:
    """Kernels.attention_grad, bound; the last argument is the scratch."""
    return _bound("attention_grad", args, attrs)


def workspace(call: Call) -> int:
    """Scratch bytes of both."""
    tensors = {a.name: t for a, t in zip(call.op.arguments, call.args, strict=True) if isinstance(t, Tensor)}
    if _nothing(tensors):
        return 0
    work = Work({name: t.shape for name, t in tensors.items()}, call.attrs, tensors["q"].dtype, 1)
    return carved_bytes([((work.room(0),), np.uint8)])


__all__ = ["Maker", "Plain", "Work", "attention", "attention_grad", "limited", "workspace"]
