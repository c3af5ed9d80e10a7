"""A kernel as a list of the library's primitives: built from specs alone, bound to memory later, then only run."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from . import dnnl
from .dnnl import ExecArg, Handle, Library, Unsupported
from .memory import Array, chain
from .team import together

LINE = 64

Place = tuple[str, int]
"""Where memory of a kernel lies: (name of an argument, number within it), ("", byte offset in the scratch), or
(CONSTANT, number among the recipe's constants)."""

CONSTANT = "="


@dataclass(frozen=True)
class Operand:
    """An array of a recipe: what the library calls it, and where it lies."""

    md: Handle
    place: Place
    offset: int = 0
    """Bytes from there: of some of the images of an argument, or of some rows of a matrix."""


Bindable = tuple[Handle, list[tuple[int, Operand]], Handle]
"""A primitive, its operands by the library's argument numbers, and how its own scratch lies."""


class Execution(partial):  # type: ignore[type-arg]
    """A bound primitive: calling it costs what a C call costs. It keeps what it points to alive."""

    keep: tuple[Any, ...]


class Recipe:
    """Steps of one kernel. ``scratch`` is how many bytes of scratch they need together."""

    alone = False
    """Whether the steps run in the calling thread only: on small arrays, where waking the others would take longest."""

    def __init__(self, lib: Library) -> None:
        self.lib = lib
        self._areas = 0
        self._pad = 0
        self._constants: list[npt.NDArray[np.float32]] = []
        self._primitives: dict[Handle, Handle] = {}
        self._steps: list[Bindable | list[list[Bindable]] | Callable[..., Any]] = []

    @property
    def scratch(self) -> int:
        """Bytes."""
        return self._areas + self._pad

    def area(self, md: Handle) -> Operand:
        """Scratch memory of that description."""
        at = self._areas
        self._areas += -(-self.lib.nbytes(md) // LINE) * LINE
        return Operand(md, ("", at))

    def constant(self, md: Handle, values: npt.NDArray[Any]) -> Operand:
        """Numbers that are always the same, as an operand."""
        size = values.size * 4
        block = np.empty(size + LINE, np.uint8)
        shift = -block.ctypes.data % LINE
        kept = block[shift : shift + size].view(np.float32)
        kept[:] = values.reshape(-1)
        self._constants.append(kept)
        return Operand(md, (CONSTANT, len(self._constants) - 1))

    def run(self, pd: Handle, operands: Mapping[int, Operand]) -> None:
        """Add a primitive with its operands by the library's argument numbers."""
        self._steps.append(self._bindable(pd, operands))

    def share(self, rows: Sequence[Sequence[tuple[Handle, Mapping[int, Operand]]]]) -> None:
        """Add lists of primitives that run at the same time, each list in order in a thread of its own.

        Raises:
            Unsupported: one takes scratch of its own, of which there is one.
        """
        made = [[self._bindable(pd, operands) for pd, operands in row] for row in rows]
        if any(self.lib.nbytes(pad) for row in made for _, _, pad in row):
            raise Unsupported("scratch")
        self._steps.append(made)

    def _bindable(self, pd: Handle, operands: Mapping[int, Operand]) -> Bindable:
        pad = self.lib.query(pd, dnnl.SCRATCHPAD)
        self._pad = max(self._pad, -(-self.lib.nbytes(pad) // LINE) * LINE)
        if pd not in self._primitives:  # one may run on several parts of an array
            self._primitives[pd] = self.lib.primitive(pd)
        return self._primitives[pd], list(operands.items()), pad

    def host(self, make: Callable[[Callable[[Operand], int], Mapping[str, Any]], Callable[[], Any]]) -> None:
        """Add a step in Python: ``make`` gets the addresses of operands and the arrays by name, and gives the step."""
        self._steps.append(make)

    def reorder(self, source: Operand, target: Operand) -> None:
        """Add a copy from one layout to another."""
        lib = self.lib
        pd = lib.describe("reorder", source.md, lib.engine, target.md, lib.engine, lib.attributes())
        self.run(pd, {dnnl.SRC: source, dnnl.DST: target})

    def as_wanted(self, given: Operand, wanted: Handle) -> Operand:
        """The operand in the layout a primitive wants: itself, or a copy in scratch."""
        if self.lib.same(given.md, wanted):
            return given
        copy = self.area(wanted)
        self.reorder(given, copy)
        return copy

    def made_as(self, home: Operand, made: Handle) -> tuple[Operand, bool]:
        """Where a primitive shall put a result it makes in that layout; True if it has to be moved afterwards."""
        if self.lib.same(home.md, made):
            return home, False
        return self.area(made), True

    def bind(self, arrays: Mapping[str, Sequence[Array]], scratch: Array | None) -> Callable[[], Any]:
        """The steps on these arrays (a tuple a name, one array or many) as one function."""
        base = 0 if scratch is None else scratch.ctypes.data

        def address(operand: Operand) -> int:
            name, number = operand.place
            if name == CONSTANT:
                return operand.offset + int(self._constants[number].ctypes.data)
            return operand.offset + (base + number if not name else int(arrays[name][number].ctypes.data))

        def made(step: Bindable) -> Execution:
            primitive, operands, pad = step
            named = [*operands, (dnnl.SCRATCHPAD, Operand(pad, ("", self._areas)))]
            return execution(self.lib, primitive, [(n, o.md, address(o)) for n, o in named], keep)

        bound: list[Callable[[], Any]] = []
        keep = arrays, scratch, self._constants
        for step in self._steps:
            if callable(step):
                bound.append(step(address, arrays))
            elif isinstance(step, list):
                bound.append(together([[made(one) for one in row] for row in step]))
            else:
                bound.append(made(step))
        step = bound[0] if len(bound) == 1 else chain(bound)
        return _alone(self.lib, step) if self.alone else step


def execution(lib: Library, primitive: Handle, named: Sequence[tuple[int, Handle, int]], keep: Any) -> Execution:
    """A primitive on memory: the library's numbers of its arguments, how they lie, and their addresses in ``keep``."""
    memories = [lib.memory(md, where) for _, md, where in named]
    args = (ExecArg * len(named))()
    for slot, (number, _, _), memory in zip(args, named, memories, strict=True):
        slot.arg, slot.memory = number, memory.value.value
    count = ctypes.c_int(len(named))
    step = Execution(lib.execute, primitive.value, lib.stream, count, args)
    step.keep = (primitive, memories, keep, lib)
    return step


def _alone(lib: Library, step: Callable[[], Any]) -> Callable[[], None]:
    """The step without the library's other threads. How many there are is a setting of the calling thread."""
    threads, use = lib.threads, lib.use_threads

    def run() -> None:
        before = threads()
        use(1)
        try:
            step()
        finally:
            use(before)

    return run
