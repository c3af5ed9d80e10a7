"""The feeder of every data layer with a source: what makes its batches differs, reading ahead and resuming do not."""

from __future__ import annotations

from typing import Protocol

from ..errors import DataError
from .feeder import Cursor, Floats
from .prefetch import Prefetcher
from .settings import Settings


class Maker(Protocol):
    """Makes batch after batch; used by one thread at a time."""

    @property
    def settings(self) -> Settings:
        """The layer and its surroundings."""

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the tops; the first axis of the first one is the number of records in a batch."""

    @property
    def count(self) -> int:
        """Records in the source; 0 if it has no end."""

    @property
    def random(self) -> bool:
        """Whether a record needs random decisions beyond its place in the order."""

    def make(self, position: int, draws: int) -> list[Floats]:
        """The batch of the records from ``position`` on, with the random decisions from ``draws`` on."""

    def close(self) -> None:
        """Gives the source back. Calling it twice is fine."""


class AheadFeeder:
    """Hands out the batches of a maker, which a thread works on ahead. See feeder.Feeder for the interface."""

    def __init__(self, maker: Maker) -> None:
        """The thread starts with the first ``next()`` (none at all with ``threads=0``)."""
        settings = maker.settings
        self._maker = maker
        self.names = tuple(settings.layer.top)
        self.shapes = tuple(maker.shapes)
        self.records = maker.count
        self._size = self.shapes[0][0]
        # As in Caffe, data_param says for every type how far to read ahead.
        self._depth = 0 if settings.threads == 0 else max(1, settings.layer.data_param.prefetch)
        self._cursor = Cursor()
        self._ahead: Prefetcher[list[Floats]] | None = None
        self._closed = False

    def next(self) -> list[Floats]:
        """The next batch; see Feeder.next."""
        if self._closed:
            raise DataError(f"{self._maker.settings.title}: its source was closed")
        if not self._depth:
            batch = self._maker.make(self._cursor.position, self._cursor.draws)
        else:
            if self._ahead is None:
                self._ahead = self._start()
            batch = self._ahead.next()
        self._cursor = self._after(1)
        return batch

    def state(self) -> Cursor:
        """See Feeder.state."""
        return self._cursor

    def restore(self, cursor: Cursor) -> None:
        """See Feeder.restore."""
        if min(cursor.position, cursor.draws) < 0:
            raise DataError(f"{self._maker.settings.title}: cannot go on at position {cursor.position}")
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None
        self._cursor = cursor

    def close(self) -> None:
        """See Feeder.close."""
        self._closed = True
        if self._ahead is not None:
            self._ahead.close()
        self._maker.close()

    def _after(self, steps: int) -> Cursor:
        moved = self._size * steps
        return Cursor(self._cursor.position + moved, self._cursor.draws + (moved if self._maker.random else 0))

    def _start(self) -> Prefetcher[list[Floats]]:
        maker, start, step = self._maker, self._cursor, self._after(1)
        moved, drawn = step.position - start.position, step.draws - start.draws
        return Prefetcher(
            lambda n: maker.make(start.position + n * moved, start.draws + n * drawn),
            self._depth,
            f"netrun-data-{maker.settings.layer.name}",
        )
