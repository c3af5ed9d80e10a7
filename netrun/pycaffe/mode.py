"""What scripts set once and for all with ``set_mode_gpu`` and the like: here, the defaults for nets and solvers that
this thread makes afterwards. Nothing that is there already changes.
"""

from __future__ import annotations

import secrets
import sys
import threading

from ..device import Device, open_device
from ..errors import UsageError
from ..log import Log, StreamLog, silent
from .errors import whole


class _Defaults(threading.local):
    def __init__(self) -> None:
        self.gpu = False
        self.number = 0
        self.seed: int | None = None
        self.drawn = 0
        self.solvers, self.rank, self.multiprocess = 1, 0, False


_defaults = _Defaults()
_logging = {"level": -1}


def set_mode_cpu() -> None:
    """Nets made from now on in this thread run on the CPU."""
    _defaults.gpu = False


def set_mode_gpu() -> None:
    """Nets made from now on in this thread run on the GPU of ``set_device`` (0 without it)."""
    _defaults.gpu = True


def set_device(number: int) -> None:
    """Which GPU ``set_mode_gpu`` means.

    Raises:
        UsageError: it is no number of a device.
    """
    wanted = whole(number, "the number of a GPU")
    if wanted < 0:
        raise UsageError(f"set_device wants the number of a GPU, got {number}")
    _defaults.number = wanted


def default_device() -> Device:
    """The device for a net that is made now in this thread.

    Raises:
        DeviceError: the GPU that was asked for is not there.
    """
    return open_device(f"cuda:{_defaults.number}" if _defaults.gpu else "cpu")


def set_random_seed(seed: int) -> None:
    """Nets made from now on in this thread start from random numbers that follow from this seed, each from others."""
    _defaults.seed, _defaults.drawn = whole(seed, "a seed"), 0


def next_seed() -> int:
    """The seed for a net that is made now in this thread."""
    if _defaults.seed is None:
        return secrets.randbits(31)
    _defaults.drawn += 1
    return (_defaults.seed + (_defaults.drawn - 1) * 1_000_003) & 0x7FFFFFFF


def is_seeded() -> bool:
    """Whether this thread called ``set_random_seed``."""
    return _defaults.seed is not None


# ------------------------------------------------------------------------------------------------------ several at once
def solver_count() -> int:
    """How many solvers work together."""
    return _defaults.solvers


def set_solver_count(count: int) -> None:
    """Say how many solvers work together."""
    _defaults.solvers = int(count)


def solver_rank() -> int:
    """Which of them this is."""
    return _defaults.rank


def set_solver_rank(rank: int) -> None:
    """Say which of them this is."""
    _defaults.rank = int(rank)


def set_multiprocess(value: bool) -> None:
    """Say whether they are processes."""
    _defaults.multiprocess = bool(value)


# -------------------------------------------------------------------------------------------------------------- logging
def init_log(level: int = 0, stderr: bool = True) -> None:
    """Let solvers tell what they do on stderr, in Caffe's form.

    Args:
        level: the lowest level that is written: 0 all, 1 warnings, 2 errors, 3 nothing.
        stderr: False keeps everything to itself.
    """
    _logging["level"] = int(level) if stderr else 3


def log(text: str) -> None:
    """Write a line to the log."""
    StreamLog(sys.stderr)(text, "netrun.pycaffe:1")


def default_log() -> Log:
    """Where a solver that is made now reports to: nowhere until ``init_log`` is called."""
    lowest = _logging["level"]
    if lowest < 0 or lowest > 2:
        return silent
    stream = StreamLog(sys.stderr)

    def write(text: str, source: str, level: str = "I") -> None:
        if "IWE".index(level) >= lowest:
            stream(text, source, level)

    return write
