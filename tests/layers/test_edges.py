"""The corners that no recording shows: ties, zeros, infinities, what is random, and where netrun does better."""

from __future__ import annotations

from typing import Any

import cases.nets
import numpy as np
import pytest

from netrun.config import schema
from netrun.config.upgrade import parse_net
from netrun.errors import DataError
from netrun.net import Net


def net_of(kind: str, body: str, *shapes: tuple[int, ...], **more: Any) -> Net:
    return cases.nets.net_of(kind, body, *shapes, **{"device": "reference", **more})


def both(kind: str, body: str, *values: Any, **more: Any) -> tuple[Any, list[Any]]:
    """The top, and the gradients of the bottoms for a top gradient of ones."""
    arrays = [np.asarray(v, "float32") for v in values]
    with net_of(kind, body, *(a.shape for a in arrays), **more) as net:
        y = np.array(net.forward(**{f"x{i}": a for i, a in enumerate(arrays)})["y0"])
        net.backward(y0=np.ones(y.shape))
        return y, [net.blobs[f"x{i}"].diff.copy() for i in range(len(arrays))]


@pytest.mark.parametrize(
    ("kind", "body", "x", "y", "dx"),
    [
        ("ReLU", "relu_param { negative_slope: 0.25 }", [-4, 0, 2], [-1, 0, 2], [0.25, 0.25, 1]),
        ("PReLU", "prelu_param { channel_shared: true }", [[-4, 0, 2]], [[-1, 0, 2]], [[0.25, 0.25, 1]]),
        ("AbsVal", "", [-1, 0, 1], [1, 0, 1], [-1, 0, 1]),
        ("Clip", "clip_param { min: -1 max: 2 }", [-3, -1, 0, 2, 3], [-1, -1, 0, 2, 2], [0, 1, 1, 1, 0]),
        ("Clip", "clip_param { min: 0 max: inf }", [-1, 9], [0, 9], [0, 1]),
        ("Clip", "clip_param { min: 2 max: 1 }", [0, 1.5, 3], [2, 2, 2], [0, 0, 0]),
        ("Clip", "", [-1, 0, 1], [0, 0, 0], [0, 1, 0]),
        ("Threshold", "", [-1, 0, 1], [0, 0, 1], [0, 0, 0]),
        ("Power", "power_param { power: 3 }", [0, 2], [0, 8], [0, 12]),
        ("Power", "power_param { power: 1.5 }", [0, 4], [0, 8], [0, 3]),
        ("Power", "power_param { power: 2 }", [0, -3], [0, 9], [0, -6]),
        ("Power", "power_param { power: 0 }", [0, 2], [1, 1], [0, 0]),
        ("Power", "power_param { scale: 0 shift: 2 power: 3 }", [5, 6], [8, 8], [0, 0]),
        ("BNLL", "", [-200, 0, 200], [0, np.log(2), 200], [0, 0.5, 1]),
        ("Softmax", "", [[1000, 1000, -1000]], [[0.5, 0.5, 0]], [[0, 0, 0]]),
        ("MVN", "", [[[2, 2, 2]]], [[[[0], [0], [0]]]], [[[0, 0, 0]]]),
    ],
)
def test_corners(kind: str, body: str, x: Any, y: Any, dx: Any) -> None:
    top, (gradient,) = both(kind, body, x)
    np.testing.assert_allclose(top, y, 1e-6, 1e-30)
    np.testing.assert_allclose(gradient, dx, 1e-6, 1e-30)


def test_eltwise_max_sends_the_gradient_to_one_winner() -> None:
    y, gradients = both("Eltwise", "eltwise_param { operation: MAX }", [1, 5, 2, 3], [1, 2, 2, 3], [1, 4, 2, 4])
    np.testing.assert_array_equal(y, [1, 5, 2, 4])
    np.testing.assert_array_equal(gradients, [[0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]])


def test_eltwise_prod_is_right_at_zero() -> None:
    for stable in ("true", "false"):
        body = f"eltwise_param {{ operation: PROD stable_prod_grad: {stable} }}"
        y, gradients = both("Eltwise", body, [0, 2], [3, 0], [5, 7])
        np.testing.assert_array_equal(y, [0, 0])
        np.testing.assert_array_equal(gradients, [[15, 0], [0, 14], [0, 0]])


@pytest.mark.parametrize(("pool", "wanted"), [("MAX", np.finfo("float32").min), ("AVE", 0)])
def test_a_pooling_window_that_meets_nothing(pool: str, wanted: float) -> None:
    """Stride 3, kernel 1, size 5: rounded up there is a third window, at 6."""
    y, (gradient,) = both("Pooling", f"pooling_param {{ pool: {pool} kernel_size: 1 stride: 3 }}", [[[0, 1, 2, 3, 4]]])
    np.testing.assert_array_equal(y, [[[0, 3, wanted]]])
    np.testing.assert_array_equal(gradient, [[[1, 0, 0, 1, 0]]])


