"""Whole training iterations on the stand-in GPU: call by call, captured, replayed; against the device "cpu"."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakestream
import numpy as np
import pytest
from fakelibs import Cudnn

from layers_cuda.device import Cuda
from netrun.net import Net
from netrun.solver import Solver

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
Make = Callable[..., Cuda]

SOLVER = """
net: "net.prototxt" base_lr: 0.01 momentum: 0.9 weight_decay: 0.0005 lr_policy: "inv" gamma: 0.001 power: 0.75
max_iter: 100 random_seed: 3 clip_gradients: 20 {more}
"""


def lenet(folder: Path, batch: int, more: str = "") -> Path:
    """LeNet as in configs/mnist with an input in the place of its data; returns the solver's file."""
    text = (CONFIGS / "mnist" / "lenet_train_test.prototxt").read_text()
    first = text.index("layer {")
    body = text[re.search(r'layer \{\s*name: "conv1"', text).start() :]  # type: ignore[union-attr]
    given = f"""layer {{ name: "data" type: "Input" top: "data" top: "label"
        input_param {{ shape {{ dim: {batch} dim: 1 dim: 28 dim: 28 }} shape {{ dim: {batch} }} }} }}\n"""
    (folder / "net.prototxt").write_text(text[:first] + given + body)
    solver = folder / "solver.prototxt"
    solver.write_text(SOLVER.format(more=more))
    return solver


def batches(batch: int) -> Any:
    rng = np.random.default_rng(0)
    while True:
        yield {
            "data": rng.random((batch, 1, 28, 28), np.float32),
            "label": rng.integers(0, 10, batch).astype("float32"),
        }


def train(file: Path, device: Any, iterations: int, batch: int) -> tuple[list[float], dict[str, Any]]:
    """The losses and the parameters after some iterations."""
    losses = []
    with Solver(file, device=device) as solver:
        for _, values in zip(range(iterations), batches(batch), strict=False):
            solver.runners[0].session.feed(values)
            solver.step(1)
            losses.append(solver.losses[-1])
        tensors = solver.training.recording.parameters.values()
        history = [t for found in solver.training.history.values() for t in found]
        return losses, {t.name: solver.memory.read(t) for t in (*tensors, *history)}


@pytest.mark.parametrize("debug", [False, True])
def test_lenet_equals_the_cpu(debug: bool, make_device: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if debug:
        monkeypatch.setenv("NETRUN_CUDA_DEBUG", "1")
    library = Cudnn()
    device = make_device(cudnn=library)
    file = lenet(tmp_path, 4)
    fakestream.log.clear()
    losses, values = train(file, device, 4, 4)
    wanted, reference = train(file, "cpu", 4, 4)
    np.testing.assert_allclose(losses, wanted, 2e-5)
    assert values.keys() == reference.keys()
    for name, value in values.items():
        np.testing.assert_allclose(
            value, reference[name], 2e-4, 1e-6 + 1e-4 * np.abs(reference[name]).max(), err_msg=name
        )
    assert fakestream.log.count("graph") == (0 if debug else 3), "call by call once, then replayed"
    assert library.executed.count("fprop bias") == 2 * 4


def test_gradients_that_add_up(make_device: Make, tmp_path: Path) -> None:
    file = lenet(tmp_path, 2, "iter_size: 2")
    losses, values = train(file, make_device(), 3, 2)
    wanted, reference = train(file, "cpu", 3, 2)
    np.testing.assert_allclose(losses, wanted, 2e-5)
    for name, value in values.items():
        np.testing.assert_allclose(
            value, reference[name], 2e-4, 1e-6 + 1e-4 * np.abs(reference[name]).max(), err_msg=name
        )


@pytest.mark.parametrize("precision", ["TF32", "BF16", "FP16"])
def test_lower_precision_is_near(precision: str, make_device: Make, tmp_path: Path) -> None:
    losses, _ = train(lenet(tmp_path, 4, f"precision: {precision}"), make_device(), 3, 4)
    wanted, _ = train(lenet(tmp_path, 4), "cpu", 3, 4)
    np.testing.assert_allclose(losses, wanted, 0.02)


def test_two_nets_on_two_devices_take_turns(make_device: Make, tmp_path: Path) -> None:
    """A GPU in BF16, another session of it in float32, and the CPU, in one process: none knows of the others."""
    gpu = make_device()
    alone = [train(lenet(tmp_path, 2, more), device, 3, 2)[0]
             for more, device in (("precision: BF16", gpu), ("", gpu), ("", "cpu"))]  # fmt: skip
    files = []
    for i, more in enumerate(("precision: BF16", "", "")):
        folder = tmp_path / str(i)
        folder.mkdir()
        files.append(lenet(folder, 2, more + f' net: "{folder}/net.prototxt"').read_text())
        (folder / "solver.prototxt").write_text(files[-1].replace('net: "net.prototxt"', ""))
    solvers = [Solver(tmp_path / str(i) / "solver.prototxt", device=d) for i, d in enumerate((gpu, gpu, "cpu"))]
    found: list[list[float]] = [[], [], []]
    for _, values in zip(range(3), batches(2), strict=False):
        for solver, losses in zip(solvers, found, strict=True):
            solver.runners[0].session.feed(values)
            solver.step(1)
            losses.append(solver.losses[-1])
    for solver in solvers:
        solver.close()
    assert found == alone
    assert found[0] != found[1]


def test_digits_train(make_device: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Data layer, fused convolution and ReLU, dropout with the reference's mask, a test net between the iterations."""
    monkeypatch.chdir(CONFIGS / "digits")
    found = []
    library = Cudnn()
    for device in (make_device(cudnn=library), "cpu"):
        with Solver("solver.prototxt", device=device) as solver:
            before = solver.test()
            solver.step(3)
            after = solver.test()
            found.append([*solver.losses, *(float(o.values.sum()) for o in (*before, *after))])
    np.testing.assert_allclose(found[0], found[1], 2e-4)
    assert "fprop bias relu" in library.executed


def test_a_net_keeps_every_blob(make_device: Make, tmp_path: Path) -> None:
    lenet(tmp_path, 2)
    values = next(batches(2))
    nets = [Net(tmp_path / "net.prototxt", device=d, seed=5) for d in (make_device(), "cpu")]
    for net in nets:
        net.forward(**values)
        net.backward()
    ours, theirs = nets
    for name, blob in theirs.blobs.items():
        np.testing.assert_allclose(ours.blobs[name].data, blob.data, 1e-4, 1e-5, err_msg=name)
    for name, blobs in theirs.params.items():
        for a, b in zip(ours.params[name], blobs, strict=True):
            np.testing.assert_allclose(a.diff, b.diff, 1e-3, 1e-5, err_msg=name)
