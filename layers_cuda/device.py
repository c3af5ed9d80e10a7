"""Device "cuda:N": memory, transfers and capture of one GPU; the kernels are bound by the families beside this file."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from netrun.errors import DeviceError, OutOfMemoryError
from netrun.kernels import OPS
from netrun.program import Call, Origin, Program
from netrun.types import Spec, Tensor, itemsize, resolve_shape

from . import adding, batch, blas, half, lazy, stacks, summed, turned
from .capture import Bound, Captured, Stepwise
from .choice import VARIABLES, chosen
from .conv import has_plan, takes_parts, takes_sums
from .describe import describe
from .dnn import Dnn, Plan
from .dnn import declare as declare_dnn
from .dnn_ctc import Ctc
from .families import BODIES, WORKSPACE
from .faults import Faults
from .launch import Launcher, Step
from .lt import Lt
from .lt import declare as declare_lt
from .merge import merged
from .plans import Plans
from .prepare import prepare
from .rnn import Stack, Stacks
from .transfer import Downloads, Uploads

OWN_BODIES = {**stacks.BODIES, **batch.BODIES, **adding.BODIES, **summed.BODIES, **turned.BODIES}
OWN_WORKSPACE = {**stacks.WORKSPACE, **batch.WORKSPACE, **summed.WORKSPACE}
"""Of kernels that only this device has, and only ``prepare`` puts into programs."""


_opened: dict[Any, Cuda] = {}
_opening = threading.Lock()
P = ParamSpec("P")
T = TypeVar("T")


def open_device(index: int) -> Cuda:
    """The GPU of that number: the same each time, unless the environment has changed its choices.

    So nets that share parameters are in order, on one stream; and libraries, their memory and plans are there once.

    Raises:
        UsageError: CuPy is not installed; the text holds the pip line.
        DeviceError: there is no such GPU, or no driver for it.
    """
    name = f"cuda:{index}"
    xp = lazy.cupy(f'device "{name}"')
    reason = lazy.usable(xp, index)
    if reason:
        raise DeviceError(f'device "{name}": {reason}')
    key = (xp, index, *(os.environ.get(variable, "") for variable in VARIABLES))
    with _opening:
        if key not in _opened:
            try:
                _opened[key] = Cuda(index, xp)
            except xp.cuda.runtime.CUDARuntimeError as error:
                raise DeviceError(f'device "{name}": {str(error).splitlines()[0]}') from None
        return _opened[key]


def _alone(method: Callable[Concatenate[Cuda, P], T]) -> Callable[Concatenate[Cuda, P], T]:
    """A method during which no other thread uses the GPU, and which calls of this thread then go to."""

    @wraps(method)
    def locked(self: Cuda, /, *args: P.args, **keywords: P.kwargs) -> T:
        with self.lock:
            self.use()
            return method(self, *args, **keywords)

    return locked


class Cuda:
    """One GPU. One thread at a time uses it (``lock``): what another launched meanwhile could end up in a graph.

    Args:
        index: its number.
        xp: the module cupy.
        load: gives NVIDIA's libraries by name (``lazy.library``).

    In the environment, read here: NETRUN_CUDA_DEBUG=1 runs call by call and waits for each, so that an error names its
    call; NETRUN_CUDA_TUNE=1 measures the plans of every convolution and keeps the fastest; NETRUN_CUDA_GEMM=blas keeps
    cuBLASLt out; NETRUN_CUDA_RNN=cudnn gives recurrent layers to cuDNN where it computes the same,
    NETRUN_CUDA_CTC=cudnn those sequences of CTC that it is for; NETRUN_CUDA_ADD=own adds gradients up in kernels of
    their own.
    """

    ahead = 2
    """Iterations the host may be ahead: one is computed while the next batch travels and the one after is read."""

    def __init__(self, index: int, xp: Any, load: Callable[[str], Any] = lazy.library) -> None:
        self.name, self.index, self.xp, self._load = f"cuda:{index}", index, xp, load
        self.debug = os.environ.get("NETRUN_CUDA_DEBUG", "") not in ("", "0")
        self.tune = os.environ.get("NETRUN_CUDA_TUNE", "") not in ("", "0")
        self._gemm = chosen("NETRUN_CUDA_GEMM", "lt", "blas")
        self._recurrent = chosen("NETRUN_CUDA_RNN", "own", "cudnn")
        self._ctc = chosen("NETRUN_CUDA_CTC", "own", "cudnn")
        self._sums = chosen("NETRUN_CUDA_ADD", "library", "own")
        self._here, self.lock = xp.cuda.Device(index), threading.RLock()
        self.use()
        self.stream = xp.cuda.Stream(non_blocking=True)
        facts = xp.cuda.runtime.getDeviceProperties(index)
        self.chip = facts["name"].decode() if isinstance(facts["name"], bytes) else str(facts["name"])
        self.launcher = Launcher(xp, self.stream, int(facts["multiProcessorCount"]))
        self._uploads, self._downloads = Uploads(xp, self.stream), Downloads(xp, self.stream)
        self.faults = Faults(self)

    def use(self) -> None:
        """Make this GPU the one that calls of this thread go to."""
        self._here.use()

    # ------------------------------------------------------------------------------------------------------- libraries
    @cached_property
    def blas(self) -> blas.Blas:
        """cuBLAS.

        Raises:
            DeviceError: it is not installed.
        """
        library = blas.declare(self._load("cublas"))
        return blas.Blas(library, self.stream.ptr, self.allocate(blas.WORKSPACE))

    @cached_property
    def lt(self) -> Lt | None:
        """cuBLASLt; None where it is not wanted, or not installed: cuBLAS then does without."""
        if self._gemm == "blas":
            return None
        try:
            library = declare_lt(self._load("cublasLt"))
            return Lt(library, self.stream.ptr, self.blas.workspace)
        except DeviceError:
            return None

    @cached_property
    def dnn(self) -> Dnn:
        """cuDNN.

        Raises:
            DeviceError: it is not installed.
        """
        return Dnn(declare_dnn(self._load("cudnn")), self.stream.ptr)

    @cached_property
    def rnn(self) -> Stacks:
        """cuDNN's recurrent nets."""
        return Stacks(self.dnn)

    @cached_property
    def ctc(self) -> Ctc | None:
        """cuDNN's CTC, where it is chosen."""
        return Ctc(self.dnn) if self._ctc == "cudnn" else None

    @cached_property
    def plans(self) -> Plans:
        """The plans of convolutions."""
        folder = os.environ.get("NETRUN_CUDA_CACHE", "")
        return Plans(self.dnn, self.chip, self._measure if self.tune else None, Path(folder) if folder else None)

    @contextmanager
    def told(self) -> Iterator[None]:
        """Turn what CUDA reports into an error of ours.

        Raises:
            DeviceError: CUDA reported something; often of an earlier launch, and the GPU is then lost to this process.
        """
        cuda = self.xp.cuda
        try:
            yield
        except (cuda.runtime.CUDARuntimeError, cuda.driver.CUDADriverError) as error:
            hint = "NETRUN_CUDA_DEBUG=1 in the environment waits for every call and names the one that fails"
            raise DeviceError(f"device {self.name}: {str(error).splitlines()[0]}", None, [hint]) from error

    def _measure(self, plan: Plan, best: float = math.inf) -> float:
        """Microseconds of a plan on memory of its own: the best of three, or once where it takes twice the best so far.

        Raises:
            OutOfMemoryError: there is not so much memory.
            DeviceError: it does not run.
        """
        p = plan.problem
        whole = (p.y[0], p.within or p.y[1], *p.y[2:])
        shapes = [p.x, p.w, whole] + ([(p.y[1],)] if p.bias else [])
        arrays = [self.allocate(math.prod(shape) * itemsize(p.dtype)) for shape in shapes]
        step = self.dnn.step(plan, arrays, self.allocate(max(plan.workspace, 1)))
        events = [self.xp.cuda.Event() for _ in range(2)]
        for array in arrays:
            self.launcher.zero(array)()
        step()
        found: list[float] = []
        while not found or (len(found) < 3 and min(found) < 2 * best):
            events[0].record(self.stream)
            step()
            events[1].record(self.stream)
            with self.told():
                self.stream.synchronize()
            found.append(float(self.xp.cuda.get_elapsed_time(*events)) * 1000)
        return min(found)

    # ---------------------------------------------------------------------------------------------------------- memory
    @_alone
    def allocate(self, nbytes: int) -> Any:
        """An uninitialised block of device memory, aligned to 256 bytes.

        Raises:
            OutOfMemoryError: it does not fit.
        """
        try:
            with self.told(), self.stream:
                self._uploads.forget()
                return self.xp.empty(max(int(nbytes), 1), np.uint8)
        except self.xp.cuda.memory.OutOfMemoryError:
            free, total = self.xp.cuda.runtime.memGetInfo()
            text = f"device {self.name}: {nbytes:,} bytes do not fit ({free:,} of {total:,} bytes are free)"
            raise OutOfMemoryError(text, free=int(free)) from None

    def array(self, memory: Any, offset: int, spec: Spec) -> Any:
        """The tensor of that spec at a byte offset of a block."""
        part = memory[offset : offset + spec.nbytes]
        if spec.dtype == half.NAME:
            return half.Brain(part.view(np.dtype("uint16")).reshape(spec.shape))
        return part.view(np.dtype(spec.dtype)).reshape(spec.shape)

    def view(self, array: Any, shape: Sequence[int]) -> Any:
        """The same elements under another shape; one -1 is worked out."""
        return array.reshape(resolve_shape(shape, array.size))

    @_alone
    def write(self, array: Any, values: Any) -> None:
        """Copy host values in; returns before they have arrived, and what is launched later sees them.

        Raises:
            ValueError: another number of values.
        """
        brain = isinstance(array, half.Brain)
        with self.told():
            self._uploads.write(half.words_of(array), half.bits_of(values) if brain else values)

    @_alone
    def read(self, array: Any) -> np.ndarray[Any, Any]:
        """A host copy, made after everything launched so far.

        Raises:
            DataError: a label or an index was out of range in what ran since the last look.
        """
        with self.told():
            values: np.ndarray[Any, Any] = half.words_of(array).get(stream=self.stream)
        self.synchronize()
        return half.values_of(values) if isinstance(array, half.Brain) else values

    @_alone
    def later(self, array: Any) -> Callable[[], np.ndarray[Any, Any]]:
        """A host copy of what the array holds after everything launched so far, waited for when it is asked for.

        The function that comes back raises what ``read`` would.
        """
        with self.told():
            found, check = self._downloads.start(half.words_of(array)), self.faults.later(self._downloads.start)

        def values() -> np.ndarray[Any, Any]:
            with self.told():
                copied = found()
            with self.lock, self.told():
                self.use()
                check()
            return half.values_of(copied) if isinstance(array, half.Brain) else copied

        return values

    @_alone
    def synchronize(self) -> None:
        """Wait until everything launched so far is done.

        Raises:
            DataError: a label or an index was out of range.
        """
        with self.told():
            self.stream.synchronize()
            self.faults.check()

    # --------------------------------------------------------------------------------------------------------- kernels
    @_alone
    def prepare(self, program: Program) -> Program:
        """The program with convolutions that apply the ReLU behind them, and its numerics said by its calls."""
        sizes = self._rnn_sizes if self._recurrent == "cudnn" else None
        return prepare(
            program, lambda call: has_plan(self, call), lambda call: takes_parts(self, call), sizes,
            lambda call: self._sums == "library" and takes_sums(self, call),
        )  # fmt: skip

    def _rnn_sizes(self, stack: Stack) -> tuple[int, int] | None:
        made = self.rnn.made(stack)
        return None if made is None else (made.space, made.reserve)

    @_alone
    def workspace(self, call: Call) -> int:
        """Scratch bytes of the call."""
        measure = WORKSPACE.get(call.op.name) or OWN_WORKSPACE.get(call.op.name)
        return measure(self, call) if measure else 0

    @_alone
    def bind(self, call: Call, args: Sequence[Any], scratch: Any) -> Step:
        """The call on these arrays as a step that launches it.

        Raises:
            DeviceError: there is no kernel for it; the text names the layer.
            OutOfMemoryError: what it needs besides its arrays (tables, a library's workspace) does not fit.
        """
        body = BODIES.get(call.op.name) or OWN_BODIES.get(call.op.name)
        if body is None:
            raise DeviceError(f"layer {call.origin}: device {self.name} has no kernel {call.op.name}")
        try:
            return Bound(call, args, body(self, call, args, scratch))
        except OutOfMemoryError:
            raise  # whoever made the session says what would fit
        except DeviceError as error:
            problem = error.problems[0]
            if call.origin.name and str(call.origin) not in problem.what:
                what = f"layer {call.origin}: {call.op.name} on device {self.name}: {problem.what}"
                raise DeviceError(what, problem.where, problem.notes) from None
            raise

    def part(self, op: str, args: Sequence[Any], origin: Origin, scratch: Any = None, **attrs: Any) -> Step:
        """Another kernel on these arrays, as a part of the body of one that is made of several."""
        call = Call(OPS[op], tuple(_tensors(arg) for arg in args), attrs, origin)
        step: Step = BODIES[op](self, call, args, scratch)
        return step

    @_alone
    def capture(self, steps: Sequence[Step]) -> Step:
        """A CUDA graph of the steps, made when they run for the second time."""
        return Stepwise(self, steps) if self.debug else Captured(self, merged(self, steps))


def _tensors(arg: Any) -> Any:
    if isinstance(arg, tuple):
        return tuple(_tensors(a) for a in arg)
    return None if arg is None else Tensor("", Spec(arg.shape, arg.dtype.name))


__all__ = ["Cuda", "describe", "open_device"]
