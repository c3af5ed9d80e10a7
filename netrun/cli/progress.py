"""One line on a terminal that says how far a run is, redrawn in place."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from typing import TextIO

REDRAW_S = 0.1


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
        if now - self._drawn < REDRAW_S and done < self.total:
            return
        self._drawn = now
        columns = shutil.get_terminal_size().columns
        self.stream.write("\r" + fitted(self.line(done, now, facts), columns - 1) + "\x1b[K")
        self.stream.flush()
        self._shown = True

    def line(self, done: int, now: float, facts: tuple[str, ...]) -> list[str]:
        """The parts of the line, the most important first."""
        if not self.total:
            return [self.name, f"{done:,}", *facts]
        share = min(done / self.total, 1.0)
        left = self.total - done
        speed = (done - self.start) / max(now - self._began, 1e-9)
        eta = [f"ETA {duration(left / speed)}"] if left and speed else []
        return [self.name, f"{done:,}/{self.total:,}", picture(share), f"{share:4.0%}", *facts, *eta]

    def clear(self) -> None:
        """Take the line away, to print something else or to end; the next update draws it again."""
        if self._shown:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
        self._shown, self._drawn = False, float("-inf")


def picture(share: float, width: int = 20) -> str:
    """``[########------------]``"""
    full = int(share * width)
    return f"[{'#' * full}{'-' * (width - full)}]"


def fitted(parts: list[str], columns: int) -> str:
    """The parts in one line; the picture goes first where the line is too narrow, then what stands last."""
    parts = list(parts)
    if len("  ".join(parts)) > columns:
        parts = [part for part in parts if not part.startswith("[")]
    return "  ".join(parts)[: max(columns, 0)]


def duration(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    whole = int(seconds + 0.5)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