def test_stochastic_pooling_draws_by_weight() -> None:
    x = np.tile(np.array([[1.0, 3.0]], "float32"), (1, 4000)).reshape(1, 1, 1, -1)
    body = "pooling_param { pool: STOCHASTIC kernel_h: 1 kernel_w: 2 stride_h: 1 stride_w: 2 }"
    y, (gradient,) = both("Pooling", body, x, phase=schema.TRAIN)
    assert (y == 3).mean() == pytest.approx(0.75, abs=5 * (0.75 * 0.25 / 4000) ** 0.5)
    np.testing.assert_array_equal((gradient * x).reshape(-1, 2).sum(axis=1), y.reshape(-1))
    mean, _ = both("Pooling", body, x)
    np.testing.assert_allclose(mean, 2.5)
    empty, (flat,) = both("Pooling", body, np.zeros((1, 1, 1, 4)))
    assert not empty.any()
    assert np.isfinite(flat).all()


def test_dropout_depends_on_seed_and_name_alone() -> None:
    x = np.ones((50, 20), "float32")
    tops = [both("Dropout", "", x, phase=schema.TRAIN, seed=seed)[0] for seed in (1, 1, 2)]
    np.testing.assert_array_equal(tops[0], tops[1])
    assert (tops[0] != tops[2]).any()
    assert set(np.unique(tops[0])) == {0, 2}


def test_sigmoid_cross_entropy_far_out() -> None:
    y, (gradient, _) = both("SigmoidCrossEntropyLoss", "", [[100, -100, 20, 0]], [[1, 0, 1, 0.25]])
    assert float(y) == pytest.approx(np.exp(-20) + np.log(2), rel=1e-6)
    np.testing.assert_allclose(gradient, [[0, 0, 0, 0.25]], atol=1e-7)


def test_contrastive_loss_of_equal_pairs_has_a_finite_gradient() -> None:
    y, gradients = both("ContrastiveLoss", "", [[1, 2], [3, 4]], [[1, 2], [3, 4]], [0, 1])
    assert float(y) == pytest.approx(0.25)
    assert not any(gradient.any() for gradient in gradients)


def test_labels_of_probability_zero_still_learn() -> None:
    _, (gradient, _) = both("MultinomialLogisticLoss", "", [[0, 1]], [0])
    np.testing.assert_allclose(gradient, [[-1e20, 0]], 1e-5)
    _, (gradient, _, _) = both("InfogainLoss", "", [[-200, 0]], [0], np.eye(2))
    np.testing.assert_allclose(gradient, [[-1, 1]], 1e-6)


@pytest.mark.parametrize("kind", ["SoftmaxWithLoss", "HingeLoss", "MultinomialLogisticLoss", "InfogainLoss"])
@pytest.mark.parametrize("label", [-1, 3, 255])
def test_labels_out_of_range_are_errors(kind: str, label: int) -> None:
    more = [np.eye(3)] if kind == "InfogainLoss" else []
    with pytest.raises(DataError, match=rf"layer t: .*{label}.*0\.\.2"):
        both(kind, "", [[0.2, 0.3, 0.5]] * 2, [0, label], *more)


def test_all_labels_ignored() -> None:
    y, (gradient, _) = both("SoftmaxWithLoss", "loss_param { ignore_label: 255 }", [[1, 2]], [255])
    assert float(y) == 0
    assert not gradient.any()
    share, _ = both("Accuracy", "accuracy_param { ignore_label: 255 }", [[1, 2]], [255])
    assert float(share) == 0


def test_batch_norm_keeps_running_sums() -> None:
    x = np.arange(12, dtype="float32").reshape(4, 3)
    with net_of("BatchNorm", "batch_norm_param { moving_average_fraction: 0.5 }", (4, 3), phase=schema.TRAIN) as net:
        for _ in range(2):
            net.forward(x0=x)
        mean, variance, factor = (blob.data for blob in net.params["t"])
        np.testing.assert_allclose(mean, 1.5 * x.mean(axis=0), 1e-6)
        np.testing.assert_allclose(variance, 1.5 * x.var(axis=0, ddof=1), 1e-6)
        np.testing.assert_allclose(factor, [1.5])
    untouched, _ = both("BatchNorm", "", x)
    np.testing.assert_allclose(untouched, x / np.sqrt(1e-5), 1e-6)


def test_tied_scores_count_against() -> None:
    share, _ = both("Accuracy", "", [[1, 1], [2, 1], [1, 2]], [0, 0, 0])
    assert float(share) == pytest.approx(1 / 3)


def test_many_bottoms() -> None:
    """More than the alphabet has letters."""
    values = [np.full((2,), i, "float32") for i in range(30)]
    y, gradients = both("Eltwise", "", *values)
    np.testing.assert_array_equal(y, [435, 435])
    assert np.all(np.asarray(gradients) == 1)
    y, gradients = both("Eltwise", "eltwise_param { operation: MAX }", *values)
    np.testing.assert_array_equal(y, [29, 29])
    assert np.asarray(gradients)[:, 0].tolist() == [0] * 29 + [1]


