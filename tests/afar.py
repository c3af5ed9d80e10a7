"""A device whose memory nobody can look into: what a GPU is to netrun, without one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from netrun.cpu.reference import Reference
from netrun.device import Step
from netrun.program import Call


class Hidden:
    """An array of that device."""

    def __init__(self, inside: Any) -> None:
        self.inside = inside


def _open(arg: Any) -> Any:
    if isinstance(arg, tuple):
        return tuple(_open(a) for a in arg)
    return arg.inside if isinstance(arg, Hidden) else arg


class Afar(Reference):
    """The reference device behind handles; ``writes`` and ``reads`` count the transfers."""

    name = "afar"

    def __init__(self) -> None:
        super().__init__()
        self.writes = self.reads = 0

    def array(self, memory: Any, offset: int, spec: Any) -> Any:
        """A handle."""
        return Hidden(super().array(memory, offset, spec))

    def view(self, array: Any, shape: Sequence[int]) -> Any:
        """The same elements under another shape."""
        return Hidden(super().view(array.inside, shape)) if isinstance(array, Hidden) else super().view(array, shape)

    def bind(self, call: Call, args: Sequence[Any], scratch: Any) -> Step:
        """As the reference does."""
        return super().bind(call, [_open(arg) for arg in args], scratch)

    def write(self, array: Any, values: Any) -> None:
        """To the device."""
        self.writes += 1
        super().write(array.inside, values)

    def read(self, array: Any) -> np.ndarray[Any, Any]:
        """From the device."""
        self.reads += 1
        return super().read(array.inside)
