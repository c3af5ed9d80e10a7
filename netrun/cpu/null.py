"""Device "null": programs are planned, bound and "run" on it without memory or arithmetic.

For measuring what the house itself costs, and for looking at plans of nets that fit no machine at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..device import Step
from ..program import Call, Program
from ..storage import narrowed
from ..types import Spec, resolve_shape
from .host import Array, Host


class Null(Host):
    """Every array is one zero seen under a shape: reading gives zeros, writing only checks the count."""

    name = "null"
    precisions = frozenset({"FP32", "TF32", "BF16", "FP16"})

    def prepare(self, program: Program) -> Program:
        """With the activations that a device would store in 16 bits, so that plans show what they take."""
        return narrowed(program)

    def allocate(self, nbytes: int) -> Array:
        """No memory, whatever the size."""
        return np.zeros(0, np.uint8)

    def array(self, memory: Any, offset: int, spec: Spec) -> Array:
        """Read-only zeros of that shape and type, without memory."""
        return np.broadcast_to(np.zeros((), "uint16" if spec.dtype == "bfloat16" else spec.dtype), spec.shape)

    def view(self, array: Any, shape: Sequence[int]) -> Array:
        """The same under another shape."""
        return np.broadcast_to(np.zeros((), array.dtype), resolve_shape(shape, array.size))

    def bind(self, call: Call, args: Sequence[Any], scratch: Any) -> Step:
        """A step that does nothing."""
        return _nothing

    def capture(self, steps: Sequence[Step]) -> Step:
        """One step that does nothing."""
        return _nothing

    def write(self, array: Any, values: Any) -> None:
        """Refuse what would not fit, drop the rest."""
        np.asarray(values).reshape(array.shape)

    def read(self, array: Any) -> Array:
        """Zeros."""
        return np.zeros(array.shape, array.dtype)


def _nothing() -> None:
    return None
