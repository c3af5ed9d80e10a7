"""``netrun test``, ``netrun time`` and ``netrun data``."""

from __future__ import annotations

import gzip
import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest

from netrun.config import schema

TEST = ("test", "-model", "net.prototxt", "-weights", "out/tiny_iter_8.caffemodel", "-iterations", "3")
NUMBER = r"[-+]?[0-9.]+(?:e[-+]?[0-9]+)?"


@pytest.fixture(name="trained")
def trained_fixture(run: Any) -> Any:
    """``run``, after the tiny net was trained."""
    assert run("train", "solver.prototxt").code == 0
    return run


def test_test_logs_batches_and_means_in_caffes_words(trained: Any) -> None:
    found = trained(*TEST)
    assert found.code == 0
    text = re.sub(r"^\S+ \S+ +\d+ ", "", found.err, flags=re.MULTILINE)
    assert text.startswith("caffe.cpp:275] Use CPU.\n")
    assert "caffe.cpp:281] Running for 3 iterations.\n" in text
    batches = re.findall(rf"caffe.cpp:304\] Batch (\d), (\w+) = ({NUMBER})\n", text)
    assert [(i, name) for i, name, _ in batches] == [(i, n) for i in "012" for n in ("accuracy", "loss")]
    losses = [float(v) for _, name, v in batches if name == "loss"]
    assert float(re.findall(rf"caffe.cpp:309\] Loss: ({NUMBER})\n", text)[0]) == pytest.approx(
        sum(losses) / 3, rel=1e-4
    )
    accuracy, loss = re.findall(r"caffe.cpp:321\] (.*)\n", text)
    assert re.fullmatch(rf"accuracy = {NUMBER}", accuracy)
    assert re.fullmatch(rf"loss = ({NUMBER}) \(\* 1 = \1 loss\)", loss)
    assert found.out == f"{accuracy}\n{loss}\n"


def test_test_as_json(trained: Any) -> None:
    found = json.loads(trained(*TEST, "--json", "--log", "short").out)
    assert found["iterations"] == 3
    assert found["outputs"]["loss"] == pytest.approx(found["loss"])


def test_test_refuses_damaged_weights(trained: Any, folder: Path) -> None:
    path = folder / "out" / "tiny_iter_8.caffemodel"
    path.write_bytes(path.read_bytes()[:100])
    found = trained(*TEST)
    assert found.code == 3
    assert "tiny_iter_8.caffemodel" in found.err


def test_time_logs_every_layer_in_caffes_words(run: Any) -> None:
    found = run("time", "-model", "net.prototxt", "-iterations", "2")
    assert found.code == 0
    text = re.sub(r"^\S+ \S+ +\d+ ", "", found.err, flags=re.MULTILINE)
    for line in (
        r"caffe.cpp:343\] Use CPU\.",
        r"caffe.cpp:351\] Performing Forward",
        rf"caffe.cpp:356\] Initial loss: {NUMBER}",
        r"caffe.cpp:357\] Performing Backward",
        r"caffe.cpp:365\] \*\*\* Benchmark begins \*\*\*",
        r"caffe.cpp:366\] Testing for 2 iterations\.",
        rf"caffe.cpp:394\] Iteration: 2 forward-backward time: {NUMBER} ms\.",
        r"caffe.cpp:397\] Average time per layer: ",
        rf"caffe.cpp:400\]       conv\tforward: {NUMBER} ms\.",
        rf"caffe.cpp:403\]       conv\tbackward: {NUMBER} ms\.",
        rf"caffe.cpp:408\] Average Forward pass: {NUMBER} ms\.",
        rf"caffe.cpp:410\] Average Backward pass: {NUMBER} ms\.",
        rf"caffe.cpp:412\] Average Forward-Backward: {NUMBER} ms\.",
        rf"caffe.cpp:414\] Total Time: {NUMBER} ms\.",
        r"caffe.cpp:415\] \*\*\* Benchmark ends \*\*\*",
    ):
        assert re.search(f"^{line}$", text, re.MULTILINE), line


def test_time_as_json(run: Any) -> None:
    found = json.loads(run("time", "net.prototxt", "-iterations", "2", "--json", "--phase", "TEST").out)
    layers = {layer["name"]: layer for layer in found["layers"]}
    assert list(layers) == ["dummy", "conv", "relu", "ip", "loss", "accuracy"]
    assert layers["conv"]["backward_ms"] > 0
    assert layers["accuracy"]["backward_ms"] == 0
    assert sum(layer["forward_ms"] for layer in layers.values()) <= found["forward_ms"] * 1.0001


def test_time_of_a_net_without_loss_runs_backward_too(run: Any, folder: Path) -> None:
    (folder / "deploy.prototxt").write_text("""
        layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 4 } } }
        layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 4 } }""")
    found = run("time", "deploy.prototxt", "--iterations", "1", "--json", "--input-shape", "x=8,4")
    assert {layer["name"]: layer["backward_ms"] > 0 for layer in json.loads(found.out)["layers"]} == {
        "in": False,
        "ip": True,
    }


# --------------------------------------------------------------------------------------------------------------- data
def write_mnist(folder: Path) -> None:
    """Four IDX files with 20 and 10 images of 28x28."""
    for prefix, count in (("train", 20), ("t10k", 10)):
        images = struct.pack(">4i", 2051, count, 28, 28) + bytes(range(256))[:1] * (count * 784)
        labels = struct.pack(">2i", 2049, count) + bytes(i % 10 for i in range(count))
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(labels)


def test_data_mnist_and_a_mean(run: Any, folder: Path) -> None:
    files = folder / "files"
    files.mkdir()
    write_mnist(files)
    found = run("data", "mnist", "--from", "files", "--to", "made")
    assert (found.code, found.out, found.err) == (0, "made/mnist_train_lmdb\nmade/mnist_test_lmdb\n", "")
    found = run("data", "mean", "made/mnist_train_lmdb", "mean.binaryproto")
    assert (found.code, found.out) == (0, "mean_value channel [0]: 0\nmean.binaryproto\n")
    blob = schema.BlobProto.FromString((folder / "mean.binaryproto").read_bytes())
    assert (blob.channels, blob.height, blob.width) == (1, 28, 28)


def test_data_goes_beside_the_nets_of_a_checkout(run: Any, folder: Path) -> None:
    (folder / "configs" / "mnist").mkdir(parents=True)
    write_mnist(folder)
    assert run("data", "mnist", "--from", ".").code == 0
    assert (folder / "configs" / "mnist" / "mnist_train_lmdb").is_dir()


def test_data_that_is_not_there(run: Any) -> None:
    found = run("data", "mnist", "--from", "nowhere")
    assert found.code == 3
    assert "nowhere is not there" in found.err
