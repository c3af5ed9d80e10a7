"""A table trained by rows on the stand-in GPU, as on the device "cpu"."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from layers_cuda.device import Cuda
from netrun.config.upgrade import parse_solver
from netrun.solver import Solver

SOLVER = """
net_param {
  layer { name: "in" type: "Input" top: "x" top: "t"
    input_param { shape { dim: 3 dim: 5 } shape { dim: 3 dim: 5 dim: 6 } } }
  layer { name: "e" type: "Embed" bottom: "x" top: "y" embed_param { num_output: 6 input_dim: 40 sparse_gradient: true
    weight_filler { type: "gaussian" std: 1 } } }
  layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }
}
lr_policy: "fixed" base_lr: 0.1 max_iter: 99 random_seed: 1 snapshot_after_train: false clip_gradients: 2
"""


def trained(device: Any, options: str) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    with Solver(parse_solver(SOLVER + options)[0], device=device) as solver:
        for _ in range(4):
            feed = {"x": rng.integers(0, 40, (3, 5)), "t": rng.standard_normal((3, 5, 6))}
            solver.runners[0].session.feed(feed)
            solver.step(1)
        assert [c.op.name for c in solver.training.step.calls if "rows" in c.op.name] == ["merge_rows", "update_rows"]
        kept = [*solver.training.recording.parameters.values()]
        kept += [t for column in solver.training.history.values() for t in column]
        return {t.name: solver.memory.read(t) for t in kept}


@pytest.mark.parametrize("options", ["momentum: 0.9 weight_decay: 0.01", 'type: "Adam" momentum: 0.9'])
def test_as_on_the_cpu(options: str, device: Cuda) -> None:
    there, here = trained(device, options), trained("cpu", options)
    for name, values in here.items():
        np.testing.assert_allclose(there[name], values, 1e-5, 1e-6, err_msg=name)
