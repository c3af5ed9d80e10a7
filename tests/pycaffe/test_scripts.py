"""Whole scripts as people have them for pycaffe: detection, dreams, styles, surgery, classifying."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import google.protobuf as pb2
import numpy as np
import pytest
from google.protobuf import text_format

import netrun.pycaffe as caffe
from netrun.pycaffe.proto import caffe_pb2

Write = Callable[..., str]


@pytest.fixture(autouse=True)
def beside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The layers of user_layers.py, and a folder to write to."""
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parent), *sys.path])
    monkeypatch.chdir(tmp_path)


def python(name: str, kind: str, ends: str, param_str: str = "") -> str:
    text = f'param_str: "{param_str}"' if param_str else ""
    param = f'python_param {{ module: "user_layers" layer: "{kind}" {text} }}'
    return f'layer {{ name: "{name}" type: "Python" {ends} {param} }}\n'


def ip(name: str, bottom: str, outputs: int) -> str:
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" inner_product_param {{ '
        f'num_output: {outputs} weight_filler {{ type: "xavier" }} }} }}\n'
    )


# ------------------------------------------------------------------------------------------------------------ detection
DETECTION = (
    python("input", "Samples", 'top: "image" top: "count"', "{'image': 0, 'count': 1}")
    + """layer { name: "conv" type: "Convolution" bottom: "image" top: "conv" convolution_param { num_output: 3
      kernel_size: 3 weight_filler { type: "gaussian" std: 0.1 } } }
    layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }"""
    + python("proposal", "Proposals", 'bottom: "conv" bottom: "count" top: "rois" top: "labels"')
    + ip("score", "rois", 2)
    + ip("box", "rois", 8)
    + """layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "labels" top: "loss" loss_weight: 1
      propagate_down: true propagate_down: false }
    layer { name: "hush" type: "Silence" bottom: "box" }"""
)


class Trainer:
    """A wrapper around a solver as detection code has it: the samples go to the first layer; weights are scaled before
    they are written, and put back."""

    def __init__(self, solver_file: str, samples: Any) -> None:
        self.solver = caffe.SGDSolver(solver_file)
        self.param = caffe_pb2.SolverParameter()
        with open(solver_file) as stream:
            pb2.text_format.Merge(stream.read(), self.param)  # type: ignore[attr-defined]
        self.solver.net.layers[0].set_samples(samples)

    def snapshot(self) -> str:
        net = self.solver.net
        kept = [blob.data.copy() for blob in net.params["box"]]
        net.params["box"][0].data[...] = net.params["box"][0].data * np.full(8, 2.0)[:, np.newaxis]
        net.params["box"][1].data[...] = net.params["box"][1].data + 1
        name = f"{self.param.snapshot_prefix}_iter_{self.solver.iter}.caffemodel"
        net.save(str(name))
        for blob, values in zip(net.params["box"], kept, strict=True):
            blob.data[...] = values
        return name


def test_detection(write: Write) -> None:
    write(DETECTION, "net.prototxt")
    solver = write(
        'train_net: "net.prototxt" base_lr: 0.01 lr_policy: "step" gamma: 0.1 stepsize: 5 display: 2 average_loss: 10 '
        'momentum: 0.9 weight_decay: 0.0005 snapshot: 0 snapshot_prefix: "det" iter_size: 2',
        "solver.prototxt",
    )
    rng = np.random.default_rng(0)
    samples = [{"image": rng.random((1, 2, 8 + i, 9)), "count": np.array([[2 + i % 3]])} for i in range(4)]
    trainer = Trainer(solver, samples)
    while trainer.solver.iter < 5:
        trainer.solver.step(1)
    assert trainer.solver.net.layers[0].next == 10  # two passes an iteration
    assert trainer.solver.net.layer_dict["proposal"].made == sum(2 + i % 4 % 3 for i in range(10))
    assert trainer.solver.net.blobs["image"].shape == samples[1]["image"].shape
    weights = trainer.snapshot()
    net = caffe.Net("net.prototxt", weights, caffe.TEST)
    net.name = "det"
    np.testing.assert_array_equal(net.params["box"][1].data, trainer.solver.net.params["box"][1].data + 1)
    net.layers[0].set_samples(samples)
    for sample in samples:
        assert np.isfinite(net.forward()["loss"])
        assert net.blobs["image"].data.shape == sample["image"].shape
        assert net.blobs["rois"].data.shape == (sample["count"].item(), 5)


