"""Forms of parameters that updates keep true: nothing is cast or transposed in an iteration, and nothing is stale
whoever writes a parameter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakestream
import numpy as np
import pytest
from test_adding import DATA, END, conv, solver

import netrun.storage
from layers_cuda import turned
from layers_cuda.device import Cuda
from layers_cuda.turned import UPDATE_TURNED
from netrun.config import schema
from netrun.expression import rule
from netrun.net_solver import NetSolver
from netrun.program import Call, Origin
from netrun.session import Session
from netrun.solver import Solver
from netrun.types import Spec, Tensor

Make = Callable[..., Cuda]

FIXED = "param { lr_mult: 0 } param { lr_mult: 0 }"
NET = f"{DATA} {conv('a', 'data', 8, 3)} {conv('b', 'a', 8, 3, FIXED)} {conv('last', 'b', 6)} {END}"
"""Filters of 3x3 that are trained and that are not, one of 1x1, and a matrix."""

NEAR = {"TF32": 1e-4, "BF16": 0.05, "FP16": 0.02}
MOVES = {"move_transposed", "move_strided", "copy"}


def message(precision: str, more: str = "") -> schema.SolverParameter:
    return solver(NET, precision, more)


def values(run: Solver) -> dict[str, Any]:
    return {p.key: run.memory.read(t) for p, t in run.training.recording.parameters.items()}


def alike(run: Solver, plain: Solver, near: float) -> None:
    for (key, got), exact in zip(values(run).items(), values(plain).values(), strict=True):
        np.testing.assert_allclose(got, exact, 0, near * max(1.0, float(np.abs(exact).max())), err_msg=key)


@pytest.fixture(params=["TF32", "BF16", "FP16"])
def both(request: pytest.FixtureRequest, make_device: Make) -> Any:
    """A solver on the stand-in in a lower precision and one on the CPU, after two iterations, and how near they are."""
    precision: str = request.param
    with Solver(message(precision), device=make_device()) as run, Solver(message("FP32"), device="cpu") as plain:
        run.step(2)
        plain.step(2)
        yield run, plain, NEAR[precision]


def test_an_iteration_moves_no_parameter(both: Any) -> None:
    run, plain, near = both
    alike(run, plain, near)
    session: Session = run.sessions[0]
    fakestream.log.clear()
    run.step(1)
    log = list(fakestream.log)
    assert log.count("update_turned") == 1
    updated = {t.root for c in session.program.calls if c.op.changes for t in c.writes()}
    moved = [c for c in session.program.calls if c.op.name in ("copy", "transpose") and c.reads()[0].kind == "learned"]
    every = [c for c in moved if c.reads()[0].root not in updated]
    assert {c.reads()[0].name.split(".")[0] for c in every} <= {"b"}  # which no update keeps true
    assert sum(name in MOVES for name in log) <= len(every) + 5


def written(run: Solver, solver: Solver) -> None:
    """Somebody writes other numbers into all parameters, on both devices."""
    rng = np.random.default_rng(5)
    for p, t in run.training.recording.parameters.items():
        other = rng.standard_normal(t.shape) * 0.1
        run.memory.write(t, other)
        for q, s in solver.training.recording.parameters.items():
            if q.key == p.key:
                solver.memory.write(s, other)


def test_what_somebody_writes_is_used(both: Any) -> None:
    run, plain, near = both
    written(run, plain)
    for one in (run, plain):
        one.step(1)
    assert run.losses[-1] == pytest.approx(plain.losses[-1], rel=near, abs=near / 10)
    alike(run, plain, near)
    for one in (run, plain):
        one.step(2)
    alike(run, plain, near)


def test_a_state_that_is_restored_is_used(both: Any, tmp_path: Path) -> None:
    run, plain, near = both
    for i, one in enumerate((run, plain)):
        one.prefix = str(tmp_path / f"net{i}")
        one.snapshot()
    written(run, plain)
    for i, one in enumerate((run, plain)):
        one.step(1)
        one.restore(str(next(tmp_path.glob(f"net{i}*.solverstate*"))))
        one.step(2)
    alike(run, plain, near)
    assert run.losses[-1] == pytest.approx(plain.losses[-1], rel=near, abs=near / 10)


def test_the_forward_pass_alone_sees_what_was_written(both: Any) -> None:
    run, plain, near = both
    written(run, plain)
    for one in (run, plain):
        one._forward_only()
    found = [one.sessions[0].read(one.training.recording.losses[0][0]) for one in (run, plain)]
    np.testing.assert_allclose(*found, near, near / 10)


def test_a_second_session_on_the_same_parameters(both: Any) -> None:
    """Each notices what the other has changed."""
    run, plain, near = both
    first: Session = run.sessions[0]
    second = Session(run.training.step, run.device, run.memory, first.own)
    for session in (second, first, second):
        session.run()
        plain.sessions[0].run()
    alike(run, plain, near)


@pytest.mark.parametrize("precision", ["TF32", "BF16"])
def test_test_nets_see_every_update(precision: str, make_device: Make) -> None:
    more = "test_iter: 1 test_interval: 1 test_initialization: true"
    tests = []
    for device, how in ((make_device(), precision), ("cpu", "FP32")):
        text = solver(NET, how, more)
        text.test_net_param.add().CopyFrom(text.net_param)
        found: list[float] = []
        with Solver(text, device=device) as run:
            for _ in range(3):
                run.step(1)
                session, recording = run.sessions[1], run.runners[1].recording
                session.run()
                found.append(float(session.read(recording.losses[0][0])))
        tests.append(found)
    np.testing.assert_allclose(*tests, NEAR[precision], NEAR[precision] / 10)


@pytest.mark.parametrize("precision", ["TF32", "BF16"])
def test_a_net_that_is_looked_into(precision: str, make_device: Make) -> None:
    """What is written into net.params reaches the next iteration."""
    losses = []
    for device, how in ((make_device(), precision), ("cpu", "FP32")):
        found: list[float] = []
        with NetSolver(message(how), device=device) as run:
            run.step(2)
            run.net.params["a"][0].data[...] = np.linspace(-0.2, 0.2, 8 * 27).reshape(8, 3, 3, 3)
            run.step(1)
            found += [run.losses[-1], float(np.abs(run.net.params["a"][0].data).sum())]
        losses.append(found)
    np.testing.assert_allclose(*losses, NEAR[precision], NEAR[precision] / 10)


@pytest.mark.parametrize("precision", ["TF32", "BF16", "FP16"])
@pytest.mark.parametrize("more", ["iter_size: 2", "clip_gradients: 0.1", 'type: "Adam"', "snapshot_diff: true"])
def test_other_solvers(more: str, precision: str, make_device: Make) -> None:
    text = message(precision, more if "Adam" not in more else more + " momentum2: 0.99 delta: 0.01")
    exact = schema.SolverParameter()
    exact.CopyFrom(text)
    exact.precision = schema.FP32
    with Solver(text, device=make_device()) as run, Solver(exact, device="cpu") as plain:
        run.step(3)
        plain.step(3)
        alike(run, plain, NEAR[precision])
        if "iter_size" not in more:
            assert any(c.op is UPDATE_TURNED for c in run.sessions[0].program.calls)


def test_large_parameters_have_one_form_for_both_ways(make_device: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netrun.storage, "SMALL", 0)
    with Solver(message("BF16"), device=make_device()) as run, Solver(message("FP32"), device="cpu") as plain:
        run.step(3)
        plain.step(3)
        alike(run, plain, NEAR["BF16"])
        casts = [
            c for c in run.sessions[0].program.calls if c.op.name == "copy" and c.reads()[0].root.kind == "learned"
        ]
        of_ip = [c for c in casts if c.reads()[0].root.name.startswith("ip")]
        assert len(of_ip) == len({c.reads()[0].root for c in of_ip})


# ---------------------------------------------------------------------------------------------------------- the kernel
RULE = rule(["g", "rate"], ["w", "h", "form0"], "h = 0.5 * h + rate * g; w = w - h; form0 = w")
PLAIN = rule(["g", "rate"], ["w", "h"], "h = 0.5 * h + rate * g; w = w - h")


@pytest.mark.parametrize("shuffle", ["", "7"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("of", "forms"), [(0, 1), (0, 0), (-1, 1)])
def test_updates_of_filters(
    of: int, forms: int, dtype: str, shuffle: str, device: Cuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all sizes in one launch: several chunks of a filter, chunks that do not divide it, one channel, five axes."""
    if shuffle:
        monkeypatch.setenv("CUDA_CPU_SHUFFLE", shuffle)
    rng = np.random.default_rng(0)
    tensors, wanted = [], []

    def placed(spec: Spec, given: Any) -> Any:
        array = device.array(device.allocate(spec.nbytes), 0, spec)
        device.write(array, given)
        return array

    rate = placed(Spec(()), 0.1)
    for shape in ((8, 16, 3, 3), (3, 700, 3, 3), (2, 5, 7, 7), (2, 1, 3, 3), (2, 6, 3, 2, 2), (1, 9, 31, 33)):
        axes = (0, *range(2, len(shape)), 1)
        last = tuple(shape[i] for i in axes)
        w, h, g = (rng.standard_normal(shape).astype("float32") for _ in range(3))
        arrays = [placed(Spec(shape), w), placed(Spec(shape), h)]
        gradient = placed(Spec(last, dtype), g.transpose(axes)) if of == 0 else placed(Spec((), dtype), 0.25)
        form = [placed(Spec(last, dtype), np.full(last, np.nan))] * forms
        slope = device.read(gradient).astype("float32")
        slope = slope.transpose(np.argsort(axes)) if of == 0 else slope
        h = np.float32(0.5) * h + np.float32(0.1) * slope
        tensors.append(((gradient, rate), tuple(arrays), tuple(form)))
        wanted.append((w - h, h, (w - h).transpose(axes)))
    turned.together(device, RULE if forms else PLAIN, of, tensors)()
    for (_, arrays, form), exact in zip(tensors, wanted, strict=True):
        for array, value in zip(arrays, exact, strict=False):
            np.testing.assert_allclose(device.read(array), value, 1e-5, 1e-6)
        for array in form:
            np.testing.assert_allclose(device.read(array), exact[2], 1e-5 if dtype == "float32" else 1e-2, 1e-3)


def test_one_alone(device: Cuda) -> None:
    w, g = (np.arange(2 * 3 * 4, dtype="float32").reshape(s) for s in ((2, 3, 2, 2), (2, 2, 2, 3)))
    given = []
    for value in (g, np.float32(2), w, np.zeros_like(w)):
        given.append(device.array(device.allocate(max(value.nbytes, 1)), 0, Spec(np.shape(value))))
        device.write(given[-1], value)
    tensors = [Tensor(n, Spec(tuple(a.shape))) for n, a in zip(["g", "rate", "w", "h"], given, strict=True)]
    call = Call(
        UPDATE_TURNED, (tuple(tensors[:2]), tuple(tensors[2:]), ()), {"rule": PLAIN, "turned": 0}, Origin("l").update
    )
    device.bind(call, [tuple(given[:2]), tuple(given[2:]), ()], None)()
    np.testing.assert_array_equal(device.read(given[2]), w - 2 * g.transpose(0, 3, 1, 2))
