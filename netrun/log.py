"""Where a run reports to: lines in the wording and form of Caffe's log, so that people's parsers go on working."""

from __future__ import annotations

import os
import sys
import time
from typing import Protocol, TextIO


class Log(Protocol):
    """Takes one line of a log. ``source`` is the place a log parser knows the line by ("solver.cpp:239")."""

    def __call__(self, text: str, source: str, level: str = "I") -> None: ...


def silent(text: str, source: str, level: str = "I") -> None:
    """A log that keeps nothing."""


class StreamLog:
    """Writes glog's form: ``I20261121 06:55:24.510550  3915 solver.cpp:239] text`` (I info, W warning, E error)."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr

    def __call__(self, text: str, source: str, level: str = "I") -> None:
        now = time.time()
        stamp = time.strftime("%Y%m%d %H:%M:%S", time.localtime(now))
        micros = int(now % 1 * 1e6)
        self.stream.write(f"{level}{stamp}.{micros:06d} {os.getpid():5d} {source}] {text}\n")
        self.stream.flush()
