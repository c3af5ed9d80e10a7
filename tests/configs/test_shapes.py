"""The nets of configs/ have the layers, shapes, parameters and multiply-adds of their originals."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NETS = Path(__file__).resolve().parents[1] / "golden" / "nets"
Walk = Callable[..., Any]

# file, phase, the recording of Caffe it must equal
RECORDED = [
    ("mnist/lenet.prototxt", "TEST", "mnist__lenet__TEST"),
    ("mnist/lenet_train_test.prototxt", "TRAIN", "mnist__lenet_train_test__TRAIN"),
    ("mnist/lenet_train_test.prototxt", "TEST", "mnist__lenet_train_test__TEST"),
    ("cifar10/quick.prototxt", "TEST", "cifar10__cifar10_quick__TEST"),
    ("cifar10/quick_train_test.prototxt", "TRAIN", "cifar10__cifar10_quick_train_test__TRAIN"),
    ("cifar10/quick_train_test.prototxt", "TEST", "cifar10__cifar10_quick_train_test__TEST"),
    ("imagenet/alexnet/deploy.prototxt", "TEST", "bvlc_alexnet__deploy__TEST"),
    ("imagenet/alexnet/train_val.prototxt", "TRAIN", "bvlc_alexnet__train_val__TRAIN"),
    ("imagenet/alexnet/train_val.prototxt", "TEST", "bvlc_alexnet__train_val__TEST"),
    ("imagenet/googlenet/deploy.prototxt", "TEST", "bvlc_googlenet__deploy__TEST"),
]

# file, learned values, multiply-adds an image, the last blob of the trunk and its shape
FACTS = [
    ("benchmark/alexnet.prototxt", 61_100_840, 714_188_480, "pool3", (128, 256, 6, 6)),
    ("benchmark/overfeat.prototxt", 145_920_872, 2_801_403_904, "pool3", (128, 1024, 6, 6)),
    ("benchmark/vgg_a.prototxt", 132_863_336, 7_609_090_048, "pool5", (64, 512, 7, 7)),
    ("benchmark/googlenet.prototxt", 6_998_552, 1_582_671_872, "pool5/7x7_s1", (128, 1024, 1, 1)),
    ("imagenet/alexnet/deploy.prototxt", 60_965_224, 724_406_816, "pool5", (1, 256, 6, 6)),
    ("imagenet/caffenet/deploy.prototxt", 60_965_224, 724_406_816, "pool5", (1, 256, 6, 6)),
    ("imagenet/vgg16/deploy.prototxt", 138_357_544, 15_470_264_320, "pool5", (1, 512, 7, 7)),
    ("imagenet/googlenet/deploy.prototxt", 6_998_552, 1_582_671_872, "pool5/7x7_s1", (1, 1024, 1, 1)),
    ("imagenet/resnet50/deploy.prototxt", 25_557_032, 3_857_973_248, "pool5", (1, 2048, 1, 1)),
    ("mnist/lenet.prototxt", 431_080, 2_293_000, "pool2", (1, 50, 4, 4)),
    ("cifar10/quick.prototxt", 145_578, 12_354_176, "pool3", (1, 64, 4, 4)),
    ("cifar10/resnet_train_test.prototxt", 269_722, 40_551_040, "block3_3", (100, 64, 8, 8)),
    ("cifar10/full.prototxt", 89_578, 12_298_240, "pool3", (1, 64, 4, 4)),
]


@pytest.mark.parametrize(("path", "phase", "name"), RECORDED)
def test_equals_caffes_net(walk: Walk, path: str, phase: str, name: str) -> None:
    golden = json.loads((NETS / f"{name}.json").read_text())
    net = walk(path, phase, golden["batch"] if golden["data_layers_replaced"] else golden["blobs"]["data"][0])
    # the recording holds Caffe's Split layers, and DummyData where the file has a database
    origin = {top: s["bottom"][0] for s in golden["layers_with_splits"] if s["type"] == "Split" for top in s["top"]}
    kinds = {replaced["name"]: replaced["original_type"] for replaced in golden["data_layers_replaced"]}
    assert net.layers == [(layer, kinds.get(layer, kind)) for layer, kind in golden["layers"]]
    assert net.wiring == {
        layer["name"]: ([origin.get(b, b) for b in layer["bottom"]], layer["top"])
        for layer in golden["layers_with_splits"]
        if layer["type"] != "Split"
    }
    assert list(net.blobs) == [blob for blob in golden["blob_order"] if blob not in origin]
    assert net.blobs == {b: tuple(shape) for b, shape in golden["blobs"].items() if b not in origin}
    assert net.params == {layer: [tuple(s) for s in shapes] for layer, shapes in golden["params"].items()}
    assert net.outputs == golden["outputs"]
    assert net.learned == golden["learnable_count"]


@pytest.mark.parametrize(("path", "learned", "macs", "blob", "shape"), FACTS)
def test_known_sizes(walk: Walk, path: str, learned: int, macs: int, blob: str, shape: tuple[int, ...]) -> None:
    net = walk(path, "TEST")
    assert (net.learned, net.macs, net.blobs[blob]) == (learned, macs, shape)


@pytest.mark.parametrize("name", ["alexnet", "caffenet", "vgg16", "googlenet", "resnet50"])
def test_deploy_net_is_the_trained_one(walk: Walk, name: str) -> None:
    """Every blob that the deploy net reads from a weight file is there, with its shape; the trunk is the same."""
    trained, deploy = (walk(f"imagenet/{name}/{file}.prototxt", "TEST", 1) for file in ("train_val", "deploy"))
    assert deploy.params.items() <= trained.params.items()
    trunk = [layer for layer in deploy.layers if layer[1] not in ("Input", "Softmax")]
    assert [layer for layer in trained.layers if layer in trunk] == trunk
    assert all(trained.wiring[layer] == deploy.wiring[layer] for layer, _ in trunk)


@pytest.mark.parametrize("path", ["cifar10/full", "cifar10/quick", "mnist/lenet"])
def test_small_deploy_net_is_the_trained_one(walk: Walk, path: str) -> None:
    trained, deploy = walk(f"{path}_train_test.prototxt", "TEST", 1), walk(f"{path}.prototxt", "TEST")
    assert trained.params == deploy.params
    assert all(trained.wiring[name] == deploy.wiring[name] for name in deploy.params)


def test_digits_net(walk: Walk) -> None:
    train, test = walk("digits/net.prototxt", "TRAIN"), walk("digits/net.prototxt", "TEST")
    assert train.params == test.params
    assert train.learned == 53_002
    assert (train.blobs["data"], train.blobs["pool2"]) == ((64, 1, 8, 8), (64, 64, 2, 2))
    assert (train.outputs, test.outputs) == (["loss"], ["accuracy", "loss"])


def test_googlenet_trains_with_three_losses(walk: Walk) -> None:
    train = walk("imagenet/googlenet/train_val.prototxt", "TRAIN")
    assert train.learned == 6_998_552 + 6_379_728
    assert train.outputs == ["loss1/loss1", "loss2/loss1", "loss3/loss3"]
    assert train.blobs["loss1/ave_pool"] == (32, 512, 4, 4)
    assert train.blobs["loss2/ave_pool"] == (32, 528, 4, 4)


def test_caffenet_pools_before_it_normalises(walk: Walk) -> None:
    wiring = walk("imagenet/caffenet/train_val.prototxt", "TRAIN").wiring
    assert [wiring[name] for name in ("pool1", "norm1", "conv2")] == [
        (["conv1"], ["pool1"]),
        (["pool1"], ["norm1"]),
        (["norm1"], ["conv2"]),
    ]


def test_resnet50_is_built_as_published(walk: Walk) -> None:
    net = walk("imagenet/resnet50/train_val.prototxt", "TRAIN")
    kinds = [kind for _, kind in net.layers]
    assert [kinds.count(k) for k in ("Convolution", "BatchNorm", "Scale", "Eltwise", "Pooling")] == [53, 53, 53, 16, 2]
    # the stride stands in the first 1x1: a stage's 3x3 already works on the smaller image
    assert net.blobs["res3a_branch2a"] == (32, 128, 28, 28)
    assert [net.blobs[f"res{stage}a"][1:] for stage in (2, 3, 4, 5)] == [
        (256, 56, 56),
        (512, 28, 28),
        (1024, 14, 14),
        (2048, 7, 7),
    ]
    weights = [s for name, shapes in net.params.items() if not name.startswith(("bn", "scale")) for s in shapes]
    assert sum(map(math.prod, weights)) == 25_503_912
