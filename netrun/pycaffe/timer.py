"""Timer and NCCL, as pycaffe has them."""

from __future__ import annotations

import time
from typing import Any

from ..errors import DeviceError


class Timer:
    """A stopwatch: ``start()``, ``stop()``, then ``ms``."""

    def __init__(self) -> None:
        self._begun = 0.0
        self.ms = 0.0
        """Milliseconds between the last start and stop."""

    def start(self) -> None:
        """Begin."""
        self._begun = time.perf_counter()

    def stop(self) -> None:
        """End."""
        if self._begun:
            self.ms = (time.perf_counter() - self._begun) * 1e3


def has_nccl() -> bool:
    """Whether several GPUs can train together through this interface: they cannot."""
    return False


class NCCL:
    """Caffe's link between the solvers of several processes. netrun has none behind this interface.

    Raises:
        DeviceError: always; ask ``has_nccl()`` first.
    """

    def __init__(self, solver: Any = None, uid: Any = None) -> None:
        raise DeviceError("NCCL is not available here (caffe.has_nccl() is False)")

    @staticmethod
    def new_uid() -> str:
        """Raises DeviceError, as the class does."""
        raise DeviceError("NCCL is not available here (caffe.has_nccl() is False)")
