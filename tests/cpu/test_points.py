"""Convolutions as products at points: the identity behind them, and the three kernels against direct sums."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from netrun.cpu import dnnl, frequencies, points
from netrun.cpu.fast import Fast
from netrun.cpu.reference import Reference
from netrun.program import Call, Origin, Program, Recorder
from netrun.session import Memory, Session
from netrun.types import Spec, Tensor, Window

needs_library = pytest.mark.skipif(dnnl.library() is None, reason=f"no oneDNN here: {dnnl.reason()}")


@pytest.fixture(autouse=True)
def points_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where products at frequencies would be faster."""
    monkeypatch.setattr(frequencies, "ENABLED", False)


def test_a_tile_is_a_correlation() -> None:
    a, g, b = points.matrices()
    generator = np.random.default_rng(0)
    x, w = generator.standard_normal(points.POINTS), generator.standard_normal(points.WINDOW)
    np.testing.assert_allclose(a @ ((b @ x) * (g @ w)), np.correlate(x, w, "valid"), 1e-12, 1e-12)


def program(x: tuple[int, ...], outputs: int, pad: tuple[int, int], then: bool, bias: bool = True) -> Program:
    """A convolution with its gradients on given arrays: x, dy, w and b."""
    k = Recorder()
    k.origin = Origin("conv")
    window = Window((5, 5), (1, 1), pad)
    shape = (x[0], outputs, *window.output(x[2:]))
    given, seed = Tensor("x", Spec(x), "feed"), Tensor("dy", Spec(shape), "feed")
    w, b = Tensor("w", Spec((outputs, x[1], 5, 5)), "learned"), Tensor("b", Spec((outputs,)), "learned")
    y, z, dx = k.new("y", seed.spec, "data"), k.new("z", seed.spec, "data"), k.new("dx", given.spec, "data")
    dw, db = k.new("dw", w.spec, "data"), k.new("db", b.spec, "data")
    k.conv(given, w, b if bias else None, y, window=window, groups=1)
    if then:
        k.pointwise([y], z, expr="relu(a, 0.1)")
    k.conv_grad_w(given, seed, dw, window=window, groups=1)
    k.reduce([seed], db, expr="a", how="sum", axes=(0, 2, 3))
    k.conv_grad_x(w, seed, dx, window=window, groups=1)
    return Program(tuple(k.calls), {"x": given, "dy": seed}, frozenset({z if then else y, dx, dw, db}))


def run(program: Program, device: Any) -> tuple[list[np.ndarray[Any, Any]], tuple[Call, ...]]:
    session = Session(program, device)
    generator = np.random.default_rng(1)
    for name in ("x", "dy", "w", "b"):
        for t in {t.root for t in program.tensors() if t.root.name == name}:
            session.write(t, generator.standard_normal(t.shape))
    session.run()
    return [session.read(t) for t in sorted(program.keeps, key=lambda t: t.name)], session.program.calls


SHAPES = {
    "whole tiles": ((16, 20, 12, 12), 50, (0, 0)),
    "tiles that stick out, padding": ((17, 24, 7, 10), 40, (2, 1)),
    "blocked channels": ((16, 32, 8, 8), 64, (2, 2)),
    "two chunks": ((34, 24, 16, 16), 24, (2, 2)),
    "one tile": ((16, 48, 8, 7), 48, (0, 0)),
}


@needs_library
@pytest.mark.parametrize("then", [False, True], ids=["", "relu"])
@pytest.mark.parametrize("name", SHAPES)
def test_equals_the_reference(name: str, then: bool) -> None:
    made = program(*SHAPES[name], then)
    got, calls = run(made, Fast())
    found = [c for c in calls if c.op.name.startswith("conv")]
    assert [points.takes(c) for c in found] == [True] * 2
    assert {c.op.name for c in found} <= {"conv", "conv_keep", "conv_grads"}
    for g, w in zip(got, run(made, Reference())[0], strict=True):
        np.testing.assert_allclose(g, w, 1e-4, 2e-5 * float(np.abs(w).max()))


def inside(made: Program, seen: bool) -> Program:
    """The same on what other kernels make and read, as in a net; ``seen``: x is kept."""
    k, after = Recorder(), Recorder()
    k.origin = after.origin = Origin("around")
    given = {t: k.new(f"{name} inside", t.spec, "data") for name, t in made.feeds.items()}
    for t, own in given.items():
        k.pointwise([t], own, expr="2 * a")
    (dx,) = [t for t in made.keeps if t.name == "dx"]
    end = after.new("end", dx.spec, "data")
    after.pointwise([dx], end, expr="2 * a")
    calls = [c.map(lambda t: given.get(t, t)) for c in made.calls]
    keeps = made.keeps - {dx} | {end} | ({given[made.feeds["x"]]} if seen else set())
    return replace(made, calls=(*k.calls, *calls, *after.calls), keeps=keeps)


