"""A net in Python that keeps little until somebody looks: never another value than where everything is kept."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

import netrun
import netrun.pycaffe as caffe
from netrun.config import schema

NET = """
name: "looked at"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 3 dim: 3 dim: 9 dim: 9 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 16 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "norm1" type: "BatchNorm" bottom: "conv1" top: "norm1" }
layer { name: "scale1" type: "Scale" bottom: "norm1" top: "norm1" scale_param { bias_term: true } }
layer { name: "relu1" type: "ReLU" bottom: "norm1" top: "norm1" }
layer { name: "pool1" type: "Pooling" bottom: "norm1" top: "pool1" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "left" type: "Convolution" bottom: "pool1" top: "left"
  convolution_param { num_output: 16 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "relu_left" type: "ReLU" bottom: "left" top: "left" }
layer { name: "right" type: "Convolution" bottom: "pool1" top: "right"
  convolution_param { num_output: 16 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "sum" type: "Eltwise" bottom: "left" bottom: "right" top: "sum" }
layer { name: "both" type: "Concat" bottom: "sum" bottom: "right" top: "both" }
layer { name: "flat" type: "Flatten" bottom: "both" top: "flat" }
layer { name: "fc" type: "InnerProduct" bottom: "flat" top: "fc"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "drop" type: "Dropout" bottom: "fc" top: "fc" }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
"""


def message(text: str = NET) -> schema.NetParameter:
    from google.protobuf import text_format

    found = schema.NetParameter()
    text_format.Parse(text, found)
    return found


def opened(lean: bool = True, **options: object) -> netrun.Net:
    net = netrun.Net(message(), **options)  # type: ignore[arg-type]
    for parameter in (p for blobs in net.params.values() for p in blobs):
        parameter.data[...] = np.random.default_rng(parameter.data.size).uniform(0.1, 0.6, parameter.shape)
        if parameter.shape == (16, 3, 3, 3):
            parameter.data[...] -= 0.35
    if not lean:
        assert net.memory is not None  # somebody else has the parameters now: everything is kept from here on
    return net


def runs_lean(net: netrun.Net) -> bool:
    """Whether the last pass left blobs to be made when somebody looks."""
    lean = net._engine.now.lean
    return lean is not None and lean._ran is not None


def image(seed: int, n: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 3, 9, 9)).astype("float32")


def same(one: netrun.Net, other: netrun.Net) -> None:
    for name in one.blobs:
        np.testing.assert_allclose(one.blobs[name].data, other.blobs[name].data, 2e-5, 2e-6, err_msg=name)


def test_nothing_between_is_kept_until_somebody_looks() -> None:
    net, full = opened(), opened(lean=False)
    for each in (net, full):
        each.forward(data=image(1))
    assert runs_lean(net)
    assert not runs_lean(full)
    assert "session" not in net._engine.now.__dict__, "nobody needs the session that keeps everything yet"
    same(net, full)
    assert not runs_lean(net)


def test_what_is_looked_at_again_and_again_is_kept() -> None:
    net = opened()
    kinds = []
    for i in range(5):
        net.forward(data=image(i))
        kinds.append(runs_lean(net))
        net.blobs["pool1"].data.sum()
    assert kinds == [True, False, True, True, True]
    net.forward(data=image(7))
    assert net.blobs["pool1"].data.any()
    assert runs_lean(net), "kept: nothing had to run again"
    full = opened(lean=False)
    full.forward(data=image(7))
    same(net, full)


def test_one_look_at_everything_costs_two_passes_and_no_more() -> None:
    net = opened()
    for i in range(3):
        net.forward(data=image(i))
        if not i:
            assert all(blob.data.shape for blob in net.blobs.values())
    assert runs_lean(net)


def test_a_look_shows_the_pass_that_ran_not_the_inputs_of_now() -> None:
    net, full = opened(), opened(lean=False)
    for each in (net, full):
        each.forward(data=image(1))
        each.blobs["data"].data[...] = image(2)
        each.blobs["prob"].data[...] = 0.25
    same(net, full)
    assert np.array_equal(net.blobs["data"].data, image(2))
    assert (net.blobs["prob"].data == 0.25).all()


def test_parameters_changed_after_a_pass_do_not_reach_back() -> None:
    for way in ("in place", "assigned", "held before"):
        net, full = opened(), opened(lean=False)
        for each in (net, full):
            held = each.params["conv1"][0].data if way == "held before" else None
            each.forward(data=image(1))
            if held is not None:
                held *= 2
            elif way == "assigned":
                each.params["conv1"][0].data = 0.5  # nobody has looked at it
            else:
                each.params["conv1"][0].data[...] *= 2
            del held
        same(net, full)
        for each in (net, full):
            each.forward()
            each.forward()
        assert runs_lean(net)
        same(net, full)


def test_held_parameters_are_read_in_every_pass() -> None:
    net, full = opened(), opened(lean=False)
    weights, others = net.params["right"][0].data[1:], full.params["right"][0].data[1:]
    for i in range(3):
        weights += 0.1
        others += 0.1
        assert np.allclose(net.forward(data=image(i))["prob"], full.forward(data=image(i))["prob"], 1e-5)
        assert not runs_lean(net)
    del weights
    gc.collect()
    net.forward()
    assert runs_lean(net)


def test_a_held_blob_follows_every_pass() -> None:
    net, full = opened(), opened(lean=False)
    prob, pool = net.blobs["prob"].data, net.blobs["pool1"].data
    for i in range(4):
        net.forward(data=image(i))
        full.forward(data=image(i))
        np.testing.assert_allclose(prob, full.blobs["prob"].data, 1e-5)
        np.testing.assert_allclose(pool, full.blobs["pool1"].data, 1e-5, 1e-6)
    assert net.blobs["prob"].data is prob
    assert net.blobs["pool1"].data is pool


@pytest.mark.parametrize("seed", range(12))
def test_no_order_of_looks_and_changes_shows_a_difference(seed: int) -> None:
    """The same random session with both nets: every value that either shows is the same."""
    nets = opened(), opened(lean=False)
    layers, blobs = nets[0].layer_names, list(nets[0].blobs)
    generator = np.random.default_rng(seed)
    holding: list[tuple[np.ndarray, np.ndarray]] = []
    batch = 3
    for step in range(60):
        what = generator.integers(12)
        name, number = str(generator.choice(blobs)), int(generator.integers(1 << 30))
        if what <= 3:
            for net in nets:
                net.forward(**({} if what else {"data": image(number, batch)}))
        elif what == 4:
            a, b = (net.blobs[name].data for net in nets)
            np.testing.assert_allclose(a, b, 5e-5, 5e-6, err_msg=f"step {step}: {name}")
        elif what == 5:
            for net in nets:
                net.blobs["data"].data[...] = image(number, batch)
        elif what == 6:
            low = int(generator.integers(1, len(layers)))
            high = int(generator.integers(low, len(layers)))
            for net in nets:
                net.forward(start=layers[low], end=layers[high])
        elif what == 7:
            values = np.random.default_rng(number).uniform(0, 1, nets[0].blobs[name].shape)
            for net in nets:
                net.blobs[name].data[...] = values
        elif what == 8:
            for net in nets:
                net.params["left"][number % 2].data[...] *= 1.01
        elif what == 9:
            holding = [(nets[0].blobs[name].data, nets[1].blobs[name].data)]
        elif what == 10:
            holding = [(nets[0].params["fc"][0].data, nets[1].params["fc"][0].data)]
        elif generator.integers(2):
            holding = []
        else:
            holding, batch = [], int(generator.integers(1, 5))
            for net in nets:
                net.reshape(data=(batch, 3, 9, 9))
                net.forward(data=image(number, batch))
        for a, b in holding:
            np.testing.assert_allclose(a, b, 5e-5, 5e-6, err_msg=f"step {step}: held")
    same(*nets)


def test_backward_after_a_lean_pass() -> None:
    net, full = opened(), opened(lean=False)
    for each in (net, full):
        each.forward(data=image(1))
        each.blobs["prob"].diff[...] = np.arange(10)
        each.backward()
    same(net, full)
    for blobs, others in zip(net.params.values(), full.params.values(), strict=True):
        for one, other in zip(blobs, others, strict=True):
            np.testing.assert_allclose(one.diff, other.diff, 1e-4, 1e-5)
    net.forward()
    assert not runs_lean(net), "backward needs what is between"


def test_nets_that_share_parameters_keep_everything() -> None:
    net, other = opened(), opened()
    for each in (net, other):
        each.forward(data=image(1))
    before = net.blobs["pool1"].data.copy()
    net.forward()
    net.share_with(other)
    other.params["conv1"][0].data[...] *= 2
    assert np.allclose(net.blobs["pool1"].data, before, 1e-5)
    net.forward(data=image(1))
    other.forward(data=image(1))
    assert not runs_lean(net)
    assert not runs_lean(other)
    same(net, other)


def test_new_weights_from_a_file(tmp_path: Path) -> None:
    net, full = opened(), opened(lean=False)
    full.params["conv1"][0].data[...] *= 3
    full.save(tmp_path / "w.caffemodel")
    full.load(tmp_path / "w.caffemodel")
    other = opened(lean=False)
    for each in (net, other):
        each.forward(data=image(1))
        each.load(tmp_path / "w.caffemodel")
    same(net, other)
    for _ in range(2):
        net.forward(data=image(1))
        full.forward(data=image(1))
    assert runs_lean(net)
    same(net, full)


@pytest.mark.parametrize(
    "change",
    [
        {"phase": "TRAIN"},
        {"device": "reference"},
    ],
)
def test_where_everything_is_kept(change: dict[str, str]) -> None:
    net = netrun.Net(message(), **change)  # type: ignore[arg-type]
    net.forward(data=image(1))
    assert net._engine.now.lean is None


def test_statistics_that_move_are_moved_once() -> None:
    """BatchNorm with the batch's statistics changes its parameters in every pass: none may run twice."""
    text = NET.replace(
        'top: "norm1" }\nlayer { name: "scale1"',
        'top: "norm1" batch_norm_param { use_global_stats: false } }\nlayer { name: "scale1"',
    )
    assert text != NET
    net = netrun.Net(message(text))
    net.forward(data=image(1))
    moved = net.params["norm1"][2].data.copy()
    assert net.blobs["pool1"].data.shape == (3, 16, 4, 4)
    assert np.array_equal(net.params["norm1"][2].data, moved)


def test_named_blobs_of_the_mirror() -> None:
    net = caffe.Net(message(), caffe.TEST)
    full = opened(lean=False)
    full.params["conv1"][0].data[...] = net.params["conv1"][0].data
    for name, blobs in net.params.items():
        for mine, theirs in zip(blobs, full.params[name], strict=True):
            theirs.data[...] = mine.data
    for i in range(3):
        net.blobs["data"].data[...] = image(i)
        found = net.forward(blobs=["pool1", "fc"])
        full.forward(data=image(i))
        for name in ("pool1", "fc", "prob"):
            np.testing.assert_allclose(found[name], full.blobs[name].data, 1e-5, 1e-6)
    assert runs_lean(net)


def test_loss_of_a_test_net() -> None:
    text = NET + 'layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 3 } } }\n'
    text += 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" loss_weight: 2 }'
    net = netrun.Net(message(text))
    found = net.forward(data=image(1), label=np.array([1, 2, 3]))
    assert runs_lean(net)
    assert net.loss == pytest.approx(2 * float(found["loss"]))
    assert net._engine.loss(0, len(net.layer_names) - 1) == pytest.approx(net.loss)
    assert net.loss > 0


def test_memory_is_that_of_a_lean_session() -> None:
    """What a large net takes until somebody looks: parameters and the arena of the lean program, not its blobs."""
    net = netrun.Net(Path(__file__).parents[1] / "configs/cifar10/quick.prototxt")
    net.forward()
    known = set(net._engine.own._blocks)
    assert known == {"data", "prob"}
