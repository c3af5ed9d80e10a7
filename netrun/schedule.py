"""Learning rate policies: the rate of every iteration, from the solver's fields alone.

fixed      base_lr
step       base_lr * gamma ^ floor(iter / stepsize)
exp        base_lr * gamma ^ iter
inv        base_lr * (1 + gamma * iter) ^ -power
multistep  base_lr * gamma ^ (number of stepvalues reached)
poly       base_lr * (1 - iter / max_iter) ^ power
sigmoid    base_lr / (1 + exp(-gamma * (iter - stepsize)))    rises for a positive gamma
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from .config import schema
from .config.source import Source
from .errors import ConfigError, Problem, nearest

NEEDS: Mapping[str, tuple[str, ...]] = {
    "fixed": (),
    "step": ("gamma", "stepsize"),
    "exp": ("gamma",),
    "inv": ("gamma", "power"),
    "multistep": ("gamma", "stepvalue"),
    "poly": ("power", "max_iter"),
    "sigmoid": ("gamma", "stepsize"),
}
"""Every policy and the fields it needs."""


class Schedule:
    """The learning rate of a solver.

    ``current_step`` is the number of steps taken (step, multistep). multistep carries it: as in Caffe it moves by at
    most one an iteration.

    Raises:
        ConfigError: an unknown policy, or one whose fields are missing or make no sense.
    """

    def __init__(self, solver: schema.SolverParameter, source: Source | None = None) -> None:
        self.solver = solver
        self.current_step = 0
        check(solver, source)

    def rate(self, iteration: int) -> float:
        """The rate of one iteration; call it once an iteration, in order."""
        s = self.solver
        if s.lr_policy == "multistep":
            steps = s.stepvalue
            if self.current_step < len(steps) and iteration >= steps[self.current_step]:
                self.current_step += 1
            return float(s.base_lr * s.gamma**self.current_step)
        if s.lr_policy == "step":
            self.current_step = iteration // s.stepsize
        return _FORMULAS[s.lr_policy](s, iteration)


_FORMULAS: Mapping[str, Callable[[schema.SolverParameter, int], float]] = {
    "fixed": lambda s, i: s.base_lr,
    "step": lambda s, i: s.base_lr * s.gamma ** (i // s.stepsize),
    "exp": lambda s, i: s.base_lr * s.gamma**i,
    "inv": lambda s, i: s.base_lr * (1 + s.gamma * i) ** -s.power,
    "poly": lambda s, i: s.base_lr * max(0.0, 1 - i / s.max_iter) ** s.power,
    "sigmoid": lambda s, i: s.base_lr / (1 + math.exp(min(-s.gamma * (i - s.stepsize), 700.0))),
}


def check(solver: schema.SolverParameter, source: Source | None = None) -> None:
    """Refuse a policy that could not be followed.

    Raises:
        ConfigError: with every problem found.
    """
    policy = solver.lr_policy
    where = source.where("lr_policy") if source else None
    known = ", ".join(NEEDS)
    if not policy:
        raise ConfigError("the solver names no lr_policy", where, [f"known: {known}"])
    if policy not in NEEDS:
        raise ConfigError(f'there is no lr_policy "{policy}"{nearest(policy, NEEDS)}', where, [f"known: {known}"])
    problems = []
    if not solver.HasField("base_lr"):
        problems.append(Problem("the solver has no base_lr", where))
    for name in NEEDS[policy]:
        given = len(solver.stepvalue) if name == "stepvalue" else solver.HasField(name)
        if not given:
            problems.append(Problem(f'lr_policy "{policy}" needs {name}, the solver does not give it', where))
    if policy in ("step", "sigmoid") and solver.HasField("stepsize") and solver.stepsize <= 0:
        at = source.where("stepsize") if source else None
        problems.append(Problem(f"stepsize must be at least 1, got {solver.stepsize}", at))
    if policy == "multistep" and list(solver.stepvalue) != sorted(solver.stepvalue):
        at = source.where("stepvalue", 0) if source else None
        values = " ".join(map(str, solver.stepvalue))
        problems.append(Problem(f"the stepvalues of lr_policy multistep must rise, got {values}", at))
    if problems:
        raise ConfigError.of(problems)
