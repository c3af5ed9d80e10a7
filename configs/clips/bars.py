"""Clips of a moving bar, drawn anew for every batch."""

from __future__ import annotations

from typing import Any

import numpy as np

WAYS = ((0, 1), (0, -1), (1, 0), (-1, 0))
"""Steps a frame, down and to the right, by label: right, left, down, up."""


class Bars:
    """Tops: clips, N 1 frames side side, and which way the bar moves, N.

    A bar two pixels wide and as long as the picture, at a random place, one pixel further in every frame (it comes in
    again at the other side), between 0.5 and 1 bright, in noise of deviation 0.3. No single frame tells right from
    left.
    """

    param_str: str = ""

    def setup(self, bottom: Any, top: Any) -> None:
        """Read ``batch=N frames=T side=S seed=R``."""
        given = dict(part.split("=") for part in self.param_str.split())
        self.shape = int(given["batch"]), int(given["frames"]), int(given["side"])
        self.rng = np.random.default_rng(int(given["seed"]))

    def reshape(self, bottom: Any, top: Any) -> None:
        """The shapes never change."""
        batch, frames, side = self.shape
        top[0].reshape(batch, 1, frames, side, side)
        top[1].reshape(batch)

    def forward(self, bottom: Any, top: Any) -> None:
        """Draw label, place and brightness of every clip."""
        batch, frames, side = self.shape
        clips = self.rng.normal(0, 0.3, (batch, frames, side, side)).astype(np.float32)
        labels = self.rng.integers(0, len(WAYS), batch)
        starts, bright = self.rng.integers(0, side, batch), self.rng.uniform(0.5, 1, batch)
        for n in range(batch):
            down, right = WAYS[labels[n]]
            for t in range(frames):
                for width in range(2):
                    at = (starts[n] + width + t * (down + right)) % side
                    row: Any = clips[n, t, at, :] if down else clips[n, t, :, at]
                    row += bright[n]
        top[0].data[...] = clips[:, None]
        top[1].data[...] = labels
