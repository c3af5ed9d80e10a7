"""The kernels of layers_cuda alone, on the CPU: NumPy memory between guards, the real launcher, nothing of CuPy.

``Device`` has what the bind functions of layers_cuda ask of a device. Every array lies between two zones of guard
bytes; after each launch the zones must be as they were (``TrespassError``), and the shim must have nothing to complain
of (``KernelError``). Guards are NaN for floats, so that a read outside shows up in the result.
"""

from __future__ import annotations

import ctypes
import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import cpukernels
import fakecupy
import numpy as np
from cases.kernels import KERNELS

from layers_cuda import half, plain
from layers_cuda.faults import Faults
from layers_cuda.launch import Kernel, Launcher, Step
from layers_cuda.source import source_of
from netrun.program import Call
from netrun.types import Spec, resolve_shape

FAMILIES = ("pointwise", "reduce", "update", "pool", "norm", "loss", "shape", "random", "metric", "im2col",
            "sequence", "ctc", "attention")  # fmt: skip
ELSEWHERE = {"conv", "conv_grad_x", "conv_grad_w", "host"}
"""What NVIDIA's libraries and the host do."""
BODIES: dict[str, Callable[..., Any]] = {"gemm": plain.gemm}
WORKSPACE: dict[str, Callable[..., int]] = {}
for _name in FAMILIES:
    _family = importlib.import_module(f"layers_cuda.{_name}")
    BODIES.update(_family.BODIES)
    WORKSPACE.update(_family.WORKSPACE)

CASES = [case for case in KERNELS if case.op not in ELSEWHERE]
"""The rows for own kernels."""

GUARD = 256
"""Bytes of a guard zone; also the alignment of memory, as on a GPU."""


class KernelError(AssertionError):
    """A kernel did what CUDA forbids."""


class TrespassError(AssertionError):
    """A kernel wrote outside its arrays."""


# -------------------------------------------------------------------------------------------------------------- memory
class Memory:
    """Blocks with guard zones."""

    def __init__(self) -> None:
        self.zones: list[np.ndarray[Any, Any]] = []

    def empty(self, nbytes: int, shift: int = 0) -> Any:
        """A block that holds 0xff in every byte (NaN), ``shift`` bytes off the alignment."""
        raw = np.full(nbytes + 4 * GUARD, 0xFF, np.uint8)
        start = -raw.ctypes.data % GUARD + GUARD + shift
        self.zones += [raw[:start], raw[start + nbytes :]]
        return fakecupy.ndarray(raw[start : start + nbytes])

    def check(self, kernel: str) -> None:
        """Look at the zones.

        Raises:
            TrespassError: one has changed.
        """
        for i, zone in enumerate(self.zones):
            if not (zone == 0xFF).all():
                zone[...] = 0xFF
                raise TrespassError(f"{kernel} wrote {'before' if i % 2 == 0 else 'behind'} array {i // 2}")


# -------------------------------------------------------------------------------------------------------------- compile
def compiled(kernel: Kernel) -> Any:
    """The kernel as a C function that gives back what went wrong, or None."""
    return _function(cpukernels.compiled(source_of(kernel.file, kernel.defines)), kernel.name)


def _function(library: ctypes.CDLL, name: str) -> Any:
    function = getattr(library, f"launch_{name}")
    function.restype = ctypes.c_char_p
    return function


def compile_all(kernels: Iterable[Kernel]) -> None:
    """Fill the cache of compiled files with every core."""
    sources = dict.fromkeys(source_of(k.file, k.defines) for k in kernels)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(cpukernels.compiled, sources):
            pass


@contextmanager
def shuffled(seed: int | None) -> Iterator[None]:
    """Run blocks, warps and threads in a random order (None: in order)."""
    before = os.environ.pop("CUDA_CPU_SHUFFLE", None)
    if seed is not None:
        os.environ["CUDA_CPU_SHUFFLE"] = str(seed)
    try:
        yield
    finally:
        os.environ.pop("CUDA_CPU_SHUFFLE", None)
        if before is not None:
            os.environ["CUDA_CPU_SHUFFLE"] = before


