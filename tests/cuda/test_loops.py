"""Loops on the stand-in GPU: what is written out step by step needs no kernel of its own there."""

from __future__ import annotations

import numpy as np
import pytest

from layers_cuda.device import Cuda
from netrun.config import schema
from netrun.config.upgrade import parse_net
from netrun.net import Net

NET = """
force_backward: true
layer { name: "d" type: "Input" top: "x" top: "cont"
  input_param { shape { dim: 4 dim: 3 dim: 5 } shape { dim: 4 dim: 3 } } }
layer { name: "r" type: "Recurrent" bottom: "x" bottom: "cont" top: "y" recurrent_net_param {
  cont: "cont" state { name: "h" next: "new" dim: 6 carry: true } output: "p"
  body {
    layer { name: "a" type: "InnerProduct" bottom: "x" top: "a"
      inner_product_param { num_output: 6 weight_filler { type: "xavier" } } }
    layer { name: "b" type: "InnerProduct" bottom: "h" top: "b"
      inner_product_param { num_output: 6 weight_filler { type: "xavier" } } }
    layer { name: "new" type: "Expr" bottom: "a" bottom: "b" top: "new" expr_param { expr: "tanh(a + b)" } }
    layer { name: "p" type: "InnerProduct" bottom: "new" top: "p"
      inner_product_param { num_output: 2 weight_filler { type: "xavier" } } } } } }
"""


def test_recurrent_on_the_stand_in(device: Cuda) -> None:
    rng = np.random.default_rng(13)
    message, source = parse_net(NET)
    with Net(message, schema.TRAIN, device=device) as there, Net(message, schema.TRAIN, source=source) as here:
        for _ in range(2):
            x, cont = rng.normal(size=(4, 3, 5)), (rng.random((4, 3)) > 0.3).astype(float)
            for net in (here, there):
                net.forward(x=x, cont=cont)
                net.clear_param_diffs()
                net.backward(y=np.ones((4, 3, 2)))
            assert np.array(there.blobs["y"].data) == pytest.approx(np.array(here.blobs["y"].data), rel=1e-5, abs=1e-6)
            for a, b in zip(there.params["r"], here.params["r"], strict=True):
                np.testing.assert_allclose(a.diff, b.diff, rtol=1e-4, atol=1e-5)


DECIDED = """
force_backward: true
layer { name: "d" type: "Input" top: "test" top: "x" input_param { shape { dim: 1 } shape { dim: 5 } } }
layer { name: "if" type: "If" bottom: "test" bottom: "x" top: "y" if_param { output: "x"
  then { layer { name: "half" type: "Expr" bottom: "x" top: "x" expr_param { expr: "x / 2" } } } } }
layer { name: "w" type: "While" bottom: "y" top: "z" while_param {
  condition: "go" max_steps: 20 state { name: "s" next: "less" initial: "y" last: "z" }
  body { layer { name: "e" type: "Expr" bottom: "s" top: "less" top: "go" expr_param {
    expr: "less = s / 2; go = less > 1" } } } } }
"""


def test_values_decide_on_the_stand_in(device: Cuda) -> None:
    """Halve as long as the result is above 1; the plain loop beside it keeps a stream as it is once that has ended."""
    message, source = parse_net(DECIDED)
    x = np.array([12, 1, 0.1, 100, 3])
    with Net(message, schema.TRAIN, device=device, source=source) as net:
        for test in (1.0, 0.0, 2.0):
            z = np.array(net.forward(test=np.array([test]), x=x)["z"])
            net.backward(z=np.ones(5))
            s, slope = (x / 2, np.full(5, 0.5)) if test else (x.copy(), np.ones(5))
            going = np.ones(5, bool)
            for _ in range(20):
                s, slope = np.where(going, s / 2, s), np.where(going, slope / 2, slope)
                going &= s > 1
            np.testing.assert_allclose(z, s, rtol=1e-6)
            np.testing.assert_allclose(net.blobs["x"].diff, slope, rtol=1e-6)
