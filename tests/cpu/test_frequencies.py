"""Convolutions as products at frequencies: the identity behind them, the kernels against direct sums, when they run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from netrun.cpu import dnnl, frequencies
from netrun.cpu.fast import Fast
from netrun.cpu.frequencies import DATA, FORMS, RESULT, WEIGHTS, Axis, Sizes
from netrun.cpu.layouts import is_half, work
from netrun.cpu.onednn import CONV_KEEP, GRADS, Recipes
from netrun.cpu.reference import Reference
from netrun.kernels import OPS, Op
from netrun.program import Call, Origin, Program, Recorder
from netrun.session import Memory, Session
from netrun.types import Numerics, Spec, Tensor, Window

LIBRARY = dnnl.library()
needs_library = pytest.mark.skipif(LIBRARY is None, reason=f"no oneDNN here: {dnnl.reason()}")
Values = np.ndarray[Any, Any]


@pytest.mark.parametrize(
    ("size", "window"),
    [
        ((12, 12), Window((5, 5))),
        ((7, 10), Window((5, 5), (1, 1), (2, 1))),
        ((6, 9), Window((5, 7), (1, 1), (0, 3), (1, 1), (4, 1))),  # padding at the end alone, or mostly before
        ((9, 13), Window((3, 5), (1, 1), (2, 4), (2, 2))),
        ((5, 5), Window((5, 5), (1, 1), (4, 4))),  # more outputs than pixels
        ((8, 8), Window((5, 5), (1, 1), (6, 0), (1, 1), (6, 0))),  # windows that see nothing but zeros
    ],
)
def test_products_at_frequencies_are_a_correlation(size: tuple[int, int], window: Window) -> None:
    generator = np.random.default_rng(0)
    x, w = generator.standard_normal(size), generator.standard_normal(window.kernel)
    outputs = window.output(size)
    high, wide = (Axis(n, m, window, a, a == 0) for a, (n, m) in enumerate(zip(size, outputs, strict=True)))

    def sums(rows: Values, columns: Values, values: Values) -> Values:
        both = np.einsum("ahm,kbn,mn->bahk", rows.reshape(2, -1, rows.shape[1]),
                         columns.reshape(-1, 2, columns.shape[1]), values)  # fmt: skip
        return np.asarray(both.reshape(4, -1))

    products = (DATA @ sums(high.down, wide.down, x)) * (WEIGHTS @ sums(high.taps, wide.taps, w))
    assert products.size == FORMS * high.length * wide.length // 4
    found = (RESULT @ products).reshape(2, 2, high.length // 2, wide.length // 2)
    got = np.einsum("mah,nkb,bahk->mn", high.up.reshape(outputs[0], 2, -1), wide.up.reshape(outputs[1], -1, 2), found)
    np.testing.assert_allclose(got, direct(x, w, window), 1e-12, 1e-12)


def direct(x: Values, w: Values, window: Window) -> Values:
    """The correlation, tap by tap."""
    padded = np.pad(x, list(zip(window.pad, window.pad_end, strict=True)))
    rows, columns = window.output(x.shape)
    found = np.zeros((rows, columns))
    for (i, j), tap in np.ndenumerate(w):
        top, left = i * window.dilation[0], j * window.dilation[1]
        found += tap * padded[top : top + rows, left : left + columns]
    return found


def program(x: tuple[int, ...], outputs: int, window: Window, then: bool = False, bias: bool = True) -> Program:
    """A convolution with its gradients on given arrays: x, dy, w and b."""
    k = Recorder()
    k.origin = Origin("conv")
    shape = (x[0], outputs, *window.output(x[2:]))
    given, seed = Tensor("x", Spec(x), "feed"), Tensor("dy", Spec(shape), "feed")
    w, b = Tensor("w", Spec((outputs, x[1], *window.kernel)), "learned"), Tensor("b", Spec((outputs,)), "learned")
    y, z, dx = k.new("y", seed.spec, "data"), k.new("z", seed.spec, "data"), k.new("dx", given.spec, "data")
    dw, db = k.new("dw", w.spec, "data"), k.new("db", b.spec, "data")
    k.conv(given, w, b if bias else None, y, window=window, groups=1)
    if then:
        k.pointwise([y], z, expr="relu(a, 0.1)")
    k.conv_grad_w(given, seed, dw, window=window, groups=1)
    k.reduce([seed], db, expr="a", how="sum", axes=(0, 2, 3))
    k.conv_grad_x(w, seed, dx, window=window, groups=1)
    return Program(tuple(k.calls), {"x": given, "dy": seed}, frozenset({z if then else y, dx, dw, db}))


def run(program: Program, device: Any) -> tuple[list[Values], tuple[Call, ...]]:
    session = Session(program, device)
    generator = np.random.default_rng(1)
    for name in ("x", "dy", "w", "b"):
        for t in {t.root for t in program.tensors() if t.root.name == name}:
            session.write(t, generator.standard_normal(t.shape))
    session.run()
    return [session.read(t) for t in sorted(program.keeps, key=lambda t: t.name)], session.program.calls


def agree(made: Program) -> tuple[Call, ...]:
    """The calls of the fast device, whose results are those of the reference as closely as direct sums are."""
    got, calls = run(made, Fast())
    for g, w in zip(got, run(made, Reference())[0], strict=True):
        np.testing.assert_allclose(g, w, 1e-4, 3e-6 * float(np.abs(w).max()))
    return calls


@pytest.fixture
def anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frequencies wherever they can be, fast or not."""
    monkeypatch.setattr(frequencies, "MARGIN", 1e9)
    monkeypatch.setattr(frequencies, "IMAGES", 1)


