"""Memory that people look into: host arrays with a home on any device.

On a host device an array is the memory itself. Elsewhere, and where a host device keeps it in a layout of its own,
reading one brings the value over. From then on the host copy is the newer one: it goes back to the device before the
next run, and a copy that somebody still holds is renewed after it, so that holding ``blob.data`` means the same on
every device.
"""

from __future__ import annotations

import sys
from collections.abc import Container, Mapping
from typing import Any

import numpy as np

from .device import Array, Device
from .homes import read, write
from .session import Memory
from .types import PLAIN, Spec, Tensor


class _Copy:
    """A host copy of one array. ``newer``: it may hold what the device does not have yet."""

    def __init__(self, device: Device, home: Array, spec: Spec) -> None:
        self.device, self.home = device, home
        self._host = np.empty(spec.shape, spec.dtype)
        self.current = self.newer = False

    @property
    def host(self) -> np.ndarray[Any, Any]:
        """The host array; whoever opens the copy gets views of it."""
        return self._host

    def open(self) -> np.ndarray[Any, Any]:
        """The host array for somebody who may write into it."""
        if not self.current:
            self.host[...] = read(self.device, self.home).reshape(self.host.shape)
        self.current = self.newer = True
        return self.host[...]

    def held(self) -> bool:
        """Whether an array that was handed out is still in use: every view of ``host`` counts as a reference to it."""
        return sys.getrefcount(self._host) > 2

    def written(self) -> None:
        """The host array holds what the device does not have."""
        self.current = self.newer = True

    def send(self) -> None:
        """Before a run: what was written goes to the device."""
        if self.newer:
            write(self.device, self.home, self.host)
            self.newer = False

    def renew(self) -> None:
        """After a run: the device's value is the newer one."""
        self.current = self.newer = False
        if self.held():
            self.open()


class _Plain(_Copy):
    """The plain memory of something that a host device keeps in a layout of its own: filled when somebody looks."""

    def __init__(self, memory: Visible, tensor: Tensor, home: Array) -> None:
        self.device, self.home = memory.device, home
        self._memory, self._tensor = memory, tensor
        self.current = self.newer = tensor.name in memory  # values from before it was laid out

    @property
    def host(self) -> np.ndarray[Any, Any]:
        """The plain array."""
        return self._memory.window(self._tensor, self._memory.array(self._tensor))

    def open(self) -> np.ndarray[Any, Any]:
        super().open()
        return self.host

    def held(self) -> bool:
        return self._memory.held(self._tensor)