@pytest.mark.parametrize("positions", [3, 7, 41, 57])
def test_accuracy_is_a_count_divided_once(positions: int) -> None:
    """The share in single precision, to the last bit: what a logged accuracy is compared with."""
    scores = np.tile(np.array([0, 1], "float32"), (positions, 1))
    for hits in range(positions + 1):
        share, _ = both("Accuracy", "", scores, np.arange(positions) < hits)
        assert share == np.float32(hits) / np.float32(positions)


@pytest.mark.parametrize("kind", ["Convolution", "Im2col"])
def test_a_window_may_be_larger_than_its_input_by_less_than_a_stride(kind: str) -> None:
    """Caffe divides towards zero: kernel 4 and stride 2 on 3 inputs give one output, with a 0 behind the input."""
    body = "convolution_param { num_output: 1 kernel_size: 4 stride: 2 }".replace(
        "num_output: 1 " if kind == "Im2col" else "~", ""
    )
    for device in ("reference", "cpu"):
        with net_of(kind, body, (1, 1, 3), device=device) as net:
            for blob in net.params.get("t", [])[:1]:
                blob.data[...] = [[[1, 10, 100, 1000]]]
            y = np.array(net.forward(x0=[[[2, 3, 4]]])["y0"])
            net.backward(y0=np.ones(y.shape))
            assert y.ravel().tolist() == ([432] if kind == "Convolution" else [2, 3, 4, 0])
            wanted = [1, 10, 100] if kind == "Convolution" else [1, 1, 1]
            assert net.blobs["x0"].diff.ravel().tolist() == wanted
            for blob in net.params.get("t", [])[:1]:
                assert blob.diff.ravel().tolist() == [2, 3, 4, 0]


def test_eltwise_max_takes_no_notice_of_coeff() -> None:
    y, gradients = both("Eltwise", "eltwise_param { operation: MAX coeff: -1 coeff: 5 }", [1, 4], [2, 3])
    np.testing.assert_array_equal(y, [2, 4])
    np.testing.assert_array_equal(gradients, [[0, 1], [1, 0]])


def test_values_that_stand_in_the_net_itself() -> None:
    body = "inner_product_param { num_output: 1 } blobs { shape { dim: 1 dim: 2 } data: 3 data: 4 } blobs { data: 5 }"
    y, (gradient,) = both("InnerProduct", body, [[1, 1]])
    np.testing.assert_array_equal(y, [[12]])
    np.testing.assert_array_equal(gradient, [[3, 4]])


def test_a_loss_that_nobody_names_has_its_weight() -> None:
    with net_of("EuclideanLoss", "loss_weight: 3", (2, 2), (2, 2), tops=0) as net:
        net.forward(x0=np.ones((2, 2)), x1=np.zeros((2, 2)))
        net.backward()
        assert net.outputs == []
        assert net.loss == 3
        np.testing.assert_array_equal(net.blobs["x0"].diff, np.full((2, 2), 1.5))


@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("AbsVal", ""), ("BNLL", ""), ("Clip", "clip_param { min: -0.5 max: 0.5 }"), ("ELU", ""), ("Exp", ""),
        ("Log", "log_param { scale: 0.1 shift: 1 }"), ("Power", "power_param { power: 3 shift: 0.5 }"),
        ("ReLU", "relu_param { negative_slope: -0.5 }"), ("PReLU", ""), ("Sigmoid", ""), ("Softmax", ""),
        ("Swish", ""), ("TanH", ""), ("BatchNorm", ""), ("Scale", "scale_param { filler { value: 2 } }"), ("Bias", ""),
        ("Dropout", ""), ("MVN", ""), ("LRN", ""),
    ],
)  # fmt: skip
def test_in_place_has_the_same_gradient(kind: str, body: str, device: str) -> None:
    x = np.linspace(-2, 2, 48, dtype="float32").reshape(2, 3, 4, 2)
    dy = np.cos(np.arange(48, dtype="float32")).reshape(x.shape)
    found = []
    for top in ("y", "x"):
        text = f"""force_backward: true layer {{ name: "x" type: "Input" top: "x"
              input_param {{ shape {{ dim: 2 dim: 3 dim: 4 dim: 2 }} }} }}
            layer {{ name: "t" type: "{kind}" bottom: "x" top: "{top}" {body} }}"""
        with Net(parse_net(text)[0], schema.TRAIN, device=device) as net:
            y = np.array(net.forward(x=x)[top])
            net.backward(**{top: dy})
            found.append([y, net.blobs["x"].diff.copy(), *(b.diff.copy() for b in net.params.get("t", []))])
    for apart, together in zip(*found, strict=True):
        np.testing.assert_allclose(together, apart, 1e-6, 1e-7)
