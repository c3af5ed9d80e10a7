"""Matrix products, softmax and its loss, normalisation, random numbers: bound to NumPy calls with given outputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..program import Call
from ..types import Shape
from .host import whole_numbers
from .memory import Array, carve, carved_bytes, chain
from .reference import check_labels

Step = Callable[[], Any]


def gemm(a: Array, b: Array, c: Array | None, y: Array, scratch: Any, *, ta: bool, tb: bool) -> Step:
    """Kernels.gemm, bound. BLAS takes transposed operands as they are."""
    left, right = (m.swapaxes(-1, -2) if turned else m for m, turned in ((a, ta), (b, tb)))
    product = partial(np.dot if left.ndim == right.ndim == y.ndim == 2 else np.matmul, left, right, y)
    return product if c is None else chain([product, partial(np.add, y, c, y)])


# ------------------------------------------------------------------------------------------------------------- softmax
def _rows(x: Array, axis: int) -> Array:
    """x as outer, K, inner."""
    return x.reshape(math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :]))


def _softmax_steps(x: Array, y: Array, axis: int) -> list[Step]:
    rows, home = _rows(x, axis), _rows(y, axis)
    total = np.empty((rows.shape[0], 1, rows.shape[2]), y.dtype)
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
    total = np.empty((home.shape[0], 1, home.shape[2]), home.dtype)
    return chain(
        [
            partial(np.multiply, seed, out, product),
            partial(np.add.reduce, product, 1, None, total, True),
            partial(np.subtract, seed, total, home),
            partial(np.multiply, home, out, home),
        ]
    )


def softmax_nll(
    x: Array, label: Array, prob: Array, loss: Array, norm: Array, scratch: Any, *,
    axis: int, ignore: int | None, normalize: str,
) -> Step:  # fmt: skip
    """Kernels.softmax_nll, bound."""
    rows = _rows(prob, axis)
    outer, k, inner = rows.shape
    tiny = np.finfo(prob.dtype).tiny
    fixed = {"full": outer * inner, "batch": outer, "none": 1}.get(normalize)
    o, i = np.ogrid[:outer, :inner]

    def nll() -> None:
        classes = whole_numbers(label).reshape(outer, inner)
        if ignore is None:
            if classes.min(initial=0) < 0 or classes.max(initial=0) >= k:
                check_labels(label, classes, np.ones(classes.shape, bool), k)
            chosen, count = rows[o, classes, i], classes.size
        else:
            counts = classes != ignore
            check_labels(label, classes, counts, k)
            chosen, count = rows[o, np.where(counts, classes, 0), i][counts], int(np.count_nonzero(counts))
        norm[...] = max(1, count if fixed is None else fixed)
        loss[...] = -np.log(np.maximum(chosen, tiny)).sum() / norm.reshape(())

    return chain([*_softmax_steps(x, prob, axis), nll])


def softmax_nll_grad(
    prob: Array, label: Array, norm: Array, dloss: Array, dx: Array, scratch: Any, *, axis: int, ignore: int | None
) -> Step:
    """Kernels.softmax_nll_grad, bound."""
    home, source = _rows(dx, axis), _rows(prob, axis)
    outer, _, inner = home.shape
    o, i = np.ogrid[:outer, :inner]
    one = dx.dtype.type(1)

    def grad() -> None:
        classes = whole_numbers(label).reshape(outer, inner)
        np.copyto(home, source)
        if ignore is None:
            home[o, classes, i] -= one
        else:
            at = np.nonzero(classes != ignore)
            home[at[0], classes[at], at[1]] -= one
            away = np.nonzero(classes == ignore)
            home[away[0], :, away[1]] = 0
        np.multiply(home, dloss.reshape(()) / norm.reshape(()), home)

    return grad


# ------------------------------------------------------------------------------------------------------- normalisation
def normalize(x: Array, y: Array, mean: Array, var: Array, scratch: Any, *, axes: Shape, eps: float) -> Step:
    """Kernels.normalize, bound."""
    kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    count, small = x.dtype.type(max(1, x.size // max(1, math.prod(kept)))), x.dtype.type(eps)
    centre, spread = mean.reshape(kept), var.reshape(kept)
    (square,) = carve(scratch, [(x.shape, x.dtype)])
    deviation = np.empty(kept, x.dtype)
    return chain(
        [
            partial(np.add.reduce, x, axes, None, centre, True),
            partial(np.divide, centre, count, centre),
            partial(np.subtract, x, centre, y),
            partial(np.multiply, y, y, square),
            partial(np.add.reduce, square, axes, None, spread, True),
            partial(np.divide, spread, count, spread),
            partial(np.add, spread, small, deviation),
            partial(np.sqrt, deviation, deviation),
            partial(np.divide, y, deviation, y),
        ]
    )


def normalize_grad(y: Array, var: Array, dy: Array, dx: Array, scratch: Any, *, axes: Shape, eps: float) -> Step:
    """Kernels.normalize_grad, bound."""
    kept = tuple(1 if i in axes else n for i, n in enumerate(y.shape))
    count, small = y.dtype.type(max(1, y.size // max(1, math.prod(kept)))), y.dtype.type(eps)
    spread = var.reshape(kept)
    (product,) = carve(scratch, [(y.shape, y.dtype)])
    mean, along, deviation = (np.empty(kept, y.dtype) for _ in range(3))
    return chain(
        [
            partial(np.multiply, dy, y, product),
            partial(np.add.reduce, product, axes, None, along, True),
            partial(np.divide, along, count, along),
            partial(np.add.reduce, dy, axes, None, mean, True),
            partial(np.divide, mean, count, mean),
            partial(np.add, spread, small, deviation),
            partial(np.sqrt, deviation, deviation),
            partial(np.multiply, y, along, product),
            partial(np.subtract, dy, mean, dx),
            partial(np.subtract, dx, product, dx),
            partial(np.divide, dx, deviation, dx),
        ]
    )


# ------------------------------------------------------------------------------------------------------------- scratch
def workspace(call: Call) -> int:
    """Scratch bytes: one array like the first argument."""
    first: Any = call.args[0]
    return carved_bytes([(first.shape, first.dtype)])
