"""A sliding window as the defines and arguments of src/window.cuh."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from netrun.types import Window

from .geometry import Defines


def window_defines(window: Window) -> Defines:
    """KERNEL and its like; a window without axes becomes one of one axis and one element."""
    seen = window if window.rank else Window((1,))
    rows = (
        ("KERNEL", seen.kernel), ("STRIDE", seen.stride), ("PAD", seen.pad), ("DILATION", seen.dilation),
        ("PAD_END", seen.pad_end),
    )  # fmt: skip
    lists = tuple((name, ", ".join(map(str, values))) for name, values in rows)
    return (("SPATIAL", str(seen.rank)), ("SPACE(X)", " ".join(f"X({j})" for j in range(seen.rank))), *lists)


def sizes(inputs: Sequence[int], outputs: Sequence[int]) -> list[Any]:
    """Kernel arguments: the sizes of input and output along each axis in turn."""
    pairs = list(zip(inputs, outputs, strict=True)) or [(1, 1)]
    return [np.int32(n) for pair in pairs for n in pair]
