"""A stand-in for the part of CuPy that layers_cuda uses. Arrays are NumPy memory, kernels run on the CPU.

Streams are those of fakestream, kernels are compiled in cpukernels. What CuPy or CUDA refuse is refused here.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from cpukernels import compiled
from fakestream import CUDARuntimeError, Event, Graph, Stream, hold, refuse_in_capture, submit

ROOT = Path(__file__).resolve().parents[2]
FREE = 8 << 30
"""Bytes the stand-in device has; a larger request fails as CuPy's does."""

__version__ = "14.2.0"


class CUDADriverError(RuntimeError):
    """What CuPy raises for a failing call of the driver."""


class OutOfMemoryError(MemoryError):
    """What CuPy's pool raises."""


class Device:
    """The one stand-in device."""

    def __init__(self, device: int = 0) -> None:
        self.id = device

    def use(self) -> None:
        if self.id >= runtime.getDeviceCount():
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    @property
    def compute_capability(self) -> str:
        return "90"


# --------------------------------------------------------------------------------------------------------------- arrays
class _Pointer:
    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.ptr, self.device_id = array.ctypes.data, 0


class ndarray:  # noqa: N801  (CuPy's name)
    """Device memory: what layers_cuda may ask of it, and nothing else. NumPy takes it where tests ask for that."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, host: np.ndarray[Any, Any], base: Any = None) -> None:
        self._host, self.base = host, base

    def _made(self, host: np.ndarray[Any, Any]) -> ndarray:
        return ndarray(host, self if self.base is None else self.base)

    @property
    def data(self) -> Any:
        return _Pointer(self._host)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._host.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._host.dtype

    @property
    def size(self) -> int:
        return self._host.size

    @property
    def nbytes(self) -> int:
        return self._host.nbytes

    @property
    def ndim(self) -> int:
        return self._host.ndim

    @property
    def flags(self) -> Any:
        return SimpleNamespace(c_contiguous=self._host.flags.c_contiguous)

    def reshape(self, *shape: Any) -> ndarray:
        return self._made(self._host.reshape(*shape))

    def view(self, dtype: Any) -> ndarray:
        return self._made(self._host.view(dtype))

    def __getitem__(self, part: Any) -> ndarray:
        parts = part if isinstance(part, tuple) else (part,)
        if any(not isinstance(p, int | slice) for p in parts):
            raise TypeError("an index that launches a kernel")
        return self._made(self._host[(*parts, ...)])

    def __len__(self) -> int:
        return len(self._host)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
        asking = sys._getframe(1)
        while asking.f_back is not None and "numpy" in Path(asking.f_code.co_filename).parts:
            asking = asking.f_back
        if any(Path(asking.f_code.co_filename).is_relative_to(ROOT / name) for name in ("layers_cuda", "netrun")):
            raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")
        made = self._host if dtype is None else self._host.astype(dtype, copy=False)
        return made.copy() if copy else made

    def _no(self, *_: Any) -> Any:
        raise TypeError("this launches a kernel of CuPy or waits for the device")

    __bool__ = __float__ = __int__ = __index__ = __eq__ = __add__ = __mul__ = __setitem__ = _no  # type: ignore[assignment]

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> Any:
        refuse_in_capture("reading an array")
        (stream or Stream.null).synchronize()
        return np.array(self._host)

    def set(self, values: Any, stream: Any = None) -> None:
        if not isinstance(values, np.ndarray) or (values.shape, values.dtype) != (self.shape, self.dtype):
            raise ValueError("set() wants a NumPy array of the same shape and type")
        refuse_in_capture("a copy from pageable memory")
        self._host[...] = values


def empty(shape: Any, dtype: Any = "float64") -> Any:
    """Uninitialised device memory, 256-byte aligned."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape, dtype=np.int64))
    if count * dtype.itemsize > FREE:
        raise OutOfMemoryError(f"Out of memory allocating {count * dtype.itemsize:,} bytes")
    block = np.empty(count * dtype.itemsize + 256, np.uint8)
    hold(block)
    shift = -block.ctypes.data % 256
    return ndarray(block[shift : shift + count * dtype.itemsize].view(dtype).reshape(shape))


