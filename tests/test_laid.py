"""Blobs that lie in a layout of the device's own: who looks sees them plain, and what he writes is what is computed."""

from __future__ import annotations

import numpy as np
import pytest
from test_lean import image, message

import netrun
from netrun.cpu.fast import Fast
from netrun.homes import Seen

TRAINED = """
name: "trained"
force_backward: true
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 3 dim: 3 dim: 9 dim: 9 } } }
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 3 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 20 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" relu_param { negative_slope: 0.1 } }
layer { name: "twice" type: "Power" bottom: "conv1" top: "conv1" power_param { scale: 2 } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "lrn" type: "LRN" bottom: "pool1" top: "lrn" lrn_param { local_size: 3 alpha: 0.1 } }
layer { name: "left" type: "Convolution" bottom: "lrn" top: "left"
  convolution_param { num_output: 16 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "right" type: "Convolution" bottom: "lrn" top: "right"
  convolution_param { num_output: 16 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "sum" type: "Eltwise" bottom: "left" bottom: "right" top: "sum" }
layer { name: "mean" type: "Pooling" bottom: "sum" top: "mean" pooling_param { pool: AVE kernel_size: 2 } }
layer { name: "both" type: "Concat" bottom: "sum" bottom: "right" top: "both" }
layer { name: "fc" type: "InnerProduct" bottom: "both" top: "fc"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "fc2" type: "InnerProduct" bottom: "mean" top: "fc2"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "add" type: "Eltwise" bottom: "fc" bottom: "fc2" top: "scores" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" }
"""
LABELS = [1, 2, 3, 4]


def pair(phase: str = "TRAIN") -> tuple[netrun.Net, netrun.Net]:
    """The same net on the CPU and on the reference device."""
    nets = tuple(netrun.Net(message(TRAINED), phase, device=device) for device in ("cpu", "reference"))
    for name, blobs in nets[0].params.items():
        for mine, theirs in zip(blobs, nets[1].params[name], strict=True):
            mine.data[...] = np.random.default_rng(mine.data.size).uniform(-0.4, 0.4, mine.shape)
            theirs.data[...] = mine.data
    for net in nets:
        net.blobs["label"].data[...] = LABELS[:3]
    return nets[0], nets[1]


def laid(net: netrun.Net) -> set[str]:
    return {t.name for t in net.session.program.homes}


def same(one: netrun.Net, other: netrun.Net) -> None:
    for name in one.blobs:
        close(one.blobs[name].data, other.blobs[name].data, name)
        close(one.blobs[name].diff, other.blobs[name].diff, f"{name}'")
    for name, blobs in one.params.items():
        for i, blob in enumerate(blobs):
            close(blob.diff, other.params[name][i].diff, f"{name} {i}'")


def close(a: np.ndarray, b: np.ndarray, what: str) -> None:
    np.testing.assert_allclose(a, b, 2e-4, 2e-5 * max(1.0, float(np.abs(b).max(initial=0))), err_msg=what)


with_onednn = pytest.mark.skipif(Fast().recipes is None, reason="without oneDNN everything is plain")


@with_onednn
def test_what_lies_in_a_layout() -> None:
    """Blobs, their gradients, and what a forward kernel keeps for its backward; nothing that is fed or not 4-D."""
    net, _ = pair()
    found = laid(net)
    assert found >= {"pool1", "left", "right", "sum", "mean", "both"}
    assert any(name.endswith("'") for name in found)
    assert any("index" in name for name in found)
    assert not found & {"data", "label", "fc", "scores", "loss"}


@with_onednn
def test_no_plain_memory_until_somebody_looks() -> None:
    net, _ = pair()
    net.forward(data=image(1))
    net.backward()
    own = net._engine.own
    assert "right" not in own
    first = net.blobs["right"].data
    assert "right" in own
    assert net.blobs["right"].data is first, "one array for as long as somebody holds it"
    assert "left" not in own


@with_onednn
def test_reading_and_writing_a_laid_array() -> None:
    net, _ = pair()
    tensor = next(t for t in net.session.program.homes if t.name == "pool1")
    values = np.random.default_rng(0).standard_normal(tensor.shape).astype("float32")
    net.session.write(tensor, values)
    assert isinstance(net.session.array(tensor), Seen)
    assert np.array_equal(net.session.read(tensor), values)
    flat = tensor.view((tensor.shape[0], -1))
    assert np.array_equal(net.session.read(flat), values.reshape(3, -1))


