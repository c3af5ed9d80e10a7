"""caffe.Net: members, slices, weights, errors."""

from __future__ import annotations

import gc
import weakref
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import netrun.pycaffe as caffe
from netrun.config.weights import read_weights
from netrun.errors import NetrunError

Write = Callable[..., str]


def test_blobs_outlive_their_net(simple: str) -> None:
    net = caffe.Net(simple, caffe.TRAIN)
    params = [blob for blobs in net.params.values() for blob in blobs]
    blobs, gone = list(net.blobs.values()), weakref.ref(net)
    del net
    gc.collect()
    assert gone() is None
    assert np.isfinite(sum(float(b.data.sum() + b.diff.sum()) for b in params + blobs))


def test_names(net: Any) -> None:
    assert net.inputs == []
    assert net.outputs == ["loss"]
    assert list(net._layer_names) == ["data", "conv", "ip", "loss"]
    assert list(net.layer_dict) == list(net._layer_names)
    assert [net.layer_dict[n].type for n in net._layer_names] == [layer.type for layer in net.layers]
    assert net.top_names == OrderedDict(data=["data", "label"], conv=["conv"], ip=["ip_blob"], loss=["loss"])
    assert net.bottom_names["loss"] == ["ip_blob", "label"]
    assert list(net.blobs) == list(net._blob_names) == ["data", "label", "conv", "ip_blob", "loss"]
    assert (net._inputs, net._outputs, net._top_ids(0), net._bottom_ids(3)) == ([], [4], [0, 1], [3, 1])
    assert net.blob_loss_weights == OrderedDict(data=0, label=0, conv=0, ip_blob=0, loss=1)
    assert [b.shape for b in net._blobs] == [b.shape for b in net.blobs.values()]
    conv = net.layers[1]
    assert len(conv.blobs) == 2
    assert np.shares_memory(conv.blobs[0].data, net.params["conv"][0].data)
    blob = net.blobs["data"]
    assert (blob.num, blob.channels, blob.height, blob.width, blob.count) == (5, 2, 3, 4, 120)
    assert list(blob.shape) == [5, 2, 3, 4]


def test_what_is_written_into_constant_data_stays(net: Any) -> None:
    before, labels = net.blobs["data"].data.copy(), net.blobs["label"].data.copy()
    net.forward()
    assert (net.blobs["label"].data == labels).all()
    assert (net.blobs["data"].data != before).any()


def test_forward_from_to(net: Any) -> None:
    rng = np.random.default_rng(0)
    conv = rng.random(net.blobs["conv"].data.shape).astype(np.float32)
    net.blobs["conv"].data[:] = conv
    assert set(net.forward(start="ip", end="ip")) == {"ip_blob"}
    weight, bias = (b.data for b in net.params["ip"])
    np.testing.assert_allclose(net.blobs["ip_blob"].data, conv.reshape(5, -1) @ weight.T + bias, 1e-3, 1e-4)
    np.testing.assert_array_equal(net.blobs["conv"].data, conv)
    top = rng.random(net.blobs["ip_blob"].data.shape).astype(np.float32)
    net.blobs["ip_blob"].diff[:] = top
    assert set(net.backward(start="ip", end="ip")) == {"conv"}
    np.testing.assert_allclose(net.blobs["conv"].diff, (top @ weight).reshape(conv.shape), 1e-3, 1e-4)
    np.testing.assert_allclose(net.params["ip"][1].diff, top.sum(0), 1e-4)
    assert set(net.forward(["conv"], end="ip")) == {"conv", "ip_blob"}
    assert set(net.backward(diffs=["ip_blob"])) == {"ip_blob"}


def test_parameter_gradients_add_up(net: Any) -> None:
    net.forward()
    net.backward()
    diff = net.params["conv"][0].diff
    once = diff.copy()
    assert once.max() > 0
    net.backward()
    np.testing.assert_allclose(diff, 2 * once, 1e-5)
    net.clear_param_diffs()
    assert (diff == 0).all()


@pytest.mark.parametrize("hdf5", [False, True])
def test_weights_go_and_come_back(net: Any, simple: str, tmp_path: Path, hdf5: bool) -> None:
    file = str(tmp_path / "weights")
    net.save_hdf5(file) if hdf5 else net.save(file)
    old = caffe.Net(simple, file, caffe.TRAIN)
    nets = [old, caffe.Net(simple, caffe.TRAIN, weights=file), caffe.Net(network_file=simple, phase=caffe.TRAIN)]
    nets[2].load_hdf5(file) if hdf5 else nets[2].copy_from(file)
    for other in nets:
        for name, blobs in net.params.items():
            for a, b in zip(blobs, other.params[name], strict=True):
                np.testing.assert_array_equal(a.data, b.data)


def test_share_with(net: Any, simple: str) -> None:
    other = caffe.Net(simple, caffe.TRAIN)
    held = other.params["ip"][0]
    other.share_with(net)
    net.params["ip"][0].data[...] = 0.25
    assert (held.data == 0.25).all()
    assert np.shares_memory(held.data, net.params["ip"][0].data)
    assert not np.shares_memory(held.diff, net.params["ip"][0].diff)
    other.blobs["conv"].data[...] = 1
    other.forward(start="ip", end="ip")
    assert other.blobs["ip_blob"].data[0, 0] == pytest.approx(0.25 * other.blobs["conv"].data[0].size - 3)


