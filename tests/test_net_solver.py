"""A solver with open nets trains as Caffe recorded it, and what a script writes into its nets counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from afar import Afar
from cases.recorded import GOLDEN, recorded

from netrun.net_solver import NetSolver

CASES = sorted(p.name for p in (GOLDEN / "solvers").iterdir() if (p / "trajectory.npz").exists())


def close(got: Any, wanted: Any, what: str) -> None:
    np.testing.assert_allclose(got, wanted, 1e-5, 1e-6 + 1e-5 * np.abs(wanted).max(), err_msg=what)


@pytest.mark.parametrize("device", ["cpu", "afar"])
@pytest.mark.parametrize("start", ["start", "snap_iter_6.solverstate"])
@pytest.mark.parametrize("case", CASES)
def test_trajectory(case: str, start: str, device: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if device == "afar" and start != "start":
        pytest.skip("resumed once is enough")
    monkeypatch.chdir(GOLDEN / "solvers" / case)
    record = recorded(Path("trajectory.npz").absolute())
    with NetSolver("solver.prototxt", device=Afar() if device == "afar" else device) as solver:
        solver.prefix = str(tmp_path / "snap")
        named = {f"{layer}_{i}": blob for layer, blobs in solver.net.params.items() for i, blob in enumerate(blobs)}
        if start == "start":
            for name, blob in named.items():
                blob.data[...] = record[f"init_{name}"]
        else:
            solver.restore(start)
        for i in range(solver.iteration, 12):
            solver.step(1)
            np.testing.assert_allclose(solver.losses[-1], record["loss"][i], 1e-5)
            np.testing.assert_allclose(solver.rate, record["lr"][i], 1e-5)
            for name, blob in named.items():
                close(blob.data, record[f"param_{name}"][i], f"{name} after iteration {i}")
                close(blob.diff, record[f"update_{name}"][i], f"what was subtracted from {name}, iteration {i}")


def test_snapshots_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(GOLDEN / "solvers" / "adam")
    with NetSolver("solver.prototxt") as first:
        first.prefix = str(tmp_path / "s")
        first.step(4)  # three would be a whole epoch, after which the data begins again anyway
        _, state = first.snapshot()
        first.step(2)
        with NetSolver("solver.prototxt") as second:
            second.prefix = first.prefix  # iteration 6 writes a snapshot
            second.restore(state)
            second.step(2)
            for layer, blobs in first.net.params.items():
                for a, b in zip(blobs, second.net.params[layer], strict=True):
                    np.testing.assert_array_equal(a.data, b.data)
