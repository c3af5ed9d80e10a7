"""GoogLeNet in the config language trains: two steps of its solver, on images made here, an image at a time."""

from __future__ import annotations

import math
from pathlib import Path

import lmdb
import numpy as np
import pytest

from netrun.config import schema
from netrun.config.upgrade import parse_solver
from netrun.solver import Solver

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "imagenet" / "googlenet"


def test_the_short_googlenet_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("train", "val"):
        path = str(tmp_path / f"ilsvrc12_{name}_lmdb")
        with lmdb.open(path, map_size=2**22) as env, env.begin(write=True) as transaction:
            for i in range(2):
                pixels = rng.integers(105, 125, (3, 256, 256), dtype=np.uint8).tobytes()
                datum = schema.Datum(channels=3, height=256, width=256, data=pixels, label=i)
                transaction.put(f"{i}".encode(), datum.SerializeToString())
    text = (FOLDER / "short_train_val.prototxt").read_text().replace("batch: 32", "batch: 1")
    (tmp_path / "net.prototxt").write_text(text.replace("batch: 50", "batch: 1"))
    message, source = parse_solver((FOLDER / "solver.prototxt").read_text())
    message.net, message.solver_mode = "net.prototxt", schema.SolverParameter.CPU
    message.test_iter[0], message.average_loss = 1, 1
    with Solver(message, source=source) as solver:
        losses: list[float] = []
        solver.on_iteration.append(lambda _, loss: losses.append(loss))
        solver.step(2)
        assert {o.name for o in solver.test()} >= {"loss1/top-1", "loss2/top-5", "loss3/loss3"}
    chance = 1.6 * math.log(1000)  # three classifiers that know nothing yet, two of them at weight 0.3
    assert 0.8 * chance < losses[0] < 2 * chance
    assert math.isfinite(losses[1])
