"""Solvers with odd values: whatever stands in one, it trains or is refused with an error of netrun's."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from netrun.config import schema
from netrun.config.upgrade import parse_solver
from netrun.errors import NetrunError
from netrun.net_solver import NetSolver
from netrun.schedule import NEEDS
from netrun.solver import Solver
from netrun.updates import METHODS

NET = """net_param {
  layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param {
    shape { dim: 4 dim: 3 } shape { dim: 4 dim: 2 } data_filler { type: "gaussian" } } }
  layer { name: "ip" type: "InnerProduct" bottom: "x" top: "p"
    inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
  layer { name: "loss" type: "EuclideanLoss" bottom: "p" bottom: "y" top: "loss" } }
snapshot_prefix: "s" """
SOUND = {
    "base_lr": "0.1", "max_iter": "5", "gamma": "0.5", "power": "1.5", "stepsize": "2", "stepvalue": "2",
    "test_iter": "1", "test_interval": "2",
}  # fmt: skip
FLOATS = ("-1", "0", "1", "2", "0.5", "1e30", "-1e30", "1e-45", "3e38", "nan", "inf", "-inf")
COUNTS = ("-2147483648", "-1", "0", "1", "2", "3", "7", "2147483647")
LOOPS = {"max_iter", "iter_size", "test_iter"}
"""Fields of which a large number is only a long time."""
WORDS = {
    "type": tuple(METHODS), "lr_policy": tuple(NEEDS), "regularization_type": ("L1", "L2"),
    "plateau_output": ("loss", "x"), "snapshot_format": ("BINARYPROTO",),
}  # fmt: skip
OTHERS = {"solver_mode", "solver_type", "precision", "device_id"}
"""Fields that decide where and in what it runs, and old ones."""


def changeable() -> list[str]:
    """The fields that are numbers, truth values or words of a known choice."""
    fields = [f for f in schema.SolverParameter.DESCRIPTOR.fields if f.name not in OTHERS]
    text = (fields[0].TYPE_STRING, fields[0].TYPE_ENUM, fields[0].TYPE_MESSAGE)
    return [f.name for f in fields if f.name in WORDS or f.type not in text]


def value_of(rng: random.Random, name: str) -> str:
    field = schema.SolverParameter.DESCRIPTOR.fields_by_name[name]
    if name in WORDS:
        word = rng.choice(WORDS[name])
        return word if field.enum_type else f'"{word}"'
    if field.type == field.TYPE_BOOL:
        return rng.choice(("true", "false"))
    if field.type == field.TYPE_FLOAT:
        return rng.choice(FLOATS)
    return rng.choice(COUNTS[:-1] if name in LOOPS else COUNTS)


@pytest.mark.parametrize("kind", [Solver, NetSolver])
@pytest.mark.parametrize("seed", range(3))
def test_a_solver_with_odd_values_trains_or_is_refused(
    kind: type[Solver], seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = random.Random(f"{kind.__name__} {seed}")
    names = changeable()
    refused = 0
    for _ in range(60):
        said = {**SOUND, "lr_policy": value_of(rng, "lr_policy")}
        for name in rng.sample(names, rng.randint(1, 4)):
            said[name] = value_of(rng, name)
        text = NET + " ".join(f"{name}: {value}" for name, value in said.items())
        try:
            with kind(parse_solver(text)[0]) as solver:
                solver.solve()
        except NetrunError:
            refused += 1
        except Exception as error:
            raise AssertionError(f"{text}\n{type(error).__name__}: {error}") from error
    assert 5 < refused < 50
