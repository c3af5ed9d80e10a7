"""When Winograd's filtering is faster than the direct convolution: an estimate from sizes alone.

The constants are nanoseconds on two cores of an AMD EPYC with AVX-512 (peak 240 GFLOP/s in float32, 480 in bfloat16),
fitted to single layers with 64 to 512 channels and maps of 7 to 56 on a side, measured as processor time while the
direct convolution and this one took turns. Those cores halve a vector of 512 bits; cores that do not multiply twice as
fast (``pace``), and move numbers no faster. Otherwise slower or faster cores move all constants alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..types import Window
from .dnnl import Unsupported
from .winograd import Tile, tile

ENABLED = True
"""Off for measurements of the direct convolution."""

SIDES: Mapping[tuple[int, bool], tuple[int, ...]] = {(3, False): (2, 4), (3, True): (2, 3), (5, False): (2,)}
"""Sides of the tiles to choose from, by the side of the filter and whether factors take 16 bits. Tiles of 4 need a
quarter of the multiplications of 3x3, tiles of 3 need 1 / 3.2, tiles of 2 need 1 / 2.25, and 1 / 2.8 of 5x5. With 6 x 6
points rounding errors are three times those with 4 x 4, which bfloat16 cannot afford; with 5 x 5 they are 1.5 times."""

DIRECT = {False: 220.0, True: 440.0}
"""Operations a nanosecond of the direct convolution, which leaves out those with zeros of the border."""
PRODUCT = {False: 200.0, True: 400.0}
"""Operations a nanosecond of the products."""
VALUE = {4: 0.33, 5: 0.4, 6: 0.48}
"""For each number of a transformed map, by the side of its tiles, there or back: copies, transforms, the products'
traffic."""
READY = 0.16
"""For each transformed number of the weights: the products' traffic."""
WEIGHT = {4: 0.35, 5: 0.3, 6: 0.25}
"""The same: their transform, if it is part of the call."""
HALVES = 0.1
"""More for each number that is rounded to 16 bits."""
CALL = 200_000.0
"""For threads that are woken and steps that are called."""
MARGIN = 0.95
"""How much faster the estimate has to be: it may be wrong by a few per cent."""


PROCESSOR = Path("/proc/cpuinfo")
NARROW = ("AuthenticAMD", "25")
"""Vendor and family of the processors with AVX-512 whose units are 256 bits wide (AMD's Zen 4)."""


@lru_cache(maxsize=1)
def pace() -> float:
    """How many times as fast as those of the constants the cores here multiply: told by their kind, not by a clock, so
    that the same machine always computes the same way."""
    try:
        lines = PROCESSOR.read_text().split("\n\n")[0].splitlines()
    except OSError:
        return 1.0
    said = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    wide = "avx512f" in said.get("flags", "").split()
    return 2.0 if wide and (said.get("vendor_id"), said.get("cpu family")) != NARROW else 1.0


@dataclass(frozen=True)
class Sizes:
    """A convolution: images, channels in and out, size of the result, 16-bit factors, side of the filter."""

    n: int
    c: int
    k: int
    out: tuple[int, int]
    half: bool
    r: int = 3
    inside: float = 1.0
    """The share of multiplications whose factor is no zero of the border."""

    def tiles(self, m: int) -> tuple[int, int]:
        """Tiles down and across."""
        return -(-self.out[0] // m), -(-self.out[1] // m)


def inside(given: Sequence[int], made: Sequence[int], window: Window) -> float:
    """The share of the taps of all windows that meet the map, by its size before and after."""
    found = 1.0
    for size, out, r, dilation, pad in zip(given, made, window.kernel, window.dilation, window.pad, strict=True):
        reach = np.add.outer(np.arange(out) - pad, np.arange(r) * dilation)
        found *= float(((reach >= 0) & (reach < size)).mean())
    return found


def direct_time(s: Sizes) -> float:
    """Nanoseconds of the direct convolution."""
    return 2 * s.r**2 * s.n * s.c * s.k * math.prod(s.out) * s.inside / (DIRECT[s.half] * pace())


def filtered_time(s: Sizes, m: int, ready: bool = False) -> float:
    """Nanoseconds with tiles of m x m; ``ready``: with weights that are transformed already."""
    side, tiles, more = m + s.r - 1, s.n * math.prod(s.tiles(m)), HALVES if s.half else 0.0
    points = side**2
    products = 2 * points * tiles * s.c * s.k / (PRODUCT[s.half] * pace())
    values = points * tiles * (s.c + s.k) * (VALUE[side] + more)
    weights = points * s.c * s.k * (READY if ready else READY + WEIGHT[side] + more)
    return products + values + weights + CALL


def choice(s: Sizes, ready: bool = False) -> int:
    """The side of the tiles that are fastest; 0: the direct convolution is."""
    sides = SIDES.get((s.r, s.half), ())
    if not ENABLED or not sides:
        return 0
    best = min(sides, key=lambda m: filtered_time(s, m, ready))
    return best if filtered_time(s, best, ready) < MARGIN * direct_time(s) else 0


def chosen(s: Sizes, ready: bool = False) -> Tile:
    """The tiles to take.

    Raises:
        Unsupported: the direct convolution is faster.
    """
    m = choice(s, ready)
    if not m:
        raise Unsupported("the direct convolution is faster")
    return tile(m, s.r)
