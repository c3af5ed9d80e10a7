"""ResNet for CIFAR-10 by one number, and a few steps of its training on images that are made here."""

from __future__ import annotations

import math
from pathlib import Path

import lmdb
import numpy as np
import pytest

from netrun.config import schema
from netrun.config.upgrade import parse_net, parse_solver
from netrun.solver import Solver

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "cifar10"
NET = (FOLDER / "resnet_train_test.prototxt").read_text()


@pytest.mark.parametrize("n", [1, 3, 5, 18])
def test_one_number_says_how_deep_it_is(n: int) -> None:
    net, _ = parse_net(NET.replace("let n: 3", f"let n: {n}"))
    kinds = [layer.type for layer in net.layer]
    assert kinds.count("Convolution") + kinds.count("InnerProduct") == 6 * n + 2
    assert kinds.count("Eltwise") == 3 * n
    strides = [s for layer in net.layer for s in layer.convolution_param.stride]
    assert (strides.count(2), kinds.count("Concat")) == (2, 2), "two stages begin at half the size"
    known = {"data", "label"}
    for layer in net.layer:
        assert known.issuperset(layer.bottom), layer.name
        known.update(layer.top)


def images(path: Path, count: int) -> None:
    """Images whose class is the brightness of one colour, in the form of the CIFAR-10 databases."""
    rng = np.random.default_rng(0)
    with lmdb.open(str(path), map_size=2**24) as env, env.begin(write=True) as transaction:
        for i in range(count):
            pixels = rng.integers(0, 128, (3, 32, 32), dtype=np.uint8)
            pixels[i % 3] += 100
            datum = schema.Datum(channels=3, height=32, width=32, data=pixels.tobytes(), label=i % 3)
            transaction.put(f"{i:05d}".encode(), datum.SerializeToString())


def test_resnet20_trains_a_few_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("train", "test"):
        images(tmp_path / f"cifar10_{name}_lmdb", 12)
    net = NET.replace("batch: 128", "batch: 6").replace("batch: 100", "batch: 6")
    (tmp_path / "resnet_train_test.prototxt").write_text(net)
    message, source = parse_solver((FOLDER / "resnet_solver.prototxt").read_text())
    message.test_iter[0], message.max_iter, message.average_loss = 1, 6, 1
    with Solver(message, source=source) as solver:
        losses: list[float] = []
        solver.on_iteration.append(lambda _, loss: losses.append(loss))
        solver.step(message.max_iter)
        assert all(map(math.isfinite, losses))
        assert losses[-1] < losses[0]