def test_forward_all_fills_up_and_cuts_off(deployed: str) -> None:
    net = caffe.Net(deployed, caffe.TEST)
    data = np.random.default_rng(2).random((10, 3, 6, 6), np.float32)
    found = net.forward_all(blobs=["conv"], data=data)
    assert found["sum"].shape == (10,)
    assert found["conv"].shape == (10, 2, 4, 4)
    for i in range(0, 8, 4):
        np.testing.assert_array_equal(net.forward(data=data[i : i + 4])["sum"], found["sum"][i : i + 4])
    outs, diffs = net.forward_backward_all(diffs=["conv"], data=data, sum=np.ones(10, np.float32))
    np.testing.assert_array_equal(outs["sum"], found["sum"])
    assert diffs["data"].shape == data.shape
    assert diffs["conv"].shape == (10, 2, 4, 4)


def test_reshape(deployed: str) -> None:
    net = caffe.Net(deployed, caffe.TEST)
    data, conv = net.blobs["data"], net.blobs["conv"]
    first = np.ones((4, 3, 6, 6), np.float32)
    wanted = net.forward(data=first)["sum"].copy()
    for _ in range(2):
        data.reshape(1, 3, 8, 7)
        assert data.data.shape == (1, 3, 8, 7)
        assert conv.data.shape[2:] == (4, 4)
        net.reshape()
        assert conv.data.shape == (1, 2, 6, 5)
        data.data[...] = 0.5
        assert net.forward()["sum"].shape == (1,)
        net.backward(sum=np.ones(1))
        assert data.diff.shape == (1, 3, 8, 7)
        data.reshape(2, 3, 6, 6)
        held = data.data
        held[...] = 1  # written before the shapes are settled
        np.testing.assert_allclose(net.forward()["sum"], wanted[:2], 1e-6)
        held[...] = 0
        assert not net.forward()["sum"].any()
    data.reshape(1, 4, 6, 6)
    with pytest.raises(NetrunError, match="conv"):
        net.reshape()
    assert data.shape == (2, 3, 6, 6)
    net.forward()


@pytest.mark.parametrize("name", ["w.caffemodel", "w.caffemodel.h5"])
def test_parameters_take_other_axes(net: Any, tmp_path: Path, name: str) -> None:
    """What nets are operated on with: the values stay, the layer computes as before, files have the new axes."""
    weight, bias = net.params["ip"]
    outputs, inputs = weight.shape
    before = net.forward()["loss"].copy()
    weight.reshape(1, 1, outputs, inputs)
    assert weight.data.shape == weight.diff.shape == weight.shape == (1, 1, outputs, inputs)
    assert net.forward(start="conv")["loss"] == before
    net.backward()
    assert weight.diff.any()
    net.save(str(tmp_path / name))
    stored = {layer.name: layer.blobs for layer in read_weights(tmp_path / name)}
    assert stored["ip"][0].shape == (1, 1, outputs, inputs)
    kept = weight.data.copy()
    weight.data[...] = 0
    bias.reshape(1, outputs)
    bias.data = np.arange(outputs)
    np.testing.assert_array_equal(net.forward(["ip_blob"])["ip_blob"][0], np.arange(outputs))
    bias.reshape(outputs)
    net.copy_from(str(tmp_path / name))
    np.testing.assert_array_equal(weight.data, kept)
    with pytest.raises(
        NetrunError, match=r"cannot be reshaped from 1 1 13 792 to 1: the layer computes with .*num_output"
    ):
        weight.reshape(1)


def test_callbacks(net: Any) -> None:
    seen: list[tuple[str, int]] = []
    for when in ("before_forward", "after_forward", "before_backward", "after_backward"):
        getattr(net, when)(lambda i, when=when: seen.append((when, i)))
    net.forward()
    net.backward(start="ip", end="conv")
    forth = [(f"{when}_forward", i) for i in range(4) for when in ("before", "after")]
    assert seen == forth + [(f"{when}_backward", i) for i in (2, 1) for when in ("before", "after")]


def test_callbacks_change_nothing(write: Write, deployed: str) -> None:
    text = Path(deployed).read_text() + 'layer { name: "drop" type: "Dropout" bottom: "sum" top: "sum" }'
    found = []
    for watched in (False, True):
        caffe.set_random_seed(7)
        net = caffe.Net(write(text), caffe.TRAIN)
        if watched:
            net.before_forward(lambda i: None)
            net.after_backward(lambda i: None)
        net.forward(data=np.ones((4, 3, 6, 6)))
        net.backward(sum=np.ones(4))
        found.append((net.blobs["sum"].data.copy(), net.params["conv"][0].diff.copy()))
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_input_arrays(write: Write, deployed: str) -> None:
    memory = """layer { name: "m" type: "MemoryData" top: "data" top: "label"
      memory_data_param { batch_size: 2 channels: 1 height: 2 width: 2 } }"""
    net = caffe.Net(write(memory), caffe.TEST)
    data = np.arange(16, dtype=np.float32).reshape(4, 1, 2, 2)
    net.set_input_arrays(data, np.arange(4, dtype=np.float32))
    for i in (0, 2, 0):
        found = net.forward()
        np.testing.assert_array_equal(found["data"], data[i : i + 2])
        np.testing.assert_array_equal(found["label"], [i, i + 1])
    with pytest.raises(RuntimeError, match="MemoryData"):
        caffe.Net(deployed, caffe.TEST).set_input_arrays(data, data)
