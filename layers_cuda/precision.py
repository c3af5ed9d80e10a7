"""Precision of convolutions and matrix products: one word that decides for cuDNN and cuBLAS alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from netrun.program import Call

from .launch import BLOCK, Kernel, Step, defines

if TYPE_CHECKING:
    from .device import Cuda


@dataclass(frozen=True)
class Precision:
    """What float32 operands may be rounded to before they are multiplied. Sums are float32 always.

    name     FP32, TF32, BF16 or FP16
    compute  cuBLAS' compute type for float32 matrices
    tensor   whether cuDNN may use tensor cores on float32 tensors
    storage  the type operands of a convolution are converted to first; "" if they stay as they are
    """

    name: str
    compute: int
    tensor: bool
    storage: str = ""


PRECISIONS = {
    p.name: p
    for p in (
        Precision("FP32", 68, False),
        Precision("TF32", 77, True),
        Precision("BF16", 75, True, "bfloat16"),
        Precision("FP16", 74, True, "float16"),
    )
}
"""The choices. FP32 multiplies in full float32, so that results equal the CPU's."""


def precision_of(call: Call) -> Precision:
    """What ``prepare`` wrote into the call; FP32 where it wrote nothing."""
    return PRECISIONS[call.attrs.get("precision", "FP32")]


_TYPES = {"bfloat16": "__nv_bfloat16", "float16": "__half"}


def narrow(device: Cuda, source: Any, target: Any, storage: str) -> Step:
    """A step that rounds float32 ``source`` to ``storage``; ``target`` is memory of uint16 of the same count."""
    return _convert(device, "narrow", source, target, storage)


def widen(device: Cuda, source: Any, target: Any, storage: str) -> Step:
    """A step that turns ``storage`` in ``source`` (memory of uint16) into float32 ``target``."""
    return _convert(device, "widen", source, target, storage)


def _convert(device: Cuda, name: str, source: Any, target: Any, storage: str) -> Step:
    kernel = Kernel("precision", name, defines(STORAGE=_TYPES[storage]))
    grid = device.launcher.blocks(source.size)
    return device.launcher.step(kernel, grid, BLOCK, [source, target, np.int64(source.size)])
