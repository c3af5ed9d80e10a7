"""Policies against their formulas, their state in snapshots, and every field of a solver against its use."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import netrun
from netrun.cli import main
from netrun.config import schema
from netrun.config.upgrade import parse_solver
from netrun.config.weights import read_state
from netrun.errors import ConfigError, DivergedError
from netrun.schedule import NEEDS, Schedule
from netrun.solver import Solver

UNUSED = {
    "layer_wise_reduce": "when workers exchange gradients is the program's affair; no result depends on it",
}
"""Fields that are read and deliberately have no effect, and why."""


def schedule(text: str) -> Schedule:
    return Schedule(parse_solver(text)[0])


def rates(text: str, *iterations: int) -> list[float]:
    found = schedule(text)
    return [found.rate(i) for i in iterations]


def test_every_field_of_a_solver_is_used_or_named() -> None:
    folder = Path(netrun.__file__).parent
    source = "\n".join(p.read_text() for p in folder.rglob("*.py"))
    unused = [
        name
        for name in schema.SolverParameter.DESCRIPTOR.fields_by_name
        if not re.search(rf'\.{name}\b|"{name}"', source)
    ]
    assert unused == list(UNUSED)


def test_cosine() -> None:
    got = rates('lr_policy: "cosine" base_lr: 2 min_lr: 1 max_iter: 100', 0, 25, 50, 100, 150)
    assert got == pytest.approx([2, 1.5 + 0.5 * math.cos(math.pi / 4), 1.5, 1, 1])


def test_one_cycle() -> None:
    text = 'lr_policy: "one_cycle" base_lr: 1 max_iter: 100 cycle_rise: 0.2'
    assert rates(text, 0, 10, 20, 60, 100) == pytest.approx([0.04, 0.52, 1, 0.5, 0], abs=1e-7)
    text += " cycle_start_lr: 0.5 min_lr: 0.25"
    assert rates(text, 0, 20, 100) == pytest.approx([0.5, 1, 0.25])


def test_warm_up_leads_into_any_policy() -> None:
    text = 'lr_policy: "step" gamma: 0.1 stepsize: 8 base_lr: 1 warmup_iter: 4 warmup_start_lr: 0.2'
    assert rates(text, 0, 1, 2, 3, 4, 7, 8) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 0.1])
    text = 'lr_policy: "exp" gamma: 0.5 base_lr: 1 warmup_iter: 2'
    assert rates(text, 0, 1, 2, 3) == pytest.approx([0, 0.25, 0.25, 0.125])


def test_a_warm_up_does_not_stop_multistep_from_counting() -> None:
    text = 'lr_policy: "multistep" gamma: 0.1 stepvalue: 1 base_lr: 1 warmup_iter: 4'
    assert rates(text, 0, 1, 2, 3, 4) == pytest.approx([0, 0.025, 0.05, 0.075, 0.1])


@pytest.mark.parametrize(
    ("steps", "taken"),
    [
        ([2, 2, 4], [0, 0, 1, 2, 3, 3, 3]),  # two equal ones are an iteration apart
        ([4, 1, 1], [0, 0, 0, 0, 1, 2, 3]),  # a smaller one waits for the larger one in front of it
        ([0, 0, 6], [1, 2, 2, 2, 2, 2, 3]),
    ],
)
def test_multistep_takes_its_steps_as_caffe_does(steps: list[int], taken: list[int]) -> None:
    values = " ".join(f"stepvalue: {step}" for step in steps)
    got = rates(f'lr_policy: "multistep" base_lr: 1 gamma: 0.5 {values}', *range(7))
    assert got == [0.5**k for k in taken]


@pytest.mark.parametrize("policy", NEEDS)
def test_no_policy_goes_below_min_lr(policy: str) -> None:
    text = (
        f'lr_policy: "{policy}" base_lr: 1 min_lr: 0.3 gamma: 0.1 power: 2 stepsize: 2 stepvalue: 2 max_iter: 10 '
        "plateau_winsize: 3"
    )
    assert min(rates(text, *range(12))) >= 0.3 - 1e-7


def test_poly_ends_at_min_lr() -> None:
    text = 'lr_policy: "poly" base_lr: 1 min_lr: 0.5 power: 1 max_iter: 10'
    assert rates(text, 0, 5, 10, 11) == pytest.approx([1, 0.75, 0.5, 0.5])


def test_a_negative_base_lr_climbs_as_in_caffe() -> None:
    assert rates('lr_policy: "exp" gamma: 0.5 base_lr: -1', 0, 1, 2) == [-1, -0.5, -0.25]
    assert rates('lr_policy: "fixed" base_lr: -1 min_lr: 0', 0) == [0]


def test_a_negative_gamma_turns_the_sign_as_in_caffe() -> None:
    """C's pow of a negative number: a whole power is a number, any other is none."""
    assert rates('lr_policy: "step" base_lr: 1 gamma: -0.5 stepsize: 2', *range(6)) == [1, 1, -0.5, -0.5, 0.25, 0.25]
    assert rates('lr_policy: "multistep" base_lr: 1 gamma: -0.5 stepvalue: 1 stepvalue: 3', *range(4)) == [
        1, -0.5, -0.5, 0.25,
    ]  # fmt: skip
    assert rates('lr_policy: "exp" base_lr: 1 gamma: -2', 0, 1, 2, 3, 1001) == [1, -2, 4, -8, -(2.0**1001)]
    assert rates('lr_policy: "inv" base_lr: 1 gamma: -0.5 power: 2', 0, 1, 2, 3, 4) == [1, 4, np.inf, 4, 1]
    found = rates('lr_policy: "inv" base_lr: 1 gamma: -0.5 power: 0.5', 0, 1, 2, 3)
    assert found[:3] == [1, pytest.approx(2**0.5), np.inf]
    assert np.isnan(found[3])
    assert rates('lr_policy: "exp" base_lr: 1 gamma: -1e30', 31, 32) == [-np.inf, np.inf]


