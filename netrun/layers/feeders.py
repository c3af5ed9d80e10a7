"""Feeders that need no source: made-up numbers, and arrays that the program hands over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..config import schema
from ..data.feeder import Cursor, Floats
from ..errors import DataError, Where
from ..fillers import fill
from ..random import generator
from ..types import Shape


class DummyFeeder:
    """The feeder of a DummyData layer. A batch follows from seed, stream, layer and its number alone."""

    records = 0

    def __init__(
        self,
        name: str,
        tops: tuple[str, ...],
        parts: Sequence[tuple[schema.FillerParameter, Shape]],
        seed: int,
        stream: str,
    ) -> None:
        self.names = tops
        self.shapes = tuple(shape for _, shape in parts)
        self._key, self._seed, self._fillers = (stream, name), seed, [filler for filler, _ in parts]
        self._batch = 0
        self._constants: dict[int, Floats] = {}

    def next(self) -> Sequence[Floats]:
        """The next batch: constants as ever, everything else drawn anew."""
        drawn = [self._one(i) for i in range(len(self.shapes))]
        self._batch += 1
        return drawn

    def _one(self, i: int) -> Floats:
        filler, shape = self._fillers[i], self.shapes[i]
        if i not in self._constants:
            values: Floats = fill(filler, shape, generator(self._seed, *self._key, i, self._batch))
            if filler.type != "constant":
                return values
            self._constants[i] = values
        return np.array(self._constants[i])

    def state(self) -> Cursor:
        """The number of batches handed out, as if a batch were one record."""
        return Cursor(self._batch, self._batch)

    def restore(self, cursor: Cursor) -> None:
        """Go on with the batch of that number."""
        self._batch = cursor.position

    def close(self) -> None:
        """Nothing is open."""


class Arrays:
    """What was handed over to a MemoryData layer; ``title`` and ``where`` name the layer in messages."""

    def __init__(self, title: str, where: Where | None) -> None:
        self.times = 0
        self._title, self._where = title, where
        self._values: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None = None

    def hand_over(self, data: npt.NDArray[Any], labels: npt.NDArray[Any]) -> None:
        """Replace them; whoever reads starts at the first record."""
        self._values = data, labels
        self.times += 1

    def get(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """(data, labels).

        Raises:
            DataError: nothing was handed over.
        """
        if self._values is None:
            what = f"{self._title}: it has no data yet"
            raise DataError(what, self._where, ["call set_arrays(data, labels) on the layer first"])
        return self._values


class MemoryFeeder:
    """The feeder of a MemoryData layer: its arrays, batch by batch, round and round."""

    def __init__(self, tops: tuple[str, ...], shapes: Sequence[Shape], arrays: Arrays) -> None:
        self.names, self.shapes = tops, tuple(shapes)
        self._arrays, self._times, self._position = arrays, arrays.times, 0

    @property
    def records(self) -> int:
        """Records handed over."""
        return len(self._arrays.get()[0])

    def next(self) -> Sequence[Floats]:
        """The next batch.

        Raises:
            DataError: the layer has no arrays yet.
        """
        both = self._arrays.get()
        if self._times != self._arrays.times:
            self._times, self._position = self._arrays.times, 0
        size = self.shapes[0][0]
        start = self._position % len(both[0])
        self._position += size
        return [np.array(values[start : start + size], np.float32) for values in both]

    def state(self) -> Cursor:
        """Records handed out since the arrays were set."""
        return Cursor(self._position, self._position)

    def restore(self, cursor: Cursor) -> None:
        """Go on with that record."""
        self._position = cursor.position

    def close(self) -> None:
        """Nothing is open."""
