"""Expr layers and Python layers with a forward alone, in whole nets: rates, losses, training, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netrun.compiler.graph import build
from netrun.config.upgrade import parse_net, parse_solver
from netrun.errors import ConfigError
from netrun.layers.base import Layer
from netrun.net import Net
from netrun.solver import Solver

X = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 } } }\n'
DATA = """layer { name: "d" type: "DummyData" top: "x" top: "t" dummy_data_param { shape { dim: 8 dim: 5 }
    shape { dim: 8 dim: 2 } data_filler { type: "gaussian" } data_filler { value: 0.7 } } }\n"""
NET = (
    DATA
    + """layer { name: "h" type: "Expr" bottom: "x" top: "h"
  param { name: "w" lr_mult: 1 } param { lr_mult: 0 } param { lr_mult: 2 decay_mult: 0 }
  expr_param { expr: "(x @ w + fixed) * gain" weight { name: "w" shape { dim: 5 dim: 2 } filler { type: "xavier" } }
    weight { name: "fixed" shape { dim: 2 } filler { value: 0.25 } }
    weight { name: "gain" filler { value: 1 } } } }
layer { name: "huber" type: "Expr" bottom: "h" bottom: "t" top: "loss" loss_weight: 0.5
  expr_param { expr: "d = abs(h - t); mean(where(d < 1, 0.5 * d^2, d - 0.5))" } }
