"""``netrun classify`` and ``netrun draw``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import netrun
from netrun.config.upgrade import parse_net

Run = Callable[..., Any]
NET = """name: "colours"
layer { name: "data" type: "Input" top: "data" transform_param { SCALE }
  input_param { shape { dim: 1 dim: 3 dim: 4 dim: 4 } } }
layer { name: "pool" type: "Pooling" bottom: "data" top: "pool" pooling_param { pool: AVE global_pooling: true } }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip" inner_product_param { num_output: 6 } }
layer { name: "loss" type: "Softmax" bottom: "ip" top: "prob" }"""


@pytest.fixture
def images(folder: Path) -> list[str]:
    """A red and a blue picture, and a net that tells B, G, R apart."""
    image = pytest.importorskip("PIL.Image")
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        image.new("RGB", (9, 7), colour).save(folder / f"{name}.png")
    text = NET.replace("SCALE", "scale: 0.01")
    (folder / "c.prototxt").write_text(text)
    with netrun.Net(parse_net(text)[0]) as net:
        net.params["ip"][0].data[:3] = np.eye(3)
        net.save("c.caffemodel")
    return ["red.png", "blue.png"]


def test_best_classes(run: Run, images: list[str], folder: Path) -> None:
    (folder / "names.txt").write_text("blue\ngreen\nred\na\nb\nc\n")
    flags = ("--model", "c.prototxt", "--weights", "c.caffemodel", "--device", "cpu")
    result = run("classify", *images, *flags, "--labels", "names.txt")
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert len(lines) == 12
    assert lines[0] == "red.png"
    assert lines[1].split()[1:] == ["2", "red"]
    assert lines[7].split()[1:] == ["0", "blue"]
    found = json.loads(run("classify", *images, *flags, "--json", "--top", "2").out)
    assert [len(entry["classes"]) for entry in found] == [2, 2]
    assert found[0]["classes"][0]["class"] == 2
    shifted = run("classify", "red.png", *flags, "--mean", "0,0,255", "--json")
    assert len({round(c["score"], 5) for c in json.loads(shifted.out)[0]["classes"]}) == 1
    np.save("mean.npy", np.zeros((3, 4, 4), np.float32))
    assert run("classify", "red.png", *flags, "--mean", "mean.npy").code == 0


def test_deploy_nets_take_the_mean_image_of_their_database(run: Run, images: list[str], folder: Path) -> None:
    """Larger than the input: the middle is taken, as of the image; smaller: it is scaled."""
    flags = ("--model", "plain.prototxt", "--weights", "c.caffemodel", "--device", "cpu", "--json")
    (folder / "plain.prototxt").write_text(NET.replace("SCALE", ""))
    mean = np.zeros((3, 6, 8), np.float32)
    mean[2, 1:5, 2:6] = 255  # what the crop leaves of the red image is nothing
    for size, score in (((6, 8), 0), ((2, 2), 255)):
        np.save("mean.npy", mean[:, : size[0], : size[1]] if size == (6, 8) else np.zeros((3, 2, 2), np.float32))
        result = run("classify", "red.png", *flags, "--mean", "mean.npy")
        assert result.code == 0, result.err
        classes = {c["class"]: c["score"] for c in json.loads(result.out)[0]["classes"]}
        if score:
            assert classes[2] == pytest.approx(1)
        else:
            assert len({round(c, 5) for c in classes.values()}) == 1


def test_a_training_net_whose_data_are_gone(run: Run, images: list[str], folder: Path) -> None:
    head, tail = NET.split("layer", 2)[0], NET.split("layer", 2)[2]
    data = 'layer { name: "d" type: "Data" top: "data" data_param { source: "gone" batch_size: 2 } }'
    (folder / "train.prototxt").write_text(head + data + "layer" + tail)
    flags = ("--model", "train.prototxt", "--weights", "c.caffemodel", "--device", "cpu")
    refused = run("classify", "red.png", *flags)
    assert refused.code == 2
    assert "--input-shape" in refused.err
    assert run("classify", "red.png", *flags, "--input-shape", "1,3,4,4").code == 0
    assert run("classify", "red.png", *flags, "--input-shape", "1,3,4").code == 2


def test_the_precision_of_the_flag_or_of_the_net(run: Run, images: list[str], folder: Path) -> None:
    """A training net keeps what it says of precision when it becomes a deploy net; the flag goes before it."""
    flags = ("--weights", "c.caffemodel", "--device", "cpu")
    assert (
        run("classify", "red.png", "--model", "c.prototxt", *flags, "--precision", "tf32", "--deterministic").code == 0
    )
    refused = run("classify", "red.png", "--model", "c.prototxt", *flags, "--precision", "FP16")
    assert refused.code == 2
    assert "device cpu: no precision FP16 here" in refused.err
    head, tail = NET.split("layer", 2)[0], NET.split("layer", 2)[2]
    data = 'layer { name: "d" type: "Data" top: "data" data_param { source: "gone" batch_size: 2 } }'
    (folder / "train.prototxt").write_text(head + "precision: FP16 " + data + "layer" + tail)
    training = ("--model", "train.prototxt", "--input-shape", "1,3,4,4", *flags)
    assert "no precision FP16" in run("classify", "red.png", *training).err
    assert run("classify", "red.png", *training, "--precision", "FP32").code == 0


def test_classify_refuses(run: Run, images: list[str], folder: Path) -> None:
    flags = ("--model", "c.prototxt", "--weights", "c.caffemodel", "--device", "cpu")
    (folder / "two.txt").write_text("a\nb\n")
    (folder / "cut.npy").write_bytes(b"")
    for argv, text, code in (
        (("classify", "red.png", "--weights", "c.caffemodel"), "no net is given", 2),
        (("classify", "red.png", "--model", "c.prototxt"), "no weights", 2),
        (("classify", "gone.png", *flags), "gone.png", 3),
        (("classify", "red.png", *flags, "--labels", "two.txt"), "2 lines", 2),
        (("classify", "red.png", *flags, "--labels", "gone.txt"), "gone.txt", 2),
        (("classify", "red.png", *flags, "--mean", "gone.npy"), "gone.npy cannot be read", 3),
        (("classify", "red.png", *flags, "--mean", "cut.npy"), "cut.npy is no readable .npy file", 3),
    ):
        result = run(*argv)
        assert result.code == code, result.err
        assert text in result.err
        assert "Traceback" not in result.err


def test_draw(run: Run, folder: Path) -> None:
    assert run("draw", "net.prototxt").out.strip() == "net.svg"
    assert b"<svg" in (folder / "net.svg").read_bytes()
    assert b"accuracy" in (folder / "net.svg").read_bytes()
    assert run("draw", "solver.prototxt", "train.svg", "--phase", "TRAIN", "--rankdir", "lr").code == 0
    assert b"accuracy" not in (folder / "train.svg").read_bytes()
    assert run("draw", "net.prototxt", "net.png").code == 0
    assert (folder / "net.png").read_bytes().startswith(b"\x89PNG")
    for argv, text in (
        (("draw", "gone.prototxt"), "gone.prototxt"),
        (("draw", "net.prototxt", "--rankdir", "XX"), "rankdir"),
        (("draw", "net.prototxt", "net.xyz"), "svg or png"),
        (("draw", "net.prototxt", "nowhere/net.svg"), "nowhere/net.svg"),
    ):
        result = run(*argv)
        assert result.code == 2
        assert text in result.err
