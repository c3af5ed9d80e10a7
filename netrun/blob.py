"""Blobs: values and their gradient under one name, as a net in Python shows them, and what may be put into them."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NoReturn, Protocol

import numpy as np

from .errors import UsageError
from .types import Axes, Shape, Tensor


class ShapeMismatchError(UsageError, ValueError):
    """Values do not have the shape of the blob they are put into."""


class TypeMismatchError(UsageError, TypeError, ValueError):
    """Values that are no numbers, or something used as what it is not."""


class NoCopyError(UsageError, TypeError, RuntimeError):
    """A net, a solver or a blob is to be pickled or copied."""


class Source(Protocol):
    """What a blob asks for its arrays."""

    def tensor(self, key: Any, diff: bool) -> Tensor:
        """The tensor that stands for a blob now."""

    def look(self, tensor: Tensor) -> np.ndarray[Any, Any]:
        """Its host array."""

    def put(self, tensor: Tensor, values: Any) -> None:
        """Write it."""

    def home(self, tensor: Tensor) -> Any:
        """The device's own array, holding the newest values (for DLPack)."""

    def reshape(self, key: Any, shape: Shape) -> None:
        """Give a blob another shape, until the next forward pass settles all shapes, or a parameter other axes."""


class Blob(Axes):
    """A blob or a parameter: values and their gradient under one name.

    ``data`` and ``diff`` are arrays in plain order (N C H W). What is written into them, is what the next forward,
    backward or update uses. A blob stays usable when its net is gone.
    """

    __slots__ = ("__weakref__", "_key", "_source", "_title")

    def __init__(self, source: Source, key: Any, title: str) -> None:
        self._source, self._key, self._title = source, key, title

    @property
    def shape(self) -> Shape:
        """Length of every axis."""
        return self._source.tensor(self._key, False).shape

    @property
    def data(self) -> np.ndarray[Any, Any]:
        """The values. Assigning copies into them: the shape has to fit (as NumPy broadcasts)."""
        source = self._source
        return source.look(source.tensor(self._key, False))

    @data.setter
    def data(self, values: Any) -> None:
        self._fill(False, values)

    @property
    def diff(self) -> np.ndarray[Any, Any]:
        """The gradient: what the last backward left here, or what the next one shall start from."""
        source = self._source
        return source.look(source.tensor(self._key, True))

    @diff.setter
    def diff(self, values: Any) -> None:
        self._fill(True, values)

    def put(self, values: Any, *, diff: bool = False) -> None:
        """Copy an array into the values, or the gradient, where none but the blob's own shape will do.

        Raises:
            ShapeMismatchError, TypeMismatchError: it has another shape, or is no array of numbers.
        """
        tensor = self._source.tensor(self._key, diff)
        if not (isinstance(values, np.ndarray) and values.shape == tensor.shape):
            shape = shape_of(values, repr(self))
            if shape != self.shape:
                got, wanted = (" ".join(map(str, s)) or "one number" for s in (shape, self.shape))
                raise ShapeMismatchError(f"{self!r}: it has the shape {wanted}, the array given has {got}")
        self._source.put(tensor, fitting(values, tensor, repr(self)))

    def _fill(self, diff: bool, values: Any) -> None:
        tensor = self._source.tensor(self._key, diff)
        self._source.put(tensor, fitting(values, tensor, self._title))

    def reshape(self, *shape: int) -> None:
        """Give the blob another shape. The shapes of the layers behind it follow in the next forward (or net.reshape).

        A parameter keeps its values, along the axes asked for, here and in files; its layer computes as before.

        Raises:
            ShapeMismatchError: an axis is negative, or a parameter would have another number of values.
        """
        given = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], Sequence) else shape
        try:
            dims = tuple(operator.index(n) for n in given)
        except TypeError:
            raise TypeMismatchError(f"{self._title}: reshape wants whole numbers, got {given}") from None
        if any(n < 0 for n in dims):
            raise ShapeMismatchError(f"{self._title}: reshape to {dims}: no axis can be negative")
        self._source.reshape(self._key, dims)

    def _axis(self, axis: int) -> int:
        rank = len(self.shape)
        if rank > 4:
            raise ShapeMismatchError(f"{self._title} has {rank} axes: num, channels, height, width need at most 4")
        return super()._axis(axis)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        array = self.data
        if dtype is not None and np.dtype(dtype) != array.dtype:
            if copy is False:
                raise ShapeMismatchError(f"{self._title} holds {array.dtype}: as {np.dtype(dtype)} it has to be copied")
            return array.astype(dtype)
        return array.copy() if copy else array

    def __dlpack__(self, **keywords: Any) -> Any:
        return self._source.home(self._source.tensor(self._key, False)).__dlpack__(**keywords)

    def __dlpack_device__(self) -> tuple[int, int]:
        place: tuple[int, int] = self._source.home(self._source.tensor(self._key, False)).__dlpack_device__()
        return place

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        not_copied(self)

    def __repr__(self) -> str:
        return f"<{self._title} {' '.join(map(str, self.shape)) or 'one number'}>"


def not_copied(thing: object) -> NoReturn:
    """Refuse to pickle or deepcopy something that is bound to a device."""
    raise NoCopyError(
        f"{thing!r} cannot be pickled or copied, it is bound to a device: copy the values (blob.data.copy(), net.save)"
    )


def _numbers(array: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    """Objects and texts that stand for numbers, as numbers."""
    if array.dtype.kind not in "OSU":  # complex numbers, dates, records
        raise TypeError
    return array.astype(dtype)


def shape_of(values: Any, title: str) -> Shape:
    """The shape that ``values`` have as an array.

    Raises:
        TypeMismatchError: rows of different lengths have none.
    """
    try:
        return np.shape(values)
    except ValueError:
        raise TypeMismatchError(f"{title} takes numbers of one shape, got rows of different lengths") from None


def fitting(values: Any, tensor: Tensor, title: str) -> np.ndarray[Any, Any]:
    """``values`` as an array of the tensor's shape and type.

    Raises:
        ShapeMismatchError, TypeMismatchError: they cannot become one.
    """
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "biuf":
            array = _numbers(array, tensor.dtype)
    except (TypeError, ValueError):
        what = getattr(values, "dtype", type(values).__name__)
        raise TypeMismatchError(f"{title} takes numbers of one shape, got {what}") from None
    if array.shape == tensor.shape:
        return array
    try:
        return np.broadcast_to(array, tensor.shape)
    except ValueError:
        got, wanted = (" ".join(map(str, s)) or "one number" for s in (array.shape, tensor.shape))
        raise ShapeMismatchError(f"{title} has the shape {wanted}, the array given has {got}") from None


__all__ = [
    "Blob",
    "NoCopyError",
    "ShapeMismatchError",
    "Source",
    "TypeMismatchError",
    "fitting",
    "not_copied",
    "shape_of",
]
