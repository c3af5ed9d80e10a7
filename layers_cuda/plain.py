"""gemm by an own kernel: for what the library refuses, and where there is no library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from netrun.program import Call

from .geometry import fold, indices, type_defines
from .launch import BLOCK, Kernel, Step, nothing

if TYPE_CHECKING:
    from .device import Cuda

TILE = 64
"""Rows and columns of y that one block of threads makes: src/gemm.cu."""


def gemm(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.gemm, bound: any shapes and both transposes, without tensor cores."""
    a, b, c, y = args
    if not y.size:
        return nothing
    ta, tb = call.attrs["ta"], call.attrs["tb"]
    m, n = y.shape[-2:]
    k = a.shape[-2 if ta else -1]
    batch = fold(y.shape[:-2], [a.shape[:-2], b.shape[:-2]])
    most = max(a.size, b.size, y.size)
    kernel = Kernel("gemm", "gemm", (
        *type_defines(y.dtype.name, most), *batch.defines(),
        ("MASK_A", f"{batch.masks[0]}u"), ("MASK_B", f"{batch.masks[1]}u"), ("TA", str(int(ta))), ("TB", str(int(tb))),
    ))  # fmt: skip
    shape = (1, 1) if c is None else (1,) * (2 - c.ndim) + tuple(c.shape)[-2:]
    steps = (shape[1] if shape[0] > 1 else 0, 1 if shape[1] > 1 else 0)
    tiles = batch.count * -(-m // TILE) * -(-n // TILE)
    values = [a, b, y if c is None else c, y, *indices(most, [m, n, k, *steps]), np.int32(c is not None)]
    grid = min(tiles, device.launcher.processors * 16)
    return device.launcher.step(kernel, grid, BLOCK, [*values, *indices(most, batch.sizes)])
