"""Everything netrun raises for a user's mistake, as one tree.

NetrunError                     exit code of the command line
├── ConfigError                 2   a file of the configuration is wrong; carries every problem found in it
│   └── ShapeError              2   a layer refuses its bottoms or its parameters
├── UsageError                  2   a wrong flag, a missing file, a missing extra
├── WeightsError                3   a weight or state file is damaged or does not fit
├── DataError                   3   a database, a record, a label
├── DivergedError               4   the loss is not a number any more
├── DeviceError                 2   no such device, no kernel for a call
│   └── OutOfMemoryError        5   the planned bytes do not fit
└── WorkerError                 6   a worker process was lost
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Where:
    """A position in a text file; lines and columns count from 1. Line 0 means the file as a whole.

    ``trail`` is how that text came into play where it did not stand for itself, innermost first: "used at net:80:1
    (inception)", "included at net:1:1". Problems show it, a line each; ``str`` is the position alone.
    """

    file: str
    line: int = 0
    column: int = 0
    trail: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, what (one line), and lines that help (aligned, already worded)."""

    what: str
    where: Where | None = None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return "\n".join([printable(head), *(f"    {printable(line)}" for line in self.lines)])

    @property
    def lines(self) -> tuple[str, ...]:
        """All lines below the first: the notes, and how the text came to be there."""
        return (*self.notes, *(self.where.trail if self.where else ()))


class NetrunError(Exception):
    """Base of all of them. ``str()`` is the message a person reads; it never needs a traceback beside it."""

    exit_code: ClassVar[int] = 2

    def __init__(self, what: str, where: Where | None = None, notes: Sequence[str] = ()) -> None:
        self.problems: tuple[Problem, ...] = (Problem(what, where, tuple(notes)),)
        super().__init__(str(self.problems[0]))

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> NetrunError:
        """One error that carries all problems found in one pass (at least one)."""
        found = tuple(problems)
        error = cls(found[0].what, found[0].where, found[0].notes)
        error.problems = found
        error.args = ("\n".join(str(p) for p in found),)
        return error


class ConfigError(NetrunError):
    """A prototxt (net, solver) does not parse, or says something that cannot be built."""


class ShapeError(ConfigError):
    """A layer refuses the shapes of its bottoms or the values of its parameters."""


class UsageError(NetrunError):
    """A command was typed wrongly, a file is missing, or an optional extra is not installed."""


class WeightsError(NetrunError):
    """A .caffemodel, .solverstate or .h5 file is damaged or does not fit the net."""

    exit_code = 3


class DataError(NetrunError):
    """A data source is missing or holds a record that cannot be used."""

    exit_code = 3


class DivergedError(NetrunError):
    """Training reached a loss that is not finite."""

    exit_code = 4


class DeviceError(NetrunError):
    """A device does not exist here or lacks a kernel."""


class OutOfMemoryError(DeviceError):
    """The planned bytes do not fit into the memory of the device. ``free``: bytes it had left, where it knows."""

    exit_code = 5

    def __init__(
        self, what: str, where: Where | None = None, notes: Sequence[str] = (), *, free: int | None = None
    ) -> None:
        super().__init__(what, where, notes)
        self.free = free


class WorkerError(NetrunError):
    """A worker process of a parallel run was lost."""

    exit_code = 6


def printable(text: str) -> str:
    """A text on one line, with nothing that a terminal would obey: line ends and such signs become escapes."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean "num_output"?`` for the nearest of the known names, or an empty string."""
    names = list(known)
    found = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if not found:
        lowered = {n.lower(): n for n in reversed(names)}
        found = [lowered[m] for m in difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)]
    return f'; did you mean "{found[0]}"?' if found else ""


def missing_extra(what: str, module: str, extra: str) -> UsageError:
    """The one sentence for an optional dependency that is not installed."""
    return UsageError(f"{what} needs the Python package {module}: pip install 'netrun-trainer[{extra}]'")