# ---------------------------------------------------------------------------------------------------- dreams and styles
DREAM = """name: "dream" input: "data" input_dim: 10 input_dim: 3 input_dim: 24 input_dim: 24
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" convolution_param { num_output: 8 kernel_size: 3
  pad: 1 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "conv2" type: "Convolution" bottom: "pool1" top: "conv2" convolution_param { num_output: 8 kernel_size: 3
  pad: 1 weight_filler { type: "xavier" } } }
layer { name: "relu2" type: "ReLU" bottom: "conv2" top: "conv2" }
layer { name: "pool2" type: "Pooling" bottom: "conv2" top: "pool2" pooling_param { global_pooling: true pool: AVE } }
layer { name: "ip" type: "InnerProduct" bottom: "pool2" top: "ip" inner_product_param { num_output: 4
  weight_filler { type: "xavier" } } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""


@pytest.fixture
def dream(write: Write) -> str:
    """The net with force_backward set by way of its message, and weights beside it."""
    net = caffe.Net(write(DREAM, "deploy.prototxt"), caffe.TEST)
    net.save("dream.caffemodel")
    model = caffe.io.caffe_pb2.NetParameter()
    with open("deploy.prototxt") as stream:
        text_format.Merge(stream.read(), model)
    model.force_backward = True
    return write(str(model), "tmp.prototxt")


def test_dreaming(dream: str) -> None:
    mean = np.array([104.0, 116.0, 122.0], np.float32)
    net = caffe.Classifier(dream, "dream.caffemodel", mean=mean, channel_swap=(2, 1, 0))
    rng = np.random.default_rng(1)
    image = rng.integers(0, 255, (31, 41, 3)).astype(np.float32)
    large = np.float32(np.rollaxis(image, 2)[::-1]) - net.transformer.mean["data"]
    source, target = net.blobs["data"], net.blobs["conv2"]
    for octave in (large[:, ::2, ::2], large):
        source.reshape(1, 3, *octave.shape[-2:])
        source.data[0] = octave
        energies = []
        for _ in range(4):
            net.forward(end="conv2")
            energies.append(float((target.data**2).mean()))
            target.diff[:] = target.data
            net.backward(start="conv2")
            step = source.diff[0]
            source.data[:] += 3 / np.abs(step).mean() * step
            bias = net.transformer.mean["data"]
            source.data[:] = np.clip(source.data, -bias, 255 - bias)
        assert energies == sorted(energies)
        assert energies[-1] > energies[0]
    assert net.transformer.deprocess("data", source.data).shape == (31, 41, 3)


def test_styles_add_to_gradients_between_parts_of_a_pass(dream: str) -> None:
    """What is added to the diff of each layer on the way down arrives at the input, as one backward of the sum does."""
    net = caffe.Net(dream, "dream.caffemodel", caffe.TEST)
    net.blobs["data"].reshape(1, 3, 24, 24)
    net.reshape()
    net.blobs["data"].data[...] = np.random.default_rng(2).normal(size=(1, 3, 24, 24))
    net.forward(end="conv2")
    total, names = np.zeros((3, 24, 24), np.float32), ["conv2", "pool1", "conv1"]
    for name in names:  # one by one
        net.blobs[name].diff[...] = 1
        net.backward(start=name)
        total += net.blobs["data"].diff[0]
    net.blobs["conv2"].diff[...] = 0
    for name, below in zip(names, [*names[1:], None], strict=True):
        gradient = net.blobs[name].diff[0]
        gradient += 1
        net.backward(start=name, end=below)
    np.testing.assert_allclose(net.blobs["data"].diff[0], total, 1e-4, 1e-5)


# ----------------------------------------------------------------------------------------------------- surgery and FCNs
def test_surgery_and_transplants(dream: str, write: Write) -> None:
    old = caffe.Net("deploy.prototxt", "dream.caffemodel", caffe.TEST)
    text = """layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 8 dim: 6 dim: 6 } } }
    layer { name: "ip-conv" type: "Convolution" bottom: "data" top: "ip-conv" convolution_param { num_output: 4
      kernel_size: 1 } }
    layer { name: "up" type: "Deconvolution" bottom: "ip-conv" top: "up" convolution_param { num_output: 4
      bias_term: false kernel_size: 4 stride: 2 } }"""
    new = caffe.Net(write(text), caffe.TEST)
    grid = np.ogrid[:4, :4]
    filt = (1 - abs(grid[0] - 1.5) / 2) * (1 - abs(grid[1] - 1.5) / 2)
    m, k, _, _ = new.params["up"][0].data.shape
    new.params["up"][0].data[range(m), range(k), :, :] = filt
    moved = [name for name in old.params if f"{name}-conv" in new.params]
    for name in moved:
        for i in range(len(old.params[name])):
            new.params[f"{name}-conv"][i].data.flat = old.params[name][i].data.flat
    assert moved == ["ip"]
    x = np.random.default_rng(3).random((1, 8, 6, 6), np.float32)
    found = new.forward(data=x)["up"]
    assert found.shape == (1, 4, 14, 14)
    weight, bias = (blob.data for blob in old.params["ip"])
    scores = np.einsum("oc,chw->ohw", weight, x[0]) + bias[:, np.newaxis, np.newaxis]
    np.testing.assert_allclose(new.blobs["ip-conv"].data[0], scores, 1e-4, 1e-5)
    new.blobs["data"].reshape(1, 8, 9, 7)
    assert new.forward()["up"].shape == (1, 4, 20, 16)


# ---------------------------------------------------------------------------------------------------------- classifying
def test_classifying_and_detecting(dream: str) -> None:
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(5)
    image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save("a.png")
    given: Any = {"mean": np.full(3, 100.0), "raw_scale": 255.0, "channel_swap": [2, 1, 0]}
    classifier = caffe.Classifier(dream, "dream.caffemodel", image_dims=np.array([32, 32]), **given)
    inputs = [caffe.io.load_image("a.png")]
    assert classifier.predict(inputs).shape == classifier.predict(inputs, oversample=False).shape == (1, 4)
    detector = caffe.Detector(dream, "dream.caffemodel", context_pad=4, **given)
    found = detector.detect_windows([("a.png", np.array([[1, 2, 30, 30], [0, 0, 39, 49]]))])
    assert [set(window) for window in found] == [{"window", "prediction", "filename"}] * 2
    net = caffe.Net(dream, "dream.caffemodel", caffe.TEST)
    net.blobs["data"].reshape(50, 3, 24, 24)
    transformer = caffe.io.Transformer({"data": net.blobs["data"].data.shape})
    transformer.set_transpose("data", (2, 0, 1))
    transformer.set_mean("data", np.load(_saved(rng.random((3, 24, 24)))).mean(1).mean(1))
    transformer.set_raw_scale("data", 255)
    transformer.set_channel_swap("data", (2, 1, 0))
    net.blobs["data"].data[...] = transformer.preprocess("data", inputs[0])
    best = net.forward()["prob"][0].argmax()
    assert (net.blobs["prob"].data.argmax(1) == best).all()


def _saved(mean: Any) -> str:
    """A mean image through a .binaryproto to a .npy file."""
    blob = caffe.proto.caffe_pb2.BlobProto()
    blob.ParseFromString(caffe.io.array_to_blobproto(mean[np.newaxis]).SerializeToString())
    np.save("mean.npy", np.array(caffe.io.blobproto_to_array(blob))[0])
    return "mean.npy"


# ---------------------------------------------------------------------------------------------------------- unchanged
@pytest.fixture
def alias(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The mirror under the name caffe."""
    monkeypatch.setitem(sys.modules, "caffe", caffe)
    yield
    for name in [n for n in sys.modules if n.startswith("caffe.")]:
        del sys.modules[name]


@pytest.mark.usefixtures("alias")
def test_scripts_that_say_import_caffe() -> None:
    code = """
import caffe, caffe.io, caffe.draw, caffe.proto.caffe_pb2
from caffe import layers as L, params as P, to_proto
from caffe.proto import caffe_pb2
from caffe.proto.caffe_pb2 import *
from caffe.coord_map import crop
from caffe._caffe import *
from caffe.pycaffe import Net
text = str(to_proto(L.ReLU(L.Input(shape={"dim": [1, 2]}))))
"""
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["caffe"] is caffe
    assert names["caffe_pb2"] is caffe_pb2
    assert names["Net"] is caffe.Net
    assert sys.modules["caffe.io"] is caffe.io
    assert caffe.io.__spec__ is not None
    assert caffe.io.__spec__.name == "netrun.pycaffe.io"
    assert names["NetParameter"] is caffe_pb2.NetParameter
    with pytest.raises(ModuleNotFoundError):
        exec("import caffe.nothing", names)
