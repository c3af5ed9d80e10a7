"""What a device is: something that can hold tensors and bind calls. And how to open one by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from .errors import DeviceError, missing_extra, nearest
from .program import Call, Program
from .types import Spec

Step = Callable[[], None]
Array = Any
"""A device's own handle of a tensor's memory; on the host devices a numpy.ndarray."""


@runtime_checkable
class Device(Protocol):
    """A place where programs run. Nothing runs before ``bind``; nothing is decided after it."""

    name: str
    ahead: int
    """Iterations that the host may be ahead of what it knows: 0 where reading a result costs no waiting."""

    def prepare(self, program: Program) -> Program:
        """The program as this device wants it: fused, with layouts chosen, reorders added. Plain in, plain out.

        What ``program.numerics`` allows is decided here and nowhere else: the calls that come out say it themselves, in
        the element types of their tensors and in attributes that only this device makes and reads.

        Raises:
            DeviceError: the device does not compute in that precision.
        """

    def workspace(self, call: Call) -> int:
        """Scratch bytes the call needs while it runs; all calls share the largest."""

    def allocate(self, nbytes: int) -> Any:
        """A block of memory, at least 64-byte aligned, contents undefined.

        Raises:
            OutOfMemoryError: there is not that much.
        """

    def array(self, memory: Any, offset: int, spec: Spec) -> Array:
        """The tensor of that spec at a byte offset of a block."""

    def view(self, array: Array, shape: Sequence[int]) -> Array:
        """The same elements under another shape."""

    def bind(self, call: Call, args: Sequence[Any], scratch: Any) -> Step:
        """A function without arguments that runs the call on these arrays (tuples and None where the call has them).

        Raises:
            DeviceError: this device has no kernel for the call; the text names both.
        """

    def capture(self, steps: Sequence[Step]) -> Step:
        """All steps as one: a captured graph, or a loop."""

    def write(self, array: Array, values: Any) -> None:
        """Copy host values (anything NumPy can turn into the array's type and count) into the array."""

    def read(self, array: Array) -> np.ndarray[Any, Any]:
        """A host copy of the array, plain layout, finished when this returns."""

    def later(self, array: Array) -> Callable[[], np.ndarray[Any, Any]]:
        """A host copy of what the array holds when everything launched so far is done; the copy is waited for only
        when the function that comes back is called. Launching goes on in the meantime.
        """

    def synchronize(self) -> None:
        """Wait until everything launched so far is done."""


_HOST = {
    "cpu": ("netrun.cpu.fast", "Fast"),
    "reference": ("netrun.cpu.reference", "Reference"),
    "null": ("netrun.cpu.null", "Null"),
}


def open_device(name: str) -> Device:
    """A device by name: "cpu", "reference", "null", "cuda" or "cuda:1".

    Raises:
        DeviceError: there is no such device here; the text says what to install or to write instead.
    """
    kind, _, index = name.partition(":")
    if kind in _HOST and not index:
        module, cls = _HOST[kind]
        device: Device = getattr(importlib.import_module(module), cls)()
        return device
    if kind == "cuda" and (index.isdigit() or not index):
        try:
            module_ = importlib.import_module("layers_cuda.device")
        except ModuleNotFoundError as error:
            if error.name and error.name.startswith("layers_cuda"):
                raise DeviceError(
                    f'device "{name}": this build of netrun has no CUDA layers; use --device cpu'
                ) from None
            raise missing_extra(f'device "{name}"', str(error.name), "cuda13") from None
        opened: Device = module_.open_device(int(index or 0))
        return opened
    known = ["cpu", "reference", "null", "cuda:0", "auto"]
    raise DeviceError(f'there is no device "{name}"{nearest(name, known)} (known: {", ".join(known)})')
