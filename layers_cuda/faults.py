"""Labels and indices out of range: a kernel writes down what it met, and the host raises when it next looks.

A kernel cannot raise, and waiting for each would cost more than the kernel. So every call that checks its labels has
a slot of 16 bytes (``Fault`` in src/classes.cuh); ``check`` reads all slots at once. What the kernel computes from a
value out of range is 0.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from netrun.errors import DataError
from netrun.program import Origin
from netrun.types import Shape, Spec

if TYPE_CHECKING:
    from .device import Cuda

SLOTS = 64
"""Slots of one block of memory."""

_CLEAN = np.array([2**64 - 1, 0], np.uint64)
Report = Callable[[int, float, int], DataError]


class Faults:
    """The slots of one device."""

    def __init__(self, device: Cuda) -> None:
        self._device = device
        self._blocks: list[Any] = []
        self._reports: list[Report] = []
        self._free: list[int] = []

    def slot(self, origin: Origin, what: str, shape: Shape, limit: int, hint: str = "") -> Any:
        """A slot for one call, to be passed to its kernel; it is given to another when the array that comes back dies.

        Args:
            origin: the layer the message names.
            what: "label" or "index".
            shape: of the tensor of labels.
            limit: values 0 .. limit - 1 are allowed.
            hint: a last line of the message.
        """
        number = self._free.pop() if self._free else len(self._reports)
        block, row = divmod(number, SLOTS)
        if block == len(self._blocks):
            spec = Spec((SLOTS, 2), "uint64")
            self._blocks.append(self._device.array(self._device.allocate(spec.nbytes), 0, spec))
            self._device.write(self._blocks[block], np.tile(_CLEAN, (SLOTS, 1)))

        def report(position: int, value: float, count: int) -> DataError:
            where = ", ".join(str(int(p)) for p in np.unravel_index(position, shape)) if shape else "0"
            notes = (f"{count} of {int(np.prod(shape))} are out of range", *([hint] if hint else []))
            text = f"{what} {value:g} at position {where} is not in 0..{limit - 1}"
            return DataError(f"layer {origin}: {text}" if origin.name else text, None, notes)

        slot = self._blocks[block][row]
        if number < len(self._reports):
            self._reports[number] = report
            self._device.write(slot, _CLEAN)
        else:
            self._reports.append(report)
        weakref.finalize(slot, self._free.append, number).atexit = False
        return slot

    def later(self, copy: Callable[[Any], Callable[[], Any]]) -> Callable[[], None]:
        """As ``check`` does for what was launched so far, but waited for only when the function is called."""
        found = [copy(block) for block in self._blocks]

        def check() -> None:
            if any(values()[:, 1].any() for values in found):
                self.check()

        return check

    def check(self) -> None:
        """Wait for what was launched and raise the first fault that was met; afterwards all slots are clean.

        Raises:
            DataError: a label or an index was out of range; the text is the host devices' own.
        """
        if not self._blocks:
            return
        found = [block.get(stream=self._device.stream) for block in self._blocks]
        self._device.stream.synchronize()
        values = np.concatenate(found)[: len(self._reports)]
        bad = np.flatnonzero(values[:, 1])
        if not bad.size:
            return
        for block in self._blocks:
            self._device.write(block, np.tile(_CLEAN, (SLOTS, 1)))
        first, count = (int(v) for v in values[bad[0]])
        value = np.array(first & 0xFFFFFFFF, np.uint32).view(np.float32)
        raise self._reports[int(bad[0])](first >> 32, float(value), count)
