"""A solver whose nets can be looked at and worked with between its steps: ``solver.net``, ``solver.test_nets``.

It trains as :class:`netrun.solver.Solver` does, in the same order and wording, but on nets compiled with everything
kept, so that anything can be looked at: that takes more memory, and fuses less.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NoReturn, cast

import numpy as np

from . import debug, snapshot
from .blob import not_copied
from .compiler.sharing import Parameter
from .config import schema
from .expression import Rule, rule
from .loss_scale import FIRST, LossScale
from .net import Net
from .program import Call, Program, Recorder
from .runner import Output, Runner
from .session import Session, chance
from .solver import Solver
from .solver_nets import SolverNet
from .sparse import asked_for, is_dense
from .training import Training, record_update
from .types import Shape, Tensor
from .updates import METHODS, correction, told
from .visible import Visible


class _Pass:
    """What a runner calls its session: one forward pass of a net."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.device = net.device

    def run(self) -> None:
        """A whole forward, with the next batch."""
        self.net.run_forward()

    def read(self, tensor: Tensor) -> np.ndarray[Any, Any]:
        """A host copy."""
        return self.net.session.read(tensor)

    def write(self, tensor: Tensor, values: Any) -> None:
        """Set a persistent tensor."""
        self.net.session.write(tensor, values)


class NetRunner(Runner):
    """A runner of a net that brings its own batches."""

    def __init__(self, name: str, net: Net) -> None:
        self.net = net
        super().__init__(name, net.recording, cast(Session, _Pass(net)))

    @property
    def forwards(self) -> int:
        """The number of the net's next pass, which decides what is random in it."""
        return self.net._engine.forwards

    @forwards.setter
    def forwards(self, number: int) -> None:
        self.net._engine.forwards = number

    def open(self) -> None:
        """Open the sources of all data layers."""
        self.feeders = self.net._engine.feeding.open(self.net.graph)

    def feed(self) -> None:
        """Nothing: the net does it in its forward."""

    def cursors(self) -> Iterator[schema.DataCursor]:
        """Where every data layer stands that the net has opened."""
        self.feeders = self.net._engine.feeding.feeders or {}
        return super().cursors()

    def outputs(self) -> list[Output]:
        """The outputs of the last run, in Caffe's order (alphabetical)."""
        found = []
        for name, value in self.net.graph.outputs:
            weight = value.producer.loss_weights[value.index]
            found.append(Output(name, np.array(self.net.blobs[name].data), weight))
        return found

    def loss(self) -> float:
        """The total loss of the last run."""
        return self.net.loss

    def close(self) -> None:
        """Stop the threads of its data layers."""
        self.net.close()