"""
)


def python(layer: str, param_str: str = "", more: str = "", tops: str = 'top: "y"') -> str:
    return (
        f'layer {{ name: "p" type: "Python" bottom: "x" {tops} {more} python_param {{ module: "cases.forward_layers" '
        f'layer: "{layer}" param_str: "{param_str}" }} }}'
    )


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_weights_learn_at_their_rates_and_the_loss_is_weighed(device: str) -> None:
    message, source = parse_solver(f'net_param {{ {NET} }} base_lr: 0.2 lr_policy: "fixed" max_iter: 40 random_seed: 3')
    with Solver(message, source=source, device=device) as solver:
        tensors = {t.name: t for t in solver.training.recording.parameters.values()}
        assert list(tensors) == ["h.w", "h.fixed", "h.gain"]
        before = {name: solver.memory.read(t).copy() for name, t in tensors.items()}
        solver.step(1)
        first = solver.losses[-1]
        solver.step(39)
        after = {name: solver.memory.read(t) for name, t in tensors.items()}
    np.testing.assert_array_equal(after["h.fixed"], before["h.fixed"])
    assert not np.allclose(after["h.w"], before["h.w"])
    assert after["h.gain"] != before["h.gain"]
    assert solver.losses[-1] < 0.3 * first


def test_the_total_loss_is_the_formula_times_its_weight() -> None:
    with Net(parse_net(NET)[0], 0, device="reference") as net:
        net.forward()
        d = np.abs(net.blobs["h"].data - net.blobs["t"].data)
        wanted = np.where(d < 1, 0.5 * d**2, d - 0.5).mean()
        assert net.blobs["loss"].shape == ()
        assert float(net.blobs["loss"].data) == pytest.approx(wanted, rel=1e-6)
        assert net.loss == pytest.approx(0.5 * wanted, rel=1e-6)


def test_in_place_and_weights_named_like_methods() -> None:
    text = (
        X
        + """layer { name: "e" type: "Expr" bottom: "x" top: "x" expr_param { expr: "x * forward + name"
        weight { name: "forward" filler { value: 3 } } weight { name: "name" filler { value: 1 } } } }"""
    )
    with Net(parse_net(text)[0]) as net:
        np.testing.assert_array_equal(net.forward(x=np.ones((4, 3)))["x"], np.full((4, 3), 4))
        assert [b.shape for b in net.params["e"]] == [(), ()]


def test_weights_are_saved_and_loaded(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    text = X + python("GatedUnit")
    with Net(parse_net(text)[0], seed=1) as net, Net(parse_net(text)[0], seed=2) as other:
        wanted = net.forward(x=x)["y"].copy()
        assert not np.array_equal(other.forward(x=x)["y"], wanted)
        net.save(tmp_path / "w.caffemodel")
        other.load(tmp_path / "w.caffemodel")
        np.testing.assert_array_equal(other.forward(x=x)["y"], wanted)


def test_a_forward_alone_is_no_step_on_the_host() -> None:
    graph = build(*parse_net(X + python("GatedUnit", more='option { key: "units" value: "4" }')))
    assert not graph.varying
    with Net(parse_net(X + python("GatedUnit"))[0]) as net:
        assert "host" not in {call.op.name for call in net.recording.forward}


@pytest.mark.parametrize(
    ("param_str", "words"),
    [
        ("no weight", 'Wrong.forward: no weight "gian"; did you mean "gain"?'),
        ("no function", "k has no function or kernel 'sofmax'; did you mean \"softmax\"?"),
        ("do not broadcast", "the shapes 4 3 and 3 4 do not broadcast"),
        ("never written", 'the temp "y" is read, but no kernel writes it'),
        ("written twice", 'k.softmax: the temp "y" is written already'),
        ("a kernel's arguments", "k.pool_max wants (x, y, index, window=)"),
        ("refused", "k.host cannot be called here"),
        ("a choice", "choose with where(test, yes, no)"),
        ("two tops", "Wrong.forward returns 2 values, the layer has 1 tops"),
        ("nothing", "wants an array or a number, got a NoneType"),
        ("their own", "Wrong.forward fails: ZeroDivisionError: division by zero"),
        ("no dictionary", "Wrong.weights has to return a dictionary"),
        ("no shape", "Wrong.weights w wants a shape or (shape, filler), got 'three'"),
        ("no filler", "Wrong.weights w: {'typ': 'xavier'} is no filler"),
        ("no such filler", 'there is no filler type "xaver"'),
        ("no name", "Wrong.weights 'a b' is no name for a weight"),
    ],
)
def test_refused(param_str: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(*parse_net(X + python("Wrong", param_str), "net.prototxt"))
    text = str(error.value)
    assert words in text
    assert text.startswith("net.prototxt:2:1: p (Python): ")


def test_a_users_mistake_names_their_line() -> None:
    with pytest.raises(ConfigError, match=r"at .*forward_layers\.py:\d+, in .*: .*w\.gian"):
        build(*parse_net(X + python("Wrong", "no weight")))


def test_as_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gated_units.py").write_text(
        "import netrun\n\n\nclass Gated(netrun.ForwardLayer):\n"
        '    "y = x sigmoid(gain x)"\n    options = {"gain": 1.0}\n\n'
        '    def forward(self, k, x, w):\n        return x * k.sigmoid(self.option["gain"] * x)\n'
    )
    info = tmp_path / "gated_units-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gated-units\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[netrun.layers]\nGated = gated_units:Gated\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(Layer, "registry", dict(Layer.registry))
    text = X + 'layer { name: "g" type: "Gated" bottom: "x" top: "y" option { key: "gain" value: "2" } }'
    x = np.random.default_rng(0).normal(size=(4, 3))
    with Net(parse_net(text)[0], dtype="float64") as net:
        np.testing.assert_allclose(net.forward(x=x)["y"], x / (1 + np.exp(-2 * x)))


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_labels_of_other_types(device: str) -> None:
    text = (
        X
        + """layer { name: "l" type: "Input" top: "l" input_param { shape { dim: 4 } } }
        layer { name: "e" type: "Expr" bottom: "x" bottom: "l" top: "y" expr_param { expr: "pick(x, l) + stop(l)" } }"""
    )
    x: Any = np.arange(12).reshape(4, 3)
    with Net(parse_net(text)[0], device=device) as net:
        np.testing.assert_array_equal(net.forward(x=x, l=[0, 2, 1, 2])["y"], [0, 5 + 2, 7 + 1, 11 + 2])


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_the_branch_that_is_not_taken_does_no_harm(device: str) -> None:
    text = (
        X
        + """layer { name: "e" type: "Expr" bottom: "x" top: "y" expr_param {
        expr: "where(x > 0, sqrt(x) + log(x), 2 * x)" } }"""
    )
    x = np.array([[4.0, 0, -1]] * 4)
    with Net(parse_net("force_backward: true " + text)[0], device=device) as net:
        net.forward(x=x)
        net.backward(y=np.ones((4, 3)))
        np.testing.assert_allclose(net.blobs["x"].diff, [[0.5, 2, 2]] * 4)
