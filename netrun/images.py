"""Images of floats in another size."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Planes = npt.NDArray[Any]


def resize_floats(planes: Planes, height: int, width: int) -> Planes:
    """The image C H W as C height width: bilinear, pixel centres onto pixel centres, the border going on outside."""
    out = planes.astype(np.float32)
    for axis, size in ((1, height), (2, width)):
        old = out.shape[axis]
        position = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
        first = np.minimum(position.astype(np.int64), max(old - 2, 0))
        part = (position - first).astype(np.float32).reshape((-1, 1) if axis == 1 else (1, -1))
        after = np.minimum(first + 1, old - 1)
        out = out.take(first, axis) * (1 - part) + out.take(after, axis) * part
    return out


__all__ = ["resize_floats"]