class NetSolver(Solver):
    """A solver with its training net and its test nets, all open to the eye. Arguments and errors are Solver's.

    ``net`` and ``test_nets`` share their parameters. After a step ``net.blobs`` hold the last pass, ``net.params`` the
    new values, and their ``diff`` what was subtracted.
    """

    net: Net
    test_nets: list[Net]

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        not_copied(self)

    def _build(self) -> None:
        self.memory: Visible = Visible(self.device)
        self.before_step: list[Callable[[], None]] = []
        """Called at the start of every iteration."""
        self.after_backward: list[Callable[[], None]] = []
        """Called when the gradients of an iteration are there, before the update."""
        self.test_nets = []
        super()._build()

    def _open_training(self, net: SolverNet) -> None:
        self.net = self._open(net, "train")
        self.training = self._compile_update()
        for parameter in asked_for(self.training.recording.parameters):
            why = "a net that shows its diffs has all of it"
            self.log(is_dense(parameter, why), "solver.cpp:57", "W")
        update = cast(Program, self.training.update)
        self._update_session = Session(update, self.device, self.memory, self.net._engine.own)
        self._step, self._update = self.net.session, None
        self.runners = [NetRunner("train", self.net)]
        self._forward_only = self.runners[0].session.run
        if self.net.graph.numerics.deterministic:
            self.log(chance(self.net._engine.now.whole.program), "solver.cpp:57")

    def _open_test(self, net: SolverNet, number: int) -> Runner:
        opened = self._open(net, f"test{number}")
        self.test_nets.append(opened)
        if _tied_otherwise(opened, self.net):
            opened.share_with(self.net)
        return NetRunner(f"test{number}", opened)

    def _ready(self) -> None:
        """Nothing: a net opens its data when it first runs."""

    def _open(self, found: SolverNet, stream: str) -> Net:
        self._tell_notices(found)
        net = self._new_net(
            found,
            device=self.device,
            seed=self.seed,
            folder=found.source.folder if found.source else self.folder,
            shared=self.memory,
            stream=stream,
            threads=self.threads,
            source=found.source,
        )
        self._tell_outputs(net.outputs)
        return net

    def _new_net(self, found: SolverNet, **options: Any) -> Net:
        state = found.state
        return Net(found.message, state.phase, level=state.level, stages=state.stages, **options)

    def _compile_update(self) -> Training:
        whole = self.net._engine.now.whole
        gradients = dict(whole.gradients)
        gradients.update({whole.recording.parameters[p]: total for p, total in whole.accumulators.items()})
        result = Training(whole.recording, Program(()), None, gradients=gradients)
        names = METHODS[self.message.type].history
        recorder = Recorder()
        for parameter in whole.recording.parameters:
            recorder.reserve(parameter.key)
        for parameter in whole.recording.parameters:
            result.history[parameter] = [recorder.new(f"{parameter.key}.{n}", parameter.spec, "history") for n in names]
        trained = {
            p: total
            for p, total in whole.accumulators.items()
            if p.trained and (p.lr_mult != 0 or self.net.graph.force_backward)
        }
        if whole.scale is not None:
            scaling = result.scaling = LossScale.outside(recorder)
            whole.recording.states.update({t.name: t for t in (scaling.excess, scaling.since)})
        if self.message.snapshot_diff:
            result.saved = {whole.recording.parameters[p]: total for p, total in trained.items()}
        record_update(recorder, trained, result, self.message)
        totals = set(trained.values())
        result.update = Program(tuple(_telling(call, totals) for call in recorder.calls))
        return result

    def _tell_scale(self) -> None:
        """In float16: the net multiplies its loss by what the last update left of the factor."""
        scale, scaling = self.net._engine.now.whole.scale, self.training.scaling
        if scale is not None and scaling is not None:
            factor = FIRST + float(self._update_session.read(scaling.excess))
            self.net.session.write(scale, np.float32(factor))

    # -------------------------------------------------------------------------------------------------------- running
    def _iterate(self) -> Callable[[], float]:
        m, net = self.message, self.net
        for callback in self.before_step:
            callback()
        net.clear_param_diffs()
        self._tell_scale()
        total = 0.0
        for _ in range(m.iter_size):
            net.run_forward()
            net.run_backward()
            total += net.loss
        for callback in self.after_backward:
            callback()
        if m.debug_info and m.display and self.iteration % m.display == 0:
            debug.report(self)
        self.apply_update()
        return lambda: total / m.iter_size

    def apply_update(self) -> None:
        """Change the parameters by what their ``diff`` says, at the learning rate of the current iteration."""
        self._settle_rate()
        session = self._update_session
        session.write(self.training.lr, np.float32(self.rate))
        session.write(self.training.correction, np.float32(correction(self.message, self.iteration)))
        for memory in (self.memory, self.net._engine.own):
            memory.send()
        session.run()
        for memory in (self.memory, self.net._engine.own):
            memory.renew()

    @property
    def lr(self) -> float:
        """The learning rate of the current iteration."""
        return copy.copy(self.schedule).rate(self.iteration)

    # ------------------------------------------------------------------------------------------------------- snapshots
    def load_weights(self, path: str | Sequence[str]) -> None:
        self.memory.send()
        super().load_weights(path)
        self.memory.renew()

    def snapshot(self) -> tuple[str, str]:
        self.memory.send()
        return super().snapshot()

    def restore(self, path: str) -> None:
        for runner in self.runners:
            runner.open()
        self.memory.send()
        snapshot.restore(self, path)
        self.memory.renew()

    def reseed(self, seed: int) -> None:
        if seed != self.seed:
            self.seed = seed
            for net in (self.net, *self.test_nets):
                net._engine.reseed(seed)
            for runner in self.runners:
                runner.open()

    @property
    def sessions(self) -> list[Session]:
        """Everything that is bound to the device."""
        return [self.net.session, self._update_session, *(net.session for net in self.test_nets)]


def _tied_otherwise(net: Net, other: Net) -> bool:
    """Whether layers of one name differ in their parameters' number or shapes, or in who owns them."""
    known = {node.name: node.parameters for node in reversed(other.graph.nodes)}

    def facts(parameters: Sequence[Parameter]) -> list[tuple[Shape, str]]:
        return [(p.spec.shape, (p.owner or p).key) for p in parameters]

    return any(facts(n.parameters) != facts(known[n.name]) for n in net.graph.nodes if n.name in known)


def _telling(call: Call, totals: set[Tensor]) -> Call:
    """An update that leaves in the gradient's place what it subtracts from the parameter, as Caffe does."""
    if call.op.name != "update":
        return call
    xs, vs = call.args
    if not (isinstance(xs, tuple) and isinstance(vs, tuple) and xs and xs[0] in totals):
        return call
    old: Rule = call.attrs["rule"]
    lines, gradient = told(old), old.inputs[0]
    left = "where(finite, moved, 0)" if "finite" in old.inputs else "moved"
    body = rule(old.inputs[1:], [*old.variables, gradient], "; ".join([*lines, f"{gradient} = {left}"]))
    return replace(call, args=(xs[1:], (*vs, xs[0])), attrs={**call.attrs, "rule": body})


__all__ = ["NetSolver"]
