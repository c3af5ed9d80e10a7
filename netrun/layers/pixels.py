"""Layer types of the forks that label every pixel of an image: DeepLab's Interp, SegNet's BN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..config import schema
from ..kernels import Kernels
from ..types import Spec
from .base import IMAGES, Layer


class Interp(Layer):
    """y[n,c,i,j] = x at row i * (H - 1) / (H' - 1), column j * (W - 1) / (W' - 1), linear between pixels (DeepLab)

    The corners of both images lie on each other. Bottom: N C H W, of which pad_beg and pad_end (0 or less) cut rows and
    columns off first. Top: N C H' W': height and width, or (H - 1) * zoom_factor + 1, or (H - 1) / shrink_factor + 1
    rounded down, or the latter and then the former; so the columns.
    """

    param = "interp_param"
    axes = IMAGES

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        shape = bottom[0].shape
        if len(shape) != 4:
            self.fail(f"wants a bottom of 4 axes (N C H W), got {len(shape)}", bottom=0)
        for name in ("pad_beg", "pad_end"):
            if getattr(self.p, name) > 0:
                self.fail(f"{name} is {getattr(self.p, name)}, and can only cut off: 0 or less", at=name)
        for name in ("zoom_factor", "shrink_factor"):
            if getattr(self.p, name) < 1:
                self.fail(f"{name} is {getattr(self.p, name)}, and has to be at least 1", at=name)
        self._begin = -self.p.pad_beg
        sizes = [(n + self.p.pad_beg + self.p.pad_end, n) for n in shape[2:]]
        if min(n for n, _ in sizes) < 1:
            self.fail(f"pad_beg and pad_end cut off {self._begin - self.p.pad_end}, nothing is left", bottom=0)
        given = (self.p.height, self.p.width) if self._sized() else (None, None)
        self._across: list[str] = []
        for (size, whole), wanted, letter in zip(sizes, given, ("rows", "columns"), strict=True):
            length = self._length(size) if wanted is None else wanted
            name = f"{letter}_{whole}_to_{length}"  # by its sizes: other images need other weights
            self.state(name, (length, whole), _weights(length, size, whole, self._begin))
            self._across.append(name)
        self._in = shape
        self._out = (*shape[:2], *(self.declared[i - 2].spec.shape[0] for i in range(2)))
        return [self.spec(self._out, bottom[0].dtype)]

    def _sized(self) -> bool:
        """Whether height and width say the size; a factor goes before them."""
        if self.has("zoom_factor") or self.has("shrink_factor"):
            return False
        if not self.has("height") or not self.has("width"):
            self.fail("has neither height and width nor a factor", hint="interp_param { height: 64 width: 64 }")
        for name in ("height", "width"):
            if getattr(self.p, name) < 1:
                self.fail(f"{name} is {getattr(self.p, name)}, and has to be at least 1", at=name)
        return True

    def _length(self, size: int) -> int:
        shrunk = int((size - 1) // self.p.shrink_factor + 1)
        return int((shrunk - 1) * self.p.zoom_factor + 1)

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        n, c, height, width = self._in
        rows, columns = (getattr(self, name) for name in self._across)
        taller = k.temp("taller", (n * c, self._out[2], width))
        k.gemm(
            k.view(rows, (1, *rows.shape)), k.view(bottom[0], (n * c, height, width)), None, taller, ta=False, tb=False
        )
        flat = k.view(taller, (n * c * self._out[2], width))
        k.gemm(flat, columns, None, k.view(top[0], (n * c * self._out[2], self._out[3])), ta=False, tb=True)


def _weights(length: int, size: int, whole: int, begin: int) -> npt.NDArray[np.float64]:
    """length x whole: how much of each pixel goes into each new one."""
    found = np.zeros((length, whole))
    step = (size - 1) / (length - 1) if length > 1 else 0.0
    for i in range(length):
        low = min(int(i * step), size - 1)
        part = i * step - low
        found[i, begin + low] += 1 - part
        if low + 1 < size:
            found[i, begin + low + 1] += part
    return found


class SegNetBN(Layer):
    """y = scale[c] * (x - mean[c]) / sqrt(variance[c] + 1e-9) + shift[c], statistics of the batch (SegNet's BN)

    In TRAIN and in TEST; with bn_mode INFERENCE y = scale[c] * x + shift[c]. Bottom: N C and any further axes. Top: the
    same shape. Parameter blobs: scale and shift, each (1, C, 1, ...); ones and zeros at first. Its type in a prototxt
    is BN: the fields of ``bn_param`` tell it from that of PSPNet.
    """

    param = "bn_param"
    axes = IMAGES
    scale: Any
    shift: Any

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        shape = bottom[0].shape
        if len(shape) < 2:
            self.fail(f"wants a bottom of at least 2 axes (N C ...), got {len(shape)}", bottom=0)
        self._wide = (1, shape[1], *(1,) * (len(shape) - 2))
        ones = schema.FillerParameter(type="constant", value=1)
        self.learned("scale", self._wide, self.p.scale_filler if self.has("scale_filler") else ones)
        self.learned("shift", self._wide, self.p.shift_filler)
        return [bottom[0]]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        x = bottom[0]
        if self.p.bn_mode != schema.BNParameter.INFERENCE:
            normal, mean, variance = k.temp("normal", x.shape), k.temp("m", self._wide), k.temp("v", self._wide)
            k.normalize(x, normal, mean, variance, axes=tuple(i for i in range(len(x.shape)) if i != 1), eps=1e-9)
            x = normal
        k.pointwise([x, self.scale, self.shift], top[0], expr="a * b + c")
