"""Kernels of ``src/*.cu`` as steps: compiled once, arguments packed once, then one driver call a launch."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from netrun.errors import DeviceError

from .half import words_of
from .source import source_of

Step = Callable[[], None]

BLOCK = 256
"""Threads of a block where nothing asks for another number."""

MAX_SHARED = 48 * 1024
"""Bytes of dynamic shared memory a kernel gets on every chip without asking for more."""

_DEVICE_TO_DEVICE = 3


@dataclass(frozen=True)
class Kernel:
    """One ``extern "C" __global__`` function ``name`` of ``src/<file>.cu``, compiled with these ``#define`` lines."""

    file: str
    name: str
    defines: tuple[tuple[str, str], ...] = ()


def nothing() -> None:
    """The step that does nothing: a kernel over no elements."""


class Launch(partial[Any]):
    """A step that is one call with fixed arguments, mostly bare addresses.

    Attributes:
        keep: what has to stay alive as long as the step, because only its address is among the arguments.
    """

    keep: object = None

    @classmethod
    def of(cls, keep: object, call: Callable[..., Any], *args: Any) -> Launch:
        """``call(*args)`` as a step that keeps ``keep`` alive."""
        made = cls(call, *args)
        made.keep = keep
        return made


class Launcher:
    """Compiles and launches kernels for one device, on one stream.

    Args:
        xp: the module cupy (or a stand-in with the same few names).
        stream: the stream every step launches on.
        processors: multiprocessors of the device.
    """

    def __init__(self, xp: Any, stream: Any, processors: int = 64) -> None:
        self.xp, self.stream, self.processors = xp, stream, processors
        self._launch = xp.cuda.driver.launchKernel
        self._modules: dict[tuple[str, tuple[tuple[str, str], ...]], Any] = {}
        self._functions: dict[Kernel, Any] = {}

    def step(
        self,
        kernel: Kernel,
        grid: tuple[int, ...] | int,
        block: tuple[int, ...] | int,
        args: Sequence[Any],
        shared: int = 0,
    ) -> Step:
        """A launch of ``kernel``, compiled if it is new; a grid of no blocks gives a step that does nothing.

        Args:
            grid, block: one to three numbers, x first.
            args: device arrays (their pointers are passed) and NumPy scalars of the exact C type, in the order of the
                kernel's parameters. Pointers are taken now: an array must stay where it is, so the step keeps it alive.
            shared: bytes of dynamic shared memory.

        Raises:
            TypeError: an argument that is neither; a Python number would travel as eight bytes of whatever it is.
            ValueError: more blocks, threads or shared memory than CUDA allows.
        """
        blocks, threads = _three(grid), _three(block)
        if 0 in blocks:
            return nothing
        count = threads[0] * threads[1] * threads[2]
        if blocks[0] >= 2**31 or max(blocks[1:]) > 65535 or not 0 < count <= 1024 or threads[2] > 64:
            raise ValueError(f"kernel {kernel.name}: CUDA refuses the grid {blocks} of {threads} threads")
        values = [self._packed(kernel, i, arg) for i, arg in enumerate(args)]
        addresses = (ctypes.c_void_p * max(len(values), 1))(*[ctypes.addressof(v) for v in values])
        function = self.function(kernel, shared)
        where = ctypes.addressof(addresses)
        keep = (function, values, addresses, tuple(args))
        handle, stream = function.kernel.ptr, self.stream.ptr
        return Launch.of(keep, self._launch, handle, *blocks, *threads, shared, stream, where, 0)

    def function(self, kernel: Kernel, shared: int = 0) -> Any:
        """The compiled function, a cupy.RawKernel (``.kernel.ptr`` is the driver's handle).

        Args:
            shared: bytes of dynamic shared memory it shall be allowed to have.

        Raises:
            DeviceError: it cannot be compiled (no headers of CUDA, a compiler that does not know the chip) or loaded.
        """
        found = self._functions.get(kernel)
        if found is None:
            key = (kernel.file, kernel.defines)
            module = self._modules.get(key)
            if module is None:
                code = source_of(kernel.file, kernel.defines)
                module = self._modules[key] = self.xp.RawModule(code=code, options=OPTIONS)
            try:
                found = self._functions[kernel] = module.get_function(kernel.name)
            except Exception as error:  # NVRTC's and CuPy's errors have no class in common
                text = str(error).strip().splitlines()[:3] or [type(error).__name__]
                raise DeviceError(f"the kernel {kernel.name} cannot be compiled or loaded", None, text) from error
        if shared > MAX_SHARED and found.max_dynamic_shared_size_bytes < shared:
            found.max_dynamic_shared_size_bytes = shared
        return found

    def blocks(self, count: int, block: int = BLOCK) -> int:
        """Blocks for a grid-stride loop over ``count`` elements: enough to fill the device, 0 for none."""
        return min(-(-count // block), self.processors * 16)

    def zero(self, array: Any) -> Step:
        """A step that sets every byte of a contiguous array to 0."""
        if not array.nbytes:
            return nothing
        call = self.xp.cuda.runtime.memsetAsync
        return Launch.of(array, call, array.data.ptr, 0, array.nbytes, self.stream.ptr)

    def copy(self, source: Any, target: Any) -> Step:
        """A step that copies the bytes of one contiguous device array to another of the same number of bytes, which may
        be the same memory.

        Raises:
            ValueError: the sizes differ.
        """
        if source.nbytes != target.nbytes:
            raise ValueError(f"{source.nbytes} bytes do not go into {target.nbytes}")
        if not source.nbytes or source.data.ptr == target.data.ptr:
            return nothing
        call, where = self.xp.cuda.runtime.memcpyAsync, (target.data.ptr, source.data.ptr)
        return Launch.of((source, target), call, *where, source.nbytes, _DEVICE_TO_DEVICE, self.stream.ptr)

    def _packed(self, kernel: Kernel, position: int, arg: Any) -> Any:
        arg = words_of(arg)
        if isinstance(arg, self.xp.ndarray):
            if not arg.flags.c_contiguous:
                raise ValueError(f"kernel {kernel.name}: argument {position} is not contiguous")
            return ctypes.c_void_p(arg.data.ptr)
        if isinstance(arg, np.generic) and arg.dtype.kind in "iufb":
            return ctypes.create_string_buffer(arg.tobytes(), arg.itemsize)
        raise TypeError(
            f"kernel {kernel.name}: argument {position} is a {type(arg).__name__}, "
            "wanted a device array or a NumPy scalar"
        )


OPTIONS = ("--std=c++17", "-fmad=true")
"""What every kernel is compiled with, besides what cupy adds for the device."""


def sequence(steps: Sequence[Step]) -> Step:
    """The steps as one."""
    fixed = tuple(step for step in steps if step is not nothing)
    if not fixed:
        return nothing
    if len(fixed) == 1:
        return fixed[0]

    def run() -> None:
        for step in fixed:
            step()

    return run


def defines(**values: object) -> tuple[tuple[str, str], ...]:
    """``Kernel.defines`` from keywords."""
    return tuple((name, str(value)) for name, value in values.items())


CTYPES: Mapping[str, str] = {
    "float32": "float", "float64": "double", "float16": "__half", "bfloat16": "__nv_bfloat16",
    "int32": "int", "int64": "long long", "uint8": "unsigned char", "int8": "signed char", "bool": "bool",
}  # fmt: skip
"""The C++ name of every element type."""


def _three(sizes: tuple[int, ...] | int) -> tuple[int, int, int]:
    given = (sizes,) if isinstance(sizes, int) else sizes
    x, y, z = (*map(int, given), 1, 1)[:3]
    return x, y, z