@needs_library
@pytest.mark.parametrize("seen", [False, True])
def test_values_at_points_serve_the_gradients(seen: bool) -> None:
    """Unless somebody may look at x, and write there, between forward and backward."""
    made = inside(program(*SHAPES["whole tiles"], then=False), seen)
    got, prepared = run(made, Fast())
    assert ("conv_keep" in {c.op.name for c in prepared}) != seen
    for g, w in zip(got, run(made, Reference())[0], strict=True):
        np.testing.assert_allclose(g, w, 1e-4, 2e-5 * float(np.abs(w).max()))


@needs_library
@pytest.mark.parametrize("gone", ["conv_grad_x", "conv_grad_w", "reduce"])
def test_a_gradient_alone(gone: str) -> None:
    """Without one of them, the others are calls of their own."""
    made = program(*SHAPES["two chunks"], then=False)
    calls = [c for c in made.calls if c.op.name != gone]
    written = {t for c in calls for t in c.writes()}
    made = replace(made, calls=tuple(calls), keeps=made.keeps & written)
    got, prepared = run(made, Fast())
    assert "conv_grads" not in {c.op.name for c in prepared}
    for g, w in zip(got, run(made, Reference())[0], strict=True):
        np.testing.assert_allclose(g, w, 1e-4, 2e-5 * float(np.abs(w).max()))


@needs_library
def test_without_a_bias() -> None:
    made = program(*SHAPES["one tile"], then=True, bias=False)
    for g, w in zip(run(made, Fast())[0], run(made, Reference())[0], strict=True):
        np.testing.assert_allclose(g, w, 1e-4, 2e-5 * float(np.abs(w).max()))


@needs_library
def test_frozen_sessions_see_changed_weights() -> None:
    """The weights' values at points are made anew in every run; nothing of them is packed beforehand."""
    made = program(*SHAPES["one tile"], then=False)
    device = Fast()
    memory = Memory(device)
    session = Session(made, device, memory, frozen=True)
    (w,) = {t.root for t in made.tensors() if t.root.name == "w"}
    (y,) = [t for t in made.keeps if t.name == "y"]
    session.feed({"x": np.ones(SHAPES["one tile"][0]), "dy": np.ones(y.shape)})
    for value in (0.5, 2.0):
        memory.write(w, np.full(w.shape, value))
        session.run()
        np.testing.assert_allclose(session.read(y), 25 * 48 * value, 1e-4)


@pytest.mark.parametrize(("images", "size"), [(34, 17), (16, 16), (160, 20), (5, 5), (67, 67)])
def test_chunks_divide_the_images(images: int, size: int) -> None:
    assert points.chunk(Spec((images, 32, 16, 16)), Spec((images, 32, 16, 16))) == size


WINDOW = Window((5, 5))
BIG = Spec((64, 20, 12, 12)), Spec((50, 20, 5, 5)), Spec((64, 50, 8, 8))


@pytest.mark.parametrize(
    ("x", "w", "y", "window", "groups", "wanted"),
    [
        (*BIG, WINDOW, 1, True),
        (*BIG, WINDOW, 2, False),
        (*BIG, Window((5, 5), (2, 2)), 1, False),
        (*BIG, Window((5, 5), (1, 1), (0, 0), (2, 2)), 1, False),
        (Spec((64, 20, 12, 12)), Spec((50, 20, 3, 3)), Spec((64, 50, 10, 10)), Window((3, 3)), 1, False),
        (Spec((1, 20, 12, 12)), BIG[1], Spec((1, 50, 8, 8)), WINDOW, 1, False),  # rows of one image
        (Spec((64, 1, 28, 28)), Spec((20, 1, 5, 5)), Spec((64, 20, 24, 24)), WINDOW, 1, False),  # hardly any products
        (Spec((256, 64, 27, 27)), Spec((192, 64, 5, 5)), Spec((256, 192, 23, 23)), WINDOW, 1, True),
        (Spec((257, 64, 27, 27)), Spec((192, 64, 5, 5)), Spec((257, 192, 23, 23)), WINDOW, 1, False),  # a prime: 600 MB
        (Spec(BIG[0].shape, layout="last/bf16"), *BIG[1:], WINDOW, 1, False),
    ],
)
def test_where_it_is_worth_it(x: Spec, w: Spec, y: Spec, window: Window, groups: int, wanted: bool) -> None:
    assert points.worth(x, w, y, window, groups) == wanted
