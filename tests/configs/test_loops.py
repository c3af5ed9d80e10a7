"""The nets of configs/loops learn what they are said to learn, as far as a few steps show it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from netrun.solver import Solver

LOOPS = Path(__file__).resolve().parents[2] / "configs" / "loops"


def test_adding_learns() -> None:
    with Solver(LOOPS / "adding_solver.prototxt") as solver:
        losses = []
        solver.on_iteration.append(lambda _, loss: losses.append(loss))
        solver.step(60)
        layer = solver.training.recording.graph.nodes[1]
        assert [p.declared.name for p in layer.parameters] == ["lstm.W", "lstm.R", "lstm.b"]
    assert losses[0] > 0.8, "it starts by saying 0, whose mean squared error is 7 / 6"
    assert np.mean(losses[-10:]) < 0.25, "by now it says the mean"