class Products:
    """In place of cuBLAS, where a family's kernels stand between products."""

    def matmul(self, a: Any, b: Any, y: Any, ta: bool, tb: bool, precision: Any, add: bool = False) -> Step:
        left, right, home = (np.asarray(m) for m in (a, b, y))

        def step() -> None:
            with np.errstate(all="ignore"):
                product = np.matmul(left.swapaxes(-1, -2) if ta else left, right.swapaxes(-1, -2) if tb else right)
                home[...] = home + product if add else product

        return step


# --------------------------------------------------------------------------------------------------------------- device
class Device:
    """A device that only has the own kernels, gemm's among them.

    Args:
        collect: only write down which kernels are bound (``kernels``); steps do nothing.
        processors: what the launcher plans for.
        shift: bytes by which arrays miss the alignment.
    """

    name = "shim"

    def __init__(self, collect: bool = False, processors: int = 2, shift: int = 0) -> None:
        self.memory, self.collect, self.shift = Memory(), collect, shift
        self.kernels: list[Kernel] = []
        self.stream = SimpleNamespace(ptr=1, synchronize=lambda: None)
        self._functions: list[tuple[str, Any]] = []
        xp = SimpleNamespace(ndarray=fakecupy.ndarray, cuda=SimpleNamespace(
            driver=SimpleNamespace(launchKernel=self._launch), runtime=fakecupy.runtime,
        ))  # fmt: skip
        self.launcher: Any = Launcher(xp, self.stream, processors)
        self.launcher.function = self._function
        self.faults = Faults(self)
        self.blas = Products()
        self.ctc: Any = None

    def _function(self, kernel: Kernel, shared: int = 0) -> Any:
        self.kernels.append(kernel)
        self._functions.append((kernel.name, None if self.collect else compiled(kernel)))
        return SimpleNamespace(kernel=SimpleNamespace(ptr=len(self._functions) - 1))

    def _launch(self, at: int, *sizes: int) -> None:
        *grid, shared, _, given, _ = sizes
        name, function = self._functions[at]
        if function is None:
            return
        complaint = function(*map(ctypes.c_uint, grid), ctypes.c_size_t(shared), ctypes.c_void_p(given))
        if complaint:
            raise KernelError(f"{name}: {complaint.decode()}")
        self.memory.check(name)

    # what bind functions and cases.run_case ask for
    def workspace(self, call: Call) -> int:
        return WORKSPACE.get(call.op.name, lambda device, call: 0)(self, call)

    def bind(self, call: Call, args: Sequence[Any], scratch: Any) -> Step:
        return BODIES[call.op.name](self, call, args, scratch)

    def capture(self, steps: Sequence[Step]) -> Step:
        def run() -> None:
            if not self.collect:
                for step in steps:
                    step()

        return run

    def allocate(self, nbytes: int) -> Any:
        return self.memory.empty(nbytes, self.shift)

    def array(self, memory: Any, offset: int, spec: Spec) -> Any:
        part = memory[offset : offset + spec.nbytes]
        if spec.dtype == half.NAME:
            return half.Brain(part.view("uint16").reshape(spec.shape))
        return part.view(spec.dtype).reshape(spec.shape)

    def view(self, array: Any, shape: Sequence[int]) -> Any:
        return array.reshape(resolve_shape(shape, array.size))

    def prepare(self, program: Any) -> Any:
        return program

    def write(self, array: Any, values: Any) -> None:
        given = half.bits_of(values) if isinstance(array, half.Brain) else np.asarray(values)
        np.asarray(half.words_of(array))[...] = given.reshape(array.shape)

    def read(self, array: Any) -> Any:
        values = np.array(np.asarray(half.words_of(array)))
        return half.values_of(values) if isinstance(array, half.Brain) else values

    def synchronize(self) -> None:
        self.faults.check()