CASES = {
    "padding": ((16, 24, 7, 10), 40, Window((5, 5), (1, 1), (2, 1))),
    "blocked channels": ((16, 32, 8, 8), 64, Window((5, 5), (1, 1), (2, 2))),
    "odd numbers of everything": ((3, 5, 9, 11), 7, Window((7, 5), (1, 1), (3, 1))),
    "more padding at the end": ((2, 16, 6, 9), 16, Window((5, 5), (1, 1), (0, 2), (1, 1), (3, 1))),
    "dilation": ((2, 8, 13, 14), 9, Window((5, 5), (1, 1), (4, 3), (2, 2))),
    "windows of 11": ((2, 4, 13, 12), 8, Window((11, 11), (1, 1), (5, 5))),
    "one output": ((4, 16, 5, 5), 16, Window((5, 5))),
}


@needs_library
@pytest.mark.usefixtures("anywhere")
@pytest.mark.parametrize("then", [False, True], ids=["", "relu"])
@pytest.mark.parametrize("name", CASES)
def test_equals_the_reference(name: str, then: bool) -> None:
    found = [c for c in agree(program(*CASES[name], then)) if c.op.name.startswith("conv")]
    assert [frequencies.takes(c) for c in found] == [True] * 2
    assert {c.op.name for c in found} <= {"conv", "conv_keep", "conv_grads"}


