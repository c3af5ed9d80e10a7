"""NetSpec: nets written as programs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from google.protobuf import text_format

import netrun
import netrun.pycaffe as caffe
from netrun.errors import NetrunError
from netrun.pycaffe import layers as L
from netrun.pycaffe import params as P


def lenet(batch: int) -> caffe.proto.caffe_pb2.NetParameter:
    n = caffe.NetSpec()
    n.data, n.label = L.DummyData(
        shape=[{"dim": [batch, 1, 28, 28]}, {"dim": [batch, 1, 1, 1]}], transform_param={"scale": 1.0 / 255}, ntop=2
    )
    n.conv1 = L.Convolution(n.data, kernel_size=5, num_output=20, weight_filler={"type": "xavier"})
    n.pool1 = L.Pooling(n.conv1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.ip1 = L.InnerProduct(
        n.pool1, num_output=50, weight_filler={"type": "xavier"}, param=[{"lr_mult": 1}, {"lr_mult": 2}]
    )
    n.relu1 = L.ReLU(n.ip1, in_place=True)
    n["ip2"] = L.InnerProduct(n.relu1, num_output=10)
    n.loss = L.SoftmaxWithLoss(n.ip2, n.label)
    return n.to_proto()


WANTED = """
layer { name: "data" type: "DummyData" top: "data" top: "label" transform_param { scale: 0.00392156886 }
  dummy_data_param { shape { dim: 3 dim: 1 dim: 28 dim: 28 } shape { dim: 3 dim: 1 dim: 1 dim: 1 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 20 kernel_size: 5 weight_filler { type: "xavier" } } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "ip1" type: "InnerProduct" bottom: "pool1" top: "ip1" param { lr_mult: 1 } param { lr_mult: 2 }
  inner_product_param { num_output: 50 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2" inner_product_param { num_output: 10 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""


def test_lenet(write: Callable[..., str]) -> None:
    proto = lenet(3)
    wanted = text_format.Parse(WANTED, caffe.proto.caffe_pb2.NetParameter())
    assert str(proto) == str(wanted)
    net = caffe.Net(write(str(proto)), caffe.TEST)
    assert list(net.blobs) == ["data", "label", "conv1", "pool1", "ip1", "ip2", "loss"]
    assert np.isfinite(net.forward()["loss"])
    assert netrun.NetSpec is caffe.NetSpec


def test_names_of_what_has_none() -> None:
    data, label = L.DummyData(shape=[{"dim": [2, 3]}, {"dim": [2]}], ntop=2)
    hidden = L.ReLU(L.InnerProduct(data, num_output=4), in_place=True)
    loss = L.SoftmaxWithLoss(L.InnerProduct(hidden, num_output=2), label)
    for proto in (caffe.to_proto(loss), loss.to_proto()):
        found = [(layer.name, list(layer.bottom), list(layer.top)) for layer in proto.layer]
        assert found == [
            ("DummyData1", [], ["DummyData1", "DummyData2"]),
            ("InnerProduct1", ["DummyData1"], ["InnerProduct1"]),
            ("ReLU1", ["InnerProduct1"], ["InnerProduct1"]),
            ("InnerProduct2", ["InnerProduct1"], ["InnerProduct2"]),
            ("SoftmaxWithLoss1", ["InnerProduct2", "DummyData2"], ["SoftmaxWithLoss1"]),
        ]


def test_layers_without_tops() -> None:
    n = caffe.NetSpec()
    n.data, n.data2 = L.DummyData(shape={"dim": 3}, ntop=2)
    n.quiet = L.Silence(n.data, ntop=0)
    n.quiet2 = L.Silence(n.data2, ntop=0)
    proto = n.to_proto()
    assert [layer.name for layer in proto.layer] == ["data", "quiet", "quiet2"]
    assert not proto.layer[1].top


def test_complaints() -> None:
    data = L.DummyData(ntop=2)
    with pytest.raises(TypeError, match=r"^Silence input 0 is not a Top \(type is .*tuple.*\)$") as caught:
        L.Silence(data, ntop=0)
    assert isinstance(caught.value, NetrunError)
    L.Silence(*data, ntop=0)
    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": [1, 2]})
    with pytest.raises(AttributeError, match=r'no top "date".*"data"'):
        _ = n.date
    with pytest.raises(KeyError):
        _ = n["x"]
    n.ip = L.InnerProduct(n.data, num_outputs=3)
    with pytest.raises(AttributeError, match=r'ip \(InnerProduct\): there is no field "num_outputs"'):
        n.to_proto()
    n.ip = L.InnerProduct(n.data, num_output="many")
    with pytest.raises(TypeError, match="num_output does not take 'many'"):
        n.to_proto()
    with pytest.raises(AttributeError, match="PoolingParameter has no MAXI"):
        _ = P.Pooling.MAXI
    del n.ip
    assert [layer.name for layer in n.to_proto().layer] == ["data"]


def test_the_spellings_of_forks_and_of_old() -> None:
    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": [1, 2]})
    n.relu = L.ReLU(n.data)
    assert list(n.keys()) == ["data", "relu"]
    assert list(n.vals()) == [n.data, n.relu]
    n.keys = L.TanH(n.relu)
    assert n.keys.fn.type_name == "TanH"
    text = caffe.io.arraylist_to_blobprotovecor_str([[1.0, 2.0]])
    assert [a.tolist() for a in caffe.io.blobprotovector_str_to_arraylist(text)] == [[1, 2]]
