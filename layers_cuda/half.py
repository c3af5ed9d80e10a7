"""Device arrays of bfloat16, which neither NumPy nor CuPy has a type for: 16-bit words under that name.

What is asked of an array here is its address, shape and element type, so a thin cover over an array of uint16 will do.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

NAME = "bfloat16"


class Brain:
    """An array of bfloat16. ``words`` are its bits, as the library's own array of uint16."""

    dtype: Any = SimpleNamespace(name=NAME, itemsize=2, kind="f")

    def __init__(self, words: Any) -> None:
        self.words = words

    @property
    def data(self) -> Any:
        """The memory; ``data.ptr`` is its address."""
        return self.words.data

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""
        return tuple(self.words.shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return int(self.words.ndim)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(self.words.size)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return int(self.words.nbytes)

    def reshape(self, *shape: Any) -> Brain:
        """The same elements under another shape."""
        return Brain(self.words.reshape(*shape))

    def __getitem__(self, part: Any) -> Brain:
        return Brain(self.words[part])


def words_of(array: Any) -> Any:
    """The array that the library knows."""
    return array.words if isinstance(array, Brain) else array


def bits_of(values: Any) -> np.ndarray[Any, Any]:
    """Host values as the bits of bfloat16, rounded to nearest even; what is no number stays none."""
    with np.errstate(over="ignore", invalid="ignore"):
        single = np.ascontiguousarray(values, np.float32)
    bits = single.view(np.uint32)
    rounded = ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)
    nan = np.isnan(single)
    found: np.ndarray[Any, Any] = np.where(nan, np.uint16(0x7FC0), rounded).reshape(np.shape(values))
    return found


def values_of(bits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The bits of bfloat16 as float32."""
    wide = np.ascontiguousarray(bits).astype(np.uint32) << np.uint32(16)
    found: np.ndarray[Any, Any] = wide.view(np.float32).reshape(bits.shape)
    return found


__all__ = ["NAME", "Brain", "bits_of", "values_of", "words_of"]
