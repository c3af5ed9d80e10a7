"""``netrun train``."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

from ..config import schema
from ..config.source import Source
from ..config.upgrade import read_solver
from ..device import Device
from ..errors import ConfigError, UsageError
from ..log import Log
from ..runner import Output
from ..solver import Solver
from . import dry_run, numerics, results
from .device import choose_device
from .loading import loading
from .logs import ShortLog, open_log, start_bar, tell
from .overrides import override
from .progress import Bar
from .signals import Signals


class Job(Solver):
    """A solver that remembers what the command has to tell at the end."""

    def __init__(self, message: schema.SolverParameter, *, device: Device, log: Log, source: Source | None) -> None:
        self.scores: dict[int, list[Output]] = {}
        """Means of the last test of every test net."""
        self.tested_at = 0
        self.snapshots: list[tuple[str, str]] = []
        """Names of weights and state, in the order they were written."""
        super().__init__(message, device=device, log=log, source=source)

    def __enter__(self) -> Job:
        return self

    def test(self, index: int = 0) -> list[Output]:
        found = super().test(index)
        if found:
            self.scores[index], self.tested_at = found, self.iteration
            scores = "  ".join(line.replace(" = ", " ", 1).partition(" (*")[0] for line in results.lines(found))
            self._say(f"iteration {self.iteration}: test net #{index}  {scores}")
        return found

    def snapshot(self) -> tuple[str, str]:
        names = super().snapshot()
        self.snapshots.append(names)
        self._say(f"iteration {self.iteration}: wrote {' '.join(names)}")
        return names

    def _say(self, text: str) -> None:
        if isinstance(self.log, ShortLog):
            self.log.say(text)

    @property
    def batch(self) -> int:
        """Samples of one iteration: those of a batch, iter_size times."""
        return self.training.recording.graph.batch * self.message.iter_size


def run(args: argparse.Namespace) -> int:
    """Train; returns the exit code."""
    message, source = _solver(args)
    log = open_log(args.log)
    tell(log, source.notices)
    device = choose_device(args.device, args.gpu, log, "train", message)
    if args.dry_run:
        return dry_run.run(message, source, device, log, args)
    if not message.HasField("max_iter"):
        what = "the solver does not say max_iter: how many iterations to train"
        raise ConfigError(what, source.where(), ["--set max_iter=1000 on the command line"])
    began = time.perf_counter()
    with Job(message, device=device, log=log, source=source) as job:
        if args.snapshot:
            log(f"Resuming from {args.snapshot}", "caffe.cpp:235")
            job.restore(args.snapshot)
            if job.iteration >= message.max_iter:
                log(f"Nothing is left to train: max_iter is {message.max_iter}.", "caffe.cpp:235", "W")
        log("Starting Optimization", "caffe.cpp:239")
        effects = {"SIGINT": args.sigint_effect, "SIGHUP": args.sighup_effect, "SIGTERM": "stop"}
        bar = _show_progress(job)
        try:
            with Signals(effects) as signals:
                job.action = signals.action
                job.solve()
        finally:
            if bar is not None:
                bar.clear()
        log("Optimization Done.", "caffe.cpp:250")
        _report(job, time.perf_counter() - began, args.json)
    return 0


def _solver(args: argparse.Namespace) -> tuple[schema.SolverParameter, Source]:
    """The solver as the flags change it."""
    if args.file and args.solver:
        raise UsageError(f"netrun train: two solvers are given, {args.solver} and {args.file}")
    file = args.solver or args.file
    if not file:
        raise UsageError("netrun train: no solver is given", None, ["netrun train --solver solver.prototxt"])
    message, source = read_solver(file, args.lenient)
    override(message, source, args.set)
    numerics.apply(message, args)
    if args.level is not None:
        message.train_state.level = args.level
    if args.stage:
        message.train_state.stage.extend(stages(args.stage))
    if args.weights:
        message.weights[:] = [args.weights]
    options = loading(args)
    if options.ByteSize():
        message.load.MergeFrom(options)
    return message, source


def stages(text: str) -> list[str]:
    """The stages of the flag --stage."""
    return [stage.strip() for stage in text.split(",") if stage.strip()]


def _show_progress(job: Job) -> Bar | None:
    """A bar with loss, learning rate and speed, where there is a terminal to draw it on."""
    bar = start_bar(job.log, job.training.recording.graph.name or "net", job.message.max_iter, job.iteration)
    if bar is None:
        return None
    sample, batch, last = job.training.recording.graph.sample, job.batch, [time.perf_counter(), job.iteration, 0.0]

    def show(solver: Solver, loss: float) -> None:
        now = time.perf_counter()
        if now - last[0] >= 1 or not last[2]:
            last[2] = (solver.iteration - last[1]) * batch / max(now - last[0], 1e-9)
            last[0], last[1] = now, solver.iteration
        bar.update(solver.iteration, f"loss {loss:.4g}", f"lr {solver.rate:.3g}", f"{last[2]:,.0f} {sample}s/s")

    job.on_iteration.append(show)
    return bar


def _report(job: Job, seconds: float, as_json: bool) -> None:
    """Scores and names on stdout."""
    weights, state = job.snapshots[-1] if job.snapshots else ("", "")
    if as_json:
        found: dict[str, Any] = {
            "iteration": job.iteration,
            "stopped": job.stopped,
            "seconds": seconds,
            "loss": job.losses[-1] if job.losses else None,
            "tested_at": job.tested_at if job.scores else None,
            "tests": [results.values(job.scores[i]) for i in sorted(job.scores)],
            "weights": weights,
            "state": state,
        }
        results.print_json(found)
        return
    print(f"iteration {job.iteration}{' (stopped early)' if job.stopped else ''}, {seconds:.1f} s")
    if job.scores and job.tested_at != job.iteration:
        print(f"last test, at iteration {job.tested_at}:")
    for line in _scores(job.scores):
        print(line)
    for what, name in (("weights", weights), ("state", state)):
        if name:
            print(f"{what}: {name}")


def _scores(scores: dict[int, list[Output]]) -> Sequence[str]:
    several = len(scores) > 1
    return [
        line
        for index in sorted(scores)
        for line in results.lines(scores[index], f"test net #{index}: " if several else "")
    ]
