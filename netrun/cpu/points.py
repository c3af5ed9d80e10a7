"""Convolutions of 5 x 5 windows as products at points (Toom and Cook's, known as Winograd's): matrices, limits.

Along an axis a tile of 4 outputs is a product of polynomials, found from its values at 8 points instead of from 20
products: y = A ((B x) * (G w)). Over both axes 64 products stand for 400. The polynomials of all tiles of an axis are
one matrix each way, B with a column a pixel and A with a row an output. Sums have some 20 times the rounding error of
the direct ones, about 6e-6 of the largest result.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from ..program import Call
from ..types import PLAIN, Spec, Window
from . import winograd_cost
from .layouts import is_half
from .matrix_steps import Matrix, convolved
from .winograd import tile

TILE, WINDOW = 4, 5
POINTS = TILE + WINDOW - 1

IMAGES = 16
"""Images at a time at least: they are the rows of the products."""

CACHE = 5 * 2**20
"""Bytes of values at points that stay near the cores. Images are taken in chunks of so many, if those are enough."""

COSTS = {True: (1.5, 1.3), False: (2.5, 1.6)}
"""What an operation of the transforms and of the products costs, by one of a direct convolution: where values stay in
the cache and where they do not. Measured on one core: 85 and 95, or 50 and 80, against 125 thousand million a second.
"""

PIXEL, WEIGHT = 0.3, 0.7
"""Nanoseconds, on two of those cores, for each pixel that is copied and for each value of the weights."""

GAIN = 1.3
"""How many times faster it has to be by that count."""

ROOM = 96 * 2**20
"""Bytes of scratch it may take."""


@lru_cache(maxsize=1)
def matrices() -> tuple[Matrix, Matrix, Matrix]:
    """(A, G, B) of one tile: TILE x POINTS, POINTS x WINDOW, POINTS x POINTS."""
    t = tile(TILE, WINDOW)
    a, g, b = (np.array(m, float) for m in (t.result, t.weights, t.data))
    scale = np.abs(b).max(axis=1, keepdims=True)  # the larger numbers to the weights' side: smaller errors
    return a, g * scale, b / scale


class Axis:
    """One axis: ``tiles`` tiles, ``count`` values at points, in the order of points, then of tiles.

    down  count x pixels: B of all tiles, nothing where a tile sticks out
    up    outputs x count: A of all tiles
    fold  WINDOW x count: the transpose of G, added up over the tiles
    """

    def __init__(self, pixels: int, outputs: int, pad: int) -> None:
        self.pixels, self.outputs, self.tiles = pixels, outputs, -(-outputs // TILE)
        self.count = POINTS * self.tiles
        a, g, b = matrices()
        self.down, self.up = np.zeros((self.count, pixels)), np.zeros((outputs, self.count))
        for number in range(self.tiles):
            at, first = slice(number, None, self.tiles), number * TILE
            low, high = max(0, first - pad), min(pixels, first - pad + POINTS)
            self.down[at, low:high] = b[:, low - first + pad : high - first + pad]
            self.up[first : first + TILE, at] = a[: outputs - first]
        self.fold = np.repeat(g.T, self.tiles, axis=1)


def worth(x: Spec, w: Spec, y: Spec, window: Window, groups: int) -> bool:
    """Whether a convolution has the form and the size for this."""
    if w.shape[2:] != (WINDOW, WINDOW) or groups != 1 or window.stride != (1, 1) or window.dilation != (1, 1):
        return False
    if w.layout != PLAIN or any(s.dtype != "float32" or is_half(s.layout) for s in (x, w, y)) or x.shape[0] < IMAGES:
        return False
    direct = y.count * math.prod(w.shape[1:])
    return direct > GAIN * _operations(x, w, y) and chunk(x, y) * _image(x, y) <= ROOM


def _operations(x: Spec, w: Spec, y: Spec) -> float:
    """Multiplications of a direct convolution that take as long as this."""
    high, wide = (POINTS * -(-n // TILE) for n in y.shape[2:])
    inner, outer = x.shape[0] * x.shape[1], x.shape[0] * y.shape[1]
    transforms = high * x.shape[3] * inner * (x.shape[2] + wide) + y.shape[2] * wide * outer * (high + y.shape[3])
    products = high * wide * inner * w.shape[0]
    dear, cheap = COSTS[chunk(x, y) * _image(x, y) <= CACHE]
    return dear * transforms + cheap * products


def time(x: Spec, w: Spec, y: Spec) -> float:
    """Nanoseconds of a forward pass, by the scale of winograd_cost; for comparisons."""
    products = 2 * _operations(x, w, y) / (winograd_cost.DIRECT[False] * winograd_cost.pace())
    return products + PIXEL * (x.count + y.count) + WEIGHT * POINTS**2 * math.prod(w.shape[:2])


def _image(x: Spec, y: Spec) -> int:
    """Bytes of the values at points of one image, before and after the products."""
    return 4 * math.prod(POINTS * -(-n // TILE) for n in y.shape[2:]) * (x.shape[1] + y.shape[1])


def chunk(x: Spec, y: Spec) -> int:
    """Images taken at a time: the most that divide their number and stay in the cache, or the fewest allowed."""
    images = x.shape[0]
    found = [n for n in range(min(IMAGES, images), images + 1) if images % n == 0]
    return max((n for n in found if n * _image(x, y) <= CACHE), default=found[0])


def takes(call: Call) -> bool:
    """Whether a convolution or one of its gradients is run this way."""
    found = convolved(call)
    if found is None or not worth(*found, call.attrs["window"], call.attrs["groups"]):
        return False
    _, w, y = found
    return call.op.name not in ("conv_grad_w", "conv_grad_wb", "conv_grads") or _sums(w, y) <= ROOM // 4


def _sums(w: Spec, y: Spec) -> int:
    """Bytes of the products of single rows of tiles, not yet added up."""
    return 4 * POINTS**2 * -(-y.shape[2] // TILE) * math.prod(w.shape[:2])


def kept(call: Call) -> int:
    """Bytes of the values of x at points, where a forward convolution shall keep them for its gradients; 0: nowhere."""
    found = convolved(call)
    if found is None:
        return 0
    x, _, y = found
    size = x.shape[0] * _image(x, y) * x.shape[1] // (x.shape[1] + y.shape[1])
    return size if chunk(x, y) == x.shape[0] and size <= CACHE else 0
