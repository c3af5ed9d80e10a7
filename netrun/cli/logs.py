"""The log of a command: Caffe's lines for parsers, or a short one for people at a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

from ..log import Log, StreamLog
from .progress import Bar, is_terminal

_LEFT_OUT = frozenset(
    {
        "solver.cpp:45",  # the whole solver
        "solver.cpp:57",  # scaffolding done
        "solver.cpp:102",  # creating the training net
        "solver.cpp:190",  # creating a test net
        "solver.cpp:289",  # solving NAME
        "solver.cpp:290",  # learning rate policy
        "solver.cpp:332",  # optimization done
        "solver.cpp:347",  # testing net: the command says it with the scores
        "solver.cpp:400",
        "solver.cpp:414",
        "solver.cpp:464",  # snapshotting: the command says the names
        "sgd_solver.cpp:284",
        "sgd_solver.cpp:336",  # restoring history
        "net.cpp:244",  # this network produces output
        "net.cpp:257",  # network initialization done
        "caffe.cpp:239",  # starting optimization
        "caffe.cpp:250",  # optimization done
        "caffe.cpp:304",  # test: one line a batch and output
        "caffe.cpp:309",  # test: means, which stand on stdout
        "caffe.cpp:321",
        "caffe.cpp:351", "caffe.cpp:357", "caffe.cpp:365", "caffe.cpp:366", "caffe.cpp:394", "caffe.cpp:397",
        "caffe.cpp:400", "caffe.cpp:403", "caffe.cpp:408", "caffe.cpp:410", "caffe.cpp:412", "caffe.cpp:414",
        "caffe.cpp:415",  # time: the table stands on stdout
    }
)  # fmt: skip
"""Places of Caffe's log that say nothing a person waits for, or what a command says in its own way."""

_DISPLAY = frozenset({"solver.cpp:239", "solver.cpp:258", "sgd_solver.cpp:112"})
"""Loss and learning rate, which a bar shows."""


class ShortLog:
    """Lines without a prefix, the unimportant ones left out; a progress bar stays below them."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.bar: Bar | None = None

    def __call__(self, text: str, source: str, level: str = "I") -> None:
        if level == "W":
            self.say(f"warning: {text}")
        elif source not in _LEFT_OUT and not (self.bar and source in _DISPLAY):
            self.say(text)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self.bar:
            self.bar.clear()
        self.stream.write(text + "\n")
        self.stream.flush()


def open_log(choice: str | None) -> Log:
    """The log on stderr: what --log says, else the short one on a terminal and Caffe's elsewhere."""
    short = choice == "short" if choice else is_terminal(sys.stderr)
    return ShortLog(sys.stderr) if short else StreamLog(sys.stderr)


def start_bar(log: Log, name: str, total: int, start: int = 0) -> Bar | None:
    """A bar below the short log, if that goes to a terminal."""
    if not isinstance(log, ShortLog) or not is_terminal(log.stream):
        return None
    log.bar = Bar(log.stream, name, total, start)
    return log.bar


def tell(log: Log, notices: Sequence[str]) -> None:
    """Warn of what was read in another way than it is written: what an upgrade changed or left out."""
    for notice in notices:
        log(notice, "upgrade_proto.cpp:79", "W")
