"""Every method against a plain loop in float64, written from the papers and not from the rules under test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from netrun.config import schema
from netrun.config.upgrade import parse_solver
from netrun.errors import ConfigError
from netrun.solver import Solver
from netrun.updates import METHODS, method_of

Array = Any
RNG = np.random.default_rng(5)
X, T = RNG.standard_normal((6, 3)), RNG.standard_normal((6, 2))
W, B = RNG.standard_normal((2, 3)), RNG.standard_normal(2)
STEPS = 6

NET = """
net_param {
  layer { name: "in" type: "Input" top: "x" top: "t"
    input_param { shape { dim: 6 dim: 3 } shape { dim: 6 dim: 2 } } }
  layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 2 }
    param { } param { lr_mult: 2 decay_mult: 0 } }
  layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }
}
lr_policy: "fixed" max_iter: 100 snapshot_after_train: false random_seed: 1
"""


def run(text: str, device: str = "cpu") -> list[tuple[Array, Array]]:
    """Weights and bias after every step of a solver."""
    message, _ = parse_solver(NET + text)
    with Solver(message, device=device) as solver:
        recording = solver.training.recording
        for value, array in zip(recording.graph.inputs, (X, T), strict=True):
            solver.runners[0].session.write(recording.tensors[value], array)
        tensors = list(recording.parameters.values())
        for tensor, array in zip(tensors, (W, B), strict=True):
            solver.memory.write(tensor, array)
        found = []
        for _ in range(STEPS):
            solver.step(1)
            found.append(tuple(solver.memory.read(t).copy() for t in tensors))
        return found  # type: ignore[return-value]


def gradients(w: Array, b: Array) -> tuple[Array, Array]:
    difference = (X @ w.T + b - T) / len(X)
    return difference.T @ X, difference.sum(axis=0)


Step = Callable[[Array, Array, dict[str, Any], float, float], Array]
"""(parameter, gradient without decay, what is carried, rate, decay) -> the new parameter."""


def loop(step: Step, rate: float, decay: float) -> list[tuple[Array, Array]]:
    """The same in float64; the bias learns twice as fast and does not decay."""
    w, b = W.copy(), B.copy()
    carried: tuple[dict[str, Any], dict[str, Any]] = {}, {}
    found = []
    for _ in range(STEPS):
        dw, db = gradients(w, b)
        w = step(w, dw, carried[0], rate, decay)
        b = step(b, db, carried[1], 2 * rate, 0)
        found.append((w, b))
    return found


def adam(bias_correction: bool, decoupled: bool) -> Step:
    def step(w: Array, g: Array, s: dict[str, Any], rate: float, decay: float) -> Array:
        t = s["t"] = s.get("t", 0) + 1
        if not decoupled:
            g = g + decay * w
        m = s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
        v = s["v"] = 0.99 * s.get("v", 0) + 0.01 * g**2
        size = np.sqrt(1 - 0.99**t) / (1 - 0.9**t) if bias_correction else 1
        pulled = w * (1 - rate * decay) if decoupled else w
        return pulled - rate * size * m / (np.sqrt(v) + 1e-4)

    return step


def lars(w: Array, g: Array, s: dict[str, Any], rate: float, decay: float) -> Array:
    local = 0.02 * np.linalg.norm(w) / (np.linalg.norm(g) + decay * np.linalg.norm(w)) if decay else 1
    h = s["h"] = 0.8 * s.get("h", 0) + rate * local * (g + decay * w)
    return w - h


def lion(w: Array, g: Array, s: dict[str, Any], rate: float, decay: float) -> Array:
    m = s.get("m", np.zeros_like(w))
    s["m"] = 0.98 * m + 0.02 * g
    return w - rate * (np.sign(0.9 * m + 0.1 * g) + decay * w)


ADAM = "momentum: 0.9 momentum2: 0.99 delta: 1e-4 base_lr: 0.05 weight_decay: 0.1"
CASES: dict[str, tuple[str, Step, float]] = {
    "Adam": (f'type: "Adam" {ADAM}', adam(True, False), 0.05),
    "Adam without correction": (f'type: "Adam" bias_correction: false {ADAM}', adam(False, False), 0.05),
    "AdamW": (f'type: "AdamW" {ADAM}', adam(True, True), 0.05),
    "AdamW without correction": (f'type: "AdamW" bias_correction: false {ADAM}', adam(False, True), 0.05),
    "LARS": ('type: "LARS" momentum: 0.8 lars_eta: 0.02 base_lr: 0.3 weight_decay: 0.1', lars, 0.3),
    "Lion": ('type: "Lion" momentum: 0.9 momentum2: 0.98 base_lr: 0.05 weight_decay: 0.1', lion, 0.05),
}


@pytest.mark.parametrize("device", ["cpu", "reference"])
@pytest.mark.parametrize("case", CASES)
def test_against_a_plain_loop(case: str, device: str) -> None:
    text, step, rate = CASES[case]
    for ours, wanted in zip(run(text, device), loop(step, rate, 0.1), strict=True):
        for a, b in zip(ours, wanted, strict=True):
            np.testing.assert_allclose(a, b, 2e-5, 2e-6)


def test_the_trust_ratio_sees_the_averaged_clipped_gradient() -> None:
    """iter_size passes over the same batch, and a clip that halves nothing, change nothing; a real clip does."""
    text = 'type: "LARS" momentum: 0.8 lars_eta: 0.02 base_lr: 0.3 weight_decay: 0.1'
    plain = run(text)
    for more in ("iter_size: 3", "clip_gradients: 1e6"):
        for a, b in zip(run(f"{text} {more}"), plain, strict=True):
            np.testing.assert_allclose(a[0], b[0], 1e-5)
    first = [x[1] - B for x in (run(f"{text} clip_gradients: 0.01")[0], plain[0])]
    assert np.abs(first[0]).max() < 0.1 * np.abs(first[1]).max()


def test_a_parameter_of_zeros_takes_the_plain_step() -> None:
    text = 'type: "LARS" base_lr: 0.1 weight_decay: 0.1'
    message, _ = parse_solver(NET + text)
    with Solver(message) as solver:  # both start as zeros: constant fillers
        recording = solver.training.recording
        for value, array in zip(recording.graph.inputs, (X, T), strict=True):
            solver.runners[0].session.write(recording.tensors[value], array)
        solver.step(1)
        weights = solver.memory.read(next(iter(recording.parameters.values())))
    np.testing.assert_allclose(weights, -0.1 * gradients(0 * W, 0 * B)[0], 1e-5)


@pytest.mark.parametrize("kind", sorted(METHODS))
def test_decay_alone_moves_what_no_gradient_reaches(kind: str) -> None:
    """As in Caffe, a parameter of the net that the loss does not depend on is still decayed; a frozen one is not."""
    idle = """net_param { layer { name: "idle" type: "Parameter" top: "z" parameter_param { shape { dim: 3 } } }
      layer { name: "frozen" type: "Parameter" top: "f" param { lr_mult: 0 } parameter_param { shape { dim: 3 } } }
      layer { name: "quiet" type: "Silence" bottom: "z" bottom: "f" } }"""
    message, _ = parse_solver(NET + f'type: "{kind}" base_lr: 0.1 weight_decay: 0.5 delta: 1e-3')
    message.net_param.MergeFrom(parse_solver(idle)[0].net_param)
    with Solver(message) as solver:
        named = {t.name: t for t in solver.training.recording.parameters.values()}
        idle_tensor, frozen = (next(t for n, t in named.items() if n.startswith(p)) for p in ("idle", "frozen"))
        for tensor in (idle_tensor, frozen):
            solver.memory.write(tensor, np.array([1.0, -2.0, 3.0]))
        solver.step(3)
        assert (np.abs(solver.memory.read(idle_tensor)) < [1, 2, 3]).all()
        np.testing.assert_array_equal(solver.memory.read(frozen), [1, -2, 3])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('type: "AdmaW"', 'there is no solver type "AdmaW"; did you mean "AdamW"?'),
        ('type: "Adam" momentum: 1', "momentum has to be from 0 to 1 (1 excluded), the solver says 1"),
        ('type: "Lion" momentum2: -0.5', "momentum2 has to be from 0 to 1 (1 excluded), the solver says -0.5"),
        ('type: "LARS" lars_eta: 0', "lars_eta has to be above 0, the solver says 0"),
        ('type: "RMSProp" momentum: 0.9', "RMSProp has no momentum, the solver says 0.9"),
    ],
)
def test_refused(text: str, message: str) -> None:
    solver = parse_solver(text)[0]
    with pytest.raises(ConfigError) as caught:
        method_of(solver)
    assert message in str(caught.value)


def test_fields_of_other_methods_are_not_looked_at() -> None:
    assert method_of(schema.SolverParameter(type="SGD", momentum2=7, rms_decay=-1)) is METHODS["SGD"]
