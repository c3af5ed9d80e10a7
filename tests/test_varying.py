"""Nets whose shapes depend on data: Filter in a net, in training, and several of them; layers that reshape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from netrun.config import schema
from netrun.config.upgrade import parse_net, parse_solver
from netrun.errors import ShapeError
from netrun.net import Net
from netrun.net_solver import NetSolver
from netrun.solver import Solver
from netrun.varying import LIMIT, Varying

INPUTS = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 6 dim: 3 } } }
    layer { name: "s" type: "Input" top: "s" input_param { shape { dim: 6 } } }
    layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 6 } } }"""
BELOW = """
    layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 4
      weight_filler { type: "gaussian" std: 1 } } }
    layer { name: "pool" type: "TanH" bottom: "ip" top: "ip" }
    layer { name: "bn" type: "BatchNorm" bottom: "ip" top: "bn" }"""
FILTER = 'layer { name: "f" type: "Filter" bottom: "bn" bottom: "t" bottom: "s" top: "y" top: "u" }'
ABOVE = """
    layer { name: "drop" type: "Dropout" bottom: "y" top: "drop" }
    layer { name: "top" type: "InnerProduct" bottom: "drop" top: "top" inner_product_param { num_output: 5
      weight_filler { type: "gaussian" std: 1 } } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "top" bottom: "u" top: "loss" }"""
rng = np.random.default_rng(4)
X = rng.normal(size=(6, 3))
LABELS = np.array([0, 1, 2, 3, 4, 0])


def net_of(text: str, phase: int = schema.TRAIN, **more: Any) -> Net:
    return Net(parse_net("force_backward: true " + text)[0], phase, dtype="float64", **more)


def same_rows(chosen: Any) -> Any:
    """The selector as 0 and anything else."""
    return np.where(np.isin(np.arange(6), chosen), [1, -2, 0.5, 1, 3, 1], 0)


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_a_net_over_a_filter_is_the_net_of_the_rows(device: str) -> None:
    """Every forward selects other rows; loss and gradients are those of a net that is given the rows alone."""
    with net_of(INPUTS + BELOW + FILTER + ABOVE, device=device) as net:
        for chosen in ([0, 2, 5], [1], [0, 1, 2, 3, 4, 5], [3, 4], [0, 2, 5]):
            net.params["bn"][2].data[...] = 0
            net.forward(x=X, s=same_rows(chosen), t=LABELS)
            assert net.blobs["y"].shape == (len(chosen), 4)
            np.testing.assert_array_equal(net.blobs["y"].data, net.blobs["bn"].data[chosen])
            np.testing.assert_array_equal(net.blobs["u"].data, LABELS[chosen])
            assert float(net.params["bn"][2].data[0]) == 1, "the layers below ran once"
            y = net.blobs["top"].data - net.blobs["top"].data.max(axis=1, keepdims=True)
            p = np.exp(y) / np.exp(y).sum(axis=1, keepdims=True)
            rows = np.arange(len(chosen))
            assert float(net.blobs["loss"].data) == pytest.approx(-np.log(p[rows, LABELS[chosen]]).mean())
            net.clear_param_diffs()
            net.backward()
            p[rows, LABELS[chosen]] -= 1
            p /= len(chosen)
            np.testing.assert_allclose(net.blobs["top"].diff, p, 1e-10, 1e-14)
            np.testing.assert_allclose(net.params["top"][0].diff, p.T @ net.blobs["drop"].data, 1e-10, 1e-14)
            back = np.zeros((6, 4))
            back[chosen] = net.blobs["y"].diff
            np.testing.assert_allclose(net.blobs["bn"].diff, back)
            assert net.blobs["x"].diff.any() == (p.any())


def test_finite_differences_through_a_filter() -> None:
    with net_of(INPUTS + BELOW + FILTER + ABOVE, schema.TEST) as net:
        feeds = {"x": X, "s": same_rows([1, 4]), "t": LABELS}
        for blob in net.params["bn"][1:]:
            blob.data[...] = 1
        net.forward(**feeds)
        net.backward()
        gradient = net.params["ip"][0].diff.copy()
        weights = net.params["ip"][0].data
        direction, ends = rng.normal(size=weights.shape), []
        for sign in (1, -1):
            weights += sign * 1e-6 * direction
            net.forward(**feeds)
            ends.append(net.loss)
            weights -= sign * 1e-6 * direction
        assert (gradient * direction).sum() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5)


def test_no_row_is_selected() -> None:
    with net_of(INPUTS + BELOW + FILTER + ABOVE) as net:
        net.forward(x=X, s=np.zeros(6), t=LABELS)
        assert net.blobs["top"].shape == (0, 5)
        assert net.loss == 0
        net.backward()
        assert not net.params["ip"][0].diff.any()
        net.forward(x=X, s=np.ones(6), t=LABELS)
        assert net.loss > 0


def test_two_filters_one_after_another() -> None:
    more = """layer { name: "f2" type: "Filter" bottom: "y" bottom: "u" top: "z" }
        layer { name: "sum" type: "Reduction" bottom: "z" top: "sum" loss_weight: 1 }"""
    with net_of(INPUTS + BELOW + FILTER + more) as net:
        for chosen in ([0, 1, 2], [1, 2, 5], [0, 5], [0, 1, 2]):
            net.forward(x=X, s=same_rows(chosen), t=LABELS)
            left = [i for i in chosen if LABELS[i]]
            np.testing.assert_array_equal(net.blobs["z"].data, net.blobs["bn"].data[left])
            assert net.loss == pytest.approx(net.blobs["bn"].data[left].sum())


