"""Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).

A draw depends on what it is for (seed, stream, iteration, element) and on nothing else: CPU and GPU draw the same
mask, a resumed run draws what the straight run would have drawn, and the order of execution does not matter.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW, _HIGH = np.uint64(0xFFFFFFFF), np.uint64(32)


def stream_of(*names: object) -> int:
    """A stable 32-bit number for a purpose, say ``stream_of("drop6", "mask")``."""
    return zlib.crc32("/".join(map(str, names)).encode())


def philox(count: int, *, seed: int, stream: int, counter: int) -> npt.NDArray[np.uint32]:
    """``count`` random 32-bit words.

    Words 4b .. 4b+3 are Philox4x32-10 of the counter (b, stream, counter mod 2^32, counter div 2^32) under the key
    (seed mod 2^32, seed div 2^32).
    """
    blocks = -(-count // 4)
    x = [np.arange(blocks, dtype=np.uint64), *(np.full(blocks, v, np.uint64) for v in _words(stream, counter))]
    key0, key1 = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    for _ in range(10):
        p0, p1 = _M0 * x[0], _M1 * x[2]
        x = [(p1 >> _HIGH) ^ x[1] ^ np.uint64(key0), p1 & _LOW, (p0 >> _HIGH) ^ x[3] ^ np.uint64(key1), p0 & _LOW]
        key0, key1 = (key0 + _W0) & 0xFFFFFFFF, (key1 + _W1) & 0xFFFFFFFF
    return np.stack(x, axis=1).astype(np.uint32).reshape(-1)[:count]


def uniform(count: int, *, seed: int, stream: int, counter: int) -> npt.NDArray[np.float32]:
    """``count`` float32 numbers in [0, 1): the upper 24 bits of each word, divided by 2^24."""
    words = philox(count, seed=seed, stream=stream, counter=counter)
    values: npt.NDArray[np.float32] = (words >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
    return values


def generator(seed: int, *names: object) -> np.random.Generator:
    """A NumPy generator of its own for one purpose (a filler, a shuffle): same seed and names, same numbers."""
    key: Any = (seed & 0xFFFFFFFFFFFFFFFF) ^ (stream_of(*names) << 64)
    return np.random.Generator(np.random.Philox(key=key))


def _words(stream: int, counter: int) -> tuple[int, int, int]:
    return stream & 0xFFFFFFFF, counter & 0xFFFFFFFF, (counter >> 32) & 0xFFFFFFFF