@needs_library
@pytest.mark.usefixtures("anywhere")
@pytest.mark.parametrize(
    "limits",
    [
        {"ROOM": 1 << 18},
        {"GROUP": 1 << 24},
        {"GROUP": 0, "PIECE": 50_000},
        {"ROOM": 1 << 18, "GROUP": 0, "PIECE": 30_000},
    ],
    ids=["chunks", "one group", "pieces", "chunks of pieces"],
)
def test_chunks_groups_and_pieces(limits: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in limits.items():
        monkeypatch.setattr(frequencies, name, value)
    x, outputs, window = (12, 16, 9, 8), 24, Window((5, 5), (1, 1), (2, 2))
    s = Sizes(Spec(x), Spec((outputs, x[1], 5, 5)), Spec((x[0], outputs, 9, 8)), window)
    assert (s.chunk < 12) == ("ROOM" in limits)
    assert (len(s.pieces) > 1) == ("PIECE" in limits)
    assert s.group == (1 if "PIECE" in limits else s.wide // 2 if "GROUP" in limits else s.group)
    assert [a for a, _ in s.pieces[1:]] == [b for _, b in s.pieces[:-1]]
    assert s.pieces[-1][1] == s.high // 2
    agree(program(x, outputs, window, then=True))


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
@pytest.mark.usefixtures("anywhere")
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("seen", [False, True])
def test_values_serve_the_gradients(seen: bool, large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless they are too many, or somebody may look at x, and write there, between forward and backward."""
    if large:
        monkeypatch.setattr(frequencies, "KEPT", 1000)
    calls = agree(inside(program(*CASES["blocked channels"]), seen))
    assert ("conv_keep" in {c.op.name for c in calls}) != (seen or large)


@pytest.mark.skipif(
    LIBRARY is None or not LIBRARY.multiplies_halves, reason="this processor does not multiply bfloat16, or no oneDNN"
)
@pytest.mark.usefixtures("anywhere")
def test_maps_in_16_bits() -> None:
    """Only what is stored is rounded: x, dy, and the maps that are made; factors and sums are in float32."""
    made = inside(program(*CASES["blocked channels"]), seen=False)
    got, calls = run(replace(made, numerics=Numerics("BF16")), Fast())
    found = [c for c in calls if c.op.name.startswith("conv")]
    assert [(c.op.name, frequencies.takes(c)) for c in found] == [("conv_keep", True), ("conv_grads", True)]
    assert all(any(is_half(t.spec.layout) for t in c.tensors()) for c in found)
    for g, w in zip(got, run(made, Reference())[0], strict=True):
        assert np.linalg.norm(g - w) < 3e-3 * np.linalg.norm(w)


@needs_library
@pytest.mark.usefixtures("anywhere")
@pytest.mark.parametrize("gone", ["conv_grad_x", "conv_grad_w", "reduce"])
def test_a_gradient_alone(gone: str) -> None:
    """Without one of them, the others are calls of their own."""
    made = program(*CASES["padding"])
    calls = [c for c in made.calls if c.op.name != gone]
    written = {t for c in calls for t in c.writes()}
    found = agree(replace(made, calls=tuple(calls), keeps=made.keeps & written))
    assert "conv_grads" not in {c.op.name for c in found}


@needs_library
@pytest.mark.usefixtures("anywhere")
def test_without_a_bias() -> None:
    agree(program(*CASES["odd numbers of everything"], then=True, bias=False))


@needs_library
@pytest.mark.usefixtures("anywhere")
def test_frozen_sessions_see_changed_weights() -> None:
    """The weights' values are made anew in every run; nothing of them is packed beforehand."""
    made = program((16, 16, 8, 8), 16, Window((5, 5)))
    device = Fast()
    memory = Memory(device)
    session = Session(made, device, memory, frozen=True)
    (w,) = {t.root for t in made.tensors() if t.root.name == "w"}
    (y,) = [t for t in made.keeps if t.name == "y"]
    session.feed({"x": np.ones((16, 16, 8, 8)), "dy": np.ones(y.shape)})
    for value in (0.5, 2.0):
        memory.write(w, np.full(w.shape, value))
        session.run()
        np.testing.assert_allclose(session.read(y), 25 * 16 * value, 1e-4)


@needs_library
@pytest.mark.usefixtures("anywhere")
@pytest.mark.parametrize("op", [OPS["conv"], CONV_KEEP, GRADS], ids=lambda op: op.name)
@pytest.mark.parametrize("name", ["odd numbers of everything", "blocked channels"])
def test_every_output_is_written(op: Op, name: str) -> None:
    """What was not written, or read before it was, would be the NaN or the 7 that memory began with."""
    assert LIBRARY is not None
    made = program(*CASES[name])
    named = {t.name: t for t in made.tensors()}
    values = Sizes(*(named[n].spec for n in "xwy"), made.calls[0].attrs["window"]).values
    size = 4 * values * named["x"].shape[0] * named["x"].shape[1]
    named["values"] = Tensor("values", Spec((size,), "uint8", work(size)), "buffer")
    call = Call(op, tuple(named[a.name] for a in op.arguments), made.calls[0].attrs, Origin("conv"))
    recipe = Recipes(LIBRARY).of(call)
    assert recipe is not None
    found, device = [], Fast()
    for start in (np.nan, 7.0):
        generator, arrays = np.random.default_rng(2), {}
        for argument in op.arguments:
            spec = named[argument.name].spec
            memory = device.allocate(device.nbytes(spec))
            array = memory.view("float32")[: spec.count if argument.name != "values" else size // 4]
            array[:] = generator.standard_normal(array.size) if argument.role == "r" else start
            arrays[argument.name] = (array,)
        scratch = device.allocate(recipe.scratch)
        scratch.view("float32")[:] = start
        recipe.bind(arrays, scratch)()
        found.append([arrays[a.name][0] for a in op.arguments if a.role == "w"])
    for one, other in zip(*found, strict=True):
        assert not np.isnan(one).any()
        np.testing.assert_array_equal(one, other)


def test_matrices_are_orthogonal() -> None:
    """So that rounding errors are those of direct sums: products at points have 10 times as much."""
    window = Window((5, 5), (1, 1), (2, 2))
    for axis in (Axis(16, 16, window, 0, True), Axis(16, 16, window, 1, False)):
        assert axis.length == 18
        np.testing.assert_allclose(axis.down.T @ axis.down, 9 * np.eye(16), atol=1e-12)
        np.testing.assert_allclose(axis.up @ axis.up.T, np.eye(16) / 18, atol=1e-12)


WINDOW = Window((5, 5), (1, 1), (2, 2))
BIG = Spec((16, 64, 27, 27)), Spec((192, 64, 5, 5)), Spec((16, 192, 27, 27))
SMALL = Spec((100, 32, 16, 16)), Spec((32, 32, 5, 5)), Spec((100, 32, 16, 16))


@pytest.mark.parametrize(
    ("x", "w", "y", "window", "groups", "wanted"),
    [
        (*BIG, WINDOW, 1, True),
        (*BIG, WINDOW, 2, False),
        (*BIG, Window((5, 5), (2, 2), (2, 2)), 1, False),
        (*BIG, Window((5, 5), (1, 1), (-2, 2), (1, 1), (6, 2)), 1, False),
        (Spec((8, 64, 27, 27)), BIG[1], Spec((8, 192, 27, 27)), WINDOW, 1, False),  # rows of few images
        (*SMALL, WINDOW, 1, True),
        (Spec((64, 20, 12, 12)), Spec((50, 20, 5, 5)), Spec((64, 50, 8, 8)), Window((5, 5)), 1, False),  # at points
        (Spec((100, 3, 32, 32)), Spec((32, 3, 5, 5)), Spec((100, 32, 32, 32)), WINDOW, 1, False),  # few products
        (Spec((16, 64, 27, 27)), Spec((192, 64, 3, 3)), Spec((16, 192, 25, 25)), Window((3, 3)), 1, False),
        (Spec((16, 64, 28, 28)), Spec((64, 64, 7, 7)), Spec((16, 64, 28, 28)), Window((7, 7), (1, 1), (3, 3)), 1, True),
        (Spec((257, 64, 99, 99)), BIG[1], Spec((257, 192, 99, 99)), WINDOW, 1, False),  # a prime: 4 GB
        (Spec((16, 512, 14, 14)), Spec((512, 512, 5, 5)), Spec((16, 512, 14, 14)), WINDOW, 1, False),  # large weights
        (replace(BIG[0], layout="c16/bf16"), BIG[1], replace(BIG[2], layout="c16/bf16"), WINDOW, 1, True),
        (replace(SMALL[0], layout="last/bf16"), SMALL[1], replace(SMALL[2], layout="last/bf16"), WINDOW, 1, False),
    ],
)
def test_where_it_is_worth_it(x: Spec, w: Spec, y: Spec, window: Window, groups: int, wanted: bool) -> None:
    assert frequencies.worth(x, w, y, window, groups) == wanted


def test_chunks_divide_the_images() -> None:
    def chunk(images: int) -> int:
        return Sizes(Spec((images, 64, 27, 27)), BIG[1], Spec((images, 192, 27, 27)), WINDOW).chunk

    assert [chunk(n) for n in (16, 64, 128, 67, 134)] == [16, 64, 64, 67, 67]