class Visible(Memory):
    """Memory with host copies of the arrays that were looked at."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.users = 1
        """Nets and others that know this memory: what one alone knows changes through it alone."""
        self._windows: dict[str, tuple[Tensor, list[np.ndarray[Any, Any]]]] = {}
        self._copies: dict[tuple[str, Spec], _Copy] = {}

    @property
    def looked(self) -> bool:
        """Whether there are any host copies."""
        return bool(self._copies)

    def look(self, tensor: Tensor, home: Array) -> np.ndarray[Any, Any]:
        """The array behind ``home``, for reading and writing. ``tensor`` names it."""
        if isinstance(home, np.ndarray):
            return home
        key = tensor.name, tensor.spec
        copy = self._copies.get(key)
        if copy is None or copy.home is not home:
            self._forget(tensor, send=True)
            copy = self._copies[key] = _Copy(self.device, home, tensor.spec)
        return copy.open()

    def _forget(self, tensor: Tensor, send: bool) -> None:
        """Drop the copies of a tensor in other shapes: it is the same memory, and what they hold is out of date once
        the shape has changed. ``send``: what was written into them goes there first."""
        for key, copy in list(self._copies.items()):
            if key[0] == tensor.name and key[1] != tensor.spec and not isinstance(copy, _Plain):
                if send:
                    copy.send()
                del self._copies[key]

    def lay(self, tensors: Mapping[Tensor, Array]) -> None:
        """From now on these tensors' values lie in those homes, in layouts of the device's own; what they hold now goes
        there before the next run."""
        for tensor, home in tensors.items():
            self._copies[tensor.name, tensor.spec] = _Plain(self, tensor, home)

    def unlay(self, values: bool = True) -> None:
        """From now on everything lies in plain memory, with its ``values``."""
        for key, copy in list(self._copies.items()):
            if isinstance(copy, _Plain):
                if values:
                    copy.open()
                del self._copies[key]

    def written(self, tensor: Tensor) -> None:
        """The host array of a tensor was written to."""
        copy = self._copies.get((tensor.name, tensor.spec))
        if copy is not None:
            copy.written()

    def held(self, tensor: Tensor) -> bool:
        """Whether somebody holds the window of a tensor."""
        found = self._windows.get(tensor.name)
        return found is not None and found[0] is tensor and sys.getrefcount(found[1][0]) > 2

    def window(self, tensor: Tensor, home: Array) -> np.ndarray[Any, Any]:
        """The host array ``home`` of a tensor that owns it, in a form that tells whether somebody holds on to it."""
        found = self._windows.get(tensor.name)
        if found is None or found[0] is not tensor or found[1][0].shape != home.shape:
            # a view of a view is a view of the first array that is not NumPy's own: of this one, not of the memory
            found = self._windows[tensor.name] = tensor, [np.asarray(memoryview(home))]
        return found[1][0]

    def holding(self) -> set[Tensor]:
        """The tensors whose windows somebody holds; the others' are closed."""
        closed = [name for name, (_, window) in self._windows.items() if sys.getrefcount(window[0]) <= 2]
        for name in closed:
            del self._windows[name]
        self.version += bool(closed)
        return {tensor for tensor, _ in self._windows.values()}

    def moved(self, device: Device) -> Visible:
        """The same values on another device."""
        self.send()
        self.unlay()
        other = Visible(device)
        for (name, spec), array in self._arrays.items():
            if (name, spec) in self.foreign or spec.layout != PLAIN:
                continue
            other.write(Tensor(name, spec), self.device.read(array))
        return other

    def put(self, tensor: Tensor, home: Array, values: Any) -> None:
        """Write to the array behind ``home``; a host copy follows."""
        self._forget(tensor, send=False)
        write(self.device, home, values)
        copy = self._copies.get((tensor.name, tensor.spec))
        if copy is not None:
            copy.newer = False
            copy.renew()

    def release(self, tensor: Tensor, home: Array) -> Any:
        """The device's own array, holding the newest values; whoever gets it may write into it. A host copy if the
        device has none in that form."""
        copy = self._copies.get((tensor.name, tensor.spec))
        if isinstance(copy, _Plain):
            return copy.open()
        if copy is not None:
            copy.send()
            copy.current = False
        return home if hasattr(home, "__dlpack__") else read(self.device, home)

    def send(self, made: Container[str] = ()) -> None:
        """Before a run: everything that was written into host copies goes to the device.

        Args:
            made: names of what the run makes anew, whatever was there.
        """
        for (name, _), copy in self._copies.items():
            if copy.newer and name not in made:
                copy.send()

    def renew(self) -> None:
        """After a run: host copies that nobody holds are out of date, the others are renewed."""
        for copy in self._copies.values():
            copy.renew()

    def adopt(self, tensor: Tensor, other: Visible, theirs: Tensor) -> None:
        """From now on ``tensor`` is the memory that ``theirs`` has in ``other``. Sessions bound before do not know."""
        array = other.array(theirs)
        self.users, other.users = self.users + 1, other.users + 1
        for key in [k for k in self._arrays if k[0] == tensor.name]:
            del self._arrays[key]
        self._blocks[tensor.name] = other._blocks[theirs.name]
        self._arrays[tensor.name, tensor.spec] = (
            array if theirs.shape == tensor.shape else self.device.view(array, tensor.shape)
        )
        copy = other._copies.get((theirs.name, theirs.spec))
        if copy is not None:
            copy.send()
            self._copies[tensor.name, tensor.spec] = copy


__all__ = ["Visible"]
