"""netrun.Net: what is written is seen, on every device; moving; phases and precisions by name."""

from __future__ import annotations

import gc
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from afar import Afar

import netrun
from netrun.config import schema
from netrun.config.upgrade import parse_net
from netrun.errors import DeviceError, UsageError

CONFIGS = Path(__file__).parents[1] / "configs"

IN_PLACE = """force_backward: true
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "scale" type: "Power" bottom: "data" top: "data" power_param { scale: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 3
  weight_filler { type: "gaussian" std: 1 } } }
layer { name: "relu" type: "ReLU" bottom: "ip" top: "ip" }
layer { name: "shift" type: "Power" bottom: "ip" top: "ip" power_param { shift: 1 scale: 3 } }
layer { name: "left" type: "Power" bottom: "ip" top: "left" power_param { scale: 5 } }
layer { name: "right" type: "Power" bottom: "ip" top: "right" power_param { scale: 7 } }
"""
X = np.array([[1, -2, 3], [-4, 5, -6]], np.float32)


@pytest.fixture(params=["cpu", "reference", "afar"])
def device(request: pytest.FixtureRequest) -> Any:
    return Afar() if request.param == "afar" else request.param


def net_of(text: str, device: Any, **more: Any) -> netrun.Net:
    return netrun.Net(parse_net(text)[0], device=device, **more)


def identity(net: netrun.Net) -> None:
    net.params["ip"][0].data[...] = np.eye(3)


def test_values_written_between_layers(device: Any) -> None:
    net = net_of(IN_PLACE, device)
    identity(net)
    net.blobs["data"].data[...] = X
    net.forward()
    after = np.maximum(2 * X, 0) * 3 + 1
    np.testing.assert_allclose(net.blobs["data"].data, 2 * X)  # one buffer a name: the last value
    np.testing.assert_allclose(net.blobs["left"].data, 5 * after)
    held = net.blobs["ip"].data
    held[...] = -X
    net.forward(start="relu", end="relu")
    np.testing.assert_allclose(held, np.maximum(-X, 0))
    net.forward(start="shift", end="shift")
    np.testing.assert_allclose(held, np.maximum(-X, 0) * 3 + 1)
    held[0, 0] = 100
    found = net.forward(start="left")
    assert found["left"][0, 0] == 500
    assert found["right"][0, 0] == 700
    net.forward(end="ip")
    np.testing.assert_allclose(net.blobs["data"].data, 4 * X)  # in place on what was there, as in Caffe
    np.testing.assert_allclose(held, 4 * X)
    held += 1
    net.forward(start="relu")
    np.testing.assert_allclose(net.blobs["left"].data, 5 * (np.maximum(4 * X + 1, 0) * 3 + 1), 1e-6)


def test_gradients_written_between_layers(device: Any) -> None:
    net = net_of(IN_PLACE, device)
    identity(net)
    net.forward(data=X)
    one = np.ones_like(X)
    net.backward(left=one, right=one)
    mask = (X > 0).astype(np.float32)
    np.testing.assert_allclose(net.blobs["ip"].diff, 36 * mask)
    np.testing.assert_allclose(net.blobs["data"].diff, 72 * mask)
    np.testing.assert_allclose(net.blobs["ip_shift_0_split_0"].diff, 5 * one)
    net.clear_param_diffs()
    net.blobs["ip"].diff[...] = X
    net.backward(start="shift", end="shift")
    np.testing.assert_allclose(net.blobs["ip"].diff, 3 * X)
    net.blobs["ip"].diff[...] += 1
    found = net.backward(start="relu")
    np.testing.assert_allclose(found["data"], 2 * (3 * X + 1) * mask)
    np.testing.assert_allclose(net.params["ip"][0].diff, ((3 * X + 1) * mask).T @ (2 * X))
    net.backward(start="ip", end="ip")  # the buffer holds what relu left there
    np.testing.assert_allclose(net.params["ip"][0].diff, 2 * ((3 * X + 1) * mask).T @ (2 * X))


def test_parameters_written_are_used(device: Any) -> None:
    net = net_of(IN_PLACE, device)
    weight = net.params["ip"][0].data  # held on to
    weight[...] = np.eye(3)
    net.forward(data=X)
    weight *= -1
    net.forward(data=X)
    np.testing.assert_allclose(net.blobs["left"].data, 5 * (np.maximum(-2 * X, 0) * 3 + 1))
    net.params["ip"][0].data = 0
    assert not weight.any()
    net.params["ip"][1].data = [1, 2, 3]
    np.testing.assert_allclose(net.forward(data=X)["left"][0], [20, 35, 50])
    diff = net.params["ip"][1].diff
    diff[...] = 10
    net.backward(left=np.ones_like(X))
    np.testing.assert_allclose(diff, 10 + 5 * 3 * 2)


