"""Convolutions of large windows as products at frequencies: matrices, limits, and when that is faster.

Along an axis a map of real numbers has its values at the L / 2 odd frequencies pi (2 k + 1) / L: a cosine and a sine
each, the halves of complex numbers, and none of them is real alone. What is multiplied there wraps around with the
opposite sign after L, which no wanted output meets if L is as large as the map and its padding on one side: zeros
around the map are neither stored nor multiplied. Over two axes a map has four sums at a pair of frequencies,

    cc, cs, sc, ss        cosine or sine along the width, then along the height

which are the complex values at the sum and at the difference of both: (cc - ss) - i (cs + sc), (cc + ss) + i (cs - sc).
A product of complex numbers takes three of real ones, so six real products a pair, 1.5 L L in all, stand for window x
outputs each: 486 for 6,400 with windows of 5 x 5 on maps of 16 x 16. The matrices are orthogonal but for a factor, so
that sums have the rounding errors of direct ones.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..program import Call
from ..types import PLAIN, Spec, Window
from . import points, winograd_cost
from .layouts import is_half
from .matrix_steps import Matrix, convolved

ENABLED = True
"""Off for measurements of the other ways."""

FORMS = 6
"""Real values at a pair of frequencies: three for each of its two complex numbers."""

_BOTH = np.array([[1, 0, 0, -1], [0, -1, -1, 0], [1, 0, 0, 1], [0, 1, -1, 0]], float)
"""Real and imaginary part at the sum, then at the difference, of cc, cs, sc, ss; its transpose leads back."""

DATA = np.kron(np.eye(2), [[1, 1], [0, 1], [1, 0]]) @ _BOTH
"""FORMS x 4, of x: r + i, i, r of both complex numbers."""
WEIGHTS = np.kron(np.eye(2), [[1, 0], [-1, 1], [1, 1]]) @ _BOTH
"""FORMS x 4, of w, which is conjugated: r, i - r, r + i."""
RESULT = _BOTH.T @ np.kron(np.eye(2), [[1, 1, 0], [1, 0, -1]])
"""4 x FORMS, of the products: first + second is real, first - third imaginary."""


class Axis:
    """One axis: ``length`` sums at its frequencies.

    down  length x pixels
    up    outputs x length
    taps  length x window

    Args:
        apart: all cosines come first, then all sines; otherwise both of a frequency stand together.
    """

    def __init__(self, pixels: int, outputs: int, window: Window, axis: int, apart: bool) -> None:
        self.pixels, self.outputs, self.window = pixels, outputs, window.kernel[axis]
        self.length = length(pixels, outputs, window, axis)

        def sums(places: Any) -> Matrix:
            angles = np.outer(math.pi * np.arange(1, self.length, 2) / self.length, places)
            parts = np.stack([np.cos(angles), np.sin(angles)], 0 if apart else 1)
            return np.asarray(parts.reshape(self.length, -1))

        self.down = sums(np.arange(pixels))
        self.up = sums(np.arange(outputs)).T * (math.sqrt(2) / self.length)
        self.taps = sums(np.arange(self.window) * window.dilation[axis] - window.pad[axis])


def length(pixels: int, outputs: int, window: Window, axis: int) -> int:
    """L: even, and large enough that nothing wraps around into the wanted outputs."""
    least = max(pixels + max(window.pad[axis], window.pad_end[axis]), outputs)
    return least + least % 2


def spread_taps(axis: Axis) -> Matrix:
    """The second axis of the weights and WEIGHTS in one: rows frequency and form, columns cosine or sine along the
    first axis and tap."""
    taps = axis.taps.reshape(2, axis.length // 2, axis.window)
    found = np.einsum("fab,blt->lfat", WEIGHTS.reshape(FORMS, 2, 2), taps)
    return np.asarray(found.reshape(axis.length // 2 * FORMS, 2 * axis.window))


# ------------------------------------------------------------------------------------------------------- when it pays
IMAGES = 16
"""Images at a time at least: they are the rows of the products."""

SMALLEST = 5
"""Side of the windows from which it may pay."""

ROOM = 96 * 2**20
"""Bytes of scratch for the maps of a chunk of images."""

GROUP, PIECE = 5 * 2**19, 3 * 2**19
"""Bytes of values that are made and multiplied together, and of those of the weights alone: what stays near the cores.
"""

KEPT = 8 * 2**20
"""Bytes of values of x that a forward pass may keep for the gradients."""


class Sizes:
    """What a convolution takes at frequencies: lengths along width and height, images at a time, and counts."""

    def __init__(self, x: Spec, w: Spec, y: Spec, window: Window) -> None:
        self.images, self.inputs, self.outputs = x.shape[0], x.shape[1], w.shape[0]
        self.wide, self.high = (length(x.shape[2 + a], y.shape[2 + a], window, a) for a in (1, 0))
        self.rows, self.columns = (x.shape[2], y.shape[2]), (x.shape[3], y.shape[3])
        self.values = self.wide * self.high * FORMS // 4
        found = [n for n in range(min(IMAGES, self.images), self.images + 1) if self.images % n == 0]
        self.chunk = max((n for n in found if self.room(n) <= ROOM), default=found[0])

    def room(self, images: int) -> int:
        """Bytes of scratch for the maps of so many images."""
        given, made = (rows * max(columns, self.wide) for rows, columns in zip(self.rows, self.columns, strict=True))
        return 4 * images * (given * self.inputs + 2 * made * self.outputs)

    @property
    def line(self) -> int:
        """Bytes of the values at one frequency of the first axis: of both maps and the weights."""
        maps = self.chunk * (self.inputs + self.outputs)
        return 4 * FORMS * self.high // 2 * (maps + self.inputs * self.outputs)

    @property
    def group(self) -> int:
        """Frequencies of the first axis that are taken together: as many as stay near the cores."""
        half = self.wide // 2
        return max((n for n in range(1, half + 1) if half % n == 0 and n * self.line <= GROUP), default=1)

    @property
    def pieces(self) -> list[tuple[int, int]]:
        """Frequencies of the second axis whose weights are taken together, from and to."""
        half = self.high // 2
        whole = 4 * FORMS * half * self.inputs * self.outputs
        count = min(half, -(-whole // PIECE)) if self.group == 1 else 1
        return [(i * half // count, (i + 1) * half // count) for i in range(count)]

    @property
    def steps(self) -> int:
        """How many products and copies a forward pass is, about."""
        return self.images // self.chunk * (self.wide // 2 // self.group * (4 + 2 * len(self.pieces)) + 4)


TRANSFORM, PRODUCT = 110.0, 190.0
"""Operations a nanosecond of the products that lead from axis to axis, and of those at frequencies."""
PIXEL, VALUE, STEP = 0.3, 0.16, 3000.0
"""Nanoseconds for each pixel that is copied, for each value that is mixed, and for each step: threads meet there.

