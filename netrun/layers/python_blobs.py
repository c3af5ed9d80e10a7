"""What a layer in Python works with: blobs of NumPy arrays, its parameters, and a base to derive from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from ..types import Axes, Shape

Array = npt.NDArray[Any]


class PythonBlob(Axes):
    """A bottom, top or parameter as a user's class sees it; ``data`` and ``diff`` are NumPy arrays.

    ``reshape`` is for tops: in ``setup`` and ``reshape``, or in ``forward`` by layers that learn there how much they
    have to give.
    """

    def __init__(self, shape: Sequence[int], dtype: str, fetch: Callable[[], Array] | None = None) -> None:
        self._shape, self._dtype, self._fetch = tuple(shape), dtype, fetch
        self._data: Array | None = None
        self._diff: Array | None = None

    @classmethod
    def over(cls, data: Array, diff: Array | None = None) -> PythonBlob:
        """A blob on arrays that are there."""
        blob = cls(data.shape, data.dtype.name)
        blob._data, blob._diff = data, diff
        return blob

    @property
    def shape(self) -> Shape:
        """Length of every axis."""
        return self._shape

    @property
    def data(self) -> Array:
        """The values."""
        if self._data is None:
            self._data = self._fetch() if self._fetch else np.zeros(self._shape, self._dtype)
        return self._data

    @property
    def diff(self) -> Array:
        """The gradient; where none is asked for, memory of no consequence."""
        if self._diff is None:
            self._diff = np.zeros(self._shape, self._dtype)
        return self._diff

    @property
    def written(self) -> Array | None:
        """The array of ``data``, if anybody asked for it."""
        return self._data

    def reshape(self, *shape: int) -> None:
        """Another shape; the values are zeros then.

        Raises:
            ValueError: an axis is negative.
        """
        wanted = tuple(int(n) for n in shape)
        if wanted == self._shape:
            return
        if any(n < 0 for n in wanted):
            raise ValueError(f"{wanted} is no shape")
        self._shape, self._data, self._diff = wanted, None, None


class PythonBlobs:
    """The parameters of a user's layer, ``self.blobs``: ``add_blob`` in ``setup`` makes one."""

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype
        self._blobs: list[PythonBlob] = []

    def add_blob(self, *shape: int) -> PythonBlob:
        """One more trained parameter of that shape. What ``setup`` writes into its data is its first value."""
        self._blobs.append(PythonBlob(shape, self._dtype))
        return self._blobs[-1]

    def bind(self, blobs: Sequence[PythonBlob]) -> None:
        """Put these in place: the values and gradients of this pass."""
        self._blobs[:] = blobs

    def __len__(self) -> int:
        return len(self._blobs)

    @overload
    def __getitem__(self, i: int) -> PythonBlob: ...

    @overload
    def __getitem__(self, i: slice) -> list[PythonBlob]: ...

    def __getitem__(self, i: int | slice) -> PythonBlob | list[PythonBlob]:
        return self._blobs[i]

    def __iter__(self) -> Iterator[PythonBlob]:
        return iter(self._blobs)


class PythonLayer:
    """What a layer in Python may derive from; any class with these methods will do.

    ``param_str`` is the text from the prototxt, ``phase`` 0 in training and 1 otherwise, ``blobs`` the parameters.
    """

    param_str: str = ""
    phase: int = 1
    blobs: PythonBlobs

    def __init__(self, layer_param: Any = None) -> None:
        """``layer_param`` is the layer's message; the members are there from ``setup`` on."""

    def setup(self, bottom: Sequence[PythonBlob], top: Sequence[PythonBlob]) -> None:
        """Called once: read param_str, add parameters."""

    def reshape(self, bottom: Sequence[PythonBlob], top: Sequence[PythonBlob]) -> None:
        """Called before every forward: give every top its shape."""
        raise NotImplementedError

    def forward(self, bottom: Sequence[PythonBlob], top: Sequence[PythonBlob]) -> None:
        """Write every top's data."""
        raise NotImplementedError

    def backward(self, top: Sequence[PythonBlob], propagate_down: Sequence[bool], bottom: Sequence[PythonBlob]) -> None:
        """Write bottom[i].diff where propagate_down[i], and the diff of every parameter."""
        raise NotImplementedError


__all__ = ["PythonBlob", "PythonBlobs", "PythonLayer"]
