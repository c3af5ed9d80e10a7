"""Memory, planned ahead: every tensor that lives only within a run gets a place in one arena.

Two tensors may share bytes if their lives do not overlap. A kernel of ``IN_PLACE`` may write over the input it reads
last. Places are given largest first, at the lowest offset that is free for the whole life.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..device import Device
from ..kernels import IN_PLACE
from ..program import Call, Program
from ..types import PERSISTENT, Spec, Tensor

ALIGNMENT = 64


def size_of(spec: Spec, device: Device | None) -> int:
    """Bytes of an array, in the layout the device gave it."""
    measure = getattr(device, "nbytes", None)
    return int(measure(spec)) if measure is not None else spec.nbytes


def aligned(nbytes: int) -> int:
    """Rounded up to the alignment of every tensor."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def places(members: Sequence[Tensor]) -> tuple[list[int], int]:
    """The bytes at which tensors of a column begin, each on a cache line of its own, and the bytes of all."""
    found, at = [], 0
    for tensor in members:
        found.append(at)
        at += aligned(tensor.spec.nbytes)
    return found, at


@dataclass
class Plan:
    """Where everything of a program lies.

    offsets    byte offset in the arena of every transient tensor
    arena      bytes of the arena
    naive      bytes the same tensors would take with memory of their own each
    scratch    bytes of the one scratch area that all calls share
    held       bytes of tensors that own their memory: parameters, states, feeds, and what is kept
    """

    offsets: dict[Tensor, int] = field(default_factory=dict)
    arena: int = 0
    naive: int = 0
    scratch: int = 0
    held: int = 0

    @property
    def total(self) -> int:
        """All bytes a session of the program takes."""
        return self.arena + self.scratch + self.held


@dataclass(eq=False)
class _Slot:
    """Tensors that lie over each other, from the first call that writes one to the last that reads one."""

    nbytes: int
    first: int
    last: int
    tensors: list[Tensor]


def plan(program: Program, device: Device | None = None) -> Plan:
    """Place every transient tensor of the program."""
    inside = {t: flat for flat, members in program.flats.items() for t in members}
    held = {t for t in program.tensors() if (t.kind in PERSISTENT or t in program.keeps) and t not in inside}
    slots = _slots(program, held, inside, device)
    result = Plan(held=sum(aligned(size_of(t.spec, device)) for t in held))
    result.naive = sum(aligned(size_of(t.spec, device)) for slot in slots for t in slot.tensors)
    taken = np.empty((4, len(slots)), np.int64)  # first and last call, offset and end of every slot that has its place
    for count, slot in enumerate(sorted(slots, key=lambda s: (-s.nbytes, s.first))):
        offset = _lowest(taken[:, :count], slot)
        taken[:, count] = slot.first, slot.last, offset, offset + slot.nbytes
        result.offsets.update(dict.fromkeys(slot.tensors, offset))
        result.arena = max(result.arena, offset + slot.nbytes)
    for flat, members in program.flats.items():
        if flat in result.offsets:
            result.offsets.update(zip(members, (result.offsets[flat] + at for at in places(members)[0]), strict=True))
    if device is not None:
        result.scratch = max((device.workspace(call) for call in program.calls), default=0)
    return result


def _lowest(taken: npt.NDArray[np.int64], slot: _Slot) -> int:
    """The lowest offset at which the slot overlaps nothing that lives when it does."""
    first, last, begin, end = taken
    live = np.flatnonzero((last >= slot.first) & (first <= slot.last))
    if not live.size:
        return 0
    order = live[np.argsort(begin[live], kind="stable")]
    filled = np.maximum.accumulate(end[order])
    free = np.concatenate([[0], filled[:-1]])
    gaps = np.flatnonzero(begin[order] - free >= slot.nbytes)
    return int(free[gaps[0]] if gaps.size else filled[-1])


def _slots(program: Program, held: set[Tensor], inside: Mapping[Tensor, Tensor], device: Device | None) -> list[_Slot]:
    """What needs a place, in order of its making. ``inside``: of what lies beside others the flat tensor, whose place
    it shares."""
    first: dict[Tensor, int] = {}
    last: dict[Tensor, int] = {}
    for i, call in enumerate(program.calls):
        for tensor in call.tensors():
            owner = inside.get(tensor.root, tensor.root)
            first.setdefault(owner, i)
            last[owner] = i
    slot_of: dict[Tensor, _Slot] = {}
    for i, call in enumerate(program.calls):
        for root in dict.fromkeys(t.root for t in call.writes()):
            out = inside.get(root, root)
            if out in held or out in slot_of:
                continue
            over = _in_place(call, i, out, last, held)
            if over is not None:
                slot = slot_of[over]
                slot.last = max(slot.last, last[out])
                slot.tensors.append(out)
            else:
                slot = _Slot(aligned(size_of(out.spec, device)), first[out], last[out], [out])
            slot_of[out] = slot
    return list(dict.fromkeys(slot_of.values()))


def _in_place(call: Call, i: int, out: Tensor, last: dict[Tensor, int], held: set[Tensor]) -> Tensor | None:
    """The input of the call whose bytes ``out`` may take over, if there is one."""
    names = call.op.over or IN_PLACE.get(call.op.name)
    if names is None or "cut" in call.attrs:  # one part of a tensor would lie over another
        return None
    source, target = names
    written = call.argument(target)
    if not isinstance(written, Tensor) or written.root is not out:
        return None
    given = call.argument(source)
    roots = [t.root for t in call.reads()]
    for x in given if isinstance(given, tuple) else (given,):
        if (
            isinstance(x, Tensor)
            and x.root not in held
            and last.get(x.root) == i  # what lies beside others has no place of its own
            and x.shape == written.shape
            and x.root.spec.nbytes == out.spec.nbytes
            and x.dtype == written.dtype
            and x.spec.layout == written.spec.layout
            and roots.count(x.root) == 1
        ):
            return x.root
    return None