def asarray(values: Any, dtype: Any = None) -> Any:
    """A device copy."""
    host = np.asarray(values, dtype)
    made = empty(host.shape, host.dtype)
    np.asarray(made)[...] = host
    return made


def zeros(shape: Any, dtype: Any = "float64") -> Any:
    """Device memory of zeros."""
    return asarray(np.zeros(shape, dtype))


def asnumpy(array: Any) -> Any:
    """A host copy."""
    return array.get()


class Pinned(np.ndarray):
    """Page-locked host memory."""

    @property
    def ptr(self) -> int:
        return int(self.ctypes.data)


# -------------------------------------------------------------------------------------------------------------- kernels
_functions: dict[int, tuple[str, Any]] = {}


class _Function:
    """What RawModule.get_function gives: the handle, and a limit that can be set."""

    def __init__(self, name: str, call: Any) -> None:
        self.max_dynamic_shared_size_bytes = 48 * 1024
        handle = len(_functions) + 1
        _functions[handle] = (name, call)
        self.kernel = SimpleNamespace(ptr=handle)


class RawModule:
    """CUDA source compiled for the CPU."""

    def __init__(self, *, code: str, options: Sequence[str] = (), **_: Any) -> None:
        self.library = compiled(code)

    def get_function(self, name: str) -> Any:
        call = getattr(self.library, "launch_" + name, None)
        if call is None:
            raise CUDADriverError("CUDA_ERROR_NOT_FOUND: named symbol not found")
        call.restype = ctypes.c_char_p
        return _Function(name, call)


def _launch_kernel(
    f: int, gx: int, gy: int, gz: int, bx: int, by: int, bz: int, shared: int, stream: int, params: int, extra: int
) -> None:
    name, call = _functions[f]
    few = gx < 2**31 and max(gy, gz) <= 65535 and bz <= 64 and bx * by * bz <= 1024 and shared <= 48 * 1024
    if not few or min(gx, gy, gz, bx, by, bz) < 1 or stream == 0:
        raise CUDADriverError("CUDA_ERROR_INVALID_VALUE: invalid argument")
    sizes = [ctypes.c_uint(v) for v in (gx, gy, gz, bx, by, bz)]

    def run() -> None:
        complaint = call(*sizes, ctypes.c_size_t(shared), ctypes.c_void_p(params))
        if complaint:
            raise CUDADriverError(f"CUDA_ERROR_LAUNCH_FAILED: {name}: {complaint.decode()}")

    submit(name, run, stream)


# -------------------------------------------------------------------------------------------------------------- runtime
def _memcpy_async(target: int, source: int, nbytes: int, kind: int, stream: int) -> None:
    submit("memcpy", lambda: ctypes.memmove(target, source, nbytes) and None, stream)


def _memset_async(target: int, value: int, nbytes: int, stream: int) -> None:
    submit("memset", lambda: ctypes.memset(target, value, nbytes) and None, stream)


def _synchronize() -> None:
    refuse_in_capture("waiting for the device")


def _properties(device: int) -> dict[str, Any]:
    return {"name": b"stand-in", "multiProcessorCount": 2, "major": 9, "minor": 0, "totalGlobalMem": FREE}


runtime = SimpleNamespace(
    CUDARuntimeError=CUDARuntimeError,
    memcpyAsync=_memcpy_async,
    memsetAsync=_memset_async,
    deviceSynchronize=_synchronize,
    getDeviceCount=lambda: 1,
    getDeviceProperties=_properties,
    memGetInfo=lambda: (FREE, FREE),
    driverGetVersion=lambda: 13000,
    runtimeGetVersion=lambda: 13000,
)
driver = SimpleNamespace(launchKernel=_launch_kernel, CUDADriverError=CUDADriverError)
cuda = SimpleNamespace(
    Stream=Stream,
    Event=Event,
    Device=Device,
    Graph=Graph,
    runtime=runtime,
    driver=driver,
    alloc_pinned_memory=lambda nbytes: np.empty(nbytes, np.uint8).view(Pinned),
    memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
    get_elapsed_time=lambda a, b: 0.01,
)


def get_default_memory_pool() -> Any:
    """The pool, which is empty here."""
    return SimpleNamespace(free_all_blocks=lambda: None, total_bytes=lambda: 0, used_bytes=lambda: 0)
