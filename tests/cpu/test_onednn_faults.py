"""What version 3.2 of oneDNN computes wrongly, or crashes over: small nets that meet it, on memory full of garbage."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases.program_nets import Maker, compiled, results

from netrun.cpu.fast import Fast
from netrun.cpu.reference import Reference
from netrun.types import Numerics, Shape, Tensor, Window

LIBRARY = Fast().recipes
needs_library = pytest.mark.skipif(LIBRARY is None, reason="no oneDNN here")
needs_halves = pytest.mark.skipif(
    LIBRARY is None or not LIBRARY.lib.multiplies_halves, reason="this processor does not multiply bfloat16"
)


class Littered(Fast):
    """Memory that is not zero by chance: 3.4e38 in float32 and in bfloat16."""

    def allocate(self, nbytes: int) -> Any:
        block = super().allocate(nbytes)
        block[:] = 0x7F
        return block


def conv(m: Maker, x: Tensor, outputs: int, window: Window) -> Tensor:
    y = m.blob(x.shape[0], outputs, *window.output(x.shape[2:]))
    m.k.conv(x, m.weight(outputs, x.shape[1], *window.kernel), m.weight(outputs), y, window=window, groups=1)
    return y


def between(shape: Shape, window: Window) -> Any:
    """A convolution between two of one pixel, so that it lies in a layout on both sides."""

    def body(m: Maker) -> Tensor:
        one = Window((1,) * window.rank)
        x = conv(m, m.feed(2, 3, *shape), 16, one)
        return conv(m, conv(m, x, 16, window), 16, one)

    return body


def normalised(channels: int, size: int) -> Any:
    def body(m: Maker) -> Tensor:
        one = Window((1, 1))
        x = conv(m, m.feed(2, 3, 4, 4), channels, one)
        y = m.blob(*x.shape)
        m.k.lrn(x, y, m.blob(*x.shape), size=size, alpha=1.0, beta=0.75, k=1.0)
        return conv(m, y, 16, one)

    return body


def compare(body: Any, precision: str, tolerance: float) -> None:
    program, _ = compiled(body)
    got = results(replace(program, numerics=Numerics(precision)), Littered())
    for name, value in results(program, Reference()).items():
        lost = np.linalg.norm(got[name] - value)
        assert lost <= tolerance * np.linalg.norm(value), name


@needs_library
@pytest.mark.parametrize("size", [1, 3, 5, 7, 9, 15])
@pytest.mark.parametrize("channels", [16, 24, 40])
def test_lrn_over_any_number_of_channels(size: int, channels: int) -> None:
    """Of one channel it crashes, of seven and more it forgets some neighbours of the last channels."""
    compare(normalised(channels, size), "FP32", 1e-4)


DEEP = [
    ((3, 3, 3), Window((4, 1, 1), (2, 1, 1), (3, 0, 0))),
    ((2, 3, 3), Window((4, 3, 1), (2, 1, 1), (3, 1, 0))),
    ((2, 4, 4), Window((3, 3, 3), (1, 1, 1), (1, 1, 1))),
    ((1, 3, 3), Window((4, 1, 1), (1, 1, 1), (3, 0, 0))),
]
FLAT = [
    ((1, 1), Window((3, 3), (1, 1), (1, 1))),
    ((9, 1), Window((3, 5), (1, 2), (0, 2), (3, 1))),
    ((1,), Window((5,), (2,), (2,))),
]


@needs_library
@pytest.mark.parametrize(("shape", "window"), [*DEEP, *FLAT], ids=str)
def test_windows_that_reach_far_out(shape: Shape, window: Window) -> None:
    compare(between(shape, window), "FP32", 1e-4)


@needs_halves
@pytest.mark.parametrize(("shape", "window"), [*DEEP, *FLAT], ids=str)
def test_windows_that_reach_far_out_in_16_bits(shape: Shape, window: Window) -> None:
    compare(between(shape, window), "BF16", 0.05)
