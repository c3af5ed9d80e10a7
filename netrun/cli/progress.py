"""One line on a terminal that says how far a run is, redrawn in place."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from typing import TextIO

REDRAW_S = 0.1
NARROWEST, WIDEST = 8, 32
"""Columns of the picture."""


def is_terminal(stream: TextIO) -> bool:
    """True if lines on the stream can be redrawn."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


class Bar:
    """A progress bar.

    Args:
        total: how many steps there are; 0 if nobody knows.
        start: steps done before, by an earlier run.
        clock: seconds, for tests.
    """

    def __init__(
        self, stream: TextIO, name: str, total: int, start: int = 0, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.stream, self.name, self.total, self.start, self._clock = stream, name, total, start, clock
        self._began = clock()
        self._drawn = float("-inf")
        self._shown = False

    def update(self, done: int, *facts: str) -> None:
        """Redraw, at most ten times a second: the bar, the facts, the time that is left."""
        now = self._clock()
        if now - self._drawn < REDRAW_S and not 0 < self.total <= done:
            return
        self._drawn = now
        self.stream.write("\r" + self.line(done, now, facts, shutil.get_terminal_size().columns - 1) + "\x1b[K")
        self.stream.flush()
        self._shown = True

    def line(self, done: int, now: float, facts: Sequence[str], columns: int) -> str:
        """The line: the picture takes the columns that the words leave, if it is worth it."""
        if not self.total:
            return "  ".join([self.name, f"{done:,}", *facts])[:columns]
        share = min(done / self.total, 1.0)
        left = self.total - done
        speed = (done - self.start) / max(now - self._began, 1e-9)
        eta = [f"ETA {duration(left / speed)}"] if left > 0 and speed > 0 else []
        head = [self.name, f"{done:,}/{self.total:,}"]
        tail = [f"{share:4.0%}", *facts, *eta]
        room = columns - len("  ".join([*head, *tail])) - 4
        drawn = [picture(share, min(room, WIDEST))] if room >= NARROWEST else []
        return "  ".join([*head, *drawn, *tail])[:columns]

    def clear(self) -> None:
        """Take the line away, to print something else or to end; the next update draws it again."""
        if self._shown:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
        self._shown, self._drawn = False, float("-inf")


def picture(share: float, width: int) -> str:
    """``[########------------]``, of that many columns."""
    full = int(share * (width - 2))
    return f"[{'#' * full}{'-' * (width - 2 - full)}]"


def duration(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    whole = int(seconds + 0.5)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
