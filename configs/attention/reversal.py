"""Sequences to be reversed, drawn anew for every batch."""

from __future__ import annotations

from typing import Any

import numpy as np

STOP, START, SYMBOLS, NONE = 0, 1, 12, -1
"""Tokens: the end, what stands before the first one, 2 .. 11 the symbols; and no label at all."""


class Reversal:
    """Tops: source T N, its length N, target T+1 N (start, then the reversed source), label T+1 N (the reversed source,
    then stop; -1 behind it)."""

    param_str: str = ""

    def setup(self, bottom: Any, top: Any) -> None:
        """Read ``longest=T batch=N seed=S``."""
        given = dict(part.split("=") for part in self.param_str.split())
        self.longest, self.batch = int(given["longest"]), int(given["batch"])
        self.rng = np.random.default_rng(int(given["seed"]))

    def reshape(self, bottom: Any, top: Any) -> None:
        """The shapes never change."""
        for blob, shape in zip(top, ((self.longest, self.batch), (self.batch,), *[(self.longest + 1, self.batch)] * 2),
                               strict=True):  # fmt: skip
            blob.reshape(*shape)

    def forward(self, bottom: Any, top: Any) -> None:
        """Lengths from 1 to T, each as often."""
        source = np.zeros((self.longest, self.batch))
        target, label = np.zeros((self.longest + 1, self.batch)), np.full((self.longest + 1, self.batch), NONE)
        lengths = self.rng.integers(1, self.longest + 1, self.batch)
        target[0] = START
        for n, length in enumerate(lengths):
            symbols = self.rng.integers(2, SYMBOLS, length)
            source[:length, n] = symbols
            target[1 : length + 1, n] = label[:length, n] = symbols[::-1]
            label[length, n] = STOP
        for blob, values in zip(top, (source, lengths, target, label), strict=True):
            blob.data[...] = values
