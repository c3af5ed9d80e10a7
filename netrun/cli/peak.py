"""How fast a device multiplies at best, as measured: what the speeds of layers are held against."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np

from ..device import Device
from ..kernels import OPS
from ..program import Call, Program
from ..session import Session
from ..types import Spec, Tensor, Window

TRIES = 5


def peak_flops(device: Device, side: int = 1024) -> float:
    """Floating-point operations a second, multiplications and additions counted apart.

    The best of some runs of a product of two side x side matrices and of a 7x7 convolution that does as much: with
    libraries for both, either may be the faster one. Smaller windows will not do: Winograd's filtering, which does them
    with fewer multiplications, would pass for a faster device.
    """
    return max(_fastest(device, program, work) for program, work in (_product(side), _convolution(side)))


def _fastest(device: Device, program: Program, work: float) -> float:
    session = Session(program, device)
    generator = np.random.default_rng(0)
    session.feed({n: generator.standard_normal(t.shape).astype("float32") / 32 for n, t in program.feeds.items()})
    session.run()
    device.synchronize()
    best = float("inf")
    for _ in range(TRIES):
        start = time.perf_counter()
        session.run()
        device.synchronize()
        best = min(best, time.perf_counter() - start)
    return work / best


def _product(side: int) -> tuple[Program, float]:
    a, b, y = (Tensor(name, Spec((side, side)), "feed" if name != "y" else "data") for name in "aby")
    call = Call(OPS["gemm"], (a, b, None, y), {"ta": False, "tb": False})
    return Program((call,), {"a": a, "b": b}, frozenset({y})), 2.0 * side**3


def _convolution(side: int) -> tuple[Program, float]:
    """Two convolutions in a row, 64 channels to 64 on 56 x 56, with about the same number of operations.

    In a row, so that the device may choose how values lie in memory between them.
    """
    channels, size, side_of_window, depth = 64, 56, 7, 2
    each = 2 * channels * channels * side_of_window**2 * size * size
    batch = max(1, round(2 * side**3 / (each * depth)))
    w = Tensor("w", Spec((channels, channels, side_of_window, side_of_window)), "feed")
    attrs = {"window": Window((side_of_window,) * 2, pad=(side_of_window // 2,) * 2), "groups": 1}
    spec = Spec((batch, channels, size, size))
    values = [Tensor("x", spec, "feed"), *(Tensor(f"y{i}", spec, "data") for i in range(depth))]
    calls = tuple(Call(OPS["conv"], (x, w, None, y), attrs) for x, y in pairwise(values))
    return Program(calls, {"x": values[0], "w": w}, frozenset(values[-1:])), float(batch * each * depth)
