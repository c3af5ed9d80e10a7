"""What the scripts here share: where the digits are, and a net trained on them for a moment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import netrun.pycaffe as caffe

DIGITS = Path(__file__).resolve().parents[1] / "digits"


def solver_for(net: str | Path, folder: str | Path, rate: float = 0.05) -> Any:
    """An SGD solver for a net's file; what it writes goes into ``folder``."""
    file = os.path.join(folder, "solver.prototxt")
    with open(file, "w") as stream:
        stream.write(
            f'net: "{net}" base_lr: {rate} momentum: 0.9 lr_policy: "fixed" random_seed: 1 '
            f'snapshot_prefix: "{os.path.join(folder, "digits")}"'
        )
    return caffe.get_solver(file)


def train(folder: str | Path, iterations: int = 60) -> str:
    """Train the net of configs/digits; returns the name of its weights."""
    solver = solver_for(DIGITS / "net.prototxt", folder)
    solver.step(iterations)
    weights = os.path.join(folder, "digits.caffemodel")
    solver.net.save(weights)
    return weights


def accuracy(net: Any, batches: int = 6) -> float:
    """The mean of the blob "accuracy" over so many batches of the test data."""
    return float(sum(float(net.forward()["accuracy"]) for _ in range(batches)) / batches)
