"""A layer type from another package: one class, an entry point, parameters without any schema; and training with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from netrun.compiler.graph import build
from netrun.config.upgrade import parse_net, parse_solver
from netrun.errors import ConfigError
from netrun.layers.base import Layer
from netrun.solver import Solver

MODULE = '''
from netrun.layers.base import Layer


class SoftShrink(Layer):
    """y = sign(x) * max(|x| - gain * threshold, 0), with a learned gain"""

    options = {"threshold": 0.1, "steps": 1, "name": "soft", "sharp": False}

    def setup(self, bottom):
        self.learned("gain", (1,))
        return [bottom[0]]

    def forward(self, k, bottom, top):
        k.pointwise([bottom[0], self.gain], top[0], expr=f"sign(a) * max(abs(a) - b * {self.option['threshold']}, 0)")
'''

NET = """
layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param {
  shape { dim: 8 dim: 5 } shape { dim: 8 dim: 3 } data_filler { type: "gaussian" } data_filler { value: 0.5 } } }
layer { name: "s" type: "SoftShrink" bottom: "x" top: "s" option { key: "threshold" value: "0.25" } }
layer { name: "ip" type: "InnerProduct" bottom: "s" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with the entry point, as pip would leave it."""
    (tmp_path / "shrink_layers.py").write_text(MODULE)
    info = tmp_path / "shrink_layers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shrink-layers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[netrun.layers]\nSoftShrink = shrink_layers:SoftShrink\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(Layer, "registry", dict(Layer.registry))


@pytest.mark.usefixtures("installed")
def test_it_trains() -> None:
    text = f'net_param {{ {NET} }} base_lr: 0.05 lr_policy: "fixed" max_iter: 60 random_seed: 4'
    message, source = parse_solver(text)
    with Solver(message, source=source) as solver:
        solver.step(1)
        gain = next(t for t in solver.training.recording.parameters.values() if t.name == "s.gain")
        before, first = solver.memory.read(gain).copy(), solver.losses[-1]
        solver.step(59)
        assert solver.losses[-1] < 0.7 * first
        assert not np.array_equal(solver.memory.read(gain), before)


@pytest.mark.usefixtures("installed")
def test_options_are_typed_and_checked() -> None:
    graph = build(*parse_net(NET))
    assert graph.nodes[1].layer.option == {"threshold": 0.25, "steps": 1, "name": "soft", "sharp": False}
    for wrong, says in {
        'key: "treshold" value: "1"': 'no option "treshold"; did you mean "threshold"?',
        'key: "steps" value: "1.5"': 'option "steps" wants a whole number, got "1.5"',
        'key: "sharp" value: "perhaps"': 'option "sharp" wants true or false, got "perhaps"',
    }.items():
        with pytest.raises(ConfigError) as caught:
            build(*parse_net(NET.replace('key: "threshold" value: "0.25"', wrong), "n.prototxt"))
        assert says in str(caught.value)
        assert str(caught.value).startswith("n.prototxt:4:")


def test_without_the_package_the_type_is_unknown() -> None:
    with pytest.raises(ConfigError, match='there is no layer type "SoftShrink"'):
        build(*parse_net(NET))