All five were measured on two cores of an AMD EPYC with AVX-512, as those of winograd_cost, on layers of 16 to 100
images and maps of 8 to 28 on a side. What is multiplied within the caches moves at TRANSFORM and no faster.
"""

MARGIN = 0.95
"""How much faster the estimate has to be: it may be wrong by some per cent."""


def time(s: Sizes, window: Window) -> float:
    """Nanoseconds of a forward pass."""
    high, wide = window.kernel
    pairs, chunks = s.inputs * s.outputs, s.images // s.chunk
    moved = s.wide * high * wide * pairs * chunks + s.values * 2 * high * pairs * chunks
    pixels = copied = 0
    for rows, columns, channels in zip(s.rows, s.columns, (s.inputs, s.outputs), strict=True):
        moved += s.images * channels * s.wide * rows * (columns + s.high)
        copied += s.images * channels * rows * columns
        pixels += s.images * channels * s.values
    products = s.values * s.images * pairs
    lost = copied * PIXEL + (pixels + s.values * pairs * chunks / 3) * VALUE + s.steps * STEP
    return 2 * moved / TRANSFORM + 2 * products / (PRODUCT * winograd_cost.pace()) + lost


def worth(x: Spec, w: Spec, y: Spec, window: Window, groups: int) -> bool:
    """Whether a convolution has the form and the size for this, and is faster than any other way."""
    if not ENABLED or window.rank != 2 or groups != 1 or set(window.stride) != {1} or min(w.shape[2:]) < SMALLEST:
        return False
    if w.layout != PLAIN or any(s.dtype != "float32" or 0 in s.shape for s in (x, w, y)):
        return False
    if min(*window.pad, *window.pad_end) < 0 or x.shape[0] < IMAGES:
        return False
    s = Sizes(x, w, y, window)
    lines = 4 * s.wide * w.shape[2] * s.inputs * s.outputs
    return s.room(s.chunk) <= ROOM and lines <= ROOM // 3 and time(s, window) < MARGIN * _otherwise(x, w, y, window)


def _otherwise(x: Spec, w: Spec, y: Spec, window: Window) -> float:
    """Nanoseconds of the fastest other way."""
    n, c, *_ = x.shape
    half = is_half(x.layout) or is_half(y.layout)
    inside = winograd_cost.inside(x.shape[2:], y.shape[2:], window)
    direct = winograd_cost.Sizes(n, c, w.shape[0], (y.shape[2], y.shape[3]), half, w.shape[2], inside)
    found = [winograd_cost.direct_time(direct) * w.shape[3] / w.shape[2]]
    if w.shape[2] == w.shape[3] and set(window.dilation) == {1}:
        found += [winograd_cost.filtered_time(direct, m) for m in winograd_cost.SIDES.get((w.shape[2], half), ())]
    if points.worth(x, w, y, window, 1):
        found.append(points.time(x, w, y))
    return min(found)


def takes(call: Call) -> bool:
    """Whether a convolution or one of its gradients is run this way."""
    found = convolved(call)
    return found is not None and worth(*found, call.attrs["window"], call.attrs["groups"])


def kept(call: Call) -> int:
    """Bytes of the values of x, where its forward convolution shall keep them for the gradients; 0: nowhere."""
    found = convolved(call)
    if found is None:
        return 0
    s = Sizes(*found, call.attrs["window"])
    size = 4 * s.images * s.inputs * s.values
    return size if s.chunk == s.images and size <= KEPT else 0
