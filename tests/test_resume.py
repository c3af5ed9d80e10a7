"""A killed run that goes on ends where the straight run ends, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from netrun.config.weights import read_state, read_weights

DIGITS = Path(__file__).parents[1] / "configs" / "digits"

NET = """
layer {{ name: "digits" type: "Data" top: "data" top: "label"
  transform_param {{ scale: 0.0625 mirror: true crop_size: 7 }}
  data_param {{ source: "{source}" batch_size: 16 backend: LMDB shuffle: true }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param {{ num_output: 8 kernel_size: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }}
layer {{ name: "relu" type: "ReLU" bottom: "conv" top: "conv" }}
layer {{ name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param {{ kernel_size: 2 stride: 2 }} }}
layer {{ name: "drop" type: "Dropout" bottom: "pool" top: "pool" dropout_param {{ dropout_ratio: 0.3 }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "pool" top: "ip"
  inner_product_param {{ num_output: 10 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
"""

SOLVER = """
net: "net.prototxt" base_lr: 0.02 momentum: 0.9 weight_decay: 0.001 lr_policy: "multistep" gamma: 0.5
stepvalue: 60 stepvalue: 130 max_iter: {stop} snapshot: {every} snapshot_prefix: "{prefix}" display: 1 average_loss: 7
iter_size: 2 clip_gradients: 3 test_iter: 2 test_interval: 25
"""


def write(folder: Path, prefix: str, stop: int, every: int) -> Path:
    (folder / "net.prototxt").write_text(NET.format(source=DIGITS / "digits_train_lmdb"))
    file = folder / f"{prefix}.prototxt"
    file.write_text(SOLVER.format(prefix=prefix, stop=stop, every=every))
    return file


def train(folder: Path, file: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "netrun", "train", "--solver", file.name, "--device", "cpu", *more]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def log_from(text: str, iteration: int) -> list[str]:
    """The lines of losses, rates and scores from an iteration on, without times."""
    lines = [line.split("] ", 1)[1] for line in text.splitlines() if "] " in line]
    start = next(i for i, t in enumerate(lines) if t.startswith(f"Iteration {iteration} ("))
    kept = [t.split(" (")[0] + t.rsplit(",", 1)[1] if "iter/s" in t else t for t in lines[start:]]
    return [t for t in kept if t.startswith(("Iteration", "    Test", "    Train"))]


def test_kill_and_resume_is_bit_identical(tmp_path: Path) -> None:
    straight = train(tmp_path, write(tmp_path, "straight", 200, 0), "--set", "random_seed=11")
    assert straight.returncode == 0, straight.stderr
    file = write(tmp_path, "killed", 200, 100)
    command = [
        sys.executable,
        "-m",
        "netrun",
        "train",
        "--solver",
        file.name,
        "--device",
        "cpu",
        "--set",
        "random_seed=11",
    ]
    child = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    for line in child.stderr:
        if "Iteration 117 " in line:  # well past the snapshot of iteration 100
            os.kill(child.pid, signal.SIGKILL)
            break
    child.stderr.close()
    assert child.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed_iter_200.caffemodel").exists()
    # Without the seed: the snapshot knows it.
    resumed = train(tmp_path, file, "--snapshot", "killed_iter_100.solverstate")
    assert resumed.returncode == 0, resumed.stderr
    assert log_from(resumed.stderr, 101) == log_from(straight.stderr, 101)
    for a, b in zip(
        *(read_weights(tmp_path / f"{n}_iter_200.caffemodel") for n in ("straight", "killed")), strict=True
    ):
        assert a.name == b.name
        for x, y in zip(a.blobs, b.blobs, strict=True):
            np.testing.assert_array_equal(x, y, f"{a.name} differs after the resume")
    one, two = (read_state(tmp_path / f"{n}_iter_200.solverstate") for n in ("straight", "killed"))
    for x, y in zip(one.history, two.history, strict=True):
        np.testing.assert_array_equal(x, y)
    assert one.cursor == two.cursor


@pytest.mark.parametrize("delay", [0.0, 0.004, 0.011, 0.02])
def test_a_kill_at_any_moment_leaves_whole_snapshots(tmp_path: Path, delay: float) -> None:
    file = write(tmp_path, "often", 5000, 1)
    command = [sys.executable, "-m", "netrun", "train", "--solver", file.name, "--device", "cpu"]
    child = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    for line in child.stderr:
        if "Snapshotting to" in line and "_iter_3." in line:
            time.sleep(delay)
            child.kill()
            break
    child.stderr.close()
    child.wait()
    states = sorted(tmp_path.glob("often_iter_*.solverstate"))
    assert states
    for state in states:
        assert read_state(state).iter > 0
        assert len(read_weights(state.with_suffix(".caffemodel"))) == 8
