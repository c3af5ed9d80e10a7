"""When Winograd's filtering is faster than the direct convolution: an estimate from sizes alone.

The constants are nanoseconds on two cores of an AMD EPYC with AVX-512 (peak 240 GFLOP/s in float32, 480 in bfloat16),
fitted to single layers with 64 to 512 channels and maps of 7 to 56 on a side, measured as processor time while the
direct convolution and this one took turns. Cores that are slower or faster move all of them alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .dnnl import Unsupported
from .winograd import Tile, tile

ENABLED = True
"""Off for measurements of the direct convolution."""

SIDES = {False: (2, 4), True: (2,)}
"""Sides of the tiles to choose from, by whether factors take 16 bits. Tiles of 4 need a quarter of the multiplications,
tiles of 2 need 1 / 2.25; the rounding errors of 4 are three times as large, which bfloat16 cannot afford."""

DIRECT = {False: 220.0, True: 440.0}
"""Operations a nanosecond of the direct convolution, which leaves out those with zeros of the border."""
PRODUCT = {False: 200.0, True: 400.0}
"""Operations a nanosecond of the products."""
VALUE = {2: 0.33, 4: 0.48}
"""For each transformed number of a map, there or back: copies, transforms, the products' traffic."""
READY = 0.16
"""For each transformed number of the weights: the products' traffic."""
WEIGHT = {2: 0.35, 4: 0.25}
"""The same: their transform, if it is part of the call."""
HALVES = 0.1
"""More for each number that is rounded to 16 bits."""
CALL = 200_000.0
"""For threads that are woken and steps that are called."""
MARGIN = 0.95
"""How much faster the estimate has to be: it may be wrong by a few per cent."""


@dataclass(frozen=True)
class Sizes:
    """A convolution: images, channels in and out, size of the result, 16-bit factors."""

    n: int
    c: int
    k: int
    out: tuple[int, int]
    half: bool
    inside: float = 1.0
    """The share of multiplications whose factor is no zero of the border."""

    def tiles(self, m: int) -> tuple[int, int]:
        """Tiles down and across."""
        return -(-self.out[0] // m), -(-self.out[1] // m)


def direct_time(s: Sizes) -> float:
    """Nanoseconds of the direct convolution."""
    return 18 * s.n * s.c * s.k * math.prod(s.out) * s.inside / DIRECT[s.half]


def filtered_time(s: Sizes, m: int, ready: bool = False) -> float:
    """Nanoseconds with tiles of m x m; ``ready``: with weights that are transformed already."""
    points, tiles, more = (m + 2) ** 2, s.n * math.prod(s.tiles(m)), HALVES if s.half else 0.0
    products = 2 * points * tiles * s.c * s.k / PRODUCT[s.half]
    values = points * tiles * (s.c + s.k) * (VALUE[m] + more)
    weights = points * s.c * s.k * (READY if ready else READY + WEIGHT[m] + more)
    return products + values + weights + CALL


def choice(s: Sizes, ready: bool = False) -> int:
    """The side of the tiles that are fastest; 0: the direct convolution is."""
    if not ENABLED:
        return 0
    best = min(SIDES[s.half], key=lambda m: filtered_time(s, m, ready))
    return best if filtered_time(s, best, ready) < MARGIN * direct_time(s) else 0


def chosen(s: Sizes, ready: bool = False) -> Tile:
    """The tiles to take.

    Raises:
        Unsupported: the direct convolution is faster.
    """
    m = choice(s, ready)
    if not m:
        raise Unsupported("the direct convolution is faster")
    return tile(m, 3)
