"""The memory plan: no two living tensors share a byte, whatever the program."""

from __future__ import annotations

import random

import numpy as np
import pytest

from netrun.compiler.passes import drop_unread, elide_copies
from netrun.compiler.plan import plan
from netrun.cpu.reference import Reference
from netrun.expression import letters
from netrun.kernels import OPS
from netrun.program import Call, Origin, Program, Recorder
from netrun.session import Session
from netrun.types import Spec, Tensor


def random_program(seed: int) -> Program:
    """Pointwise calls, copies, sums and splits over random earlier values; a random few of them kept."""
    rng = random.Random(seed)
    recorder = Recorder()
    feeds = [Tensor(f"f{i}", Spec((rng.choice([2, 6]), 4)), "feed") for i in range(2)]
    values = list(feeds)
    for i in range(rng.randint(3, 25)):
        recorder.origin = Origin(f"l{i}")
        x = rng.choice(values[-6:])
        kind = rng.random()
        if kind < 0.55:
            others = [v for v in values[-6:] if v.shape == x.shape]
            xs = [x, *rng.sample(others, rng.randint(0, min(2, len(others))))]
            made = recorder.new("v", x.spec, "data")
            recorder.pointwise(xs, made, expr=" + ".join(letters(len(xs))) + " * 0.5")
            values.append(made)
        elif kind < 0.75:
            made = recorder.new("v", Spec((x.spec.count,)) if rng.random() < 0.5 else x.spec, "data")
            recorder.copy(x, made)
            values.append(made.view(x.shape) if rng.random() < 0.5 and made.shape == x.shape else made)
        elif kind < 0.9 and len(x.shape) == 2:
            parts = [recorder.new("v", Spec((x.shape[0], n)), "data") for n in (1, x.shape[1] - 1) if n]
            recorder.split(x, parts, axis=1)
            values += parts
        else:
            made = recorder.new("v", Spec(()), "data")
            recorder.reduce([x], made, expr="a", how="sum", axes=tuple(range(len(x.shape))))
            values.append(made)
    made = {t.root for c in recorder.calls for t in c.writes()}
    keeps = rng.sample(sorted(made, key=lambda t: t.name), min(2, len(made)))
    last = recorder.calls[-1].writes()[0].root
    return Program(tuple(recorder.calls), {f.name: f for f in feeds}, frozenset([*keeps, last]))


def naive(program: Program, feeds: dict[str, np.ndarray]) -> dict[Tensor, np.ndarray]:
    """The program with memory of its own for every tensor."""
    arrays: dict[Tensor, np.ndarray] = {program.feeds[n]: v for n, v in feeds.items()}
    device = Reference()

    def array(tensor: Tensor) -> np.ndarray:
        root = arrays.setdefault(tensor.root, np.full(tensor.root.shape, np.nan, np.float32))
        return root.reshape(tensor.shape)

    for call in program.calls:
        args = [tuple(map(array, a)) if isinstance(a, tuple) else None if a is None else array(a) for a in call.args]
        device.bind(call, args, None)()
    return arrays


@pytest.mark.parametrize("seed", range(300))
def test_planned_runs_equal_unplanned_ones(seed: int) -> None:
    program = random_program(seed)
    rng = np.random.default_rng(seed)
    feeds = {name: rng.normal(size=t.shape).astype(np.float32) for name, t in program.feeds.items()}
    wanted = naive(program, feeds)
    session = Session(program, Reference())
    for _ in range(2):  # the second run meets what the first one left in the arena
        session.feed(feeds)
        session.run()
        for tensor in program.keeps:
            np.testing.assert_allclose(session.read(tensor), wanted[tensor], 1e-6, 1e-6)


@pytest.mark.parametrize("seed", range(300))
def test_living_tensors_never_overlap(seed: int) -> None:
    program = drop_unread(elide_copies(random_program(seed))[0])
    layout = plan(program)
    first: dict[Tensor, int] = {}
    last: dict[Tensor, int] = {}
    for i, call in enumerate(program.calls):
        for tensor in call.tensors():
            first.setdefault(tensor.root, i)
            last[tensor.root] = i
    placed = [(t, layout.offsets[t], layout.offsets[t] + t.spec.nbytes) for t in layout.offsets]
    for i, (a, a0, a1) in enumerate(placed):
        assert a0 >= 0
        assert a1 <= layout.arena
        for b, b0, b1 in placed[:i]:
            if a0 < b1 and b0 < a1:
                # Sharing bytes is right only one after the other; they may meet in the one call that goes in place.
                early, late = (a, b) if last[a] <= first[b] else (b, a)
                assert last[early] <= first[late]
                if last[early] == first[late]:
                    assert program.calls[first[late]].op.name in {"pointwise", "copy"}
    assert layout.arena <= layout.naive


def chain(length: int) -> Program:
    recorder = Recorder()
    x = Tensor("x", Spec((64, 64)), "feed")
    value = x
    for i in range(length):
        recorder.origin = Origin(f"l{i}")
        made = recorder.new("v", x.spec, "data")
        recorder.pointwise([value], made, expr="tanh(a)")
        value = made
    return Program(tuple(recorder.calls), {"x": x}, frozenset([value]))


def test_a_chain_runs_in_one_place() -> None:
    layout = plan(chain(10))
    assert layout.arena == 64 * 64 * 4
    assert layout.naive == 9 * 64 * 64 * 4
    assert layout.held == 2 * 64 * 64 * 4


def test_copies_vanish_unless_something_changes_in_place() -> None:
    x, y, z = Tensor("x", Spec((4,)), "feed"), Tensor("y", Spec((2, 2))), Tensor("z", Spec((4,)))
    w, seen = Tensor("w", Spec((4,)), "learned"), Tensor("seen", Spec((4,)))
    recorder = Recorder()
    recorder.copy(x, y)
    recorder.pointwise([y.view((4,))], z, expr="a + 1")
    program = Program(tuple(recorder.calls), {"x": x}, frozenset([z]))
    assert [str(c) for c in elide_copies(program)[0].calls] == ['z <- pointwise (x) | expr="a + 1"']
    recorder = Recorder()
    recorder.copy(w, seen)
    from netrun.expression import rule

    recorder.update([z], [w], rule=rule(["g"], ["w"], "w = w - g"))
    kept = Program(tuple(recorder.calls), {}, frozenset([seen]))
    assert [c.op.name for c in elide_copies(kept)[0].calls] == ["copy", "update"]


def test_calls_nobody_needs_are_dropped() -> None:
    program = chain(3)
    extra = Call(
        OPS["pointwise"], ((program.feeds["x"],), Tensor("unused", Spec((64, 64)))), {"expr": "a"}, Origin("extra")
    )
    assert len(drop_unread(program.having([*program.calls, extra])).calls) == 3
