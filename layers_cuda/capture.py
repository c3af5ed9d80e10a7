"""Steps as one: run call by call the first time, captured as a CUDA graph the second, launched from then on."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from netrun.errors import DeviceError
from netrun.program import Call

from .launch import Step

HOST = "host"
"""The kernel that is a step in Python: it cannot be captured."""


class Bound:
    """A bound call: the body that launches it, and the call and its arrays for whoever looks at a list of steps."""

    __slots__ = ("args", "body", "call")

    def __init__(self, call: Call, args: Sequence[Any], body: Step) -> None:
        self.call, self.args, self.body = call, tuple(args), body

    def __call__(self) -> None:
        self.body()


class RetryError(DeviceError):
    """A call that CUDA refuses to capture, but whose step can do it in another way.

    ``another``: makes the step go on to that; False where there is none.
    """

    def __init__(self, error: DeviceError, another: Callable[[], bool]) -> None:
        problem = error.problems[0]
        super().__init__(problem.what, problem.where, problem.notes)
        self.another = another


class Captured:
    """Steps that run as CUDA graphs: one, or one for each stretch between steps that run in Python."""

    def __init__(self, device: Any, steps: Sequence[Step]) -> None:
        self._device = device
        self.parts: list[Step] = []
        """Segments and host steps in turn."""
        stretch: list[Step] = []
        for step in steps:
            if isinstance(step, Bound) and step.call.op.name == HOST:
                if stretch:
                    self.parts.append(Segment(device, stretch))
                self.parts.append(step.body)
                stretch = []
            else:
                stretch.append(step.body if isinstance(step, Bound) else step)
        if stretch:
            self.parts.append(Segment(device, stretch))

    def __call__(self) -> None:
        with self._device.lock, self._device.told():
            for part in self.parts:
                self._device.use()  # a step in Python may have worked with another GPU
                part()


class Segment:
    """Steps that become one CUDA graph.

    The first run is call by call: libraries set themselves up in their first call, which must not be captured.
    A capture runs nothing by itself. What changes from run to run is in device memory, so one graph serves for ever.

    Attributes:
        graph: None until the second run.
    """

    def __init__(self, device: Any, steps: Sequence[Step]) -> None:
        self._device, self._steps = device, tuple(steps)
        self.graph: Any = None
        self._warm = self._plain = False

    def __call__(self) -> None:
        if self.graph is None and self._warm and not self._plain:
            self.graph = self._capture()
        if self.graph is not None:
            self.graph.launch(self._device.stream)
            return
        for step in self._steps:
            step()
        self._warm = True

    def _capture(self) -> Any:
        """The graph; None, with a warning, where CUDA refuses to capture one of the calls."""
        stream = self._device.stream
        failed: BaseException | None = None
        with _nothing_collected():
            stream.begin_capture()
            try:
                for step in self._steps:
                    step()
            except BaseException as error:  # whatever a library raises, and Ctrl-C: the capture must be ended first
                failed = error
            try:
                graph = stream.end_capture()
            except self._device.xp.cuda.runtime.CUDARuntimeError as error:
                graph, failed = None, failed or error
        if failed is None:
            return graph
        if not isinstance(failed, Exception):
            raise failed
        if isinstance(failed, RetryError) and failed.another():
            return None  # this run is call by call once more: what is new sets itself up
        self._plain = True
        text = str(failed).partition("\n")[0]
        warnings.warn(f"device {self._device.name} runs call by call, without a CUDA graph: {text}", stacklevel=3)
        return None


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Python's collector stands still. What it finds may be a library's handle or memory of a GPU; to give those back
    waits for the whole device, and that breaks off a capture, whichever thread does it."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


class Stepwise:
    """Steps that run one by one, waiting for each: an error is reported for the call that made it."""

    def __init__(self, device: Any, steps: Sequence[Step]) -> None:
        self._device, self._steps = device, tuple(steps)

    def __call__(self) -> None:
        with self._device.lock:
            self._run()

    def _run(self) -> None:
        for number, step in enumerate(self._steps):
            try:
                self._device.use()
                step()
                self._device.stream.synchronize()
            except (RuntimeError, DeviceError) as error:
                name = f"call {number}"
                if isinstance(step, Bound):
                    name += f", {step.call.origin}: {step.call}"
                raise DeviceError(f"device {self._device.name}: {name}", None, [str(error)]) from error
