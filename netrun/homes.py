"""Kept values that lie on a device otherwise than people see them: in 16 bits, with channels last or in blocks, scaled.

A net that keeps all its blobs would gain little from 16 bits if every blob were kept in float32 besides. So a device
may say in ``Program.homes`` where it has a kept tensor in a form of its own; whoever looks gets the plain one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .device import Array, Device
from .types import Shape, Spec, resolve_shape


class Seen:
    """An array as people see it, in the place of the device's own.

    Args:
        array: what the device has.
        spec: what it is seen as.
        axes: the axes of ``array`` in the order of those of ``spec``; none if that is its own.
        scale: an array with the number that the values there are multiplied by.
    """

    def __init__(self, device: Device, array: Array, spec: Spec, axes: Shape = (), scale: Array | None = None) -> None:
        self.device, self.array, self.spec, self.axes, self.scale = device, array, spec, axes, scale
        self.shape = spec.shape
        self._lying = tuple(spec.shape[i] for i in np.argsort(axes)) if axes else spec.shape

    def view(self, shape: Sequence[int]) -> Seen:
        """The same elements under another shape."""
        found = copy.copy(self)
        found.shape = resolve_shape(shape, self.spec.count)
        return found

    def read(self) -> np.ndarray[Any, Any]:
        """A host copy."""
        return self._plain(self.device.read(self.array))

    def later(self) -> Callable[[], np.ndarray[Any, Any]]:
        """As ``read``, but waited for only when the function that comes back is called."""
        found = self.device.later(self.array)
        return lambda: self._plain(found())

    def write(self, values: Any) -> None:
        """Put host values in; what is too large for 16 bits becomes infinite."""
        given = np.asarray(values, self.spec.dtype).reshape(self.spec.shape)
        with np.errstate(over="ignore"):
            if self.scale is not None:
                given = given * self.device.read(self.scale)
            if self.axes:
                given = np.ascontiguousarray(given.transpose(np.argsort(self.axes)))
            self.device.write(self.array, given)

    def _plain(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        found = values.astype(self.spec.dtype, copy=False).reshape(self._lying)
        if self.axes:
            found = found.transpose(self.axes)
        if self.scale is not None:
            found = found / self.device.read(self.scale)
        return np.ascontiguousarray(found).reshape(self.shape)


def read(device: Device, array: Array) -> np.ndarray[Any, Any]:
    """A host copy of a device's array, or of what is seen in its place."""
    return array.read() if isinstance(array, Seen) else device.read(array)


def later(device: Device, array: Array) -> Callable[[], np.ndarray[Any, Any]]:
    """As ``read``, but waited for only when the function that comes back is called."""
    return array.later() if isinstance(array, Seen) else device.later(array)


def write(device: Device, array: Array, values: Any) -> None:
    """Copy host values into a device's array, or into what is seen in its place."""
    if isinstance(array, Seen):
        array.write(values)
    else:
        device.write(array, values)


__all__ = ["Seen", "later", "read", "write"]
