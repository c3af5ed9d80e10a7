"""random: netrun.random's Philox, four words a thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from netrun.program import Call

from .geometry import index_of, indices
from .launch import BLOCK, CTYPES, Kernel, Step

if TYPE_CHECKING:
    from .device import Cuda

_LOW = 0xFFFFFFFF


def random(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.random, bound. The counter is read from the device when the kernel runs."""
    counter, y = args
    seed, stream = call.attrs["seed"], call.attrs["stream"]
    kind = y.dtype.name
    kernel = Kernel("random", "random_numbers", (
        ("INDEX", CTYPES[index_of(y.size)]),
        ("OUT", CTYPES[kind]),
        ("BERNOULLI", str(int(call.attrs["how"] == "bernoulli"))),
        *((("HALF", "1"),) if kind in ("float16", "bfloat16") else ()),
    ))  # fmt: skip
    words = [np.uint32(v) for v in (seed & _LOW, (seed >> 32) & _LOW, stream & _LOW)]
    values = [counter, y, *indices(y.size, [y.size]), np.float32(call.attrs["p"]), *words]
    return device.launcher.step(kernel, device.launcher.blocks(-(-y.size // 4)), BLOCK, values)


BODIES: dict[str, Callable[[Cuda, Call, Sequence[Any], Any], Step]] = {"random": random}
WORKSPACE: dict[str, Callable[[Cuda, Call], int]] = {}
