"""caffe.Net: members, slices, weights, errors."""

from __future__ import annotations

import copy
import gc
import json
import os
import pickle
import subprocess
import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

import netrun
import netrun.pycaffe as caffe
from netrun.config.weights import read_weights
from netrun.errors import NetrunError

GOLDEN = Path(__file__).parents[1] / "golden"
Write = Callable[..., str]


@pytest.fixture
def net(simple: str) -> Any:
    made = caffe.Net(simple, caffe.TRAIN)
    made.blobs["label"].data[...] = np.random.default_rng(1).integers(13, size=made.blobs["label"].data.shape)
    return made


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


DEPLOY = """force_backward: true
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 dim: 6 dim: 6 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 2 kernel_size: 3
  weight_filler { type: "gaussian" std: 0.5 } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "sum" type: "Reduction" bottom: "conv" top: "sum" reduction_param { axis: 1 } }
"""


def test_forward_all_fills_up_and_cuts_off(write: Write) -> None:
    net = caffe.Net(write(DEPLOY), caffe.TEST)
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


def test_reshape(write: Write) -> None:
    net = caffe.Net(write(DEPLOY), caffe.TEST)
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


def test_callbacks_change_nothing(write: Write) -> None:
    text = DEPLOY + 'layer { name: "drop" type: "Dropout" bottom: "sum" top: "sum" }'
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


def test_input_arrays(write: Write) -> None:
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
        caffe.Net(write(DEPLOY), caffe.TEST).set_input_arrays(data, data)


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


def test_wrong_use_is_told(net: Any, simple: str, write: Write, tmp_path: Path) -> None:
    deploy = caffe.Net(write(DEPLOY), caffe.TEST)
    cases: list[tuple[type[Exception], str, Callable[[], Any]]] = [
        (RuntimeError, "nowhere.prototxt", lambda: caffe.Net("nowhere.prototxt", caffe.TEST)),
        (RuntimeError, "gone.caffemodel", lambda: caffe.Net(simple, caffe.TEST, weights="gone.caffemodel")),
        (RuntimeError, "gone.solver", lambda: caffe.get_solver("gone.solver")),
        (KeyError, 'no blob "conv1".*"conv"', lambda: net.blobs["conv1"]),
        (KeyError, "conf", lambda: net.params["conf"]),
        (KeyError, 'no blob "x"', lambda: net.forward(blobs=["x"])),
        (ValueError, 'no layer "ipp".*"ip"', lambda: net.forward(end="ipp")),
        (ValueError, "no layer", lambda: net.backward(start="nobody")),
        (Exception, "do not match net inputs", lambda: deploy.forward(dat=np.zeros((4, 3, 6, 6)))),
        (Exception, "not batch sized", lambda: deploy.forward(data=np.zeros((3, 3, 6, 6)))),
        (ValueError, "4 3 6 6.*4 3 6 5", lambda: deploy.forward(data=np.zeros((4, 3, 6, 5)))),
        (TypeError, "takes numbers", lambda: deploy.forward(data=np.full((4, 3, 6, 6), "x"))),
        (Exception, "do not match net outputs", lambda: deploy.backward(conv=np.zeros((4, 2, 4, 4)))),
        (ValueError, "negative", lambda: deploy.blobs["data"].reshape(-1, 3)),
        (TypeError, "whole numbers", lambda: deploy.blobs["data"].reshape("a")),
        (TypeError, "network_file, phase", lambda: caffe.Net(simple)),
    ]
    for kind, text, act in cases:
        with pytest.raises(kind, match=f"(?s){text}") as caught:
            act()
        assert isinstance(caught.value, NetrunError), text
    net.forward()


