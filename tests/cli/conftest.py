"""A tiny net on DummyData in a folder of its own, and the command line run inside this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from netrun.cli import main

NET = """
name: "tiny"
layer {
  name: "dummy" type: "DummyData" top: "data" top: "label"
  dummy_data_param {
    shape { dim: 4 dim: 3 dim: 6 dim: 6 }
    shape { dim: 4 }
    data_filler { type: "gaussian" std: 1 }
    data_filler { type: "constant" value: 1 }
  }
}
layer {
  name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 5 kernel_size: 3 weight_filler { type: "xavier" } }
}
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer {
  name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } }
}
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer {
  name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST }
}
"""

SOLVER = """
net: "net.prototxt"
test_iter: 2
test_interval: 4
base_lr: 0.05
lr_policy: "inv"
gamma: 0.1
power: 0.75
momentum: 0.9
max_iter: 8
display: 2
snapshot_prefix: "out/tiny"
random_seed: 3
solver_mode: CPU
"""


@dataclass
class Result:
    """What one command gave back."""

    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture(name="folder")
def folder_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with net.prototxt and solver.prototxt in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    return tmp_path


@pytest.fixture(name="run")
def run_fixture(folder: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """``run("train", "--solver", ...)`` in that folder."""

    def run(*argv: str) -> Result:
        code = main(argv)
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return run
