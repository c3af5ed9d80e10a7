"""Streams, events and graphs of the stand-in for CuPy: when work runs, and what CUDA refuses.

Whatever a stream would do goes through :func:`submit`, so that capture and replay can be told apart from running: while
a stream captures, work is written down and nothing runs, as with CUDA.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


class CUDARuntimeError(RuntimeError):
    """What CuPy raises for a failing call of the runtime."""


Work = Callable[[], None]

_recording: tuple[int, list[Work]] | None = None
"""The stream that captures, and what was launched on it."""

_late: int | None = None
"""Where work waits (:func:`late`): the stream of what names none."""

_queues: dict[int, deque[Work]] = {}
"""By stream, what waits on it."""
_kept: list[Any] = []
"""Memory that waiting work may use."""
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


def hold(memory: Any) -> None:
    """Keep memory for work that waits (:func:`late`); nothing while work runs at once."""
    if _late is not None:
        _kept.append(memory)


def capturing() -> bool:
    """Whether a stream captures."""
    return _recording is not None


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
    if capturing():
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
