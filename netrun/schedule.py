"""Learning rate policies: the rate of every iteration, from the solver's fields and, for plateau, its scores.

fixed      base_lr
step       base_lr * gamma ^ floor(iter / stepsize)
exp        base_lr * gamma ^ iter
inv        base_lr * (1 + gamma * iter) ^ -power
multistep  base_lr * gamma ^ (number of stepvalues reached, one after the other, at most one an iteration)
poly       min_lr + (base_lr - min_lr) * (1 - iter / max_iter) ^ power
sigmoid    base_lr / (1 + exp(-gamma * (iter - stepsize)))    rises for a positive gamma
cosine     min_lr + (base_lr - min_lr) * (1 + cos(pi * iter / max_iter)) / 2    Loshchilov, Hutter, "SGDR", 2017
one_cycle  from cycle_start_lr up to base_lr and down to min_lr, along half cosines    Smith, Topin, 2018
plateau    base_lr * gamma ^ (number of times the score stopped improving)

The first seven are Caffe's, which has no min_lr (0 is its default). No policy goes below a min_lr that is given, and a
warm-up leads into any of them: start + (rate - start) * iter / warmup_iter while iter < warmup_iter. A negative gamma
turns the sign of the rate from step to step, as in Caffe.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from .config import schema
from .config.source import Source
from .errors import ConfigError, Problem, Where, nearest

NEEDS: Mapping[str, tuple[str, ...]] = {
    "fixed": (),
    "step": ("gamma", "stepsize"),
    "exp": ("gamma",),
    "inv": ("gamma", "power"),
    "multistep": ("gamma", "stepvalue"),
    "poly": ("power", "max_iter"),
    "sigmoid": ("gamma", "stepsize"),
    "cosine": ("max_iter",),
    "one_cycle": ("max_iter",),
    "plateau": ("gamma",),
}
"""Every policy and the fields it needs."""

_CYCLE_START = 25
"""one_cycle begins at this part of base_lr if nothing is said."""


class Schedule:
    """The learning rate of a solver.

    What changes while it runs, and so is part of a snapshot: ``current_step``, the number of steps or drops (multistep
    carries it: as in Caffe it moves by at most one an iteration), ``best``, the best score that plateau has seen, and
    ``since``, the tests since then (with plateau_winsize: the iteration of then).

    Raises:
        ConfigError: an unknown policy, or one whose fields are missing or make no sense.
    """

    def __init__(self, solver: schema.SolverParameter, source: Source | None = None) -> None:
        self.solver = solver
        self.current_step = 0
        self.best: float | None = None
        self.since = 0
        check(solver, source)

    def rate(self, iteration: int) -> float:
        """The rate of one iteration, perhaps infinite or no number; call it once an iteration, in order."""
        s = self.solver
        rate = self._policy(iteration)
        if s.HasField("min_lr"):  # Caffe knows no limit: a negative base_lr climbs
            rate = max(rate, s.min_lr)
        if iteration < s.warmup_iter:
            rate = s.warmup_start_lr + (rate - s.warmup_start_lr) * iteration / s.warmup_iter
        return float(rate)

    def _policy(self, iteration: int) -> float:
        s = self.solver
        if s.lr_policy == "multistep":
            steps = s.stepvalue
            if self.current_step < len(steps) and iteration >= steps[self.current_step]:
                self.current_step += 1
            return float(s.base_lr * power(s.gamma, self.current_step))
        if s.lr_policy == "plateau":
            return float(s.base_lr * power(s.gamma, self.current_step))
        if s.lr_policy == "step":
            self.current_step = iteration // s.stepsize
        return _FORMULAS[s.lr_policy](s, iteration)

    @property
    def watches_tests(self) -> bool:
        """True if the rate depends on the scores of the tests: pass them to ``tested``."""
        return self.solver.lr_policy == "plateau" and not self.solver.plateau_winsize

    def tested(self, loss: float, outputs: Mapping[str, float]) -> None:
        """Take in one test of test net 0: its mean loss and the mean of every output, by name.

        Raises:
            ConfigError: plateau_output names no output.
        """
        s = self.solver
        if not self.watches_tests:
            return
        name = s.plateau_output
        if name and name not in outputs:
            known = ", ".join(outputs) or "none"
            what = f'plateau_output: the test net has no output "{name}"{nearest(name, outputs)}'
            raise ConfigError(what, None, [f"outputs: {known}"])
        if self._improves(outputs[name] if name else loss):
            self.since = 0
            return
        self.since += 1
        if self.since >= s.plateau_patience:
            self.current_step += 1
            self.since = 0

    @property
    def watches_loss(self) -> bool:
        """Whether the rate of an iteration depends on the loss of the one before."""
        return self.solver.lr_policy == "plateau" and bool(self.solver.plateau_winsize)

    def trained(self, iteration: int, loss: float) -> None:
        """Take in the displayed loss of an iteration: with plateau_winsize the rate of the next one depends on it."""
        s = self.solver
        if s.lr_policy != "plateau" or not s.plateau_winsize:
            return
        if self._improves(loss):
            self.since = iteration
        windows = s.plateau_winsize
        if self.current_step < len(windows) and iteration - self.since >= windows[self.current_step]:
            self.current_step += 1
            self.since = iteration

    def _improves(self, score: float) -> bool:
        """Whether a score is the best so far; it is remembered then."""
        gain = math.inf if self.best is None else score - self.best
        if self.best is not None and not self.solver.plateau_rising:
            gain = -gain
        if not gain > self.solver.plateau_delta:
            return False
        self.best = score
        return True


def _half_cosine(start: float, end: float, part: float) -> float:
    """From start (part 0) to end (part 1), level at both."""
    return end + (start - end) * (1 + math.cos(math.pi * min(part, 1.0))) / 2


def _one_cycle(s: schema.SolverParameter, iteration: int) -> float:
    start = s.cycle_start_lr if s.HasField("cycle_start_lr") else s.base_lr / _CYCLE_START
    top = s.cycle_rise * s.max_iter
    if iteration < top:
        return _half_cosine(start, s.base_lr, iteration / top)
    return _half_cosine(s.base_lr, s.min_lr, (iteration - top) / (s.max_iter - top))


def power(base: float, exponent: float) -> float:
    """``base`` to the ``exponent`` as C has it: infinite where it is too large or a negative power of 0, no number for
    a root of a negative one."""
    try:
        return math.pow(base, exponent)
    except OverflowError:  # a gamma beyond 1 or -1 for too long
        return -math.inf if base < 0 and exponent % 2 == 1 else math.inf
    except ValueError:
        return math.inf if base == 0 else math.nan


def last_number(solver: schema.SolverParameter) -> int | None:
    """The last iteration that has a rate; None if all have. With inv and a negative gamma the base falls below 0, and
    has no power that is not whole."""
    if solver.lr_policy != "inv" or solver.gamma >= 0 or solver.power == math.floor(solver.power):
        return None
    return math.floor(-1 / solver.gamma)


_FORMULAS: Mapping[str, Callable[[schema.SolverParameter, int], float]] = {
    "fixed": lambda s, i: s.base_lr,
    "step": lambda s, i: s.base_lr * power(s.gamma, i // s.stepsize),
    "exp": lambda s, i: s.base_lr * power(s.gamma, i),
    "inv": lambda s, i: s.base_lr * power(1 + s.gamma * i, -s.power),
    "poly": lambda s, i: s.min_lr + (s.base_lr - s.min_lr) * power(max(0.0, 1 - i / s.max_iter), s.power),
    "sigmoid": lambda s, i: s.base_lr / (1 + math.exp(min(-s.gamma * (i - s.stepsize), 700.0))),
    "cosine": lambda s, i: _half_cosine(s.base_lr, s.min_lr, i / s.max_iter),
    "one_cycle": _one_cycle,
}


def check(solver: schema.SolverParameter, source: Source | None = None) -> None:
    """Refuse a policy that could not be followed.

    Raises:
        ConfigError: with every problem found.
    """

    def at(*path: str | int) -> Where | None:
        return source.where(*path) if source else None

    policy = solver.lr_policy
    known = ", ".join(NEEDS)
    if not policy:
        raise ConfigError("the solver names no lr_policy", at("lr_policy"), [f"known: {known}"])
    if policy not in NEEDS:
        what = f'there is no lr_policy "{policy}"{nearest(policy, NEEDS)}'
        raise ConfigError(what, at("lr_policy"), [f"known: {known}"])
    problems = []
    if not solver.HasField("base_lr"):
        problems.append(Problem("the solver has no base_lr", at("lr_policy")))
    for name in NEEDS[policy]:
        given = len(solver.stepvalue) if name == "stepvalue" else solver.HasField(name)
        if not given:
            what = f'lr_policy "{policy}" needs {name}, the solver does not give it'
            problems.append(Problem(what, at("lr_policy")))
    if policy in ("step", "sigmoid") and solver.HasField("stepsize") and solver.stepsize <= 0:
        problems.append(Problem(f"stepsize must be at least 1, got {solver.stepsize}", at("stepsize")))
    if policy in ("cosine", "one_cycle") and solver.HasField("max_iter") and solver.max_iter <= 0:
        what = f'lr_policy "{policy}" needs a max_iter of at least 1, got {solver.max_iter}'
        problems.append(Problem(what, at("max_iter")))
    if policy == "one_cycle" and not 0 < solver.cycle_rise < 1:
        what = f"cycle_rise must be above 0 and below 1, got {solver.cycle_rise:g}"
        problems.append(Problem(what, at("cycle_rise")))
    if policy == "plateau":
        problems += _plateau_problems(solver, at)
    for name in ("warmup_iter", "warmup_start_lr", "min_lr"):
        if getattr(solver, name) < 0:
            problems.append(Problem(f"{name} cannot be negative, got {getattr(solver, name):g}", at(name)))
    if problems:
        raise ConfigError.of(problems)


def _plateau_problems(solver: schema.SolverParameter, at: Callable[..., Where | None]) -> Sequence[Problem]:
    problems = []
    for i, window in enumerate(solver.plateau_winsize):
        if window < 1:
            problems.append(Problem(f"plateau_winsize must be at least 1, got {window}", at("plateau_winsize", i)))
    if not solver.plateau_winsize and not any(solver.test_iter[:1]):
        notes = ("give test_iter and test_interval, or plateau_winsize to watch the training loss",)
        problems.append(Problem('lr_policy "plateau" watches the tests, the solver has none', at("lr_policy"), notes))
    if solver.plateau_patience < 1:
        what = f"plateau_patience must be at least 1, got {solver.plateau_patience}"
        problems.append(Problem(what, at("plateau_patience")))
    if solver.plateau_delta < 0:
        what = f"plateau_delta cannot be negative, got {solver.plateau_delta:g}"
        problems.append(Problem(what, at("plateau_delta")))
    return problems