def test_odd_values_and_arguments_are_told(net: Any, write: Write) -> None:
    """Whatever a script hands over, the error is netrun's, of the kind that scripts catch; the net goes on."""
    deploy = caffe.Net(write(DEPLOY), caffe.TEST)
    file = write(DEPLOY)
    shape = (4, 3, 6, 6)
    ones = np.ones(shape, np.float32)
    wanted = deploy.forward(data=ones)["sum"].copy()
    cases: list[tuple[type[Exception], str, Callable[[], Any]]] = [
        (TypeError, "complex128", lambda: deploy.forward(data=ones.astype(complex))),
        (TypeError, "datetime64", lambda: deploy.forward(data=np.zeros(shape, "datetime64[s]"))),
        (TypeError, "takes numbers", lambda: deploy.forward(data=np.zeros(shape, [("a", "f4")]))),
        (TypeError, "different lengths", lambda: deploy.forward(data=[[1, 2], [3]])),
        (TypeError, "takes numbers", lambda: deploy.forward(data=np.full(shape, object()))),
        (ValueError, "batch sized", lambda: deploy.forward(data=np.float32(3))),
        (ValueError, "batch sized", lambda: deploy.forward(data=None)),
        (ValueError, 'no layer "3"', lambda: deploy.forward(start=3)),
        (KeyError, 'no blob "0"', lambda: deploy.blobs[0]),
        (KeyError, 'no layer "cnov".*"conv"', lambda: deploy.layer_dict["cnov"]),
        (KeyError, 'no layer "cnov".*"conv"', lambda: deploy.top_names["cnov"]),
        (ValueError, "no layer", lambda: deploy._bottom_ids(99)),
        (TypeError, "name of a file", lambda: caffe.Net(3, caffe.TEST)),
        (TypeError, "level", lambda: caffe.Net(file, caffe.TEST, level="a")),
        (TypeError, "stages", lambda: caffe.Net(file, caffe.TEST, stages=3)),
        (TypeError, "name of a file", lambda: deploy.save(None)),
        (TypeError, "wants a net", lambda: deploy.share_with(3)),
        (TypeError, "whole numbers", lambda: deploy.blobs["data"].reshape(2.5, 3)),
        (TypeError, "wants a function", lambda: deploy.before_forward(3)),
        (TypeError, "seed", lambda: caffe.set_random_seed("a")),
        (TypeError, "GPU", lambda: caffe.set_device("a")),
        (TypeError, "name of a file", lambda: caffe.get_solver(3)),
        (ValueError, "one number", lambda: deploy.forward_all(data=3)),
        (ValueError, "resize_image", lambda: caffe.io.resize_image(np.zeros((3, 3)), (5, 5))),
        (ValueError, "resize_image", lambda: caffe.io.resize_image(np.zeros((3, 3, 3)), (0, 5))),
        (ValueError, "oversample", lambda: caffe.io.oversample([], (9, 9))),
        (OSError, "written", lambda: caffe.draw.draw_net_to_file(caffe.NetSpec().to_proto(), "/nowhere/a.svg")),
        (TypeError, "pickled", lambda: pickle.dumps(deploy)),
        (TypeError, "pickled", lambda: copy.deepcopy(deploy.blobs["data"])),
    ]
    for kind, text, act in cases:
        with pytest.raises(kind, match=text) as caught:
            act()
        assert isinstance(caught.value, NetrunError), text
    np.testing.assert_array_equal(deploy.forward(data=ones)["sum"], wanted)
    assert deploy.forward(blobs="conv", data=ones.tolist()).keys() == {"sum", "conv"}
    assert deploy.forward(start="sum", end="conv").keys() == {"conv"}  # nothing runs, as in pycaffe


MEMORY = """layer { name: "m" type: "MemoryData" top: "data" top: "label"
  memory_data_param { batch_size: 2 channels: 1 height: 2 width: 2 } }"""


@pytest.mark.parametrize(
    ("data", "labels"),
    [((4, 2, 2), 4), ((4, 2, 2, 2), 4), ((4, 1, 3, 2), 4), ((4, 1, 2, 2), 6), ((3, 1, 2, 2), 3)],
)
def test_arrays_that_do_not_fit_are_runtime_errors(write: Write, data: Any, labels: int) -> None:
    net = caffe.Net(write(MEMORY), caffe.TEST)
    with pytest.raises(RuntimeError) as caught:
        net.set_input_arrays(np.zeros(data, np.float32), np.zeros(labels, np.float32))
    assert isinstance(caught.value, NetrunError)
    net.set_input_arrays(np.ones((2, 1, 2, 2), np.float32), np.zeros((2, 1, 1, 1), np.float32))
    assert net.forward()["data"].all()


def test_the_binding_costs_little() -> None:
    """LeNet at batch 1 takes at most 1.5 times as long as in the bare session that keeps only its outputs."""
    program = Path(__file__).with_name("overhead.py")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    found = subprocess.run([sys.executable, program], env=env, capture_output=True, text=True, check=True).stdout
    assert float(found.split()[0]) < 1.5, found


def test_threads_do_not_share_a_mode(simple: str) -> None:
    found: dict[str, Any] = {}

    def other() -> None:
        caffe.set_mode_gpu()
        caffe.set_device(63)
        try:
            caffe.Net(simple, caffe.TEST)
        except NetrunError as error:
            found["gpu"] = str(error)
        caffe.set_mode_cpu()
        found["cpu"] = caffe.Net(simple, caffe.TEST).device.name

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert found["cpu"] == "cpu"
    assert "cuda" in found["gpu"]
    assert caffe.Net(simple, caffe.TEST).device.name == "cpu"


def test_nets_on_different_devices_at_once_and_one_net_in_many_threads(write: Write) -> None:
    file, data = write(DEPLOY), np.random.default_rng(3).random((4, 3, 6, 6), np.float32)
    one = caffe.Net(file, caffe.TEST)
    one.save(f"{file}.caffemodel")
    wanted = one.forward(data=data)["sum"].copy()
    wrong: list[Any] = []

    def own_net(device: str) -> None:
        try:
            net = netrun.Net(file, weights=f"{file}.caffemodel", device=device)
            for i in range(10):
                net.reshape(data=(1 + i % 3, 3, 6, 6))
                net.reshape(data=(4, 3, 6, 6))
                np.testing.assert_allclose(net.forward(data=data)["sum"], wanted, 1e-5, 1e-5)
                net.backward(sum=np.ones(4))
        except Exception as error:
            wrong.append((device, error))

    def same_net() -> None:
        try:
            for _ in range(50):
                one.forward(data=data)
                one.blobs["conv"].data.sum()
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=own_net, args=(device,)) for device in ("cpu", "reference", "cpu", "reference")]
    threads += [threading.Thread(target=same_net) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    np.testing.assert_array_equal(one.forward(data=data)["sum"], wanted)


def test_nets_run_in_several_threads(write: Write) -> None:
    file, data = write(DEPLOY), np.random.default_rng(3).random((4, 3, 6, 6), np.float32)
    nets = [caffe.Net(file, caffe.TEST) for _ in range(3)]
    wanted = [net.forward(data=data)["sum"].copy() for net in nets]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(50):
            if (nets[i].forward(data=data)["sum"] != wanted[i]).any():
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
