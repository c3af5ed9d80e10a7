"""Ctrl-C, SIGTERM and SIGHUP during training: asked for in a handler, done between two iterations."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from types import FrameType, TracebackType
from typing import Any

STOP, SNAPSHOT, NONE = "stop", "snapshot", "none"
_NOTES = {
    STOP: "stopping after this iteration (Ctrl-C once more: at once)",
    SNAPSHOT: "a snapshot follows after this iteration",
}


def _say(text: str) -> None:
    """Write a line to stderr, if it is still there; not with print, which the signal may have interrupted."""
    with contextlib.suppress(OSError, ValueError):  # SIGHUP comes when the terminal has gone
        file = sys.__stderr__.fileno() if sys.__stderr__ else 2
        os.write(file, f"{chr(10) if os.isatty(file) else ''}{text}\n".encode())


class Signals:
    """While it is entered, signals do what ``effects`` says; ``action`` is for :attr:`Solver.action`.

    A second Ctrl-C or SIGTERM after a stop was asked for raises KeyboardInterrupt.

    Args:
        effects: "stop", "snapshot" or "none" by the signal's name. Signals the system lacks are left out.
    """

    def __init__(self, effects: Mapping[str, str]) -> None:
        self._effects = {getattr(signal, name): effect for name, effect in effects.items() if hasattr(signal, name)}
        self._before: dict[int, Any] = {}
        self._pending: set[str] = set()

    def __enter__(self) -> Signals:
        for number in self._effects:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        effect = self._effects[number]
        if effect == STOP and STOP in self._pending:
            raise KeyboardInterrupt
        if effect != NONE:
            self._pending.add(effect)
            _say(_NOTES[effect])

    def action(self) -> str:
        """What was asked for since the last call: "stop" (from then on), "snapshot", or ""."""
        if STOP in self._pending:
            return STOP
        if SNAPSHOT in self._pending:
            self._pending.discard(SNAPSHOT)
            return SNAPSHOT
        return ""
