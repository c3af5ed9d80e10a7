"""What the log says while a solver trains: speed, loss, outputs, learning rate, and a wait for data."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .log import Log
from .loss_scale import FIRST
from .runner import Output

if TYPE_CHECKING:
    from .solver import Solver

WAITING = 0.1
"""Share of the time spent waiting for data above which the log says so."""


class Display:
    """Logs where training stands. Speed and waiting are those since the last time, or since this was made."""

    def __init__(self, solver: Solver) -> None:
        self._solver = solver
        self._mark()

    def _mark(self) -> None:
        solver = self._solver
        self._clock, self._iteration = time.perf_counter(), solver.iteration
        self._waited = solver.runners[0].waited

    def show(self) -> None:
        """Log the iteration that has just run."""
        solver, log = self._solver, self._solver.log
        at, every = f"Iteration {solver.iteration}", solver.message.display
        seconds, count = time.perf_counter() - self._clock, solver.iteration - self._iteration
        speed = count / seconds if seconds > 0 else 0.0
        log(f"{at} ({speed:g} iter/s, {seconds:g}s/{every} iters), loss = {solver.loss:g}", "solver.cpp:239")
        log_outputs(log, solver.runners[0].outputs(), "Train", "solver.cpp:258")
        log(f"{at}, lr = {solver.rate:g}", "sgd_solver.cpp:112")
        scaling = solver.training.scaling
        if scaling is not None:
            factor = FIRST + float(solver.sessions[0].read(scaling.excess))
            log(f"{at}, loss scale = {factor:g}", "sgd_solver.cpp:112")
        waited = solver.runners[0].waited - self._waited
        if count and waited > WAITING * seconds > 0:  # the first batch is always waited for
            text = f"Waited {waited / seconds:.0%} of the time for data; see netrun time --data"
            log(text, "data_reader.cpp:1", "W")
        self._mark()


def log_outputs(log: Log, outputs: Sequence[Output], phase: str, source: str) -> None:
    """A line for every value of every output, numbered through."""
    number = 0
    for output in outputs:
        for line in output.lines(number, phase):
            log(line, source)
            number += 1


__all__ = ["Display", "log_outputs"]
