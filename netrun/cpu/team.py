"""Work on arrays shared out among the cores: NumPy gives up the interpreter's lock while it goes through an array."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .dnnl import BODY, cores, library
from .memory import chain

Step = Callable[[], Any]

WORTH = 256 * 1024
"""Elements from which on waking another thread pays."""


class _Mate(threading.Thread):
    """A thread that runs one step whenever it is asked to. It sleeps in between, and ends with the process."""

    def __init__(self) -> None:
        super().__init__(name="team", daemon=True)
        self._asked, self._idle = threading.Semaphore(0), threading.Event()
        self._idle.set()
        self._step: Step = int
        self._failed: BaseException | None = None
        self.start()

    def run(self) -> None:
        np.seterr(all="ignore")  # as host.Quiet; what NumPy warns of is set for each thread
        while True:
            self._asked.acquire()
            try:
                self._step()
            except BaseException as error:  # it belongs to whoever waits
                self._failed = error
            self._idle.set()

    def ask(self, step: Step) -> None:
        """Start on a step, after one that nobody waited for to the end."""
        self._idle.wait()
        self._idle.clear()
        self._step, self._failed = step, None
        self._asked.release()

    def wait(self) -> None:
        """Return when it is done; raises what the step raised."""
        try:
            self._idle.wait()
        except BaseException:  # Ctrl-C; the step still writes into its arrays
            self._idle.wait()
            raise
        if self._failed is not None:
            raise self._failed


_busy = threading.Lock()
"""Held while several threads work: one that finds it taken works alone."""


class _Team:
    """Threads of our own, where there is no library."""

    def __init__(self) -> None:
        self._mates: list[_Mate] = []
        self._process = 0

    def run(self, shares: Sequence[Step]) -> None:
        """All shares, the first in this thread. Where the team is at work for another thread, one after another."""
        if not _busy.acquire(blocking=False):
            for share in shares:
                share()
            return
        try:
            if self._process != os.getpid():  # threads do not come along into a child process
                self._mates, self._process = [], os.getpid()
            while len(self._mates) < len(shares) - 1:
                self._mates.append(_Mate())
            asked = list(zip(self._mates, shares[1:], strict=False))
            for mate, share in asked:
                mate.ask(share)
            try:
                shares[0]()
            finally:
                for mate, _ in asked:
                    mate.wait()
        finally:
            _busy.release()


_team = _Team()


class _Shares:
    """Steps for the threads of the library's primitives, which wait for the next of those anyway: no other threads that
    have to be woken while these turn around on their cores."""

    def __init__(self, rows: Sequence[Step], run: Callable[..., None], number: Callable[[], int]) -> None:
        self._rows, self._run, self._number = rows, run, number
        self._left: set[int] = set()
        self._failed: list[BaseException] = []
        self._body = BODY(self._part)

    def _part(self, _: Any) -> None:
        try:
            number = self._number()
            if number in self._left:
                self._left.discard(number)
                with np.errstate(all="ignore"):  # as host.Quiet; what NumPy warns of is set for each thread
                    self._rows[number]()
        except BaseException as error:  # no exception crosses C
            self._failed.append(error)

    def __call__(self) -> None:
        if not _busy.acquire(blocking=False):
            for row in self._rows:
                row()
            return
        try:
            self._left.update(range(len(self._rows)))
            self._failed.clear()
            self._run(self._body, None, 0, 0)
            while self._left:  # there are fewer threads than shares
                self._rows[self._left.pop()]()
            if self._failed:
                raise self._failed.pop()
        finally:
            self._left.clear()
            _busy.release()


def sharers(elements: int) -> int:
    """Among how many threads an elementwise problem of that size is to be shared out."""
    return max(1, min(cores(), elements // (WORTH // 2)))


def together(shares: Sequence[Sequence[Step]]) -> Step:
    """One step that runs every list of steps in order, the lists at the same time. They must not touch each other."""
    rows = [chain(list(steps)) for steps in shares if steps]
    if len(rows) < 2:
        return rows[0] if rows else chain([])
    lib = library()
    if lib is None or lib.parallel is None:
        return lambda: _team.run(rows)
    return _Shares(rows, *lib.parallel)
