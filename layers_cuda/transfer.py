"""Values to the device, and back without waiting: through page-locked memory; the host goes on while they travel.

A value that is written once, or is small, goes through a ring of page-locked slots on the stream everything runs on. A
large one that is written again and again (a batch) gets two slots of its own and two homes on the device: while one
iteration runs, the next batch already travels on a stream of its own; only a copy within the device waits its turn.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

SLOT = 4 << 20
"""Bytes of one slot of the ring."""

SLOTS = 4
SMALL = 256
"""Bytes up to which a value takes a small slot: learning rate, iteration number."""

SMALL_SLOTS = 64
LARGE = 1 << 20
"""Bytes from which a value that is written again and again gets slots of its own."""

OFTEN = 4
"""The write from which it does: a parameter is zeroed, filled and perhaps loaded, and that is all."""

TRIED_AGAIN = 1000
"""Writes after which slots of its own are tried again, where there was no memory for them."""

OWNERS = 8
"""Arrays that have slots of their own at a time."""

_TO_DEVICE, _TO_HOST, _WITHIN = 1, 2, 3


class _Slot:
    """Page-locked memory, and the event after which it may be filled again."""

    def __init__(self, xp: Any, nbytes: int) -> None:
        self.memory = xp.cuda.alloc_pinned_memory(nbytes)
        self.host = np.frombuffer(self.memory, np.uint8, nbytes)
        self.address = int(self.memory.ptr)
        self.free = xp.cuda.Event(disable_timing=True)
        self.used = False

    def fill(self, values: np.ndarray[Any, Any]) -> None:
        """Wait until the slot is free, then take the bytes in."""
        if self.used:
            self.free.synchronize()
        self.used = True
        self.host[: values.nbytes] = values


class _Own:
    """Two slots and two device buffers for one array that is written again and again, until its memory is gone.

    The buffers are the side stream's: memory that the pool gives for another stream may still be in use there.
    """

    def __init__(self, xp: Any, array: Any, side: Any) -> None:
        self.memory, nbytes = weakref.ref(_whole(array)), array.nbytes
        with side:
            self.buffers = [xp.empty(nbytes, np.uint8) for _ in range(2)]
        self.slots = [_Slot(xp, nbytes) for _ in range(2)]
        self.arrived = [xp.cuda.Event(disable_timing=True) for _ in range(2)]
        self.read = [xp.cuda.Event(disable_timing=True) for _ in range(2)]
        self.turn = 0


def _whole(array: Any) -> Any:
    """The block that an array is a view of."""
    return array if array.base is None else array.base


class Downloads:
    """Copies device values out without waiting: into page-locked memory, in the order of the stream.

    Args:
        xp: the module cupy.
        stream: the stream everything runs on.
    """

    def __init__(self, xp: Any, stream: Any) -> None:
        self.xp, self.stream = xp, stream
        self._free: dict[int, list[_Slot]] = {}

    def start(self, array: Any) -> Callable[[], np.ndarray[Any, Any]]:
        """Launch the copy of a contiguous array; the function that comes back waits for it, and may be called again."""
        slots = self._free.setdefault(array.nbytes, [])
        slot = slots.pop() if slots else _Slot(self.xp, max(array.nbytes, 1))
        copy, shape, dtype = self.xp.cuda.runtime.memcpyAsync, array.shape, np.dtype(array.dtype)
        copy(slot.address, int(array.data.ptr), array.nbytes, _TO_HOST, self.stream.ptr)
        slot.free.record(self.stream)
        taken: list[np.ndarray[Any, Any]] = []

        def values() -> np.ndarray[Any, Any]:
            if not taken:
                slot.free.synchronize()
                taken.append(slot.host[: array.nbytes].view(dtype).reshape(shape).copy())
                back()
            return taken[0]

        # A slot never leaves these lists for good: freed while its copy is on the way, its memory would be somebody
        # else's when the copy arrives. Its next copy comes on the same stream, so later.
        back = weakref.finalize(values, slots.append, slot)
        back.atexit = False
        return values


class Uploads:
    """Copies host values into device arrays.

    Args:
        xp: the module cupy.
        stream: the stream everything runs on: what is launched on it later sees the values.
    """

    def __init__(self, xp: Any, stream: Any) -> None:
        self.xp, self.stream = xp, stream
        self.side = xp.cuda.Stream(non_blocking=True)
        self._large: list[_Slot] = []
        self._small: list[_Slot] = []
        self._turns = {SLOT: 0, SMALL: 0}
        self._seen: Counter[int] = Counter()
        self._own: dict[int, _Own] = {}

    def write(self, array: Any, values: Any) -> None:
        """Copy ``values``, of the same count, in; they may be changed as soon as this returns.

        Raises:
            ValueError: another count.
        """
        given = np.asarray(values).reshape(array.shape)
        with np.errstate(invalid="ignore"):
            plain = np.ascontiguousarray(given, array.dtype)
        flat = plain.reshape(-1).view(np.uint8)
        address = int(array.data.ptr)
        if flat.nbytes >= LARGE:
            self._seen[address] += 1
            own = self._owner(array, address) if self._seen[address] >= OFTEN else None
            if own is not None:
                self._write_ahead(own, address, flat)
                return
        for begin in range(0, flat.nbytes, SLOT):
            part = flat[begin : begin + SLOT]
            slot = self._slot(SMALL if part.nbytes <= SMALL else SLOT)
            slot.fill(part)
            self._copy(address + begin, slot.address, part.nbytes, _TO_DEVICE, self.stream)
            slot.free.record(self.stream)

    def forget(self) -> None:
        """Give up the slots and buffers of arrays whose memory is gone."""
        gone = [address for address, own in self._own.items() if own.memory() is None]
        if gone:
            self._give_up(*gone)

    def _give_up(self, *addresses: int) -> None:
        self.side.synchronize()  # what is given up may still be travelling
        self.stream.synchronize()
        for address in addresses:
            del self._own[address], self._seen[address]

    def _owner(self, array: Any, address: int) -> _Own | None:
        """The slots of an array; None where there is no memory for any."""
        own = self._own.get(address)
        if own is not None and own.slots[0].host.nbytes >= array.nbytes:  # batches may change their size
            own.memory = weakref.ref(_whole(array))  # a new block may lie where an old one lay
            return own
        self.forget()
        if address in self._own:
            self._give_up(address)
        elif len(self._own) >= OWNERS:
            self._give_up(next(iter(self._own)))
        try:
            made = self._own[address] = _Own(self.xp, array, self.side)
        except (self.xp.cuda.memory.OutOfMemoryError, self.xp.cuda.runtime.CUDARuntimeError):
            self._seen[address] = -TRIED_AGAIN  # the ring serves as well, only later
            return None
        return made

    def _write_ahead(self, own: _Own, address: int, flat: np.ndarray[Any, Any]) -> None:
        i, own.turn = own.turn, 1 - own.turn
        slot, buffer = own.slots[i], own.buffers[i]
        slot.fill(flat)
        self.side.wait_event(own.read[i])  # an event that was never recorded holds nobody up
        self._copy(int(buffer.data.ptr), slot.address, flat.nbytes, _TO_DEVICE, self.side)
        slot.free.record(self.side)
        own.arrived[i].record(self.side)
        self.stream.wait_event(own.arrived[i])
        self._copy(address, int(buffer.data.ptr), flat.nbytes, _WITHIN, self.stream)
        own.read[i].record(self.stream)

    def _copy(self, target: int, source: int, nbytes: int, kind: int, stream: Any) -> None:
        self.xp.cuda.runtime.memcpyAsync(target, source, nbytes, kind, stream.ptr)

    def _slot(self, nbytes: int) -> _Slot:
        ring, most = (self._small, SMALL_SLOTS) if nbytes == SMALL else (self._large, SLOTS)
        turn = self._turns[nbytes]
        self._turns[nbytes] = (turn + 1) % most
        if len(ring) <= turn:
            ring.append(_Slot(self.xp, nbytes))
        return ring[turn]
