"""A stand-in for the part of CuPy that layers_cuda uses. Arrays are NumPy memory, kernels run on the CPU.

Whatever a stream would do goes through :func:`submit`, so that capture and replay can be told apart from running: while
a stream captures, work is written down and nothing runs, as with CUDA. What CuPy or CUDA refuse is refused here.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SHIM = HERE / "cuda_cpu.h"
FLAGS = ("-std=c++20", "-O1", "-fPIC", "-w", "-ffp-contract=off")
COMPILER = shutil.which("g++")
FREE = 8 << 30
"""Bytes the stand-in device has; a larger request fails as CuPy's does."""

__version__ = "14.2.0"


# -------------------------------------------------------------------------------------------------------------- streams
class CUDARuntimeError(RuntimeError):
    """What CuPy raises for a failing call of the runtime."""


class CUDADriverError(RuntimeError):
    """What CuPy raises for a failing call of the driver."""


class OutOfMemoryError(MemoryError):
    """What CuPy's pool raises."""


Work = Callable[[], None]

_recording: tuple[int, list[Work]] | None = None
"""The stream that captures, and what was launched on it."""

_late: int | None = None
"""Where work waits (:func:`late`): the stream of what names none."""

_queues: dict[int, deque[Work]] = {}
_kept: list[Any] = []
log: list[str] = []
"""Names of what ran, in order; tests clear and read it."""


@contextmanager
def late(stream: int) -> Iterator[None]:
    """Within, work on a stream runs as late as CUDA may run it: when somebody waits for it, on the host or on another
    stream. What should have waited for an event and did not works on memory that somebody has changed meanwhile.

    Args:
        stream: of the libraries' work.
    """
    global _late
    _late = stream
    try:
        yield
        for ptr in list(_queues):
            _run_queue(ptr)
    finally:
        _late = None
        _queues.clear()
        _kept.clear()


def _run_queue(stream: int, until: Work | None = None) -> None:
    """Run what waits on a stream, up to a mark; nothing if the mark has been passed."""
    queue = _queues.get(stream, deque())
    while queue and (until is None or until in queue):
        queue.popleft()()


def submit(what: str, work: Work, stream: int | None = None) -> None:
    """Do the work now, or write it down while its stream captures, or let it wait."""

    def run() -> None:
        log.append(what)
        work()

    if _recording is not None and stream in (None, _recording[0]):
        _recording[1].append(run)
    else:
        _enqueue(run, stream)


def _enqueue(run: Work, stream: int | None) -> None:
    if _late is None:
        run()
    else:
        _queues.setdefault(_late if stream is None else stream, deque()).append(run)


def refuse_in_capture(what: str) -> None:
    """What CUDA does with a call that may not be captured."""
    if _recording is not None:
        raise CUDARuntimeError(f"cudaErrorStreamCaptureUnsupported: {what} while a stream captures")


class Graph:
    """Recorded work."""

    def __init__(self, work: Sequence[Work]) -> None:
        self.work = tuple(work)

    def launch(self, stream: Any = None) -> None:
        """Replay it."""
        refuse_in_capture("launching a graph")

        def replay() -> None:
            log.append("graph")
            for run in self.work:
                run()

        _enqueue(replay, None if stream is None else stream.ptr)

    def upload(self, stream: Any = None) -> None:
        """Nothing to do."""


class Event:
    """An event: a mark in what waits on a stream; else over as soon as it is recorded."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self.recorded = self.captured = False
        self.mark: tuple[int, Work] | None = None
        self.timed = not disable_timing

    def record(self, stream: Any = None) -> None:
        ptr = Stream.null.ptr if stream is None else stream.ptr
        self.recorded, self.captured = True, _recording is not None and _recording[0] == ptr
        if _late is not None:
            self.mark = ptr, lambda: None
            _enqueue(self.mark[1], ptr)

    def synchronize(self) -> None:
        refuse_in_capture("waiting for an event")
        if self.captured:
            raise CUDARuntimeError(
                "cudaErrorCapturedEvent: operation not permitted on an event last recorded in a graph"
            )
        if self.mark is not None:
            _run_queue(*self.mark)

    @property
    def done(self) -> bool:
        return self.mark is None or self.mark[1] not in _queues.get(self.mark[0], ())


class Stream:
    """A stream; ``ptr`` tells streams apart."""

    null: Stream
    _made = 0

    def __init__(
        self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: int | None = None
    ) -> None:
        Stream._made += 1
        self.ptr = 0 if null else 0x100 + Stream._made

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def use(self) -> Stream:
        return self

    def synchronize(self) -> None:
        refuse_in_capture("waiting for a stream")
        _run_queue(self.ptr)

    def wait_event(self, event: Event) -> None:
        if _recording is not None and _recording[0] == self.ptr and not event.captured:
            raise CUDARuntimeError("cudaErrorStreamCaptureIsolation: dependency created on uncaptured work")
        mark = event.mark  # as it is recorded now
        if mark is not None:
            _enqueue(lambda: _run_queue(*mark), self.ptr)

    def record(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def begin_capture(self, mode: Any = None) -> None:
        global _recording
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        refuse_in_capture("a second capture")
        _recording = self.ptr, []

    def end_capture(self) -> Graph:
        global _recording
        if _recording is None or _recording[0] != self.ptr:
            raise CUDARuntimeError("cudaErrorIllegalState: the operation cannot be performed in the present state")
        graph, _recording = Graph(_recording[1]), None
        return graph

    def is_capturing(self) -> bool:
        return _recording is not None and _recording[0] == self.ptr


Stream.null = Stream(null=True)


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
    if _late is not None:
        _kept.append(block)
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
def _compiled(code: str) -> ctypes.CDLL:
    """The shared library of one source, from the cache in the system's temp folder or freshly made by g++."""
    if COMPILER is None:
        raise RuntimeError("the stand-in needs g++")
    names = list(
        dict.fromkeys(
            re.findall(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\s*\(', code)
        )
    )
    # C++ names: a kernel may be called like a function of the C library.
    code = re.sub(r'extern\s+"C"\s+__global__', "__global__", code)
    code += "\n" + "\n".join(f"KERNEL_EXPORT({name})" for name in names)
    shim = SHIM.read_text()
    key = hashlib.sha256((code + shim + " ".join(FLAGS)).encode()).hexdigest()[:24]
    target = Path(tempfile.gettempdir()) / f"netrun_cuda_cpu_{os.getuid()}" / f"{key}.so"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(f".{os.getpid()}.part")
        command = [COMPILER, *FLAGS, "-shared", "-include", str(_header(shim, target.parent)), "-x", "c++", "-", "-o"]
        made = subprocess.run([*command, str(part)], input=code, text=True, capture_output=True, check=False)
        if made.returncode:
            raise RuntimeError(f"g++ refuses the kernel:\n{made.stderr[:4000]}")
        part.rename(target)
    return ctypes.CDLL(str(target))


def _header(shim: str, folder: Path) -> Path:
    """The shim with a precompiled form beside it: parsing the C++ library is most of the time of a small file."""
    place = folder / hashlib.sha256((shim + " ".join(FLAGS)).encode()).hexdigest()[:16]
    header, ready = place / "cuda_cpu.h", place / "cuda_cpu.h.gch"
    if not ready.exists():
        place.mkdir(exist_ok=True)
        header.write_text(shim)
        part = place / f"{os.getpid()}.part"
        subprocess.run([str(COMPILER), *FLAGS, "-x", "c++-header", str(header), "-o", str(part)], check=True)
        part.rename(ready)
    return header


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
        self.library = _compiled(code)

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
