"""What the log says while a solver trains: Caffe's lines, and a wait for data where it is long."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from netrun import display
from netrun.config.upgrade import parse_solver
from netrun.display import Display
from netrun.runner import Output
from netrun.solver import Solver


class Clock:
    """Time that passes when a test says so."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(display, "time", found)
    return found


def solver_of(lines: list[str]) -> Any:
    outputs = [Output("a", np.array([1.0, 2.0]), 0), Output("b", np.array([3.0]), 0.5)]
    return SimpleNamespace(
        log=lambda text, source, level="I": lines.append(f"{level} {source} {text}"),
        iteration=0,
        loss=2.5,
        rate=0.125,
        message=SimpleNamespace(display=20),
        runners=[SimpleNamespace(waited=0.0, outputs=lambda: outputs)],
        training=SimpleNamespace(scaling=None),
    )


def test_speed_is_that_since_the_last_time(clock: Clock) -> None:
    lines: list[str] = []
    solver = solver_of(lines)
    shown = Display(cast(Solver, solver))
    clock.now += 0.5
    shown.show()
    assert lines == [
        "I solver.cpp:239 Iteration 0 (0 iter/s, 0.5s/20 iters), loss = 2.5",
        "I solver.cpp:258     Train net output #0: a = 1",
        "I solver.cpp:258     Train net output #1: a = 2",
        "I solver.cpp:258     Train net output #2: b = 3 (* 0.5 = 1.5 loss)",
        "I sgd_solver.cpp:112 Iteration 0, lr = 0.125",
    ]
    lines.clear()
    solver.iteration = 20
    clock.now += 4
    shown.show()
    assert lines[0] == "I solver.cpp:239 Iteration 20 (5 iter/s, 4s/20 iters), loss = 2.5"


def test_a_long_wait_for_data_is_told_but_for_the_first_batch(clock: Clock) -> None:
    lines: list[str] = []
    solver = solver_of(lines)
    shown = Display(cast(Solver, solver))
    told = []
    for iteration, waited in [(0, 0.9), (20, 0.05), (40, 0.25)]:
        lines.clear()
        clock.now += 1
        solver.iteration = iteration
        solver.runners[0].waited += waited
        shown.show()
        told.append([line for line in lines if "Waited" in line])
    assert told == [[], [], ["W data_reader.cpp:1 Waited 25% of the time for data; see netrun time --data"]]


def test_the_scale_of_the_loss_is_shown_where_there_is_one() -> None:
    """As the null device takes it: no arithmetic, so the factor stays the first."""
    lines: list[str] = []
    layers = """layer { name: "x" type: "DummyData" top: "x" dummy_data_param { shape { dim: 2 dim: 3 } } }
        layer { name: "y" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 1 } }
        layer { name: "l" type: "Reduction" bottom: "y" top: "l" loss_weight: 1 }"""
    text = f'net_param {{ {layers} }} base_lr: 0.1 lr_policy: "fixed" display: 1 precision: FP16'
    with Solver(parse_solver(text)[0], device="null", log=lambda line, *_: lines.append(line)) as solver:
        solver.step(1)
    assert [line for line in lines if line.startswith("Iteration")][1:] == [
        "Iteration 0, lr = 0.1",
        "Iteration 0, loss scale = 65536",
    ]
