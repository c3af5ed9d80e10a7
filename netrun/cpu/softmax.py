"""Softmax and its loss, bound to NumPy calls with given outputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..program import Call
from .memory import Array, Part, carve, carved_bytes, chain
from .reference import Reference, check_labels

Step = Callable[[], Any]


def _rows(x: Array, axis: int) -> Array:
    """x as outer, K, inner; as outer, K where inner is one number."""
    outer, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    return x.reshape((outer, x.shape[axis], inner) if inner != 1 else (outer, x.shape[axis]))


def _sums(rows: Array) -> Array:
    """Room for one number a position."""
    return np.empty((rows.shape[0], 1, *rows.shape[2:]), rows.dtype)


def _softmax_steps(x: Array, y: Array, axis: int) -> list[Step]:
    rows, home = _rows(x, axis), _rows(y, axis)
    total = _sums(home)
    return [
        partial(np.maximum.reduce, rows, 1, None, total, True),
        partial(np.subtract, rows, total, home),
        partial(np.exp, home, home),
        partial(np.add.reduce, home, 1, None, total, True),
        partial(np.divide, home, total, home),
    ]


def softmax(x: Array, y: Array, scratch: Any, *, axis: int) -> Step:
    """Kernels.softmax, bound."""
    return chain(_softmax_steps(x, y, axis))


def softmax_grad(y: Array, dy: Array, dx: Array, scratch: Any, *, axis: int) -> Step:
    """Kernels.softmax_grad, bound."""
    out, seed, home = (_rows(t, axis) for t in (y, dy, dx))
    (product,) = carve(scratch, [(home.shape, home.dtype)])
    total = _sums(home)
    return chain(
        [
            partial(np.multiply, seed, out, product),
            partial(np.add.reduce, product, 1, None, total, True),
            partial(np.subtract, seed, total, home),
            partial(np.multiply, home, out, home),
        ]
    )


# ---------------------------------------------------------------------------------------------------------------- loss
class Labels:
    """The labels of one call, and which of the probabilities they point to.

    Attributes:
        at: where in the probabilities as one row, outer x inner; of an ignored label that of class 0.
        chosen: room for a number a label.
        ignored: which labels do not count; None where all do.
    """

    def __init__(self, label: Array, prob: Array, axis: int, ignore: int | None, scratch: Any) -> None:
        shape = math.prod(prob.shape[:axis]), math.prod(prob.shape[axis + 1 :])
        self.label, self.count = label, prob.shape[axis]
        self._classes, self.at, self.chosen, room = carve(scratch, _parts(shape, prob.dtype))
        self.ignored = None if ignore is None else room
        self._ignore = np.int64(ignore or 0)
        self._given, self._high = label.reshape(shape), self._classes.view(np.uint64).reshape(-1)
        outer, inner = np.ogrid[: shape[0], : shape[1]]
        self._first, self._step = outer * (self.count * shape[1]) + inner, shape[1]

    def find(self) -> bool:
        """Fill ``at`` and ``ignored``; False if a label that counts is out of range."""
        classes = self._classes
        classes[...] = self._given  # truncated; what is no number becomes a huge negative one
        if self.ignored is not None:
            np.equal(classes, self._ignore, self.ignored)
            np.putmask(classes, self.ignored, 0)
        if classes.size and np.maximum.reduce(self._high) >= self.count:  # without signs negative numbers are huge
            return False
        if self._step != 1:
            np.multiply(classes, self._step, classes)
        np.add(classes, self._first, self.at)
        return True

    def refuse(self) -> None:
        """Raise DataError for the first label that is out of range; after ``find`` said there is one."""
        counts = np.ones(self._classes.shape, bool) if self.ignored is None else ~self.ignored
        check_labels(self.label, self._classes, counts, self.count)


def _parts(shape: tuple[int, int], dtype: Any) -> list[Part]:
    return [(shape, np.int64), (shape, np.int64), (shape, dtype), (shape, bool)]


def nll(
    prob: Array, label: Array, loss: Array, norm: Array, scratch: Any, *, axis: int, ignore: int | None, normalize: str
) -> Step:
    """What Kernels.softmax_nll makes of the probabilities, bound."""
    labels, flat, tiny = Labels(label, prob, axis, ignore, scratch), prob.reshape(-1), np.finfo(prob.dtype).tiny
    at, chosen, ignored = labels.at, labels.chosen, labels.ignored
    fixed = {"full": at.size, "batch": at.shape[0], "none": 1}.get(normalize)

    def step() -> None:
        if not labels.find():
            labels.refuse()
        flat.take(at, None, chosen, "clip")  # all are in range: another mode would copy
        np.maximum(chosen, tiny, out=chosen)
        np.log(chosen, chosen)
        count = at.size
        if ignored is not None:
            np.putmask(chosen, ignored, 0)
            count -= int(np.count_nonzero(ignored))
        divisor = max(1, count if fixed is None else fixed)
        norm.fill(divisor)
        loss.fill((0 - np.add.reduce(chosen, None)) / divisor)

    return step


def softmax_nll(
    x: Array, label: Array, prob: Array, loss: Array, norm: Array, scratch: Any, *,
    axis: int, ignore: int | None, normalize: str,
) -> Step:  # fmt: skip
    """Kernels.softmax_nll, bound."""
    last = nll(prob, label, loss, norm, scratch, axis=axis, ignore=ignore, normalize=normalize)
    return chain([*_softmax_steps(x, prob, axis), last])


def softmax_nll_grad(
    prob: Array, label: Array, norm: Array, dloss: Array, dx: Array, scratch: Any, *, axis: int, ignore: int | None
) -> Step:
    """Kernels.softmax_nll_grad, bound."""
    labels = Labels(label, prob, axis, ignore, scratch)
    at, chosen, ignored = labels.at, labels.chosen, labels.ignored
    source, home, seed, divisor = prob.reshape(-1), dx.reshape(-1), dloss.reshape(()), norm.reshape(())
    whole, positions = _rows(dx, axis), at.shape if at.shape[1] != 1 else at.shape[:1]
    one = dx.dtype.type(1)

    def grad() -> None:
        if not labels.find():  # labels nobody has checked: as the definition has it
            Reference().softmax_nll_grad(prob, label, norm, dloss, dx, axis=axis, ignore=ignore)
            return
        factor = np.divide(seed, divisor)
        source.take(at, None, chosen, "clip")
        np.subtract(chosen, one, chosen)
        np.multiply(chosen, factor, chosen)
        np.multiply(source, factor, home)
        home[at] = chosen
        if ignored is not None and np.count_nonzero(ignored):
            np.copyto(whole, 0, where=np.expand_dims(ignored.reshape(positions), 1))

    return grad


def workspace(call: Call) -> int:
    """Scratch bytes of softmax_nll and its gradient."""
    prob: Any = call.argument("prob")
    axis = call.attrs["axis"]
    shape = math.prod(prob.shape[:axis]), math.prod(prob.shape[axis + 1 :])
    return carved_bytes(_parts(shape, prob.dtype))
