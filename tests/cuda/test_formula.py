"""Formulas on the stand-in GPU: Expr layers and Python layers with a forward alone equal the reference device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases.layers import LAYERS, LayerCase

from layers_cuda.device import Cuda
from netrun.net import Net
from netrun.solver import Solver

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

NOTES = ("as in the README", "choices", "focal loss", "an LSTM cell", "batches of products", "rows of a table",
         "forward alone: array arithmetic", "forward alone: kernels of the vocabulary")  # fmt: skip
CASES = [case for case in LAYERS if case.note in NOTES]


def run(case: LayerCase, device: Any) -> dict[str, Any]:
    """Tops, gradients of the bottoms and of the weights."""
    rng = np.random.default_rng(4)
    with Net(case.net(), case.phase, device=device) as net:
        for blob in net.params.get("t", []):
            blob.data[...] = rng.normal(size=blob.shape)
        net.forward(**{f"x{i}": value for i, value in enumerate(case.draw("float32"))})
        found = {name: np.array(net.blobs[name].data) for name in case.top_names}
        net.backward(**{name: rng.normal(size=value.shape) for name, value in found.items()})
        found |= {f"x{i}'": np.array(net.blobs[f"x{i}"].diff) for i in case.wants}
        found |= {f"weight {i}'": np.array(blob.diff) for i, blob in enumerate(net.params.get("t", []))}
    return found


def test_the_rows_are_there() -> None:
    assert len(CASES) == len(NOTES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case: LayerCase, device: Cuda) -> None:
    got, wanted = run(case, device), run(case, "reference")
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, 2e-4, 1e-5 * max(1.0, float(np.abs(value).max())), err_msg=name)


def test_the_example_trains(make_device: Callable[..., Cuda], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    losses = []
    for device in (make_device(), "cpu"):
        with Solver(CONFIGS / "expr" / "solver.prototxt", device=device) as solver:
            solver.step(3)
            losses.append(solver.losses[-1])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
