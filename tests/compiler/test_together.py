"""Small updates become one: which, where what they take lies, and that no number changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from netrun.compiler.passes import drop_unread, elide_copies, filled_calls
from netrun.compiler.plan import places, plan
from netrun.compiler.together import LARGEST, columns, together
from netrun.config.upgrade import parse_solver
from netrun.cpu.fast import Fast
from netrun.expression import rule
from netrun.kernels import OPS
from netrun.memory import Memory
from netrun.program import SOLVER, Call, Origin, Program, Recorder
from netrun.session import Session
from netrun.solver import Solver
from netrun.types import Kind, Spec, Tensor

STEP = rule(["raw", "lr"], ["w", "h"], "h = 0.5 * h + lr * raw; w = w - h")
OTHER = rule(["raw", "lr"], ["w", "h"], "h = 0.5 * h + 2 * lr * raw; w = w - h")


class Net:
    """Calls of a training: every parameter has a gradient made of ``x``, a history and an update."""

    def __init__(self) -> None:
        self.k = Recorder()
        self.x, self.lr = Tensor("x", Spec((3,)), "feed"), Tensor("lr", Spec(()), "control")

    def gradient(self, name: str, shape: tuple[int, ...] = (3,), kind: Kind = "grad") -> Tensor:
        made = self.k.new(f"{name}'", Spec(shape), kind)
        self.k.origin = Origin(name).backward
        self.k.pointwise([self.x], made, expr="a * 2")
        return made

    def update(self, name: str, raw: Tensor, how: Any = STEP, kind: Kind = "learned", **more: Any) -> Tensor:
        w = Tensor(f"{name}.w", raw.spec, kind)
        self.k.origin = more.get("origin", Origin(name).update)
        self.k.update([raw, more.get("lr", self.lr)], [w, Tensor(f"{name}.h", raw.spec, "history")], rule=how)
        return w

    def program(self, keeps: Sequence[Tensor] = (), **more: Any) -> Program:
        return Program(tuple(self.k.calls), {"x": self.x}, frozenset(keeps), **more)


def names(program: Program) -> list[list[str]]:
    return [[t.name for t in members] for members in together(program, lambda sets: True).flats.values()]


def test_updates_by_one_rule_become_one() -> None:
    net = Net()
    slopes = [net.gradient(n) for n in "abcd"]
    for slope, how in zip(slopes, (STEP, OTHER, STEP, OTHER), strict=True):
        net.update(slope.name[0], slope, how)
    program = net.program()
    every = [[f"{a}{of}", f"{b}{of}"] for a, b in ("ac", "bd") for of in ("'", ".w", ".h")]
    assert names(program) == every
    assert [[[t.name for t in column] for column in group] for group in columns(program)] == [every[1:3], every[4:]]
    *_, first, second = together(program, lambda sets: True).calls
    assert first.origin == second.origin == SOLVER
    assert {t.shape for t in first.tensors()} == {(32,), ()}  # each on a cache line of its own
    assert [t.kind for t in first.tensors()] == ["buffer", "control", "learned", "history"]
    assert together(program, lambda sets: False) is program


def test_what_stays_alone() -> None:
    net = Net()
    rate = Tensor("other lr", Spec(()), "control")
    large = Tensor("e'", Spec((LARGEST + 1,)), "grad")
    updates: list[tuple[Tensor, dict[str, Any]]] = [
        (net.gradient("a"), {}),
        (net.gradient("b"), {"how": OTHER}),
        (net.gradient("c"), {"lr": rate}),
        (net.gradient("d"), {"kind": "statistic"}),
        (large, {}),
        (Tensor("f'", Spec((3,), "float64"), "grad"), {}),
        (Tensor("g'", Spec((3,), layout="work:12"), "grad"), {}),
        (Tensor("h'", Spec(()), "grad"), {}),
        (Tensor("i'", Spec((0,)), "grad"), {}),
        (net.gradient("j"), {"origin": Origin("j")}),
    ]
    for slope, more in updates:
        net.update(slope.name[0], slope, **more)
    kept = net.gradient("k")
    net.update("k", kept)
    assert names(net.program([kept])) == []
    assert names(net.program()) == [["a'", "k'"], ["a.w", "k.w"], ["a.h", "k.h"]]
    assert names(net.program(visible=frozenset([kept]))) == []


def test_two_updates_of_one_gradient_or_parameter_stay_apart() -> None:
    net = Net()
    slope = net.gradient("a")
    net.update("a", slope)
    net.update("b", slope)
    once_more, *_ = net.k.calls[-2:]
    net.k.calls.append(replace(once_more, args=((net.gradient("c"), net.lr), once_more.args[1])))
    assert names(net.program()) == []


@pytest.mark.parametrize("how", ["reads", "none"])
def test_a_call_between_that_sees_the_parameter(how: str) -> None:
    net = Net()
    first, second = net.gradient("a"), net.gradient("b")
    w = net.update("a", first)
    seen = net.k.new("seen", Spec((3,)), "data")
    net.k.pointwise([w if how == "reads" else net.x], seen, expr="a + 1")
    net.update("b", second)
    assert bool(names(net.program([seen]))) == (how == "none")


def test_where_they_lie() -> None:
    net = Net()
    shapes = {"a": (3,), "b": (20, 3), "c": (16,)}
    slopes = {n: net.gradient(n, (1, 3) if n == "b" else (3,)) for n in "ab"}
    for name, shape in shapes.items():
        net.x = Tensor("y", Spec(shape), "feed")
        slopes[name] = net.gradient(name, shape)
    for name, slope in slopes.items():
        net.update(name, slope)
    program = together(net.program(), lambda sets: True)
    raw, *_ = program.flats
    assert places(program.flats[raw]) == ([0, 64, 64 + 256], 64 + 256 + 64)
    memory = plan(program)
    assert [memory.offsets[t] - memory.offsets[raw] for t in program.flats[raw]] == [0, 64, 320]
    assert memory.held == plan(net.program()).held
    assert {t.name for t in program.persistent()} == {t.name for t in net.program().persistent()}


def test_memory_that_is_there_already() -> None:
    device = Fast(numpy=True)
    a, b, c = (Tensor(n, Spec((5,)), "learned") for n in "abc")
    memory = Memory(device)
    assert memory.reserve((a, b))
    assert "a" not in memory
    assert memory.reserve((a, b))
    assert not memory.reserve((b, c))
    memory.write(b, np.arange(5))
    assert "b" in memory
    flat = memory.flat((a, b))
    assert "a" in memory
    assert flat.tolist() == [0] * 16 + [0, 1, 2, 3, 4] + [0] * 11
    flat += 1
    assert memory.read(a).tolist() == [1] * 5
    memory.write(c, np.ones(5))
    assert not memory.reserve((c,))
    memory.write(Tensor("a", Spec((99,)), "learned"), np.ones(99))
    assert not memory.reserve((a, b))


def test_a_session_whose_parameters_have_memory_runs_them_one_by_one() -> None:
    net = Net()
    for slope in [net.gradient(n) for n in "ab"]:
        net.update(slope.name[0], slope)
    device = Fast(numpy=True)
    found = []
    for early in (False, True):
        memory = Memory(device)
        w = Tensor("b.w", Spec((3,)), "learned")
        if early:
            memory.write(w, np.zeros(3))
        session = Session(net.program(), device, memory)
        assert bool(session.program.flats) is not early
        session.write(net.lr, 0.5)
        session.feed({"x": np.arange(3)})
        session.run()
        session.run()
        found.append(memory.read(w).tolist())
    assert found[0] == found[1] == [0, -2.5, -5]


# ----------------------------------------------------------------------------------------------------------- a training
NET = """
net_param {
  layer { name: "in" type: "DummyData" top: "x" top: "t" dummy_data_param {
    shape { dim: 4 dim: 3 dim: 6 dim: 6 } shape { dim: 4 }
    data_filler { type: "gaussian" } data_filler { type: "constant" value: 2 } } }
  layer { name: "conv" type: "Convolution" bottom: "x" top: "y" param { } param { lr_mult: 2 decay_mult: 0 }
    convolution_param { num_output: 20 kernel_size: 3 weight_filler { type: "xavier" } } }
  layer { name: "bn" type: "BatchNorm" bottom: "y" top: "y" }
  layer { name: "scale" type: "Scale" bottom: "y" top: "y" scale_param { bias_term: true } }
  layer { name: "bn2" type: "BatchNorm" bottom: "y" top: "y" }
  layer { name: "relu" type: "ReLU" bottom: "y" top: "y" }
  layer { name: "ip" type: "InnerProduct" bottom: "y" top: "z" param { name: "w" } param { lr_mult: 2 decay_mult: 0 }
    inner_product_param { num_output: 320 weight_filler { type: "xavier" } } }
  layer { name: "tied" type: "InnerProduct" bottom: "z" top: "u" param { name: "w" } param { lr_mult: 2 decay_mult: 0 }
    inner_product_param { num_output: 320 weight_filler { type: "xavier" } } }
  layer { name: "frozen" type: "InnerProduct" bottom: "u" top: "v" param { lr_mult: 0 } param { lr_mult: 0 }
    inner_product_param { num_output: 30 weight_filler { type: "xavier" } } }
  layer { name: "last" type: "InnerProduct" bottom: "v" top: "p" param { } param { lr_mult: 2 decay_mult: 0 }
    inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
  layer { name: "loss" type: "SoftmaxWithLoss" bottom: "p" bottom: "t" top: "loss" }
}
base_lr: 0.01 lr_policy: "fixed" max_iter: 100 snapshot_after_train: false random_seed: 1 weight_decay: 0.01
"""
TRAININGS = {
    "SGD": "momentum: 0.9",
    "clipped": "clip_gradients: 0.5 momentum: 0.9",
    "several passes": "iter_size: 3 clip_gradients: 0.5",
    "L1": 'regularization_type: "L1" momentum: 0.9',
    "Adam": 'type: "Adam" momentum: 0.9',
    "LARS": 'type: "LARS" momentum: 0.9',
    "AdaDelta": 'type: "AdaDelta" momentum: 0.9 delta: 1e-4',
    "diffs": "snapshot_diff: true momentum: 0.9",
    "looked at": "debug_info: true momentum: 0.9",
}


def trained(text: str, device: Fast) -> tuple[list[Any], list[Call]]:
    message, _ = parse_solver(NET + text)
    with Solver(message, device=device) as solver:
        solver.step(4)
        tensors = [*solver.training.recording.parameters.values()]
        tensors += [t for row in solver.training.history.values() for t in row]
        found = [solver.memory.read(t) for t in tensors]
        sessions = [solver._step, *([solver._update] if solver._update else [])]
        return found, [call for session in sessions for call in session.program.calls if call.op.name == "update"]


@pytest.mark.parametrize("numpy", [False, True])
@pytest.mark.parametrize("name", TRAININGS)
def test_no_bit_changes(name: str, numpy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, few = trained(TRAININGS[name], Fast(numpy))
    monkeypatch.setattr(Fast, "joins", False)
    wanted, many = trained(TRAININGS[name], Fast(numpy))
    assert len(few) < len(many) or name == "looked at"
    for a, b in zip(ours, wanted, strict=True):
        assert a.tobytes() == b.tobytes()


def test_what_a_net_comes_to() -> None:
    message, _ = parse_solver(NET + "momentum: 0.9")
    with Solver(message, device=Fast(numpy=True)) as solver:
        program = drop_unread(elide_copies(solver.training.step)[0])
    wanted = [
        ["conv.weight", "scale.scale", "scale.bias", "last.weight"],
        ["conv.bias", "ip.bias", "tied.bias", "last.bias"],
    ]
    found = [[t.name for t in group[0]] for group in columns(program) if group[0][0].kind == "learned"]
    assert [group for group in found if group[0].startswith("conv")] == wanted


# ------------------------------------------------------------------------------------------------ what is filled once
def test_little_tensors_are_filled_once() -> None:
    k = Recorder()
    made = {n: k.new(n, Spec((s,)), "buffer") for n, s in (("once", 4), ("twice", 4), ("large", 2000), ("kept", 4))}
    for name in ("once", "twice", "twice", "large", "kept"):
        k.fill(made[name], value=2.0)
    x, y, z = Tensor("x", Spec((4,)), "feed"), Tensor("y", Spec((4,)), "data"), Tensor("z", Spec((4,)), "data")
    k.pointwise([made["once"], x], y, expr="a + b")  # could lie over its first input
    k.pointwise([y, made["twice"]], z, expr="a * b")
    k.update([x], [made["large"].view((500, 4))], rule=rule(["a"], ["v"], "v = v + a"))
    program = Program(tuple(k.calls), {"x": x}, frozenset({y, z, made["kept"]}))
    assert [c.writes()[0].name for c in filled_calls(program)] == ["once"]
    session = Session(program, Fast(numpy=True))
    once = next(step for call, step in zip(session.program.calls, session.steps, strict=True) if call.op.name == "fill")
    session.feed({"x": np.arange(4)})
    for _ in range(3):
        session.run()
        assert session.read(y).tolist() == [2, 3, 4, 5]
    session.array(made["once"])[:] = 7  # nobody fills it again
    session.run()
    assert session.read(z).tolist() == [14, 16, 18, 20]
    once()
    session.run()
    assert session.read(y).tolist() == [2, 3, 4, 5]


def test_what_code_of_a_users_own_gets_is_filled_every_time() -> None:
    k = Recorder()
    given, made = k.new("given", Spec((4,)), "buffer"), k.new("made", Spec((4,)), "data")
    k.fill(given, value=2.0)
    call = Call(OPS["host"], ((given,), (made,)), {"fn": lambda *arrays: None}, "mine")
    assert filled_calls(Program((*k.calls, call), {}, frozenset({made}))) == []
