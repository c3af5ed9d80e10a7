"""netrun.random.uniform again and again for one place: the same numbers, in memory that is kept."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW, _HIGH = np.uint64(0xFFFFFFFF), np.uint64(32)
BLOCK = 8 * 1024
"""Philox blocks (of four words) worked on at once: six arrays of them stay in the second-level cache."""


class Noise:
    """Uniform float32 numbers in [0, 1) for one seed and stream."""

    def __init__(self, count: int, seed: int, stream: int) -> None:
        self.count, self.stream = count, stream & 0xFFFFFFFF
        self.blocks = -(-count // 4)
        self.keys = [
            (np.uint64(((seed & 0xFFFFFFFF) + i * _W0) & 0xFFFFFFFF), np.uint64(((seed >> 32) + i * _W1) & 0xFFFFFFFF))
            for i in range(10)
        ]
        self.words = np.empty((self.blocks, 4), np.uint32)
        self.values = np.empty(self.blocks * 4, np.float32)
        self.work = np.empty((6, min(self.blocks, BLOCK)), np.uint64)

    def uniform(self, counter: int) -> npt.NDArray[np.float32]:
        """The numbers for one value of the counter; overwritten by the next call."""
        for start in range(0, self.blocks, BLOCK):
            self._philox(start, min(self.blocks, start + BLOCK), counter)
        words = self.words.reshape(-1)
        np.right_shift(words, np.uint32(8), words)
        np.copyto(self.values, words, casting="same_kind")
        np.multiply(self.values, np.float32(2.0**-24), self.values)
        return self.values[: self.count]

    def _philox(self, start: int, end: int, counter: int) -> None:
        x0, x1, x2, x3, p0, p1 = self.work[:, : end - start]
        x0[...] = np.arange(start, end, dtype=np.uint64)
        x1.fill(self.stream)
        x2.fill(counter & 0xFFFFFFFF)
        x3.fill((counter >> 32) & 0xFFFFFFFF)
        for key0, key1 in self.keys:
            np.multiply(x0, _M0, p0)
            np.multiply(x2, _M1, p1)
            np.right_shift(p1, _HIGH, x0)
            np.bitwise_xor(x0, x1, x0)
            np.bitwise_xor(x0, key0, x0)
            np.right_shift(p0, _HIGH, x2)
            np.bitwise_xor(x2, x3, x2)
            np.bitwise_xor(x2, key1, x2)
            np.bitwise_and(p1, _LOW, x1)
            np.bitwise_and(p0, _LOW, x3)
        for column, values in enumerate((x0, x1, x2, x3)):
            self.words[start:end, column] = values
