"""Layers in Python through the mirror."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import netrun.pycaffe as caffe

Write = Callable[..., str]


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parent), *sys.path])


def layer(name: str, kind: str, ends: str, more: str = "") -> str:
    param = f'python_param {{ module: "user_layers" layer: "{kind}" {more} }}'
    return f'layer {{ type: "Python" name: "{name}" {ends} {param} }}\n'


INPUT = 'name: "p" force_backward: true input: "data" input_shape { dim: 10 dim: 9 dim: 8 }\n'
THREE = INPUT + "".join(
    layer(top, "Tenfold", f'bottom: "{bottom}" top: "{top}"')
    for bottom, top in (("data", "one"), ("one", "two"), ("two", "three"))
)


def test_forward_and_backward(write: Write) -> None:
    net = caffe.Net(write(THREE), caffe.TRAIN)
    net.blobs["data"].data[...] = 8
    net.forward()
    assert (net.blobs["three"].data == 8000).all()
    net.blobs["three"].diff[...] = 7
    net.backward()
    assert (net.blobs["data"].diff == 7000).all()
    assert net.layers[1].seen == 1
    assert net.layer_dict["two"].type == "Python"


def test_reshape_keeps_the_users_object(write: Write) -> None:
    net = caffe.Net(write(THREE), caffe.TRAIN)
    net.forward()
    before = net.layers[1]
    net.blobs["data"].reshape(4, 4, 4, 4)
    net.forward()
    assert [blob.data.shape for blob in net.blobs.values()] == [(4, 4, 4, 4)] * 4
    assert net.layers[1] is before
    assert before.seen == 2


def test_exceptions_are_the_users_own(write: Write) -> None:
    ends = 'bottom: "data" top: "top"'
    with pytest.raises(RuntimeError, match="no luck") as caught:
        caffe.Net(write(INPUT + layer("p", "Failing", ends)), caffe.TEST)
    assert any(f.filename.endswith("user_layers.py") for f in traceback.extract_tb(caught.value.__traceback__))
    net = caffe.Net(write(INPUT + layer("p", "FailingLater", ends)), caffe.TEST)
    with pytest.raises(IndexError, match="out of luck") as later:
        net.forward()
    assert any(f.filename.endswith("user_layers.py") for f in traceback.extract_tb(later.value.__traceback__))


def test_parameters(write: Write, tmp_path: Path) -> None:
    file = write(INPUT + layer("layer", "Parameter", 'bottom: "data" top: "top"'))
    net = caffe.Net(file, caffe.TRAIN)
    net.forward()
    net.backward()
    own = net.layers[list(net._layer_names).index("layer")]
    assert (own.blobs[0].data[0], own.blobs[0].diff[0]) == (0, 1)
    own.blobs[0].data[0] += own.blobs[0].diff[0]
    assert net.params["layer"][0].data[0] == 1
    weights = str(tmp_path / "w.caffemodel")
    net.save(weights)
    own.blobs[0].data[0] = -1
    net.copy_from(weights)
    assert own.blobs[0].data[0] == 1
    net2 = caffe.Net(file, caffe.TRAIN)
    net2.share_with(net)
    assert net2.layers[1].blobs[0].data[0] == 1


def test_phase(write: Write) -> None:
    file = write('name: "p" force_backward: true ' + layer("layer", "Phase", 'top: "phase"'))
    for phase in (caffe.TRAIN, caffe.TEST):
        assert caffe.Net(file, phase).forward()["phase"] == phase


def test_a_source_of_many_shapes(write: Write) -> None:
    text = layer("images", "Images", 'top: "data"', "param_str: \"{'sizes': [3, 5, 2]}\"")
    text += """layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 1
      kernel_size: 1 weight_filler { type: "constant" value: 1 } } }
      layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
      layer { name: "sum" type: "Reduction" bottom: "conv" top: "sum" }"""
    net: Any = caffe.Net(write(text), caffe.TRAIN)
    for i in range(6):
        rows = (3, 5, 2)[i % 3]
        found = net.forward()
        assert net.blobs["conv"].data.shape == (1, 1, rows, 4)
        assert found["sum"] == i % 3 * 2 * rows * 4
        net.backward(sum=np.ones(()))
        assert (net.blobs["conv"].diff == (1 if i % 3 else 0)).all()


def test_shapes_said_in_setup_and_scores_without_gradient(write: Write) -> None:
    text = layer("d", "Multilabel", 'top: "data" top: "label"')
    text += """layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 2
      weight_filler { type: "gaussian" std: 0.1 } } }
      layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }"""
    text += layer("score", "Metric", 'bottom: "ip" top: "score"')
    file = write(text)
    net: Any = caffe.Net(file, caffe.TRAIN)
    for _ in range(3):
        assert set(net.forward()) == {"loss", "score"}
        assert net.blobs["data"].data.shape == (4, 3)
        net.backward()
    assert net.params["ip"][0].diff.any()
    solver = caffe.SGDSolver(write(f'net: "{file}" base_lr: 0.01 lr_policy: "fixed"'))
    solver.step(3)
    assert net.blobs["score"].data[0] == net.blobs["ip"].data.max()
