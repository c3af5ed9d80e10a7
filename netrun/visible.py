"""Memory that people look into: host arrays with a home on any device, and blobs, the pairs of them under a name.

On a host device an array is the memory itself. Elsewhere, and where a host device keeps it in a layout of its own,
reading one brings the value over. From then on the host copy is the newer one: it goes back to the device before the
next run, and a copy that somebody still holds is renewed after it, so that holding ``blob.data`` means the same on
every device.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Container, Mapping, Sequence
from typing import Any, NoReturn, Protocol

import numpy as np

from .device import Array, Device
from .errors import UsageError
from .homes import read, write
from .session import Memory
from .types import PLAIN, Axes, Shape, Spec, Tensor


class ShapeMismatchError(UsageError, ValueError):
    """Values do not have the shape of the blob they are put into."""


class TypeMismatchError(UsageError, TypeError, ValueError):
    """Values that are no numbers, or something used as what it is not."""


class NoCopyError(UsageError, TypeError, RuntimeError):
    """A net, a solver or a blob is to be pickled or copied."""


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
    "Visible",
    "fitting",
    "not_copied",
    "shape_of",
]