SHARED = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" param { name: "w" } param { name: "b" }
  inner_product_param { num_output: 3 } }
layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" param { name: "w" } param { name: "b" }
  inner_product_param { num_output: 3 } }
"""


def test_shared_weights_layer_by_layer(device: Any) -> None:
    net = net_of(SHARED, device)
    net.params["b"][0].data[...] = 2 * np.eye(3)
    net.params["b"][1].data[...] = 1
    np.testing.assert_allclose(net.forward(x=X)["b"], 2 * (2 * X + 1) + 1)
    one = np.ones_like(X)
    net.backward(b=one)
    whole = [blob.diff.copy() for blob in net.params["a"]]
    np.testing.assert_allclose(whole[0], one.T @ (2 * X + 1) + (2 * one).T @ X)
    net.clear_param_diffs()
    assert not net.params["a"][0].diff.any()
    net.backward(start="b", end="b", b=one)
    np.testing.assert_allclose(net.params["a"][0].diff, one.T @ (2 * X + 1))
    net.backward(start="a", end="a")
    for got, wanted in zip(net.params["a"], whole, strict=True):
        np.testing.assert_allclose(got.diff, wanted)


def test_parts_of_a_pass_leave_the_others_alone(device: Any) -> None:
    """A part run again must not disturb what backward still needs (masks, places of maxima)."""
    text = """force_backward: true
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 2 dim: 6 dim: 6 } } }
    layer { name: "conv" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 3 kernel_size: 3
      weight_filler { type: "gaussian" std: 1 } } }
    layer { name: "norm" type: "LRN" bottom: "c" top: "n" }
    layer { name: "pool" type: "Pooling" bottom: "n" top: "p" pooling_param { kernel_size: 2 stride: 2 } }
    layer { name: "drop" type: "Dropout" bottom: "p" top: "p" }
    layer { name: "sum" type: "Reduction" bottom: "p" top: "y" }"""
    net = net_of(text, device, phase=schema.TRAIN)
    x = np.random.default_rng(0).normal(size=(2, 2, 6, 6))
    net.forward(x=x)
    net.backward(y=1.0)
    wanted = net.blobs["x"].diff.copy()
    net.forwards = 0
    net.forward(x=x)
    for name in ("conv", "norm", "conv", "norm"):
        net.forward(start=name, end=name)
    net.backward(y=1.0)
    np.testing.assert_allclose(net.blobs["x"].diff, wanted, 1e-6)
    for name in ("sum", "drop", "pool", "norm", "conv"):
        net.backward(start=name, end=name)
    np.testing.assert_allclose(net.blobs["x"].diff, wanted, 1e-6)


@pytest.mark.parametrize("written", [False, True])
def test_backward_may_be_asked_for_late(device: Any, written: bool) -> None:
    """In the TEST phase backward is compiled when it is first needed, after any number of forward passes."""
    text = (CONFIGS / "mnist" / "lenet.prototxt").read_text()
    x = np.random.default_rng(0).random((2, 1, 28, 28), np.float32)
    slope = np.zeros((2, 10), np.float32)
    slope[:, 3] = 1
    found = []
    for late in (True, False):
        net = net_of(text, device, shapes={"data": x.shape})
        rng = np.random.default_rng(1)
        for blobs in net.params.values():
            for blob in blobs:
                blob.data[...] = rng.normal(size=blob.shape) * 0.1
        if not late:
            assert not net.blobs["conv1"].diff.any()
        net.forward(data=x)
        if written:
            net.blobs["data"].data[...] *= 2
            net.blobs["pool2"].data[...] += 1
        values = {name: blob.data.copy() for name, blob in net.blobs.items()}
        net.backward(prob=slope)
        for name, blob in net.blobs.items():
            np.testing.assert_array_equal(blob.data, values[name])
        found.append([b.diff.copy() for bs in net.params.values() for b in bs] + [net.blobs["conv1"].diff.copy()])
    for a, b in zip(*found, strict=True):
        assert a.any()
        np.testing.assert_allclose(a, b, 1e-4, 1e-6)


def test_what_was_written_outlives_another_shape(device: Any) -> None:
    """Values go where the shape goes, as far as they fit, on every device; constants are not filled in again."""
    text = """layer { name: "d" type: "DummyData" top: "x" top: "t" dummy_data_param {
      shape { dim: 4 dim: 3 } shape { dim: 4 } data_filler { value: 2 } data_filler { value: 0 } } }
    layer { name: "p" type: "Power" bottom: "x" top: "p" power_param { scale: 2 } }
    layer { name: "s" type: "Silence" bottom: "t" }"""
    net = net_of(text, device)
    net.forward()
    net.blobs["t"].data[...] = 7
    held = net.blobs["p"].data
    held[...] = 5
    net.blobs["x"].reshape(2, 3)
    net.reshape()
    np.testing.assert_array_equal(net.blobs["p"].data, np.full((2, 3), 5))
    np.testing.assert_array_equal(net.blobs["t"].data, np.full(4, 7))
    np.testing.assert_array_equal(net.forward()["p"], np.full((2, 3), 4))


def test_blobs_do_not_share_memory_by_accident() -> None:
    text = """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "d" type: "Dropout" bottom: "x" top: "d" } layer { name: "p" type: "Power" bottom: "d" top: "p" }
    layer { name: "f" type: "Flatten" bottom: "p" top: "f" } layer { name: "s" type: "Silence" bottom: "f" }"""
    net = net_of(text, "cpu")
    net.forward(x=X)
    net.blobs["p"].data[...] = 0
    np.testing.assert_array_equal(net.blobs["x"].data, X)
    np.testing.assert_array_equal(net.blobs["d"].data, X)
    assert not net.blobs["f"].data.any()  # that one is the same memory in Caffe too


def test_afar_transfers_only_what_was_looked_at() -> None:
    device = Afar()
    net = net_of(IN_PLACE, device)
    net.forward(data=X)
    device.reads = device.writes = 0
    net._engine.forward(0, 8)
    net._engine.forward(0, 8)
    assert device.reads <= 4  # the in-place input, and copies that are still referred to
    data = net.blobs["left"].data
    device.reads = 0
    net._engine.forward(4, 4)
    assert device.reads >= 1
    assert data.any()


def test_to_another_device() -> None:
    with net_of(IN_PLACE, "cpu") as net:
        blob = net.blobs["left"]
        wanted = net.forward(data=X)["left"].copy()
        weight = net.params["ip"][0].data.copy()
        assert net.to(Afar()) is net
        assert net.device.name == "afar"
        np.testing.assert_array_equal(blob.data, wanted)
        np.testing.assert_array_equal(net.params["ip"][0].data, weight)
        np.testing.assert_allclose(net.forward(data=X)["left"], wanted, 1e-6)
        net.to("reference")
        np.testing.assert_allclose(net.forward(data=X)["left"], wanted, 1e-6)
        with pytest.raises(DeviceError, match="cpux"):
            net.to("cpux")


# ------------------------------------------------------------------------------------------------------------ endurance
@pytest.mark.slow
def test_a_loop_neither_grows_nor_slows_down() -> None:
    net = netrun.Net(CONFIGS / "mnist" / "lenet.prototxt", shapes={"data": (1, 1, 28, 28)})

    def run(count: int) -> float:
        best = 1e9
        for _ in range(count // 50):
            begun = time.perf_counter()
            for _ in range(50):
                net.forward()
            best = min(best, time.perf_counter() - begun)
        return best

    first = run(500)
    gc.collect()
    tracemalloc.start()
    run(100)
    before = tracemalloc.get_traced_memory()[0]
    run(1000)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 20_000
    assert run(500) < 1.5 * first


def test_a_precision_by_name() -> None:
    """In the place of what the net says; a device without it refuses, and so is another word."""
    text = "precision: FP16 " + IN_PLACE
    with pytest.raises(DeviceError, match="no precision FP16"):
        net_of(text, "cpu")
    net = net_of(text, "cpu", precision="fp32", deterministic=True)
    assert (net.graph.numerics.precision, net.graph.numerics.deterministic) == ("FP32", True)
    with pytest.raises(UsageError, match='there is no precision "BF61"; did you mean "BF16"'):
        net_of(text, "cpu", precision="BF61")


def test_a_phase_by_name_is_that_phase_and_another_is_refused() -> None:
    message, _ = parse_net('layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 } } }')
    assert [netrun.Net(message, phase).phase for phase in ("TRAIN", schema.TRAIN, "TEST")] == [0, 0, 1]
    for wrong in ("train", 7):
        with pytest.raises(UsageError, match='phase wants "TRAIN" or "TEST"'):
            netrun.Net(message, wrong)
