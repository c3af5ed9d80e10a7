"""netrun expand, and the config language under every other command and in Python."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

import netrun
from netrun import pycaffe
from netrun.config import schema
from netrun.config.upgrade import read_net, read_solver

Run = Callable[..., Any]
"""The fixture of conftest.py: one command inside this process."""

NET = """
name: "tiny"
include "parts.prototxt"
let widths: [5, 4]
layer {
  name: "dummy" type: "DummyData" top: "data" top: "label"
  dummy_data_param {
    shape { dim: [4, 3, 6, 6] }
    shape { dim: 4 }
    data_filler { type: "gaussian" std: 1 }
    data_filler { type: "constant" value: 1 }
  }
}
repeat i in 1..2 {
  conv { name: "conv$i" bottom: $(where(i > 1, "conv$(i - 1)", "data")) width: $(widths[i - 1]) }
}
layer {
  name: "ip" type: "InnerProduct" bottom: "conv2" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } }
}
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }
"""
PARTS = """
def conv(name, bottom, width) {
  layer {
    name: $name type: "Convolution" bottom: $bottom top: $name
    convolution_param { num_output: $width kernel_size: 3 weight_filler { type: "xavier" } }
  }
  layer { name: "$(name)_relu" type: "ReLU" bottom: $name top: $name }
}
"""


@pytest.fixture
def short(folder: Path) -> Path:
    """The tiny net again, in the config language, and a solver with names in it."""
    (folder / "net.prototxt").write_text(NET)
    (folder / "parts.prototxt").write_text(PARTS)
    solver = (folder / "solver.prototxt").read_text().replace("max_iter: 8", "let n: 4 max_iter: $(2 * n) snapshot: $n")
    (folder / "solver.prototxt").write_text(solver)
    return folder


def test_it_writes_what_caffe_reads(run: Run, short: Path) -> None:
    found = run("expand", "net.prototxt", "-o", "plain.prototxt")
    assert (found.code, found.out, found.err) == (0, "plain.prototxt\n", "")
    plain = (short / "plain.prototxt").read_text()
    net = read_net(short / "net.prototxt")[0]
    assert text_format.Parse(plain, schema.NetParameter()) == net
    assert [layer.name for layer in net.layer][1:5] == ["conv1", "conv1_relu", "conv2", "conv2_relu"]
    assert run("expand", "net.prototxt").out == plain
    assert run("expand", "plain.prototxt").out == plain
    found = run("expand", "solver.prototxt")
    assert text_format.Parse(found.out, schema.SolverParameter()) == read_solver(short / "solver.prototxt")[0]


def test_old_nets_stay_old(run: Run, folder: Path) -> None:
    (folder / "old.prototxt").write_text("repeat i in 1..2 { layers { type: RELU name: 'r$i' bottom: 'x' top: 'x' } }")
    assert run("expand", "old.prototxt").out.count("layers {") == 2


def test_it_replaces_a_file_only_if_told_and_writes_none_for_a_wrong_one(run: Run, short: Path) -> None:
    found = run("expand", "net.prototxt", "--out", "parts.prototxt")
    assert (found.code, found.err) == (2, "parts.prototxt is there already\n    --force replaces it\n")
    (short / "plain.prototxt").write_text("old")
    assert run("expand", "net.prototxt", "--out=plain.prototxt", "--force").code == 0
    assert (short / "plain.prototxt").read_text().startswith('name: "tiny"')
    assert "is a folder" in run("expand", "net.prototxt", "-o", ".").err
    assert "cannot be written" in run("expand", "net.prototxt", "-o", "no/where.prototxt").err
    (short / "parts.prototxt").write_text(PARTS.replace("$width", "$widht"))
    found = run("expand", "net.prototxt", "-o", "new.prototxt")
    assert (found.code, (short / "new.prototxt").exists()) == (2, False)
    assert found.err == (
        'parts.prototxt:5:37: nothing here is called "widht"; did you mean "width"?\n'
        "    the same in 1 more place, first:\n"
        "    used at net.prototxt:15:3 (conv)\n"
        "    repeated at net.prototxt:14:1 (i = 1)\n"
    )


def test_check_tells_the_way_in_json_too(run: Run, short: Path) -> None:
    assert run("check", "net.prototxt", "solver.prototxt").code == 0
    (short / "parts.prototxt").write_text(PARTS.replace("kernel_size: 3", "kernel_size: 7"))
    (report,) = json.loads(run("check", "net.prototxt", "--json").out)
    first = report["errors"][0]
    assert (first["file"], first["line"], first["column"]) == ("parts.prototxt", 5, 44)
    assert first["notes"][-2:] == ["used at net.prototxt:15:3 (conv)", "repeated at net.prototxt:14:1 (i = 1)"]


def test_every_command_reads_it_as_the_plain_one(run: Run, short: Path) -> None:
    run("expand", "net.prototxt", "-o", "plain.prototxt")
    for command in (["summary"], ["plan"], ["draw"], ["time", "--iterations", "1", "--model"]):
        assert run(*command, "net.prototxt").code == 0, command
    for command in ("summary", "plan"):
        one, other = (run(command, name).out for name in ("net.prototxt", "plain.prototxt"))
        assert one.replace("plain.prototxt", "net.prototxt") == other.replace("plain.prototxt", "net.prototxt")
    run("draw", "net.prototxt", "one.svg")
    run("draw", "plain.prototxt", "other.svg")
    assert (short / "one.svg").read_bytes() == (short / "other.svg").read_bytes()


def test_training_snapshots_and_resumes(run: Run, short: Path) -> None:
    (short / "out").mkdir()
    assert run("train", "--solver", "solver.prototxt", "--device", "cpu").code == 0
    weights = (short / "out" / "tiny_iter_8.caffemodel").read_bytes()
    found = run("train", "--solver", "solver.prototxt", "--snapshot", "out/tiny_iter_4.solverstate", "--device", "cpu")
    assert found.code == 0
    assert (short / "out" / "tiny_iter_8.caffemodel").read_bytes() == weights
    trained = ("--weights", "out/tiny_iter_8.caffemodel", "--iterations", "1", "--device", "cpu")
    assert "accuracy" in run("test", "--model", "net.prototxt", *trained).out
    run("expand", "net.prototxt", "-o", "plain.prototxt")
    (short / "net.prototxt").write_bytes((short / "plain.prototxt").read_bytes())
    assert run("train", "--solver", "solver.prototxt", "--device", "cpu").code == 0
    assert (short / "out" / "tiny_iter_8.caffemodel").read_bytes() == weights


def test_python_and_pycaffe_read_it(short: Path) -> None:
    net = netrun.Net("net.prototxt")
    assert net.blobs["conv2"].data.shape == (4, 4, 2, 2)
    other = pycaffe.Net("net.prototxt", pycaffe.TEST)
    assert list(other.params) == ["conv1", "conv2", "ip"]
    assert np.isfinite(other.forward()["loss"]).all()
