"""caffe.Net: which layers a state has, and names and gradients of nets that Caffe ran."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

import netrun.pycaffe as caffe

GOLDEN = Path(__file__).parents[1] / "golden"
Write = Callable[..., str]


LEVELS = """layer { name: "data" type: "DummyData" top: "data" dummy_data_param { shape { dim: 1 dim: 10 } } }
layer { name: "any" type: "Power" bottom: "data" top: "any" }
layer { name: "only0" type: "Power" bottom: "data" top: "only0" include { min_level: 0 max_level: 0 } }
layer { name: "from1" type: "Power" bottom: "data" top: "from1" include { min_level: 1 } }
layer { name: "a" type: "Power" bottom: "data" top: "a" include { stage: "A" } }
layer { name: "not_b" type: "Power" bottom: "data" top: "not_b" exclude { stage: "B" } }
"""


@pytest.mark.parametrize(
    ("state", "blobs"),
    [({}, "any only0 not_b"), ({"level": 1}, "any from1 not_b"), ({"stages": ["A", "B"]}, "any only0 a")],
)
def test_levels_and_stages(write: Write, state: dict[str, Any], blobs: str) -> None:
    net = caffe.Net(write(LEVELS), caffe.TEST, **state)
    assert [b for b in net.blobs if "data" not in b] == blobs.split()


@pytest.mark.parametrize("path", sorted((GOLDEN / "nets_small").glob("*.npz")), ids=lambda p: p.stem)
def test_small_nets_have_caffes_names_and_gradients(path: Path, write: Write) -> None:
    with np.load(path) as file:
        case = dict(file)
    net = caffe.Net(write(str(case["prototxt"])), {"TRAIN": caffe.TRAIN, "TEST": caffe.TEST}[str(case["phase"])])
    assert list(net._layer_names) == [str(n) for n in case["layer_names"]]
    assert [layer.type for layer in net.layers] == [str(n) for n in case["layer_types"]]
    assert [n for n in net.blobs if n != "(automatic)"] == [str(n) for n in case["blob_names"]]
    assert net.outputs == [str(n) for n in case["outputs"]]
    assert list(net.top_names.values()) == json.loads(str(case["tops"]))
    assert list(net.bottom_names.values()) == json.loads(str(case["bottoms"]))
    for name, blobs in net.params.items():
        for i, blob in enumerate(blobs):
            blob.data[...] = case[f"param_{name}_{i}"]
    for name in case:
        if name.startswith("in_"):
            net.blobs[name[3:]].data[...] = case[name]
    assert net._forward(0, len(net.layers) - 1) == pytest.approx(float(case["total_loss"]), rel=1e-5)
    net.backward()
    for name in case:
        for kind, prefix in (("data", "blob_"), ("diff", "blobdiff_")):
            if name.startswith(prefix) and name.removeprefix(prefix) in net.blobs and name != "blob_names":
                got = getattr(net.blobs[name.removeprefix(prefix)], kind)
                scale = max(1e-2, float(np.abs(case[name]).max(initial=0)))
                np.testing.assert_allclose(got, case[name], 1e-4, 2e-6 * scale + 1e-7, err_msg=name)


@pytest.mark.parametrize("path", sorted((GOLDEN / "nets").glob("*train*.json")), ids=lambda p: p.stem)
def test_nets_of_the_zoo_have_caffes_names(path: Path) -> None:
    golden = json.loads(path.read_text())
    configs = {
        "mnist__lenet_train_test": "mnist/lenet_train_test.prototxt",
        "cifar10__cifar10_quick_train_test": "cifar10/quick_train_test.prototxt",
    }
    name, _, phase = path.stem.rpartition("__")
    if name not in configs:
        pytest.skip("the net is not among configs/")
    root = Path(__file__).parents[2] / "configs"
    message = caffe.proto.caffe_pb2.NetParameter()
    text_format.Merge((root / configs[name]).read_text(), message)
    for layer in message.layer:
        if layer.type == "Data":
            layer.type = "DummyData"
            layer.name = golden["layers"][0][0]
            layer.ClearField("data_param")
            for top in layer.top:
                layer.dummy_data_param.shape.add().dim.extend(golden["blobs"][top])
    net = caffe.Net(message, getattr(caffe, phase))
    found = [
        {"name": n, "type": layer.type, "bottom": net.bottom_names[n], "top": net.top_names[n]}
        for n, layer in zip(net._layer_names, net.layers, strict=True)
    ]
    assert found == golden["layers_with_splits"]
    assert list(net.blobs) == golden["blob_order"]
    assert {n: list(b.shape) for n, b in net.blobs.items()} == golden["blobs"]
    assert net.outputs == golden["outputs"]
