"""Matrix products and normalisation: bound to NumPy calls with given outputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..program import Call
from ..types import Shape
from .memory import Array, carve, carved_bytes, chain

Step = Callable[[], Any]


def gemm(a: Array, b: Array, c: Array | None, y: Array, scratch: Any, *, ta: bool, tb: bool) -> Step:
    """Kernels.gemm, bound. BLAS takes transposed operands as they are."""
    left, right = (m.swapaxes(-1, -2) if turned else m for m, turned in ((a, ta), (b, tb)))
    product = partial(np.dot if left.ndim == right.ndim == y.ndim == 2 else np.matmul, left, right, y)
    return product if c is None else chain([product, partial(np.add, y, c, y)])


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
