"""The solver classes of the mirror."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import netrun.pycaffe as caffe

SOLVER = """net: "{net}" test_iter: 10 test_interval: 10 base_lr: 0.01 momentum: 0.9 weight_decay: 0.0005
lr_policy: "inv" gamma: 0.0001 power: 0.75 display: 100 max_iter: 100 snapshot_after_train: false
snapshot_prefix: "model" {more}"""


@pytest.fixture
def solver(simple: str, write: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    made = caffe.SGDSolver(write(SOLVER.format(net=simple, more="")))
    rng = np.random.default_rng(0)
    for net in (made.net, made.test_nets[0]):
        net.blobs["label"].data[...] = rng.integers(13, size=net.blobs["label"].data.shape)
    return made


def test_solve(solver: Any) -> None:
    assert solver.iter == 0
    assert solver.lr == pytest.approx(0.01)
    solver.solve()
    assert solver.iter == 100
    assert solver.lr == pytest.approx(0.01 * (1 + 0.0001 * 100) ** -0.75)
    assert solver.param.max_iter == 100


def test_apply_update(solver: Any) -> None:
    blob = solver.net.layers[1].blobs[0]
    data = blob.data[...]
    data[...] = 0
    blob.diff[...] = 1
    solver.apply_update()
    np.testing.assert_allclose(data, -0.01, 1e-6)
    np.testing.assert_allclose(blob.diff, 0.01, 1e-6)


def test_a_step_can_be_looked_at_and_changed(solver: Any) -> None:
    net = solver.net
    before = net.params["ip"][0].data.copy()
    held = net.params["ip"][0].data
    solver.step(1)
    assert net.blobs["ip_blob"].data.any()
    assert net.blobs["ip_blob"].diff.any()
    np.testing.assert_allclose(before - held, net.params["ip"][0].diff, 0, np.spacing(np.abs(before).max()))
    assert np.shares_memory(held, solver.test_nets[0].params["ip"][0].data)
    assert np.shape(net.forward()["loss"]) == ()
    assert set(solver.test_nets[0].forward()) == {"loss"}
    held[...] = 0
    net.params["ip"][1].data[...] = 0
    assert net.forward()["loss"] == pytest.approx(np.log(13), rel=1e-5)
    assert solver.test_nets[0].forward()["loss"] == pytest.approx(np.log(13), rel=1e-5)


def test_a_loop_of_ones_own(simple: str, write: Callable[..., str]) -> None:
    runs = []
    for own in (False, True):
        caffe.set_random_seed(3)
        text = SOLVER.format(net=simple, more="iter_size: 2").replace("test_iter: 10 test_interval: 10", "")
        made = caffe.get_solver(write(text))
        if own:
            for _ in range(3):
                made.net.clear_param_diffs()
                for _ in range(2):
                    made.net.forward()
                    made.net.backward()
                made.apply_update()
        else:
            made.step(3)
        runs.append([b.data.copy() for blobs in made.net.params.values() for b in blobs])
    for a, b in zip(*runs, strict=True):
        np.testing.assert_allclose(a, b, 1e-3, 1e-5)  # the learning rate moves with iterations only


def test_nets_outlive_the_solver(solver: Any) -> None:
    nets = [solver.net, *solver.test_nets]
    assert len(nets) == 2
    del solver
    total = 0.0
    for net in nets:
        for blob in [b for blobs in net.params.values() for b in blobs] + list(net.blobs.values()):
            total += float(blob.data.sum() + blob.diff.sum())
    assert np.isfinite(total)


def test_snapshot_and_restore(solver: Any, simple: str, write: Callable[..., str]) -> None:
    solver.step(2)
    solver.snapshot()
    assert os.path.isfile("model_iter_2.caffemodel")
    weights = solver.net.params["ip"][0].data.copy()
    solver.step(1)
    solver.restore("model_iter_2.solverstate")
    assert solver.iter == 2
    np.testing.assert_array_equal(solver.net.params["ip"][0].data, weights)
    net = caffe.Net(simple, caffe.TEST, weights="model_iter_2.caffemodel")
    np.testing.assert_array_equal(net.params["ip"][0].data, weights)
    other = caffe.Net(simple, caffe.TEST)
    solver.share_weights(other)
    assert np.shares_memory(other.params["ip"][0].data, solver.net.params["ip"][0].data)


def test_callbacks(solver: Any) -> None:
    seen: list[str] = []

    def ready() -> None:
        seen.append("ready")
        for blobs in solver.net.params.values():
            for blob in blobs:
                blob.diff[...] = 0

    solver.add_callback(lambda: seen.append("start"), ready)
    solver.net.after_forward(lambda i: seen.append(f"layer {i}") if i == 3 else None)
    weights = [b.data.copy() for b in solver.net.params["ip"][1:]]
    solver.step(1)
    assert seen == ["start", "layer 3", "ready"]
    np.testing.assert_array_equal(solver.net.params["ip"][1].data, weights[0] * (1 - 0.01 * 0.0005))


@pytest.mark.parametrize("kind", ["SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"])
def test_kinds(kind: str, simple: str, write: Callable[..., str]) -> None:
    text = SOLVER.format(net=simple, more=f'type: "{kind}"')
    if kind in ("AdaGrad", "RMSProp"):
        text = text.replace("momentum: 0.9", "")
    made = caffe.get_solver(write(text))
    assert type(made) is getattr(caffe, f"{kind}Solver")
    assert isinstance(made, caffe.Solver)
    made.step(1)
    assert made.iter == 1
