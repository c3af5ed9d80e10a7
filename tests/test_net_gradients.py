"""netrun.Net, backward: who gets a gradient, what loss weights do, how contributions add up. As in Caffe."""

from __future__ import annotations

import numpy as np
import pytest

from netrun.compiler.graph import build
from netrun.config import schema
from netrun.config.upgrade import parse_net
from netrun.errors import ConfigError
from netrun.net import Net
from netrun.solver import Solver

SUM = 'layer { name: "sum" type: "Reduction" bottom: "BOTTOM" top: "sum" loss_weight: 1 }'
TWO = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 4 } } }'


def test_propagate_down_asks_for_a_gradient() -> None:
    """Caffe then computes it though nothing below is trained."""
    ip = """layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" ASKED
        inner_product_param { num_output: 3 weight_filler { value: 2 } } }"""
    for asked, wanted in (("propagate_down: true", 6), ("", 0), ("propagate_down: false", 0)):
        with Net(parse_net(TWO + ip.replace("ASKED", asked) + SUM.replace("BOTTOM", "y"))[0], schema.TRAIN) as net:
            net.forward(x=np.ones((2, 4)))
            net.backward()
            np.testing.assert_array_equal(net.blobs["x"].diff, np.full((2, 4), wanted))
            assert net.params["ip"][0].diff.all()


def test_a_weight_that_moves_to_a_copy_leaves_none_behind() -> None:
    """As in Caffe: of two tops with a loss_weight one is read further, so the weight of the other is dropped."""
    cut = """layer { name: "cut" type: "Slice" bottom: "x" top: "a" top: "b" loss_weight: 0.5 loss_weight: 2 }
        layer { name: "more" type: "Power" bottom: "a" top: "more" power_param { scale: 3 } }"""
    message = parse_net("force_backward: true " + TWO + cut + SUM.replace("BOTTOM", "more"))[0]
    with Net(message, schema.TRAIN) as net:
        net.forward(x=np.ones((2, 4)))
        net.backward(b=np.zeros((2, 2)))
        assert net.outputs == ["a_cut_0_split_0", "b", "sum"]
        assert net.loss == 4 * 0.5 + 4 * 3
        np.testing.assert_array_equal(net.blobs["a_cut_0_split_0"].diff, np.full((2, 2), 0.5))
        np.testing.assert_array_equal(net.blobs["x"].diff, [[3.5, 3.5, 0, 0]] * 2)
    assert build(message).nodes[1].loss_weights == [0.5, 0]


def test_a_shared_bias_is_one_sum_rounded_once() -> None:
    """Row after row goes to one gradient, the last layer first: what cancels leaves the rounding that Caffe has."""
    ip = """layer { name: "NAME" type: "InnerProduct" bottom: "x" top: "NAME" param { name: "w" } param { name: "b" }
        inner_product_param { num_output: 1 } }"""
    text = "force_backward: true " + TWO + ip.replace("NAME", "p") + ip.replace("NAME", "q")
    rows = np.float32([[3.291769], [0.80645776]])
    left = rows.sum(dtype=np.float64) - np.float64(rows.sum(dtype=np.float32))
    for device in ("reference", "cpu"):
        with Net(parse_net(text)[0], schema.TRAIN, device=device) as net:
            net.forward(x=np.ones((2, 4)))
            net.backward(p=rows, q=-rows)
            assert left != 0
            assert net.params["p"][1].diff.tolist() == [np.float32(left)]
            net.backward(p=rows, q=rows)
            np.testing.assert_allclose(net.params["q"][1].diff, 2 * rows.sum(), 1e-6)


@pytest.mark.parametrize("kind", ["Concat", "Flatten", "Reshape", "Slice", "Split"])
def test_tops_that_are_their_bottoms(kind: str) -> None:
    """As in Caffe: who writes into the one has written into the other."""
    body = "reshape_param { shape { dim: 8 } }" if kind == "Reshape" else ""
    layer = f'layer {{ name: "t" type: "{kind}" bottom: "x" top: "y" {body} }}'
    with Net(parse_net("force_backward: true " + TWO + layer)[0]) as net:
        net.forward(x=np.ones((2, 4)))
        net.blobs["y"].data[...] = 5
        np.testing.assert_array_equal(net.blobs["x"].data, np.full((2, 4), 5))


def test_labels_that_would_have_to_learn() -> None:
    """Scores and targets the wrong way round would train nothing, without a word."""
    text = """layer { name: "d" type: "DummyData" top: "x" top: "t" dummy_data_param { shape { dim: 2 dim: 3 } } }
        layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 3 } }
        layer { name: "loss" type: "SigmoidCrossEntropyLoss" bottom: "t" bottom: "y" top: "loss" SAID }"""

    def train(net: str) -> None:
        message = schema.SolverParameter(base_lr=0.1, lr_policy="fixed", max_iter=1, snapshot_after_train=False)
        message.net_param.CopyFrom(parse_net(net)[0])
        with Solver(message) as solver:
            solver.step(1)

    with pytest.raises(ConfigError) as error:
        train(text.replace("SAID", ""))
    assert 'loss (SigmoidCrossEntropyLoss): "y" would have to learn' in str(error.value)
    assert "right order" in str(error.value)
    train(text.replace("SAID", "propagate_down: false propagate_down: false"))
    train(text.replace('bottom: "t" bottom: "y"', 'bottom: "y" bottom: "t"').replace("SAID", ""))