def test_a_rate_that_is_no_number_ends_the_run_and_is_foretold(tmp_path: Path, capsys: Any) -> None:
    text = NET.partition("random_seed")[0] + 'base_lr: 0.1 lr_policy: "inv" gamma: -0.3 power: 0.75 max_iter: 9'
    with Solver(parse_solver(text)[0]) as solver:
        solver.step(4)
        weights = [solver.memory.read(t) for t in solver.training.recording.parameters.values()]
        with pytest.raises(DivergedError, match=r"^iteration 4: the learning rate is nan\n.*\n.*no power") as caught:
            solver.step(1)
        assert len(caught.value.problems) == 1
        for before, tensor in zip(weights, solver.training.recording.parameters.values(), strict=True):
            np.testing.assert_array_equal(solver.memory.read(tensor), before)
    (tmp_path / "solver.prototxt").write_text(text)
    assert main(["check", str(tmp_path / "solver.prototxt")]) == 0
    assert "from iteration 4 on the learning rate is no number" in capsys.readouterr().err
    (tmp_path / "solver.prototxt").write_text(text.replace("max_iter: 9", "max_iter: 4"))
    assert main(["check", str(tmp_path / "solver.prototxt")]) == 0
    assert "no number" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("policy", "iteration"),
    [('"exp" gamma: 1e30', 30), ('"exp" gamma: 1e30', 3), ('"poly" power: -1 max_iter: 20', 20)],
)
def test_a_rate_beyond_float32_ends_the_run(policy: str, iteration: int) -> None:
    text = NET.partition("random_seed")[0] + f"base_lr: 1 lr_policy: {policy}"
    with Solver(parse_solver(text)[0]) as solver:
        solver.iteration = iteration
        with pytest.raises(
            DivergedError, match=rf"^iteration {iteration}: the learning rate is (inf|1e\+90)\n.* lr_policy"
        ):
            solver.step(1)


PLATEAU = 'lr_policy: "plateau" base_lr: 1 gamma: 0.5 test_iter: 1 test_interval: 5 plateau_patience: 2'


def test_plateau_drops_after_tests_that_are_not_better() -> None:
    found = schedule(PLATEAU)
    seen = []
    for loss in (3, 2, 2, 2.5, 1, 1.5, 1.5, 1.5, 1.5):
        found.tested(loss, {})
        seen.append(found.rate(0))
    assert seen == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]


