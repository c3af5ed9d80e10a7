"""Recomputing changes where values are, not what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from netrun.compiler.graph import State, build
from netrun.compiler.recompute import CHEAP, recompute
from netrun.config import schema
from netrun.config.text import parse
from netrun.config.upgrade import read_net
from netrun.cpu.null import Null
from netrun.expression import rule
from netrun.kernels import OPS
from netrun.program import Origin, Program, Recorder
from netrun.session import Session
from netrun.solver import Solver
from netrun.training import compile_training
from netrun.types import Spec, Tensor

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

NET = """
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: 4 dim: 3 dim: 12 dim: 12 } shape { dim: 4 }
  data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 1 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "bn1" type: "BatchNorm" bottom: "conv1" top: "conv1" }
layer { name: "scale1" type: "Scale" bottom: "conv1" top: "conv1" scale_param { bias_term: true } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "norm1" type: "LRN" bottom: "conv1" top: "norm1" }
layer { name: "conv2a" type: "Convolution" bottom: "norm1" top: "a"
  convolution_param { num_output: 4 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "relu2a" type: "ReLU" bottom: "a" top: "a" }
layer { name: "pool2b" type: "Pooling" bottom: "norm1" top: "b" pooling_param { kernel_size: 3 stride: 1 pad: 1 } }
layer { name: "cat" type: "Concat" bottom: "a" bottom: "b" top: "cat" }
layer { name: "drop" type: "Dropout" bottom: "cat" top: "cat" }
layer { name: "pool3" type: "Pooling" bottom: "cat" top: "pool3"
  pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layer { name: "conv3" type: "Convolution" bottom: "pool3" top: "conv3"
  convolution_param { num_output: 8 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "sum" type: "Eltwise" bottom: "conv3" bottom: "conv3" top: "sum" }
layer { name: "tanh" type: "TanH" bottom: "sum" top: "sum" }
layer { name: "ip" type: "InnerProduct" bottom: "sum" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def solver(recomputes: bool, more: str = "") -> schema.SolverParameter:
    text = f'net_param {{ {NET} }} base_lr: 0.05 lr_policy: "fixed" momentum: 0.9 random_seed: 1 max_iter: 9 {more}'
    message, _ = parse(text, schema.SolverParameter, "solver")
    message.recompute = recomputes
    return message


@pytest.mark.parametrize("more", ["", "iter_size: 2"])
@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_training_stays_the_same(device: str, more: str) -> None:
    found = []
    for recomputes in (False, True):
        with Solver(solver(recomputes, more), device=device) as run:
            losses = []
            for _ in range(3):
                run.step(1)
                losses.append(run.losses[-1])
            weights = [run.memory.read(t) for t in run.training.recording.parameters.values()]
            found.append((losses, weights, run.sessions[0].plan.arena, len(run.training.step.calls)))
    if device == "reference":
        assert found[0][0] == found[1][0]
    np.testing.assert_allclose(found[0][0], found[1][0], 1e-6)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_allclose(one, other, 1e-5, 1e-6)
    assert found[1][2] < found[0][2]
    assert found[1][3] > found[0][3]


def test_a_second_run_is_named_for_its_layer_and_backward() -> None:
    with Solver(solver(True), device="null") as run:
        lines = str(run.training.step).splitlines()
    twice = [line.split() for line in lines if "~" in line.partition("<-")[0]]
    assert twice
    for _, origin, made, *_ in twice:
        assert origin.endswith("'")
        assert made.split(".")[0].rstrip("~").partition("@")[0] in NET, "the value of a layer of the net"
    assert {words[words.index("<-") + 1] for words in twice} <= CHEAP


def test_a_value_that_changed_since_is_kept() -> None:
    """What the forward pass updates in place (a running mean) cannot be read again later as it was."""
    k = Recorder()
    x, state = Tensor("x", Spec((64,)), "feed"), Tensor("s", Spec((64,)), "state")
    y, z, d = (Tensor(n, Spec((64,))) for n in "yzd")
    k.origin = Origin("one")
    k.pointwise([x, state], y, expr="a + b")
    k.pointwise([y], z, expr="a * 2")
    k.update([x], [state], rule=rule(["g"], ["s"], "s = s + g"))
    k.origin = Origin("one").backward
    k.pointwise([y, z], d, expr="a + b")
    program = Program(tuple(k.calls), {"x": x}, frozenset([d]))
    again = [c.writes()[0].name for c in recompute(program).calls]
    assert "y~" not in again


def test_cheap_kernels_exist() -> None:
    assert set(OPS) >= CHEAP


def test_googlenet_takes_two_thirds() -> None:
    message, _ = read_net(str(CONFIGS / "imagenet" / "googlenet" / "train_val.prototxt"))
    del message.layer[:2]
    given = schema.LayerParameter(name="data", type="Input", top=["data", "label"])
    given.input_param.shape.add(dim=[8, 3, 224, 224])
    given.input_param.shape.add(dim=[8])
    message.layer.insert(0, given)
    arenas = []
    for recomputes in (False, True):
        graph = build(message, None, State(schema.TRAIN))
        arenas.append(Session(compile_training(graph, solver(recomputes)).step, Null()).plan.arena)
    assert arenas[1] < 0.67 * arenas[0]
