"""Reads ahead: one thread that makes batches into a short queue, and decoders that help it."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from ..errors import DataError

T = TypeVar("T")


def cores() -> int:
    """Cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


class _Queue(Generic[T]):
    """What the thread and the reader share. It holds no reference to the reader, so a forgotten one is collected."""

    def __init__(self, depth: int) -> None:
        self.items: deque[T | BaseException] = deque()
        self.depth = depth
        self.stopped = False
        self.changed = threading.Condition()

    def put(self, item: T | BaseException) -> bool:
        """Waits for a free place; False if the reader has gone."""
        with self.changed:
            while len(self.items) >= self.depth and not self.stopped:
                self.changed.wait()
            if not self.stopped:
                self.items.append(item)
                self.changed.notify_all()
            return not self.stopped

    def stop(self) -> None:
        with self.changed:
            self.stopped = True
            self.items.clear()
            self.changed.notify_all()


def _run(queue: _Queue[T], produce: Callable[[int], T]) -> None:
    step = 0
    try:
        while queue.put(produce(step)):
            step += 1
    except BaseException as error:
        # Every error, a programming error too, belongs to the caller: in this thread nobody would see it.
        queue.put(error)


class Prefetcher(Generic[T]):
    """``next()`` gives produce(0), produce(1), ... in this order; a thread works up to ``depth`` items ahead.

    An error of ``produce`` comes out of the ``next()`` that asked for that item, and of every later one. Dropping the
    object without ``close()`` ends the thread too, and so does the end of the program: nothing waits for it.
    """

    def __init__(self, produce: Callable[[int], T], depth: int, name: str = "netrun-data") -> None:
        """``produce`` must not refer to the Prefetcher itself."""
        self._queue: _Queue[T] = _Queue(max(1, depth))
        self._thread = threading.Thread(target=_run, args=(self._queue, produce), name=name, daemon=True)
        self._finalizer = weakref.finalize(self, self._queue.stop)
        self._thread.start()

    def next(self) -> T:
        """The next item, waiting for it if need be."""
        queue = self._queue
        with queue.changed:
            while not queue.items:
                if queue.stopped or not self._thread.is_alive():  # the latter: in a child after fork()
                    raise DataError("the thread that reads the data has ended: the source was closed")
                queue.changed.wait(timeout=5)
            item = queue.items[0]
            if isinstance(item, BaseException):
                raise item
            queue.items.popleft()
            queue.changed.notify_all()
            return item

    def close(self) -> None:
        """Stops and joins the thread. Calling it twice is fine."""
        self._finalizer()
        if self._thread is not threading.current_thread():
            self._thread.join()


_pool: ThreadPoolExecutor | None = None
_pool_users = 0
_pool_lock = threading.RLock()


def _leave_pool(wait: bool) -> None:
    global _pool, _pool_users
    with _pool_lock:
        _pool_users -= 1
        pool, _pool = (_pool, None) if not _pool_users else (None, _pool)
    if pool is not None:
        pool.shutdown(wait=wait)


class Decoders:
    """Runs the same work on many records, on several cores.

    All data layers of a process share one pool of cores - 1 threads (the calling thread works too), so that training
    and test nets together never decode with more threads than there are cores. The pool exists from the first use to
    the last close.
    """

    def __init__(self, threads: int | None = None) -> None:
        """``threads``: at most this many at once, the caller's among them; None means one per core."""
        self._width = cores() if threads is None else max(1, min(cores(), threads))
        self._leave: Callable[[bool], object] | None = None

    def each(self, work: Callable[[int], None], count: int) -> None:
        """Calls work(0) .. work(count - 1), in any order. If several fail, raises the error of the lowest number."""
        width = min(self._width, count)
        failed: list[tuple[int, BaseException]] = []

        def share(start: int) -> None:
            for i in range(start, count, width):
                try:
                    work(i)
                except BaseException as error:
                    failed.append((i, error))
                    return

        others = [self._hire().submit(share, start) for start in range(1, width)]
        share(0)
        for other in others:
            other.result()
        if failed:
            raise min(failed, key=lambda f: f[0])[1]

    def close(self) -> None:
        """Leaves the pool; the last one out ends its threads. Calling it twice is fine."""
        if self._leave is not None:
            self._leave(True)
            self._leave = None

    def __del__(self) -> None:
        if self._leave is not None:
            self._leave(False)

    def _hire(self) -> ThreadPoolExecutor:
        global _pool, _pool_users
        with _pool_lock:
            if _pool is None:
                _pool = ThreadPoolExecutor(max(1, cores() - 1), thread_name_prefix="netrun-decode")
            if self._leave is None:
                self._leave = _leave_pool
                _pool_users += 1
            return _pool