def test_plateau_may_watch_an_output_that_rises() -> None:
    found = schedule(f'{PLATEAU} plateau_output: "accuracy" plateau_rising: true plateau_delta: 0.1')
    for score in (0.5, 0.7, 0.75, 0.79):
        found.tested(0, {"accuracy": score, "loss": 1})
    assert (found.best, found.current_step) == (0.7, 1)
    with pytest.raises(ConfigError, match='no output "accuracy"; did you mean "accuraci"'):
        found.tested(0, {"accuraci": 1.0})


def test_a_score_that_is_no_number_is_not_better() -> None:
    found = schedule(PLATEAU)
    for loss in (1, math.nan, math.nan):
        found.tested(loss, {})
    assert (found.best, found.current_step) == (1, 1)


def test_plateau_over_the_training_loss_counts_iterations() -> None:
    found = schedule('lr_policy: "plateau" base_lr: 1 gamma: 0.1 plateau_winsize: 2 plateau_winsize: 3')
    losses = [5, 4, 4, 4, 4, 4, 4, 4, 4, 4]
    seen = []
    for i, loss in enumerate(losses):
        seen.append(found.rate(i))
        found.trained(i, loss)
    # Best at 1; drops seen at 3 (2 later) and 6 (3 later), in force one iteration on; then no window is left.
    assert seen == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01])


NET = """
net_param {
  layer { name: "d" type: "DummyData" top: "x" top: "t" dummy_data_param {
    shape { dim: 4 dim: 3 } shape { dim: 4 dim: 2 }
    data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 1 } } }
  layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 2
    weight_filler { type: "xavier" } } }
  layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }
}
random_seed: 4 max_iter: 40 test_iter: 1 test_interval: 2 lr_policy: "plateau" gamma: 0.5 base_lr: 0.05
"""


@pytest.mark.parametrize("form", ["plateau_patience: 2", "plateau_winsize: [3, 3, 3, 3, 3, 3]", "plateau_patience: 1"])
@pytest.mark.parametrize("hdf5", [False, True])
def test_plateau_goes_on_after_a_resume(form: str, hdf5: bool, tmp_path: Path) -> None:
    if hdf5:
        pytest.importorskip("h5py")
    text = f'{NET} {form} snapshot_format: {"HDF5" if hdf5 else "BINARYPROTO"} snapshot_prefix: "{tmp_path / "s"}"'

    def follow(solver: Solver, until: int) -> list[float]:
        seen = []
        while solver.iteration < until:
            solver.step(1)
            seen.append(solver.rate)
        return seen

    with Solver(parse_solver(text)[0]) as straight:
        follow(straight, 13)
        _, state = straight.snapshot()
        rest = follow(straight, 40)
    assert len(set(rest)) > 2, "the case shows several drops"
    assert read_state(state).plateau_best is not None
    with Solver(parse_solver(text)[0]) as resumed:
        resumed.restore(state)
        assert follow(resumed, 40) == rest


def message(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        schedule(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('base_lr: 1 lr_policy: "cosin" ', 'there is no lr_policy "cosin"; did you mean "cosine"?'),
        ('base_lr: 1 lr_policy: "cosine"', 'lr_policy "cosine" needs max_iter'),
        ('base_lr: 1 lr_policy: "one_cycle" max_iter: 0', "needs a max_iter of at least 1, got 0"),
        ('base_lr: 1 lr_policy: "one_cycle" max_iter: 9 cycle_rise: 1', "cycle_rise must be above 0 and below 1"),
        ('base_lr: 1 lr_policy: "plateau" gamma: 0.1', "watches the tests, the solver has none"),
        ('base_lr: 1 lr_policy: "plateau" gamma: 0.1 plateau_winsize: 0', "plateau_winsize must be at least 1"),
        (f"{PLATEAU} plateau_delta: -1", "plateau_delta cannot be negative"),
        ('base_lr: 1 lr_policy: "fixed" warmup_iter: -2', "warmup_iter cannot be negative, got -2"),
        ('base_lr: 1 lr_policy: "fixed" min_lr: -2', "min_lr cannot be negative, got -2"),
    ],
)
def test_refused(text: str, wanted: str) -> None:
    assert wanted in message(text)
