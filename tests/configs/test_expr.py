"""configs/expr: formulas and a layer of Python that says its forward alone learn the digits, on every device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from netrun.net import Net
from netrun.solver import Solver

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "expr"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights land in the working directory."""
    monkeypatch.chdir(tmp_path)


def test_it_learns() -> None:
    with Solver(FOLDER / "solver.prototxt", device="cpu") as solver:
        solver.step(200)
        tested = {output.name: float(output.values) for output in solver.test()}
        kernels = [call.op.name for call in solver.training.recording.forward if call.origin.name in ("gated", "focal")]
    assert tested["accuracy"] > 0.95
    assert "host" not in kernels
    assert kernels.count("gemm") == 2


def test_devices_agree() -> None:
    found = []
    for device in ("cpu", "reference"):
        with Net(FOLDER / "net.prototxt", 0, device=device, seed=3) as net:
            net.forward()
            net.backward()
            found.append((net.loss, {name: [b.diff.copy() for b in blobs] for name, blobs in net.params.items()}))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    for name, diffs in found[1][1].items():
        for ours, reference in zip(found[0][1][name], diffs, strict=True):
            np.testing.assert_allclose(ours, reference, 1e-3, 1e-6)
