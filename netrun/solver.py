"""Training: the loop that feeds, runs, tests, displays and snapshots, in Caffe's order and wording."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from . import debug, snapshot
from .compiler.graph import Graph, build
from .compiler.record import Recording, record
from .compiler.sharing import take_over
from .config import schema
from .config.paths import resolve
from .config.source import Source
from .config.upgrade import read_solver, upgrade_solver
from .device import Device, open_device
from .display import Display, log_outputs
from .errors import DivergedError
from .log import Log, silent
from .losses import LossWatch
from .memory import reserve
from .params import LoadOptions, initialise, load
from .program import FORWARD, Program
from .runner import Averages, Output, Runner, open_forward
from .schedule import Schedule, last_number
from .session import Memory, Session, chance
from .solver_nets import SolverNet, check_counts, net_to_train, nets_to_test
from .training import Training, compile_training
from .updates import METHODS, correction, method_of
from .varying import open_session

Action = Callable[[], str]
"""Asked once an iteration: "" go on, "snapshot", or "stop"."""

_LARGEST = float(np.finfo(np.float32).max)


class Solver:
    """A solver with its training net and its test nets.

    Args:
        solver: path of a solver prototxt, or a SolverParameter message.
        device: name or open device; "" means what the solver's own ``device`` field says, with "auto" as the CPU here.
        log: takes the lines of the log.
        folder: what the names of nets are looked up in besides the working directory; the solver file's by default.

    Raises:
        ConfigError: solver or nets cannot be built.
        DataError, DeviceError, UsageError: a source is missing, a device, a folder to write to.
    """

    def __init__(
        self,
        solver: str | os.PathLike[str] | schema.SolverParameter,
        *,
        device: str | Device = "cpu",
        log: Log = silent,
        folder: str = "",
        threads: int | None = None,
        source: Source | None = None,
    ) -> None:
        self.log = log
        self.file = ""
        if isinstance(solver, schema.SolverParameter):
            self.message = schema.SolverParameter()
            self.message.CopyFrom(solver)
            upgrade_solver(self.message)
            self.source: Source | None = source
            self.file = source.file if source else ""
        else:
            self.file = os.fspath(solver)
            self.message, self.source = read_solver(solver)
        self.folder = folder or (str(Path(self.file).parent) if self.file else "")
        self.device = open_device(device) if isinstance(device, str) else device
        check_counts(self.message, self.source)
        method_of(self.message, self.source)
        self.schedule = Schedule(self.message, self.source)
        self.seed = self.message.random_seed if self.message.random_seed >= 0 else secrets.randbits(31)
        self.prefix = snapshot.prefix_of(self.message, self.file)
        self.iteration = 0
        self.watch = LossWatch(self.message.average_loss, self.schedule.trained)
        self.resumed = False
        self.threads = threads
        self.action: Action = lambda: ""
        self.on_iteration: list[Callable[[Solver, float], None]] = []
        """Called after every iteration with the newest loss that is known: on a device that the host runs ahead of
        (``device.ahead``) that of an earlier iteration, NaN before the first."""
        self.stopped = False
        self.rate = 0.0
        self.memory = Memory(self.device)
        self._told: set[str] = set()
        self._build()

    # ------------------------------------------------------------------------------------------------------- building
    def _build(self) -> None:
        m = self.message
        self.log(f"Initializing solver from parameters: \n{m}".rstrip(), "solver.cpp:45")
        net = net_to_train(m, self.source, self.folder)
        origin = f"from {net.what}" if " file: " in net.what else f"specified in {net.what}."
        self.log(f"Creating training net {origin}", "solver.cpp:102")
        self._open_training(net)
        if m.weights:
            names = [name.strip() for entry in m.weights for name in entry.split(",")]
            self.load_weights([resolve(name, self.folder) for name in names])
        for i, net in enumerate(nets_to_test(m, self.source, self.folder)):
            self.log(f"Creating test net (#{i}) specified by {net.what}", "solver.cpp:190")
            self.runners.append(self._open_test(net, i))
        self._ready()
        self.log("Solver scaffolding done.", "solver.cpp:57")

    def _open_training(self, net: SolverNet) -> None:
        """Compile the training net, its gradients and the update; the first runner."""
        m, graph = self.message, self._graph(net)
        self.training: Training = compile_training(graph, m, keep_all=m.debug_info)
        for notice in self.training.notices:
            self.log(notice, "solver.cpp:57", "W")
        own = Memory(self.device)
        reserve(self.training.programs, self.device, self.memory, own)
        initialise(self.training.recording, self.memory, self.seed)
        recording, update = self.training.recording, self.training.update

        def again(graph: Graph) -> tuple[Recording, Program]:
            training = compile_training(graph, m, keep_all=m.debug_info)
            return training.recording, training.step

        self._step = open_session((recording, self.training.step), again, self.device, self.memory, own)
        self._update = Session(update, self.device, self.memory, own) if update else None
        self.runners = [Runner("train", recording, self._step, self.seed, self.threads)]
        self._forward_only = self._step.part(lambda origin: origin.way == FORWARD)
        if graph.numerics.deterministic:
            self.log(chance(self.training.step), "solver.cpp:57")

    def _open_test(self, net: SolverNet, number: int) -> Runner:
        """Compile a test net, which has the training net's parameters."""
        graph = self._graph(net)
        take_over(graph, self.training.recording.graph, f"test net #{number}")
        recording = record(graph)
        initialise(recording, self.memory, self.seed)
        session = open_forward(recording, self.device, self.memory, frozen=True)
        return Runner(f"test{number}", recording, session, self.seed, self.threads)

    def _ready(self) -> None:
        """What is left to do when all nets are there."""
        for runner in self.runners:
            runner.open()

    def _graph(self, net: SolverNet) -> Graph:
        self._tell_notices(net)
        folder = net.source.folder if net.source else self.folder
        graph = build(net.message, net.source, net.state, seed=self.seed, folder=folder)
        self._tell_outputs(name for name, _ in graph.outputs)
        return graph

    def _tell_notices(self, net: SolverNet) -> None:
        for notice in net.source.notices if net.source else ():
            if notice not in self._told:  # the test nets are often the same file
                self.log(notice, "upgrade_proto.cpp:79", "W")
                self._told.add(notice)

    def _tell_outputs(self, names: Iterable[str]) -> None:
        for name in names:
            self.log(f"This network produces output {name}", "net.cpp:244")
        self.log("Network initialization done.", "net.cpp:257")

    # -------------------------------------------------------------------------------------------------------- weights
    def load_weights(self, path: str | Sequence[str]) -> None:
        """Start from the weights of a file, or of several, one after another: a list, or separated by commas."""
        names = path.split(",") if isinstance(path, str) else path
        options = replace(LoadOptions.of(self.message.load), partial=len(names) > 1)
        for name in names:
            self.log(f"Finetuning from {name}", "solver.cpp:72")
            for line in load(self.training.recording, self.memory, name, options).lines():
                self.log(line, "net.cpp:744")

    def restore(self, path: str) -> None:
        """Go on from a solver state."""
        snapshot.restore(self, path)

    def reseed(self, seed: int) -> None:
        """Take over the seed of the run that is resumed, where it decides about data and masks."""
        if seed == self.seed:
            return
        self.seed = seed
        self.close()
        log, self.log = self.log, silent
        try:
            self._build()
        finally:
            self.log = log

    def snapshot(self) -> tuple[str, str]:
        """Write weights and state; returns their names."""
        self.watch.settle()
        return snapshot.write(self)

    # -------------------------------------------------------------------------------------------------------- running
    def solve(self, resume: str | None = None) -> None:
        """Train to max_iter, with the tests, displays and snapshots the solver asks for."""
        m = self.message
        if m.snapshot or m.snapshot_after_train:
            snapshot.check_writable(self.prefix)
            snapshot.check_format(self)
        self.log(f"Solving {self.training.recording.graph.name}", "solver.cpp:289")
        self.log(f"Learning Rate Policy: {m.lr_policy}", "solver.cpp:290")
        if resume:
            self.log(f"Restoring previous solver status from {resume}", "solver.cpp:296")
            self.restore(resume)
        began, waited = time.perf_counter(), self.runners[0].waited
        self.step(m.max_iter - self.iteration)
        if self.runners[0].waited > waited:
            share = (self.runners[0].waited - waited) / max(time.perf_counter() - began, 1e-9)
            self.log(f"Waiting for data took {share:.1%} of the time.", "data_reader.cpp:1")
        if m.snapshot_after_train and not (m.snapshot and self.iteration % m.snapshot == 0):
            self.snapshot()
        if self.stopped:
            self.log("Optimization stopped early.", "solver.cpp:311")
            return
        if m.display and self.iteration % m.display == 0:
            self.runners[0].feed()
            self._forward_only()
            smoothed = self.watch.smooth(self.runners[0].loss())
            self.log(f"Iteration {self.iteration}, loss = {smoothed:g}", "solver.cpp:327")
        if m.test_interval and self.iteration % m.test_interval == 0:
            self.test_all()
        self.log("Optimization Done.", "solver.cpp:332")

    def step(self, count: int) -> None:
        """Train ``count`` iterations.

        Raises:
            DivergedError: the loss is not a number any more.
            DataError: a record cannot be used.
        """
        m = self.message
        if not self.resumed:  # as in Caffe; a state that was restored goes on where it was
            self.watch.begin()
        self.resumed = self.stopped = False
        stop = self.iteration + count
        display = Display(self)
        while self.iteration < stop:
            if m.test_interval and self.iteration % m.test_interval == 0 and (self.iteration or m.test_initialization):
                self.test_all()
                if self.stopped:
                    break
            shown = bool(m.display) and self.iteration % m.display == 0
            loss = self._iterate()
            self.watch.expect(self.iteration, self.rate, loss)
            self.watch.settle(0 if shown or self.schedule.watches_loss else self.device.ahead)
            if shown:
                display.show()
            self.iteration += 1
            for listener in self.on_iteration:
                listener(self, self.loss)
            asked = self.action()
            if (m.snapshot and self.iteration % m.snapshot == 0) or asked == "snapshot":
                self.snapshot()
            if asked == "stop":
                self.stopped = True
                break
        self.watch.settle()

    def _settle_rate(self) -> None:
        """The learning rate of this iteration.

        Raises:
            DivergedError: it has left the range of float32.
        """
        steps = self.schedule.current_step
        self.rate = self.schedule.rate(self.iteration)
        if self.message.lr_policy == "multistep" and self.schedule.current_step != steps:
            status = f"MultiStep Status: Iteration {self.iteration}, step = {self.schedule.current_step}"
            self.log(status, "sgd_solver.cpp:50")
        if not abs(self.rate) <= _LARGEST:
            what = f"iteration {self.iteration}: the learning rate is {self.rate:g}"
            notes = [f'that is what lr_policy "{self.message.lr_policy}" has made of base_lr by now']
            if last_number(self.message) is not None:
                notes.append("a negative number, 1 + gamma * iter, has no power that is not whole")
            raise DivergedError(what, None, notes)

    def _iterate(self) -> Callable[[], float]:
        """One iteration; what comes back gives its loss, the mean over iter_size passes."""
        m, train = self.message, self.runners[0]
        self._settle_rate()
        for session in (self._step, self._update):
            if session is not None:
                session.write(self.training.lr, np.float32(self.rate))
                if METHODS[m.type].correction:
                    session.write(self.training.correction, np.float32(correction(m, self.iteration)))
        parts = []
        for part in range(m.iter_size):
            train.feed()
            if self._update is not None:
                self._step.write(self.training.first, np.float32(part == 0))
            self._step.run()
            parts.append(train.later_loss())
        if m.debug_info and m.display and self.iteration % m.display == 0:
            debug.report(self)
        if self._update is not None:
            self._update.run()
        return lambda: sum(found() for found in parts) / len(parts)

    # -------------------------------------------------------------------------------------------------------- testing
    def test_all(self) -> list[list[Output]]:
        """Run every test net over its test_iter batches; returns the mean outputs, net by net."""
        self.watch.settle()
        found = []
        for i in range(len(self.runners) - 1):
            if self.stopped:
                break
            found.append(self.test(i))
        return found

    def test(self, index: int = 0) -> list[Output]:
        """Mean outputs of one test net over its test_iter batches."""
        self.log(f"Iteration {self.iteration}, Testing net (#{index})", "solver.cpp:347")
        averages, runner = Averages(), self.runners[1 + index]
        runner.forwards = self.iteration * self.message.test_iter[index]  # however many tests this process has seen
        for _ in range(self.message.test_iter[index]):
            asked = self.action()
            if asked == "snapshot":
                self.snapshot()
            elif asked == "stop":
                self.stopped = True
                self.log("Test interrupted.", "solver.cpp:394")
                return []
            averages.add(runner)
        if self.message.test_compute_loss:
            self.log(f"Test loss: {averages.loss:g}", "solver.cpp:400")
        for notice in averages.notices:
            self.log(notice, "solver.cpp:414", "W")
        log_outputs(self.log, averages.means, "Test", "solver.cpp:414")
        if index == 0:
            self.schedule.tested(averages.loss, {o.name: float(o.values.mean()) for o in averages.means})
        return averages.means

    @property
    def losses(self) -> list[float]:
        """The last average_loss losses of this call of ``step``."""
        return self.watch.last

    @property
    def loss(self) -> float:
        """Their mean, as displayed; NaN before the first."""
        return self.watch.mean

    @property
    def sessions(self) -> list[Session]:
        """Everything that is bound to the device: the training iteration, then the test nets."""
        training = [s for s in (self._step, self._update) if s is not None]
        return training + [runner.session for runner in self.runners[1:]]

    def close(self) -> None:
        """Stop the threads of all data layers."""
        for runner in self.runners:
            runner.close()

    def __enter__(self) -> Solver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
