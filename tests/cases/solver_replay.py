"""Recorded solver runs, replayed: twelve iterations, straight and resumed from Caffe's own snapshots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cases.recorded import GOLDEN, recorded
from netrun.config.weights import read_state, read_weights
from netrun.solver import Solver

CASES = sorted(p.name for p in (GOLDEN / "solvers").iterdir() if (p / "trajectory.npz").exists())
STARTS = ["start", "snap_iter_6.solverstate", "snap_iter_6.solverstate.h5"]


def tensors(solver: Solver) -> dict[str, Any]:
    """The parameters by the names of the recording: layer_index."""
    recording = solver.training.recording
    return {
        f"{node.name}_{i}": recording.parameters[p.owner or p]
        for node in recording.graph.nodes
        for i, p in enumerate(node.parameters)
    }


def close(got: Any, wanted: Any, what: str) -> None:
    np.testing.assert_allclose(got, wanted, 1e-5, 1e-6 + 1e-5 * np.abs(wanted).max(), err_msg=what)


def replay_trajectory(case: str, start: str, device: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Twelve iterations from the start, or the last six from one of the snapshots."""
    monkeypatch.chdir(GOLDEN / "solvers" / case)
    record = recorded(Path("trajectory.npz").absolute())
    with Solver("solver.prototxt", device=device) as solver:
        solver.prefix = str(tmp_path / "snap")  # the folder of the recording stays as it is
        named = tensors(solver)
        if start == "start":
            for name, tensor in named.items():
                solver.memory.write(tensor, record[f"init_{name}"])
        else:
            solver.restore(start)
        first = solver.iteration
        assert first == (0 if start == "start" else 6)
        for i in range(first, 12):
            solver.step(1)
            np.testing.assert_allclose(solver.losses[-1], record["loss"][i], 1e-5)
            np.testing.assert_allclose(solver.rate, record["lr"][i], 1e-5)
            for name, tensor in named.items():
                close(solver.memory.read(tensor), record[f"param_{name}"][i], f"{name} after iteration {i}")
            if solver.iteration == 6:
                check_snapshot(solver, tmp_path)


def check_snapshot(solver: Solver, folder: Path) -> None:
    """What we wrote in iteration 6 holds what Caffe wrote there."""
    ours = {x.name: x.blobs for x in read_weights(folder / "snap_iter_6.caffemodel")}
    for layer in read_weights("snap_iter_6.caffemodel"):
        for i, blob in enumerate(layer.blobs):
            close(ours[layer.name][i], blob, f"{layer.name} {i} in our snapshot")
    mine, theirs = read_state(folder / "snap_iter_6.solverstate"), read_state("snap_iter_6.solverstate")
    assert (mine.iter, mine.current_step, len(mine.history)) == (theirs.iter, theirs.current_step, len(theirs.history))
    for i, (a, b) in enumerate(zip(mine.history, theirs.history, strict=True)):
        close(a, b, f"history {i} in our snapshot")


def replay_end_to_end(device: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From Caffe's snapshot of iteration 5 to 45 over an LMDB: weights, log and test scores are Caffe's."""
    monkeypatch.chdir(GOLDEN / "e2e")
    lines: list[str] = []
    with Solver("solver.prototxt", device=device, log=lambda text, *_: lines.append(text)) as solver:
        solver.prefix = str(tmp_path / "s")
        solver.solve(resume="s_iter_5.solverstate")
    ours = {x.name: x.blobs for x in read_weights(tmp_path / "s_iter_45.caffemodel")}
    for layer in read_weights("s_iter_45.caffemodel"):
        for i, blob in enumerate(layer.blobs):
            wanted = np.asarray(blob)
            np.testing.assert_allclose(ours[layer.name][i], wanted, 0, 1e-4 * np.abs(wanted).max())
    curve = json.loads(Path("curve.json").read_text())
    for entry in curve["smoothed_loss"]:
        shown = next(
            t for t in lines if t.startswith((f"Iteration {entry['iter']} (", f"Iteration {entry['iter']}, loss"))
        )
        assert float(shown.rsplit("= ", 1)[1]) == pytest.approx(entry["loss"], rel=2e-5)
    for entry in curve["tests"]:
        at = next(i for i, t in enumerate(lines) if t.startswith(f"Iteration {entry['iter']}, Testing net (#0)"))
        accuracy, loss = (float(lines[at + k].split("= ")[1].split()[0]) for k in (1, 2))
        assert accuracy == pytest.approx(entry["accuracy"], abs=1 / 80 + 1e-6)  # one sample of the 80
        assert loss == pytest.approx(entry["loss"], rel=1e-4)
