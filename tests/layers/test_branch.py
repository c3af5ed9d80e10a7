"""If and While against plain Python, forward and backward, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from netrun.config import schema
from netrun.config.upgrade import parse_net
from netrun.errors import ConfigError
from netrun.net import Net
from netrun.solver import Solver
from netrun.training import compile_training

DENSE = 'inner_product_param { num_output: 4 weight_filler { type: "uniform" min: -0.6 max: 0.6 } }'
INPUT = (
    'layer { name: "d" type: "Input" top: "test" top: "x" input_param { shape { dim: 1 } shape { dim: 3 dim: 4 } } }\n'
)
BRANCH = """
layer { name: "if" type: "If" bottom: "test" bottom: "x" top: "y" if_param {
  then { layer { name: "ip" type: "InnerProduct" bottom: "x" top: "z" DENSE }
         layer { name: "t" type: "TanH" bottom: "z" top: "y" } }
  otherwise { layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" DENSE } } } }
""".replace("DENSE", DENSE)

# Newton's square root: as many steps as each number needs.
ROOT = """
layer { name: "w" type: "While" bottom: "x" bottom: "guess" top: "root" top: "count" while_param {
  condition: "go" max_steps: 40
  state { name: "s" next: "better" initial: "guess" last: "root" }
  state { name: "n" next: "more" last: "count" }
  body {
    layer { name: "newton" type: "Expr" bottom: "s" bottom: "x" bottom: "n"
      top: "better" top: "go" top: "more" expr_param {
      expr: "better = (s + x / s) / 2; go = abs(better * better - x) > 1e-9 * x; more = n + 1" } } } } }
"""
NUMBERS = 'layer { name: "d" type: "Input" top: "x" top: "guess" input_param { shape { dim: 5 } } }\n'


def opened(text: str, device: Any = "cpu", **more: Any) -> Net:
    message, source = parse_net("force_backward: true\n" + text, "net.prototxt")
    return Net(message, schema.TRAIN, source=source, dtype="float64", device=device, **more)


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_one_branch_runs_and_learns(device: str) -> None:
    rng = np.random.default_rng(1)
    with opened(INPUT + BRANCH, device) as net:
        w, b, v, c = (np.array(p.data) for p in net.params["if"])
        names = [p.declared.name for p in net.graph.nodes[-1].parameters]
        assert names == ["then.ip.weight", "then.ip.bias", "otherwise.ip.weight", "otherwise.ip.bias"]
        for test in (1.0, -1.0, 0.0, 2.0, -3.0):
            x, seed = rng.normal(size=(3, 4)), rng.normal(size=(3, 4))
            y = net.forward(x=x, test=np.array([test]))["y"]
            net.clear_param_diffs()
            net.backward(y=seed)
            wanted = np.tanh(x @ w.T + b) if test > 0 else x @ v.T + c
            np.testing.assert_allclose(y, wanted, rtol=1e-12)
            slope = seed * (1 - wanted**2) if test > 0 else seed
            gradients = [slope.T @ x, slope.sum(0)]
            zero = [np.zeros_like(w), np.zeros_like(b)]
            for blob, gradient in zip(
                net.params["if"], gradients + zero if test > 0 else zero + gradients, strict=True
            ):
                np.testing.assert_allclose(blob.diff, gradient, rtol=1e-9, atol=1e-14)
            np.testing.assert_allclose(net.blobs["x"].diff, slope @ (w if test > 0 else v), rtol=1e-9)


def test_without_otherwise_the_input_passes() -> None:
    text = """
    layer { name: "if" type: "If" bottom: "test" bottom: "x" top: "y" if_param { output: "x"
      then { layer { name: "t" type: "TanH" bottom: "x" top: "x" } } } }
    """
    with opened(INPUT + text) as net:
        x = np.arange(12.0).reshape(3, 4)
        np.testing.assert_array_equal(net.forward(x=x, test=np.array([0.0]))["y"], x)
        assert np.abs(net.forward(x=x, test=np.array([1.0]))["y"]).max() <= 1


def test_training_goes_through_the_branch_that_ran() -> None:
    """The condition alternates; the weights of a branch move only in its own iterations."""
    data = """
    layer { name: "test" type: "Python" top: "test" top: "x"
      python_param { module: "cases.python_layers" layer: "Alternating" } }
    """
    loss = 'layer { name: "l" type: "Expr" bottom: "y" top: "l" loss_weight: 1 expr_param { expr: "mean(y ^ 2)" } }'
    solver = schema.SolverParameter()
    text_format.Parse('base_lr: 0.1 lr_policy: "fixed" random_seed: 1', solver)
    solver.net_param.CopyFrom(parse_net(data + BRANCH + loss)[0])
    with Solver(solver) as training:
        tensors = list(training.training.recording.parameters.values())
        before = [training.memory.read(t) for t in tensors]
        for iteration in range(4):
            training.step(1)
            after = [training.memory.read(t) for t in tensors]
            moved = [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
            assert moved == ([True, True, False, False] if iteration % 2 == 0 else [False, False, True, True])
            before = after
        solver.iter_size = 2
        with pytest.raises(ConfigError, match=r"if \(If\): cannot be trained with iter_size above 1"):
            compile_training(training.training.recording.graph, solver)


def steps_of(x: float, s: float) -> tuple[float, int, float]:
    """The root, how many steps it takes, and d root / d start by the chain rule."""
    slope, count = 1.0, 0
    while True:
        slope *= (1 - x / s**2) / 2
        s, count = (s + x / s) / 2, count + 1
        if not abs(s * s - x) > 1e-9 * x or count == 40:
            return s, count, slope


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_while_takes_the_steps_that_each_stream_needs(device: str) -> None:
    with opened(NUMBERS + ROOT, device) as net:
        for x in ([4.0, 9.0, 2.0, 100.0, 1e8], [4.0, 4.0, 4.0, 4.0, 4.0], [1e12, 1.0, 2.0, 3.0, 1e-6]):
            start = np.array([1.9, 3.0, 5.0, 1.0, 1.0])
            net.forward(x=np.array(x), guess=start)
            net.backward(root=np.ones(5), count=np.zeros(5))
            wanted = [steps_of(a, b) for a, b in zip(x, start, strict=True)]
            np.testing.assert_allclose(net.blobs["root"].data, [w[0] for w in wanted], rtol=1e-12)
            np.testing.assert_array_equal(net.blobs["count"].data, [w[1] for w in wanted])
            np.testing.assert_allclose(net.blobs["guess"].diff, [w[2] for w in wanted], rtol=1e-6, atol=1e-12)


def test_while_ends_at_max_steps() -> None:
    with opened(NUMBERS + ROOT.replace("max_steps: 40", "max_steps: 3")) as net:
        net.forward(x=np.full(5, 1e8), guess=np.ones(5))
        np.testing.assert_array_equal(net.blobs["count"].data, np.full(5, 3.0))


def test_a_condition_that_is_a_state_is_looked_at_first() -> None:
    """Halve a number as long as it is above 0: it is given as the number of halvings left."""
    text = """
    layer { name: "w" type: "While" bottom: "left" bottom: "x" top: "none" top: "y" while_param {
      condition: "n" max_steps: 20
      state { name: "n" next: "less" initial: "left" last: "none" }
      state { name: "v" next: "half" initial: "x" last: "y" }
      body { layer { name: "e" type: "Expr" bottom: "n" bottom: "v" top: "less" top: "half" expr_param {
        expr: "less = n - 1; half = v / 2" } } } } }
    """
    head = """layer { name: "d" type: "Input" top: "left" top: "x"
      input_param { shape { dim: 3 } shape { dim: 3 dim: 2 } } }"""
    with opened(head + text) as net:
        for left in ([0, 0, 0], [1, 0, 3], [7, 2, 30], [0, 1, 0]):
            net.forward(left=np.array(left, float), x=np.ones((3, 2)))
            wanted = 0.5 ** np.minimum(left, 20)
            np.testing.assert_allclose(net.blobs["y"].data, np.stack([wanted, wanted], axis=1))


REFUSED = {
    "a loop without end": (NUMBERS + ROOT.replace("max_steps: 40", ""), "a loop without end: max_steps is not given"),
    "no condition": (NUMBERS + ROOT.replace('condition: "go"', ""), "a loop without end: it has no condition"),
    "a condition that stays": (
        NUMBERS + ROOT.replace('condition: "go"', 'condition: "x"'), 'without end: its condition "x" never changes'),
    "an unknown condition": (
        NUMBERS + ROOT.replace('condition: "go"', 'condition: "goo"'), 'no blob "goo"; did you mean "go"'),
    "a state never set": (NUMBERS + ROOT.replace('next: "better"', ""), 'the state "s" is never set'),
    "a top of no state": (NUMBERS + ROOT.replace('last: "count"', ""), 'the top "count" is the last value of no state'),
    "carried": (NUMBERS + ROOT.replace('last: "count"', 'last: "count" carry: true'), "no state is carried"),
    "branches of two shapes": (
        INPUT + BRANCH.replace("num_output: 4", "num_output: 5", 1), '"y" has the shape 3x5.* in one branch, 3x4'),
    "a branch without the top": (INPUT + BRANCH.replace('top: "y" inner', 'top: "q" inner'), 'makes the blob "y"'),
    "many conditions": (INPUT.replace("dim: 1", "dim: 2") + BRANCH, "wants one number as its condition"),
    "no then": (INPUT + 'layer { name: "i" type: "If" bottom: "test" top: "x" if_param { } }', "has no then"),
    "an If in a loop": (
        INPUT + 'layer { name: "r" type: "Recurrent" bottom: "x" bottom: "test" top: "y" recurrent_net_param { '
        'static: "test" output: "y" state { name: "s" next: "y" dim: 4 } body { '
        + BRANCH.replace('bottom: "x" top: "y" if_param {', 'bottom: "s" top: "y" if_param { input: "test" input: "x" ')
        + " } } }", r"if \(If\): cannot be part of a body"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_refused_with_a_place(what: str) -> None:
    text, message = REFUSED[what]
    with pytest.raises(ConfigError, match=message) as caught:
        opened(text)
    where = caught.value.problems[0].where
    assert where is not None
    assert where.line > 2
    assert where.column > 0
