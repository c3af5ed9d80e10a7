"""Memory that outlives a run, by the names of tensors; and what of it lies side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .compiler.passes import drop_unread, elide_copies
from .compiler.plan import places, size_of
from .compiler.together import Column, columns, together
from .device import Array, Device
from .homes import Seen
from .program import Home, Program
from .types import PLAIN, Spec, Tensor

SHARED = frozenset({"learned", "statistic", "history"})
"""Kinds that nets of one training share."""


class Memory:
    """Arrays that outlive a run, by tensor name: parameters, solver history. Sessions that get one share it.

    The same name under another shape is the same memory, if that is large enough: what sessions for other shapes need
    (:class:`netrun.varying.Varying`).
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self.version = 0
        """Grows with every change through this object or a session over it."""
        self._blocks: dict[str, tuple[int, Any]] = {}
        self._arrays: dict[tuple[str, Spec], Array] = {}
        self._packed: dict[tuple[str, Spec], Array] = {}
        self._seen: dict[Any, Seen] = {}
        self._reserved: dict[str, tuple[int, Any]] = {}
        self._flat: dict[tuple[str, ...], Array] = {}
        self.foreign: set[tuple[str, Spec]] = set()
        """Arrays in a form that is this device's own."""

    def array(self, tensor: Tensor) -> Array:
        """The tensor's array, made and zeroed when first asked for."""
        found = self._arrays.get((tensor.name, tensor.spec))
        if found is None:
            size, block = self._blocks.get(tensor.name, (-1, None))
            wanted = size_of(tensor.spec, self.device)
            if size < wanted:
                size, block = self._blocks[tensor.name] = self._reserved.pop(tensor.name, (-1, None))
            fresh = size < wanted
            if fresh:
                block = self.device.allocate(max(wanted, 1))
                self._blocks[tensor.name] = wanted, block
                self._flat = {key: flat for key, flat in self._flat.items() if tensor.name not in key}
            found = self._arrays[tensor.name, tensor.spec] = self.device.array(block, 0, tensor.spec)
            if fresh:
                kind = "float32" if "float" in tensor.dtype else tensor.dtype
                zeros = np.zeros(tensor.shape, kind) if tensor.spec.layout == PLAIN else np.zeros(found.shape, "uint8")
                self.device.write(found, zeros)
        return found

    def reserve(self, members: Sequence[Tensor]) -> bool:
        """Set a block aside in which these tensors lie side by side, in this order; False where some have memory.

        They get their parts of it when they need memory. For devices whose blocks can be cut.
        """
        key = tuple(t.name for t in members)
        if key in self._flat:
            return True
        if any(name in self._blocks or name in self._reserved for name in key):
            return False
        starts, size = places(members)
        block = self.device.allocate(size)
        self._flat[key] = self.device.array(block, 0, Spec((size // 4,)))
        self.device.write(self._flat[key], np.zeros(size // 4, "float32"))
        parts = zip(members, starts, (*starts[1:], size), strict=True)
        self._reserved.update({t.name: (end - start, block[start:end]) for t, start, end in parts})
        return True

    def flat(self, members: Sequence[Tensor]) -> Array:
        """The one array in which tensors lie for which ``reserve`` said True. They have memory from now on."""
        for tensor in members:
            self.array(tensor)
        return self._flat[tuple(t.name for t in members)]

    def packed(self, tensor: Tensor) -> Array:
        """A parameter's copy in a layout of the device's own: one for all frozen sessions that want that layout."""
        key = tensor.name, tensor.spec
        if key not in self._packed:
            block = self.device.allocate(max(size_of(tensor.spec, self.device), 1))
            self._packed[key] = self.device.array(block, 0, tensor.spec)
        return self._packed[key]

    def seen(self, tensor: Tensor, home: Home, scale: Tensor | None) -> Seen:
        """What stands for a kept tensor that lies in ``home``, times ``scale``; the same whenever it is asked for."""
        key = tensor.name, tensor.spec, home.tensor.spec, home.axes, scale is not None
        if key not in self._seen:
            if home.tensor is not tensor:
                self.foreign.add((home.tensor.name, home.tensor.spec))
            factor = None if scale is None else self.array(scale)
            array, spec = self.array(home.tensor), home.tensor.spec
            if spec.layout != PLAIN and isinstance(array, np.ndarray):
                device: Any = self.device  # one that lays arrays out knows what is in them
                array = device.laid(array, spec)
            self._seen[key] = Seen(self.device, array, tensor.spec, home.axes, factor)
        return self._seen[key]

    def holds(self, tensor: Tensor) -> bool:
        """Whether the tensor has its array already, in its shape."""
        return (tensor.root.name, tensor.root.spec) in self._arrays

    def __contains__(self, name: str) -> bool:
        return name in self._blocks

    def read(self, tensor: Tensor) -> np.ndarray[Any, Any]:
        """A host copy."""
        return self.device.read(self.array(tensor))

    def write(self, tensor: Tensor, values: Any) -> None:
        """Set from the host."""
        self.version += 1
        self.device.write(self.array(tensor), values)


def side_by_side(sets: Sequence[Column], shared: Memory, own: Memory) -> bool:
    """Lay what outlives a run side by side; whether all of it does lie so now."""
    return all((shared if column[0].kind in SHARED else own).reserve(column) for column in sets)


def joined(prepared: Program, device: Device, lie: Callable[[list[Column]], bool]) -> Program:
    """The prepared program with small updates joined, where that is of use to the device.

    Args:
        lie: as in ``together``.
    """
    return together(prepared, lie) if getattr(device, "joins", False) else prepared


def reserve(programs: Sequence[Program], device: Device, shared: Memory, own: Memory) -> None:
    """Before anything is written to memory: what sessions of these programs will have side by side gets such places."""
    for program in programs if getattr(device, "joins", False) else ():
        for sets in columns(drop_unread(elide_copies(program)[0])):
            side_by_side(sets, shared, own)
