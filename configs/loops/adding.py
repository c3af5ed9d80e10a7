"""The sequences of the adding problem, drawn anew for every batch."""

from __future__ import annotations

from typing import Any

import numpy as np


class Adding:
    """Tops: x, T N 2 (a number from 0 to 1, and a mark), and the sum of the two marked numbers, N 1."""

    def setup(self, bottom: Any, top: Any) -> None:
        """Read ``steps=T streams=N seed=S``."""
        given = dict(part.split("=") for part in self.param_str.split())
        self.steps, self.streams = int(given["steps"]), int(given["streams"])
        self.rng = np.random.default_rng(int(given["seed"]))

    param_str: str = ""

    def reshape(self, bottom: Any, top: Any) -> None:
        """The shapes never change."""
        top[0].reshape(self.steps, self.streams, 2)
        top[1].reshape(self.streams, 1)

    def forward(self, bottom: Any, top: Any) -> None:
        """One mark in the first half, one in the second."""
        half, streams = self.steps // 2, np.arange(self.streams)
        x = np.zeros((self.steps, self.streams, 2), np.float32)
        x[..., 0] = self.rng.random((self.steps, self.streams))
        for low, high in ((0, half), (half, self.steps)):
            x[self.rng.integers(low, high, self.streams), streams, 1] = 1
        top[0].data[...] = x
        top[1].data[...] = (x[..., 0] * x[..., 1]).sum(axis=0)[:, None]