def test_parts_of_a_net_stop_at_the_filter() -> None:
    with net_of(INPUTS + BELOW + FILTER + ABOVE, schema.TEST) as net:
        net.forward(x=X, s=same_rows([2, 3]), t=LABELS)
        whole = net.blobs["top"].data.copy()
        net.blobs["bn"].data[...] *= 2
        net.blobs["s"].data[...] = same_rows([2, 3, 4])
        net.forward(start="f", end="top")
        assert net.blobs["top"].shape == (3, 5)
        np.testing.assert_allclose(net.blobs["top"].data[:2] - whole, whole - net.params["top"][1].data)


def test_only_so_many_shapes_are_kept() -> None:
    text = """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 30 dim: 2 } } }
        layer { name: "s" type: "Input" top: "s" input_param { shape { dim: 30 } } }
        layer { name: "f" type: "Filter" bottom: "x" bottom: "s" top: "y" }"""
    with net_of(text) as net:
        for _ in range(2):
            for count in range(31):
                y = net.forward(x=np.arange(60).reshape(30, 2), s=np.arange(30) < count)["y"]
                np.testing.assert_array_equal(y, np.arange(2 * count).reshape(count, 2))
        assert isinstance(net.session, Varying)
        assert len(net.session._known) <= LIMIT


def test_parameters_cannot_depend_on_the_data() -> None:
    over = """layer { name: "all" type: "InnerProduct" bottom: "y" top: "z"
        inner_product_param { num_output: 1 axis: 0 } }"""
    with net_of(INPUTS + BELOW + FILTER + over) as net, pytest.raises(ShapeError, match="all: its parameter weight"):
        net.forward(x=X, s=same_rows([1]), t=LABELS)


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_two_filters_of_one_name(device: str) -> None:
    """Each selects its own rows, and has its own gradient."""
    second = FILTER.replace('"y"', '"y2"').replace('"u"', '"u2"').replace('bottom: "s"', 'bottom: "t"')
    with net_of(INPUTS + BELOW + FILTER + second, device=device) as net:
        for chosen in ([0, 2, 5], [1], [3, 4]):
            net.forward(x=X, s=same_rows(chosen), t=LABELS)
            bn = net.blobs["bn"].data
            np.testing.assert_array_equal(net.blobs["y"].data, bn[chosen])
            np.testing.assert_array_equal(net.blobs["y2"].data, bn[1:5])
            np.testing.assert_array_equal(net.blobs["u2"].data, LABELS[1:5])
            net.backward(y=np.full((len(chosen), 4), 2), y2=np.full((4, 4), 3))
            wanted = np.zeros((6, 4))
            wanted[chosen] += 2
            wanted[1:5] += 3
            np.testing.assert_array_equal(net.blobs["bn"].diff, wanted)


SOLVER = """base_lr: 0.1 lr_policy: "fixed" max_iter: 40 momentum: 0.9 random_seed: 3 snapshot_after_train: false
    iter_size: %d test_iter: 2 test_interval: 20"""


@pytest.mark.parametrize("iter_size", [1, 2])
def test_training_with_a_filter(iter_size: int) -> None:
    """The rows that are selected are learned by heart, the others do not count."""
    data = """layer { name: "d" type: "DummyData" top: "x" top: "s" top: "t" dummy_data_param {
        shape { dim: 8 dim: 3 } shape { dim: 8 } shape { dim: 8 }
        data_filler { type: "gaussian" std: 1 } data_filler { type: "uniform" min: -0.5 max: 1 }
        data_filler { value: 3 } } }
        layer { name: "cut" type: "Threshold" bottom: "s" top: "cut" }"""
    net = data + BELOW + FILTER.replace('bottom: "s"', 'bottom: "cut"') + ABOVE
    message = schema.SolverParameter()
    text_format.Parse(SOLVER % iter_size, message)
    message.net_param.CopyFrom(parse_net(net)[0])
    losses: list[float] = []
    with Solver(message) as solver:
        solver.on_iteration.append(lambda _, loss: losses.append(loss))
        solver.solve()
    assert np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < 0.1 * np.mean(losses[:5])


@pytest.mark.parametrize("kind", [Solver, NetSolver])
def test_an_output_of_many_shapes_has_no_mean(kind: type[Solver]) -> None:
    """It is left out of a test's scores, which say so; the others have theirs."""
    text = """net_param { layer { name: "d" type: "DummyData" top: "x" top: "s" top: "t" dummy_data_param {
        shape { dim: 8 dim: 3 } shape { dim: 8 } shape { dim: 2 }
        data_filler { value: 1 } data_filler { type: "uniform" min: -0.5 max: 1 } data_filler { value: 3 } } }
        layer { name: "cut" type: "Threshold" bottom: "s" top: "cut" }
        layer { name: "f" type: "Filter" bottom: "x" bottom: "cut" top: "y" } }
        base_lr: 0.1 lr_policy: "fixed" test_iter: 4 test_interval: 1 random_seed: 3"""
    lines: list[str] = []
    with kind(parse_solver(text)[0], log=lambda line, *_: lines.append(line)) as solver:
        means = solver.test()
    assert [(m.name, m.values.tolist()) for m in means] == [("t", [3, 3])]
    assert lines.count('Output "y" changes its shape from batch to batch: it has no mean') == 1
