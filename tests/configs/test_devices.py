"""The same files on another device: the nets of configs/ that are small take two steps on `cpu` and on `reference`."""

from __future__ import annotations

from pathlib import Path

import pytest

from netrun.solver import Solver

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
LARGE = {"benchmark", "cifar10", "imagenet", "mnist"}
"""Folders whose data do not ship with the project or whose nets take minutes without a fast device."""
SOLVERS = sorted(p for p in CONFIGS.rglob("*solver.prototxt") if p.relative_to(CONFIGS).parts[0] not in LARGE)


def losses(solver: Path, device: str) -> list[float]:
    found: list[float] = []
    with Solver(solver, device=device) as run:
        run.on_iteration.append(lambda _, loss: found.append(loss))
        run.step(2)
    return found


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda p: p.relative_to(CONFIGS).as_posix())
def test_first_steps_are_the_same(solver: Path) -> None:
    fast, plain = losses(solver, "cpu"), losses(solver, "reference")
    assert len(fast) == 2
    assert fast == pytest.approx(plain, rel=2e-4)
