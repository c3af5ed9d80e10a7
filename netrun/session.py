"""A program bound to a device: memory laid out once, every call turned into a function once, then only run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .compiler.passes import constant_calls, drop_unread, elide_copies, filled_calls, renewed_calls
from .compiler.plan import Plan, plan, size_of
from .compiler.together import Column
from .device import Array, Device, Step
from .errors import DataError, OutOfMemoryError
from .homes import later, read, write
from .memory import SHARED, Memory, joined, side_by_side
from .program import Arg, Call, Home, Origin, Program
from .shortage import shortage
from .types import PERSISTENT, Shape, Tensor

Fed = tuple[tuple[int, tuple[Shape, ...]], ...]
"""Positions of data layers, and the shapes that each brings."""


class Room:
    """Memory for what lives within a run: one block for several sessions, if only one of them runs at a time."""

    def __init__(self, device: Device) -> None:
        self.device, self.size, self.block = device, 0, None

    def __call__(self, size: int) -> Any:
        """A block of at least so many bytes."""
        if size > self.size:
            self.block, self.size = self.device.allocate(size), size
        return self.block


@dataclass
class Timing:
    """How long one call took, on average."""

    call: Call
    seconds: float


def chance(program: Program) -> str:
    """What ``deterministic`` holds for in a program, as a line of a log.

    Every device has a kernel that gives the same bits each time for every call; what remains is code that is not ours.
    """
    foreign = dict.fromkeys(str(c.origin.forward) for c in program.calls if c.op.name == "host")
    if not foreign:
        return "deterministic: every layer gives the same bits in every run"
    return f"deterministic: the same bits in every run, but for what these do in Python: {', '.join(foreign)}"


class Session:
    """Run a program again and again.

    Args:
        shared: memory of what several sessions use (parameters, history); one of its own otherwise.
        own: memory of what this session alone carries (states, controls), if it shall outlive the session.
        arena, scratch: give memory of at least so many bytes for what lives within a run, if sessions share it.
        frozen: what is computed from parameters alone is kept from run to run, until a parameter is written through
            a Memory or a Session or updated by one. Not for parameters whose arrays somebody may write into.

    Raises:
        OutOfMemoryError: the planned bytes do not fit.
        DeviceError: the device lacks a kernel.
    """

    def __init__(
        self,
        program: Program,
        device: Device,
        shared: Memory | None = None,
        own: Memory | None = None,
        *,
        arena: Callable[[int], Any] | None = None,
        scratch: Callable[[int], Any] | None = None,
        frozen: bool = False,
    ) -> None:
        self.device = device
        self.shared = shared or Memory(device)
        self.own = own or Memory(device)
        elided, self._alias = elide_copies(program)
        wanted = drop_unread(elided)
        self.program = joined(device.prepare(wanted), device, self._lie)
        constant = constant_calls(self.program, SHARED) if frozen else []
        filled = filled_calls(self.program)
        self._constants = {t.root for call in (*constant, *filled) for t in call.writes()}
        renewed = renewed_calls(self.program, SHARED)
        forms = {t.root for call in self.program.calls if call.op.changes for t in call.writes()}
        self._constants |= {t.root for call in renewed for t in call.writes() if t.root in forms}
        copies = [c for c in constant if c.op.name == "copy" and c.reads()[0].root.kind in SHARED]
        self._packed = {t.root for call in copies for t in call.writes()}
        self.plan: Plan = plan(replace(self.program, keeps=self.program.keeps | self._constants), device)
        self._roots: dict[Tensor, Array] = {}
        self._found: dict[Tensor, Array] = {}
        starting = [(t, value) for t, value in program.initial.items() if t.name not in self.own]
        taken = sum(t.spec.nbytes for t in program.persistent() if t.kind in SHARED and t.name in self.shared)
        try:
            self._arena = (arena or device.allocate)(max(self.plan.arena, 1))
            taken += self.plan.arena
            self._scratch = (scratch or device.allocate)(max(self.plan.scratch, 1))
            taken += self.plan.scratch
            self.steps: list[Step] = [self._bind(call) for call in self.program.calls]
        except OutOfMemoryError as error:
            raise shortage(error, wanted, self.program, self.plan, device, taken) from None
        for tensor, value in starting:
            self.own.write(tensor, value)
        known, once = ({id(call) for call in calls} for calls in ((*constant, *renewed), filled))
        pairs = list(zip(self.program.calls, self.steps, strict=True))
        for step in (s for c, s in pairs if id(c) in once):
            step()
        self._opening: Step | None = device.capture([s for c, s in pairs if id(c) in known]) if known else None
        self._run: Step = device.capture([s for c, s in pairs if id(c) not in known | once])
        self._seen = -1
        changed = (t for call in self.program.calls if call.op.changes for t in call.writes())
        self.learns = any(t.root.kind in SHARED for t in changed)
        """Whether a run changes parameters."""
        self.feeds = {name: self.array(tensor) for name, tensor in self.program.feeds.items()}

    # ------------------------------------------------------------------------------------------------------- memory
    def array(self, tensor: Tensor) -> Array:
        """The device array of a tensor (a view gives a view), or what is seen in its place. Transient tensors hold a
        value only within a run."""
        found = self._found.get(tensor)
        if found is None:
            found = self._find(tensor)
            if tensor.base is None:  # of views there may be a new one whenever somebody asks
                self._found[tensor] = found
        return found

    def _find(self, tensor: Tensor) -> Array:
        target = self._alias.get(tensor.root)
        if target is not None:
            return self.array(target.view(tensor.shape))
        root, program = tensor.root, self.program
        if root in program.homes or root in program.scales:
            seen = self.own.seen(root, program.homes.get(root, Home(root)), program.scales.get(root))
            return seen if tensor.shape == root.shape else seen.view(tensor.shape)
        return self._raw(tensor)

    def _raw(self, tensor: Tensor) -> Array:
        root = tensor.root
        if root not in self._roots:
            self._roots[root] = self._place(root)
        found = self._roots[root]
        return found if tensor.shape == root.shape else self.device.view(found, tensor.shape)

    def _lie(self, sets: list[Column]) -> bool:
        return side_by_side(sets, self.shared, self.own)

    def _place(self, root: Tensor) -> Array:
        if root in self.program.flats and root.kind in PERSISTENT:
            return (self.shared if root.kind in SHARED else self.own).flat(self.program.flats[root])
        if root.kind in SHARED:
            return self.shared.array(root)
        if root.kind in PERSISTENT:
            return self.own.array(root)
        if root in self._packed:
            return self.shared.packed(root)
        if root in self._constants:
            return self.device.array(self.device.allocate(max(size_of(root.spec, self.device), 1)), 0, root.spec)
        if root in self.plan.offsets:
            return self.device.array(self._arena, self.plan.offsets[root], root.spec)
        return self.own.array(root)  # kept: a value with a name, the same memory in every session over ``own``

    def _bind(self, call: Call) -> Step:
        def place(arg: Arg) -> Any:
            if isinstance(arg, tuple):
                return tuple(self._raw(t) for t in arg)
            return None if arg is None else self._raw(arg)

        return self.device.bind(call, [place(arg) for arg in call.args], self._scratch)

    # ---------------------------------------------------------------------------------------------------------- run
    def run(self) -> None:
        """One pass over all calls."""
        if self._opening is not None and self._seen != self.shared.version:
            self._opening()
            self._seen = self.shared.version
        self._run()
        if self.learns:
            self._seen += self._seen == self.shared.version  # what it changed it has brought into all forms
            self.shared.version += 1

    def part(self, wanted: Callable[[Origin], bool]) -> Step:
        """One step that runs only the calls of the wanted origins (a layer's, forward or backward), in order."""
        pairs = zip(self.program.calls, self.steps, strict=True)
        return self.device.capture([step for call, step in pairs if wanted(call.origin)])

    def resolve(self, tensor: Tensor) -> Tensor:
        """The tensor that stands for this one now: itself, where shapes are fixed."""
        return tensor

    @property
    def fed(self) -> Fed:
        """By the position of every data layer that brings other shapes than the first time, those shapes."""
        return ()

    def fit(self, brought: Mapping[int, Sequence[Shape]]) -> None:
        """Go over to other shapes of what data layers bring, by their positions in the file, before it is written.

        Raises:
            ConfigError: a layer behind them does not fit the shapes, or a parameter would need another one.
        """
        raise NotImplementedError("this session has one set of shapes")

    def owner(self, tensor: Tensor) -> Tensor:
        """The tensor whose memory this one is: its own, or that of what it is a copy of."""
        target = self._alias.get(tensor.root)
        return tensor.root if target is None else self.owner(target)

    def feed(self, values: Mapping[str, Any]) -> None:
        """Write the inputs of the next run.

        Raises:
            DataError: an unknown name, or values of another shape.
        """
        for name, value in values.items():
            if name not in self.feeds:
                raise DataError(f'the net has no input "{name}" (its inputs: {", ".join(self.feeds) or "none"})')
            wanted = self.program.feeds[name].shape
            if np.shape(value) != wanted:
                raise DataError(f'input "{name}" has the shape {np.shape(value)}, the net wants {wanted}')
            self.device.write(self.feeds[name], value)

    def read(self, tensor: Tensor) -> np.ndarray[Any, Any]:
        """A host copy of a kept or persistent tensor after a run."""
        return read(self.device, self.array(tensor))

    def later(self, tensor: Tensor) -> Callable[[], np.ndarray[Any, Any]]:
        """As ``read``, but waited for only when the function that comes back is called."""
        return later(self.device, self.array(tensor))

    def write(self, tensor: Tensor, value: Any) -> None:
        """Set a persistent tensor."""
        self.shared.version += tensor.root.kind in SHARED
        write(self.device, self.array(tensor), value)

    def time(self, rounds: int) -> list[Timing]:
        """Mean seconds of every call over some rounds, waiting for the device after each call."""
        spent = [0.0] * len(self.steps)
        for _ in range(rounds):
            for i, step in enumerate(self.steps):
                start = time.perf_counter()
                step()
                self.device.synchronize()
                spent[i] += time.perf_counter() - start
        return [Timing(call, s / rounds) for call, s in zip(self.program.calls, spent, strict=True)]


__all__ = ["SHARED", "Fed", "Memory", "Room", "Session", "Timing", "chance"]
