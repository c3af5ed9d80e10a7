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

DIRECT = {False: 230.0, True: 460.0}
"""Operations a nanosecond of the direct convolution."""
PRODUCT = {False: 200.0, True: 400.0}
"""Operations a nanosecond of the products."""
VALUE = {2: 0.57, 4: 1.1}
"""For each transformed number of a map, there or back: copies, transforms, the products' traffic."""
HALVES = 0.1
"""More for each number that is rounded to 16 bits."""
WEIGHT = {2: 0.95, 4: 0.85}
"""For each transformed number of the weights, if they have to be made."""
READY = 0.2
"""For each transformed number of the weights, if they are there."""
CALL = 100_000.0
"""For threads that are woken and steps that are called."""
MARGIN = 0.93
"""How much faster the estimate has to be: it may be wrong by a few per cent."""


@dataclass(frozen=True)
class Sizes:
    """A convolution: images, channels in and out, size of the result."""

    n: int
    c: int
    k: int
    out: tuple[int, int]
    half: bool

    def tiles(self, m: int) -> tuple[int, int]:
        """Tiles down and across."""
        return -(-self.out[0] // m), -(-self.out[1] // m)


def direct_time(s: Sizes) -> float:
    """Nanoseconds of the direct convolution."""
    return 18 * s.n * s.c * s.k * math.prod(s.out) / DIRECT[s.half]


def filtered_time(s: Sizes, m: int, ready: bool = False) -> float:
    """Nanoseconds with tiles of m x m; ``ready``: with weights that are transformed already."""
    points, tiles = (m + 2) ** 2, s.n * math.prod(s.tiles(m))
    products = 2 * points * tiles * s.c * s.k / PRODUCT[s.half]
    values = points * tiles * (s.c + s.k) * (VALUE[m] + (HALVES if s.half else 0))
    weights = points * s.c * s.k * (READY if ready else WEIGHT[m] + (HALVES if s.half else 0))
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
