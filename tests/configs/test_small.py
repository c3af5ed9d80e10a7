"""Nets of configs/ that learn in seconds: a few steps show that they do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from netrun.solver import Solver

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.mark.parametrize(("name", "steps"), [("clips", 60), ("temporal", 25), ("siamese", 60)])
def test_learns(name: str, steps: int) -> None:
    with Solver(CONFIGS / name / "solver.prototxt") as solver:
        losses: list[float] = []
        solver.on_iteration.append(lambda _, loss: losses.append(loss))
        solver.step(steps)
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:5])


def test_the_towers_share_their_weights() -> None:
    with Solver(CONFIGS / "siamese" / "solver.prototxt") as solver:
        graph = solver.training.recording.graph
    assert len(graph.parameters) == 8
    assert sum(len(p.sharers) for p in graph.parameters) >= 8