def test_forward_and_backward() -> None:
    nets = pair()
    for _ in range(2):
        for net in nets:
            net.forward(data=image(1))
            net.backward()
        same(*nets)


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
@pytest.mark.parametrize("seed", range(8))
def test_no_order_of_passes_looks_and_changes_shows_a_difference(seed: int, phase: str) -> None:
    """The same random session on the CPU and on the reference device."""
    nets = pair(phase)
    layers, blobs = nets[0].layer_names, list(nets[0].blobs)
    generator = np.random.default_rng(seed)
    holding: list[tuple[np.ndarray, np.ndarray]] = []
    batch = 3
    for net in nets:  # what backward divides by is there
        net.forward(data=image(seed))
    for step in range(50):
        what = int(generator.integers(13))
        name, number = str(generator.choice(blobs)), int(generator.integers(1 << 30))
        low = int(generator.integers(2, len(layers)))
        high = int(generator.integers(low, len(layers)))
        if name == "label":
            continue
        for net in nets:
            blob = net.blobs[name]
            if what <= 1:
                net.forward(**({"data": image(number, batch)} if what else {}))
            elif what <= 3:
                net.backward()
            elif what == 4:
                net.forward(start=layers[low], end=layers[high])
            elif what == 5:
                net.backward(start=layers[high], end=layers[low])
            elif what == 6:
                blob.data[...] = np.random.default_rng(number).uniform(0, 1, blob.shape)
            elif what == 7:
                blob.diff = np.random.default_rng(number).uniform(0, 1, blob.shape)
            elif what == 8:
                net.clear_param_diffs()
            elif what == 9:
                net.params["left"][0].data[...] *= 1.01
            elif what == 10 and seed % 2:
                batch = 1 + number % 4
                net.reshape(data=(batch, 3, 9, 9), label=(batch,))
                net.blobs["label"].data[...] = LABELS[:batch]
                net.forward(data=image(number, batch))
                net.backward()
                net.clear_param_diffs()
        if what == 10:
            holding = []
        elif what == 11:
            close(nets[0].blobs[name].data, nets[1].blobs[name].data, f"step {step}: {name}")
            close(nets[0].blobs[name].diff, nets[1].blobs[name].diff, f"step {step}: {name}'")
        elif what == 12:
            holding = [(nets[0].blobs[name].data, nets[1].blobs[name].data)]
            holding.append((nets[0].blobs[name].diff, nets[1].blobs[name].diff))
        for a, b in holding:
            close(a, b, f"step {step}, {what}: held")
    same(*nets)


def test_values_follow_to_another_device_and_back() -> None:
    net, other = pair()
    for each in (net, other):
        each.forward(data=image(1))
        each.backward()
    net.blobs["right"].data[...] += 1
    other.blobs["right"].data[...] += 1
    net.to("reference")
    same(net, other)
    net.to("cpu")
    same(net, other)
    for each in (net, other):
        each.forward(start="sum")
    same(net, other)


def test_refused_shapes_leave_everything_as_it_was() -> None:
    net, other = pair()
    for each in (net, other):
        each.forward(data=image(1))
        each.backward()
        each.blobs["right"].data[...] += 1
    with pytest.raises(netrun.errors.NetrunError):
        net.reshape(data=(3, 3, 12, 12))
    net.blobs["data"].reshape(3, 3, 9, 9)
    same(net, other)
    for each in (net, other):
        each.forward(start="sum")
        each.backward()
    same(net, other)


def test_sharing_parameters_keeps_the_blobs() -> None:
    net, other = pair()
    third, _ = pair()
    for each in (net, other):
        each.forward(data=image(1))
        each.backward()
    net.share_with(third)
    for name in net.blobs:
        close(net.blobs[name].data, other.blobs[name].data, name)
    net.forward(start="left")
    other.forward(start="left")
    for name in net.blobs:
        close(net.blobs[name].data, other.blobs[name].data, name)
