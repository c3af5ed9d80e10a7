"""The losses of a run: the last ones, their mean, and those that the device may still be computing."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from .errors import DivergedError


class _Coming(NamedTuple):
    """The loss of an iteration that may still run, and the learning rate it ran with."""

    iteration: int
    rate: float
    loss: Callable[[], float]


class LossWatch:
    """Keeps the last losses, and looks at new ones in time.

    A device that computes by itself (a GPU) is not waited for in every iteration: what an iteration comes to is
    expected (``expect``) and looked at later (``settle``).

    Args:
        count: as many losses make up the mean.
        found: called with every iteration's number and the mean up to it, in their order.
    """

    def __init__(self, count: int, found: Callable[[int, float], None]) -> None:
        self.mean = float("nan")
        """The mean of the last ``count`` losses, NaN before the first."""
        self._count, self._found = count, found
        self.last: list[float] = []
        """The last losses, the newest at the end."""
        self._coming: deque[_Coming] = deque()

    def expect(self, iteration: int, rate: float, loss: Callable[[], float]) -> None:
        """Take in the loss of one more iteration, which ran at this learning rate, when it is needed."""
        self._coming.append(_Coming(iteration, rate, loss))

    def settle(self, ahead: int = 0) -> None:
        """Look at the losses of all iterations but the last ``ahead``.

        Raises:
            DivergedError: one is not a number any more.
        """
        while len(self._coming) > ahead:
            iteration, rate, found = self._coming.popleft()
            loss = found()
            if not math.isfinite(loss):
                self._coming.clear()
                raise DivergedError(
                    f"iteration {iteration}: the loss is {loss:g}",
                    None,
                    [
                        f"learning rate {rate:g}; a smaller base_lr, clip_gradients or scaled inputs usually help",
                        "the last snapshot is untouched",
                    ],
                )
            self.mean = self.smooth(loss)
            self._found(iteration, self.mean)

    def smooth(self, loss: float) -> float:
        """Count a loss in; returns the mean of the last ones, this one included."""
        self.last.append(loss)
        del self.last[: -self._count]
        return sum(self.last) / len(self.last)

    def forget(self) -> None:
        """Drop the losses that were not looked at: another run goes on from here."""
        self._coming.clear()

    def begin(self, last: Iterable[float] = ()) -> None:
        """Go on from these losses, or from none."""
        self.last[:] = last


__all__ = ["LossWatch"]
