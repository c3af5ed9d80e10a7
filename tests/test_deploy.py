"""From training nets of many kinds to nets ready to use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

import netrun
from netrun.config import schema
from netrun.config.upgrade import read_net, upgrade_net
from netrun.deploy import deploy
from netrun.errors import UsageError

CONFIGS = Path(__file__).parents[1] / "configs"


def data(name: str, **tops: str) -> str:
    """A DummyData layer with tops of these shapes ("8 2 6 6")."""
    names = " ".join(f'top: "{top}"' for top in tops)
    shapes = " ".join("shape { " + " ".join(f"dim: {n}" for n in dims.split()) + " }" for dims in tops.values())
    return f'layer {{ name: "{name}" type: "DummyData" {names} dummy_data_param {{ {shapes} }} }}\n'


DATA = data("d", data="8 2 6 6", label="8")


def ip(name: str, bottom: str, outputs: int = 3, more: str = "") -> str:
    filler = 'weight_filler { type: "gaussian" std: 1 }'
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {more} '
        f"inner_product_param {{ num_output: {outputs} {filler} }} }}\n"
    )


def layer(name: str, kind: str, bottoms: str, more: str = "") -> str:
    ends = " ".join(f'bottom: "{b}"' for b in bottoms.split())
    return f'layer {{ name: "{name}" type: "{kind}" {ends} top: "{name}" {more} }}\n'


CASES = {
    "several tasks of the same weight": (
        DATA + ip("age", "data") + ip("sex", "data", 2) + layer("l1", "SoftmaxWithLoss", "age label")
        + layer("l2", "SigmoidCrossEntropyLoss", "sex label", 'exclude { phase: TEST }')
        + layer("l3", "SoftmaxWithLoss", "sex label"),
        ["l1_prob", "l3_prob"], ["data", "age", "sex", "l1_prob", "l3_prob"],
    ),
    "a side loss": (
        DATA + ip("low", "data") + ip("side", "low") + layer("aux", "SoftmaxWithLoss", "side label", "loss_weight: 0.3")
        + layer("aux_top1", "Accuracy", "side label") + ip("score", "low")
        + layer("loss", "SoftmaxWithLoss", "score label") + layer("top1", "Accuracy", "score label"),
        ["prob"], ["data", "low", "score", "prob"],
    ),
    "an autoencoder, whose sigmoid is there": (
        DATA + layer("flat", "Flatten", "data") + ip("code", "data", 4) + ip("decode", "code", 72)
        + layer("cross", "SigmoidCrossEntropyLoss", "decode flat", "loss_weight: 1")
        + layer("image", "Sigmoid", "decode") + layer("l2", "EuclideanLoss", "image flat", "loss_weight: 0"),
        ["image"], ["data", "code", "decode", "image"],
    ),
    "a siamese net": (
        DATA + 'layer { name: "cut" type: "Slice" bottom: "data" top: "left" top: "right" slice_param { axis: 1 } }'
        + ip("feat", "left", 2, 'param { name: "w" } param { name: "b" }')
        + ip("feat_p", "right", 2, 'param { name: "w" } param { name: "b" }')
        + layer("loss", "ContrastiveLoss", "feat feat_p label"),
        ["feat", "right"], ["data", "cut", "feat"],
    ),
    "two streams of data": (
        data("d", data="8 2 6 6")
        + 'layer { name: "t" type: "Data" top: "label" data_param { source: "nowhere" batch_size: 8 } }'
        + ip("score", "data") + layer("loss", "SoftmaxWithLoss", "score label"),
        ["prob"], ["data", "score", "prob"],
    ),
    "hinge loss, which has no probabilities": (
        DATA + ip("score", "data") + layer("loss", "HingeLoss", "score label"), ["score"], ["data", "score"],
    ),
    "a layer in Python brings the data": (
        'layer { name: "d" type: "Python" top: "data" top: "label" python_param { module: "cases.python_layers" '
        'layer: "LateSource" } }' + ip("score", "data") + layer("loss", "EuclideanLoss", "score label"),
        ["score"], ["data", "score"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", CASES)
def test_kinds_of_nets(what: str, tmp_path: Path) -> None:
    text, outputs, layers = CASES[what]
    file = tmp_path / "train.prototxt"
    file.write_text(text)
    with netrun.load(file) as net:
        assert net.outputs == sorted(outputs)
        assert net.layer_names == layers or [n for n in net.layer_names if "split" not in n] == layers
        assert net.inputs == ["data"]
        assert net.blobs["data"].shape[0] == 1
        assert all(np.isfinite(value).all() for value in net.forward().values())
        assert net.phase == schema.TEST


@pytest.mark.parametrize("name", ["alexnet", "caffenet", "googlenet", "resnet50", "vgg16"])
def test_nets_for_imagenet_become_their_deploy_nets(name: str) -> None:
    """The same layers with the same parameters as the deploy.prototxt beside the training net."""
    folder = CONFIGS / "imagenet" / name
    made = deploy(read_net(folder / "train_val.prototxt")[0], folder=str(folder))
    wanted = read_net(folder / "deploy.prototxt")[0]
    assert [shape_of(net)[1:] for net in (made, wanted)] == [shape_of(wanted)[1:]] * 2
    assert [bare(layer) for layer in made.layer[1:]] == [bare(layer) for layer in wanted.layer[1:]]


def shape_of(net: schema.NetParameter) -> list[int]:
    return list(net.layer[0].input_param.shape[0].dim)


def bare(layer: schema.LayerParameter) -> tuple[Any, ...]:
    """What a layer computes, without what only training needs."""
    found = schema.LayerParameter.FromString(layer.SerializeToString())
    for block in ("convolution_param", "inner_product_param", "scale_param"):
        if found.HasField(block):
            param = getattr(found, block)
            for field in ("weight_filler", "bias_filler", "filler"):
                if field in param.DESCRIPTOR.fields_by_name:
                    param.ClearField(field)
    for field in ("param", "include", "exclude", "phase"):
        found.ClearField(field)
    name = "" if found.type == "Softmax" else found.name
    found.ClearField("name")
    return name, str(found)


def test_old_nets_are_upgraded_first() -> None:
    text = """layers { name: "d" type: DATA top: "data" top: "label" data_param { source: "x" batch_size: 4 }
      transform_param { crop_size: 5 mean_value: 1 } }
    layers { name: "ip" type: INNER_PRODUCT bottom: "data" top: "ip" inner_product_param { num_output: 3 } }
    layers { name: "loss" type: SOFTMAX_LOSS bottom: "ip" bottom: "label" top: "loss" }"""
    net = text_format.Parse(text, schema.NetParameter())
    upgrade_net(net, None)
    assert [layer.type for layer in deploy(net).layer] == ["Input", "InnerProduct", "Softmax"]


def test_load_takes_deploy_nets_too() -> None:
    net = netrun.load(CONFIGS / "mnist" / "lenet.prototxt", shape=(3, 1, 28, 28))
    assert net.blobs["data"].shape == (3, 1, 28, 28)
    net = netrun.load(CONFIGS / "imagenet" / "googlenet" / "train_val.prototxt")
    assert net.outputs == ["prob"]
    assert net.blobs["data"].shape == (1, 3, 224, 224)
    assert not any("loss1" in name for name in net.layer_names)
    with pytest.raises(UsageError, match="no file"):
        netrun.load("nowhere.prototxt")
