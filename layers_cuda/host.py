"""host: a step in Python between two captured graphs. Its inputs are brought over, its outputs sent back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from netrun.program import Call

from .launch import Step

if TYPE_CHECKING:
    from .device import Cuda


def host(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.host, bound. It waits for what was launched before."""
    xs, ys = args
    function = call.attrs["fn"]
    made = [np.zeros(y.shape, y.dtype) for y in ys]

    def step() -> None:
        given = [device.read(x) for x in xs]
        for array in given:
            array.flags.writeable = False  # what is written into a copy would be lost without a word
        function(given, made)
        for y, values in zip(ys, made, strict=True):
            device.write(y, values)

    return step


BODIES: dict[str, Callable[[Cuda, Call, Sequence[Any], Any], Step]] = {"host": host}
WORKSPACE: dict[str, Callable[[Cuda, Call], int]] = {}
