"""What produces the tops of a data layer: the one interface between data and training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Cursor:
    """Where a feeder stands. It counts what ``next()`` handed out, never what was read ahead.

    position  records handed out since the start of training (it does not wrap at the end of the source)
    draws     records for which random decisions (crop, mirror) were made
    """

    position: int = 0
    draws: int = 0


class Feeder(Protocol):
    """Produces the tops of one data layer, batch after batch, without end."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tops, in the order of the layer."""

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the tops."""

    @property
    def records(self) -> int:
        """Records in the source; 0 if it has no end or nobody knows."""

    def next(self) -> Sequence[Floats]:
        """The next batch: one float32 array per top, which belongs to the caller.

        Raises:
            DataError: a record of this batch, or the source, cannot be used.
        """

    def state(self) -> Cursor:
        """The position after the last batch that ``next()`` returned."""

    def restore(self, cursor: Cursor) -> None:
        """Goes on exactly at a position: the same records, order, crops and mirrors as the run that left it."""

    def close(self) -> None:
        """Stops the threads and closes the source. Calling it twice is fine."""
