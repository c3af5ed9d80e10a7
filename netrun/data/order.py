"""Which record comes when, and the random numbers that belong to it.

Both depend on the position in the run and on nothing else: not on the number of threads, not on the size of a batch,
not on what was read before. So a resumed run sees what the straight run would have seen.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..random import stream_of

Words = npt.NDArray[np.uint64]


def random_words(first: int, count: int, *, seed: int, stream: int) -> Words:
    """Four random 64-bit words for each of the records ``first`` .. ``first + count - 1``: an array count x 4.

    Philox4x64-10 of the record's number, under a key of seed and stream.
    """
    bits = np.random.Philox(key=_key(seed, stream), counter=first)
    return bits.random_raw(4 * count).reshape(count, 4)


class Order:
    """The sequence of records over all epochs: as stored and around, or a new permutation in every epoch."""

    def __init__(self, count: int, *, seed: int, stream: str, shuffle: bool = False, skip: int = 0) -> None:
        """``count`` records; ``skip`` of them are passed over at the start; ``stream`` names the data layer."""
        self._count, self._seed, self._skip, self._shuffle = count, seed, skip, shuffle
        self._stream = stream_of(stream, "shuffle")
        self._epoch = -1
        self._permutation: npt.NDArray[np.int64] = np.empty(0, np.int64)

    def records(self, position: int, count: int) -> list[int]:
        """Numbers of the records at positions ``position`` .. ``position + count - 1`` of the run."""
        first = self._skip + position
        if not self._shuffle:
            return [(first + i) % self._count for i in range(count)]
        found: list[int] = []
        while len(found) < count:
            epoch, at = divmod(first + len(found), self._count)
            found += self.permutation(epoch)[at : at + count - len(found)].tolist()
        return found

    def permutation(self, epoch: int) -> npt.NDArray[np.int64]:
        """The records in the order of an epoch."""
        if not self._shuffle:
            return np.arange(self._count)
        if epoch != self._epoch:
            # Sorting raw words instead of Generator.permutation, whose algorithm NumPy may change between versions.
            bits = np.random.Philox(key=_key(self._seed, self._stream), counter=epoch << 64)
            self._permutation = np.argsort(bits.random_raw(self._count), kind="stable")
            self._epoch = epoch
        return self._permutation


def _key(seed: int, stream: int) -> int:
    return (seed & 0xFFFFFFFFFFFFFFFF) | stream << 64
