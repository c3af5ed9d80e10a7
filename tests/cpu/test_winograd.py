"""Winograd's filtering: its matrices and transforms, and convolutions that go this way against sums in float64."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases.program_nets import NETS, compiled, inception, results

from netrun.cpu import dnnl, onednn_winograd, winograd_cost, winograd_steps
from netrun.cpu.fast import Fast
from netrun.cpu.layouts import is_half, nbytes
from netrun.cpu.onednn import CONV_THEN, GRAD_WB
from netrun.cpu.reference import Reference
from netrun.cpu.winograd import mirrored, tile
from netrun.cpu.winograd_cost import Sizes, choice, direct_time, filtered_time
from netrun.kernels import OPS, Op
from netrun.program import Call, Origin
from netrun.session import Memory, Session
from netrun.types import PLAIN, Numerics, Spec, Tensor, Window

Array = Any
LIBRARY = dnnl.library()
needs_library = pytest.mark.skipif(LIBRARY is None, reason=f"no oneDNN here: {dnnl.reason()}")
needs_halves = pytest.mark.skipif(
    LIBRARY is None or not LIBRARY.multiplies_halves, reason="this processor does not multiply bfloat16, or no oneDNN"
)
SIDES = (2, 3, 4)
TILES = ((2, 3), (3, 3), (4, 3), (2, 5))
"""Sides of tile and filter."""
LAYOUTS = ("plain", "last", "c8", "c16")


@pytest.fixture
def force(monkeypatch: pytest.MonkeyPatch) -> Any:
    """force(m): every convolution for which there are tiles of m x m is filtered with them."""

    def to(m: int) -> None:
        monkeypatch.setattr(winograd_cost, "choice", lambda s, ready=False: m if (m, s.r) in TILES else 0)

    return to


# ------------------------------------------------------------------------------------------------------------ matrices
def exact(matrix: Any) -> Array:
    return np.array(matrix, dtype=np.float64)


@pytest.mark.parametrize(("m", "r"), TILES)
def test_the_matrices_filter(m: int, r: int) -> None:
    t = tile(m, r)
    generator = np.random.default_rng(0)
    d, g = generator.standard_normal(t.side), generator.standard_normal(r)
    y = exact(t.result) @ ((exact(t.weights) @ g) * (exact(t.data) @ d))
    np.testing.assert_allclose(y, [d[i : i + r] @ g for i in range(m)], 1e-12)
    turned = exact(t.result) @ ((exact(mirrored(t.weights)) @ g) * (exact(t.data) @ d))
    np.testing.assert_allclose(turned, [d[i : i + r] @ g[::-1] for i in range(m)], 1e-12)


def test_the_small_tile_is_the_known_one() -> None:
    """The points 0, 1, -1: additions alone."""
    assert all(abs(x) in (0, 1) for row in tile(2, 3).data + tile(2, 3).result for x in row)


# ---------------------------------------------------------------------------------------------------------- one kernel
def placed(device: Fast, value: Array, spec: Spec) -> Array:
    """The value in a layout; what memory held before were NaNs."""
    memory = device.allocate(nbytes(spec))
    memory[:] = 255
    array = device.array(memory, 0, spec)
    if spec.layout == PLAIN:
        array[...] = value
    else:
        moved(device, np.ascontiguousarray(value), Spec(value.shape), array, spec)
    return array


def moved(device: Fast, source: Array, given: Spec, target: Array, wanted: Spec) -> None:
    call = Call(OPS["copy"], (Tensor("a", given, "buffer"), Tensor("b", wanted, "buffer")), {}, Origin("copy"))
    device.bind(call, [source, target], device.allocate(max(1, device.workspace(call))))()


def run(op: Op, given: list[Any], shapes: list[Any], layouts: list[str], **attrs: Any) -> list[Array]:
    """The outputs of a kernel, plain; scratch starts as NaNs, and nothing behind it is written."""
    device = Fast()
    specs = [None if a is None else Spec(a.shape, layout=f) if isinstance(a, np.ndarray) else a
             for a, f in zip(given, layouts, strict=False)]  # fmt: skip
    specs += [Spec(s, layout=f) for s, f in zip(shapes, layouts[len(given) :], strict=True)]
    tensors = [Tensor(f"t{i}", s, "buffer") if isinstance(s, Spec) else s for i, s in enumerate(specs)]
    values = [*given, *(np.zeros(s, "float32") for s in shapes)]
    arrays = [placed(device, v, s) if isinstance(s, Spec) else v for v, s in zip(values, specs, strict=True)]
    call = Call(op, tuple(tensors), attrs, Origin("layer"))
    assert device.recipes is not None
    recipe = device.recipes.of(call)
    assert recipe is not None
    scratch = device.allocate(recipe.scratch + 4096)
    scratch[:] = 255
    device.bind(call, arrays, scratch[: recipe.scratch])()
    assert (scratch[recipe.scratch :] == 255).all()
    found = []
    for spec, array in zip(specs[len(given) :], arrays[len(given) :], strict=True):
        out = np.full(spec.shape, np.nan, "float32")
        if spec.layout == PLAIN:
            out[...] = array
        else:
            moved(device, array, spec, out, Spec(spec.shape))
        found.append(out)
    return found


class Exact:
    """One convolution and its adjoints in float64."""

    def __init__(
        self, n: int, c: int, size: tuple[int, int], k: int, pad: tuple[int, int], end: tuple[int, int], r: int = 3
    ) -> None:
        generator = np.random.default_rng(n + c + k)

        def noise(*shape: int) -> Array:
            return generator.standard_normal(shape).astype("float32")

        self.window = Window((r, r), pad=pad, pad_end=end)
        self.attrs = {"window": self.window, "groups": 1}
        self.x, self.w, self.b = noise(n, c, *size), noise(k, c, r, r), noise(k)
        border = ((0, 0), (0, 0), (pad[0], end[0]), (pad[1], end[1]))
        x = np.pad(self.x.astype(np.float64), border)
        high, wide = self.window.output(size)
        self.dy = noise(n, k, high, wide)
        self.y = np.zeros(self.dy.shape) + self.b[:, None, None]
        dx, self.dw, self.db = np.zeros_like(x), np.zeros(self.w.shape), self.dy.sum((0, 2, 3), np.float64)
        for i, j in product(range(r), range(r)):
            part, tap = np.s_[:, :, i : i + high, j : j + wide], self.w[:, :, i, j].astype(np.float64)
            self.y += np.einsum("nchw,kc->nkhw", x[part], tap, optimize=True)
            dx[part] += np.einsum("nkhw,kc->nchw", self.dy, tap, optimize=True)
            self.dw[:, :, i, j] = np.einsum("nkhw,nchw->kc", self.dy, x[part], optimize=True)
        self.dx = dx[:, :, pad[0] : pad[0] + size[0], pad[1] : pad[1] + size[1]]


CASES = [
    (3, 20, (9, 7), 24, (1, 1), (1, 1)),
    (5, 16, (6, 11), 16, (0, 2), (1, 0)),
    (1, 33, (8, 5), 17, (2, 1), (2, 0)),
    (2, 8, (3, 3), 8, (0, 0), (0, 0)),
    (3, 20, (9, 8), 24, (2, 1), (4, 0), 5),
]
NAMES = ["odd sizes", "uneven borders, several chunks", "one image, odd channels", "one number", "5x5"]
GRID = [
    pytest.param(case, layout, m, id=f"{name}-{layout}-{m}", marks=needs_halves if is_half(layout) else ())
    for name, case in zip(NAMES, CASES, strict=True)
    for layout, m in [*product(LAYOUTS, SIDES), *product(("last/bf16", "c16/bf16"), (2, 3))]
    if case[6:] != (5,) or (m == 2 and not is_half(layout))
]


def near(got: Array, wanted: Array, layout: str) -> None:
    limit = 0.015 if is_half(layout) else 5e-6
    assert np.abs(got - wanted).max() <= limit * np.abs(wanted).max()


@needs_library
@pytest.mark.parametrize(("case", "layout", "m"), GRID)
def test_against_float64(case: Any, layout: str, m: int, force: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    force(m)
    if case[0] == 5:
        monkeypatch.setattr(winograd_steps, "CACHE", 2 * (m + 2) ** 2 * 4 * 32 * {2: 18, 3: 8, 4: 6}[m] + 1)
        monkeypatch.setattr(winograd_steps, "PIECE", 2048)
    e = Exact(*case)
    (y,) = run(OPS["conv"], [e.x, e.w, e.b], [e.y.shape], [layout, PLAIN, PLAIN, layout], **e.attrs)
    near(y, e.y, layout)
    for slope in (0, 0.25):
        (y,) = run(CONV_THEN, [e.x, e.w, e.b, ()], [e.y.shape], [layout, PLAIN, PLAIN, PLAIN, layout],
                   then=f"relu(a, {slope})", **e.attrs)  # fmt: skip
        near(y, np.where(e.y > 0, e.y, slope * e.y), layout)
    (dx,) = run(OPS["conv_grad_x"], [e.w, e.dy], [e.x.shape], [PLAIN, layout, layout], **e.attrs)
    near(dx, e.dx, layout)
    (dw,) = run(OPS["conv_grad_w"], [e.x, e.dy], [e.w.shape], [layout, layout, PLAIN], **e.attrs)
    near(dw, e.dw, layout)
    dw, db = run(GRAD_WB, [e.x, e.dy], [e.w.shape, e.b.shape], [layout, layout, PLAIN, PLAIN], **e.attrs)
    near(dw, e.dw, layout)
    near(db, e.db, layout)


@needs_library
@pytest.mark.parametrize("m", SIDES)
def test_weights_made_ready(m: int, force: Any) -> None:
    """The form that frozen sessions keep gives the same bits as plain weights."""
    force(m)
    e = Exact(2, 24, (10, 9), 40, (1, 1), (1, 1))
    (plain,) = run(OPS["conv"], [e.x, e.w, None], [e.y.shape], ["c16", PLAIN, PLAIN, "c16"], **e.attrs)
    assert LIBRARY is not None
    tensors = [Tensor("t", Spec(s, layout=f), "learned")
               for s, f in ((e.x.shape, "c16"), (e.w.shape, PLAIN), (e.y.shape, "c16"))]  # fmt: skip
    call = Call(OPS["conv"], (tensors[0], tensors[1], None, tensors[2]), e.attrs, Origin("layer"))
    layout = onednn_winograd.packed_weights(LIBRARY, call)
    assert layout is not None
    assert int(layout.split(":")[1]) == (m + 2) ** 2 * 24 * 40 * 4
    (ready,) = run(OPS["conv"], [e.x, e.w, None], [e.y.shape], ["c16", layout, PLAIN, "c16"], **e.attrs)
    assert ready.tobytes() == plain.tobytes()


# --------------------------------------------------------------------------------------------------------- whole nets
@needs_library
@pytest.mark.parametrize("m", SIDES)
@pytest.mark.parametrize("name", NETS)
def test_nets_equal_the_reference(name: str, m: int, force: Any) -> None:
    force(m)
    for train in (True, False):
        program, _ = compiled(NETS[name], train)
        got, wanted = results(program, Fast(), runs=2), results(program, Reference())
        for key, value in wanted.items():
            np.testing.assert_allclose(got[key], value, 1e-4, 3e-5 * float(np.abs(value).max()), err_msg=key)
    again = results(program, Fast())
    assert all(got[key].tobytes() == again[key].tobytes() for key in got)


@needs_halves
@pytest.mark.parametrize("m", [2, 3])
def test_nets_in_halves(m: int, force: Any) -> None:
    force(m)
    program, _ = compiled(inception)
    got, exact = results(replace(program, numerics=Numerics("BF16")), Fast()), results(program, Reference())
    for key, value in exact.items():
        lost = np.linalg.norm(got[key] - value) / np.linalg.norm(value)
        assert lost < (0.15 if "'" in key else 0.03), (key, lost)


@needs_library
def test_frozen_sessions_transform_weights_once(force: Any) -> None:
    """A write to a parameter shows in the next run, and only then are weights transformed again."""
    force(4)
    program, m = compiled(inception, train=False)
    device = Fast()
    shared = Memory(device)
    generator = np.random.default_rng(2)
    for t in m.learned:
        shared.write(t, generator.standard_normal(t.shape) * 0.1)
    session = Session(program, device, shared, frozen=True)
    kept = [c for c in session.program.calls if c.op.name == "copy" and "points" in c.writes()[0].spec.layout]
    assert len(kept) == 3, "the convolutions of 3x3"
    session.feed({"in0": generator.standard_normal(m.feeds["in0"].shape).astype("float32")})
    (out,) = program.keeps
    session.run()
    first = session.read(out)
    session.run()
    np.testing.assert_array_equal(session.read(out), first)
    w = next(t for t in m.learned if t.shape[2:] == (3, 3))
    shared.write(w, generator.standard_normal(w.shape))
    session.run()
    assert np.abs(session.read(out) - first).max() > 0


# ---------------------------------------------------------------------------------------------------------- the choice
def test_large_layers_are_filtered_and_small_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd_cost, "pace", lambda: 1.0)
    assert choice(Sizes(8, 512, 512, (28, 28), half=False)) == 4
    for side, c in ((56, 256), (28, 512), (14, 512), (12, 1024)):
        assert choice(Sizes(8, c, c, (side, side), half=False)) in (2, 4)
    for n, side, c in ((1, 28, 16), (64, 28, 20), (16, 56, 32), (100, 16, 32), (1, 7, 64)):
        assert choice(Sizes(n, c, c, (side, side), half=False)) == 0
    assert choice(Sizes(16, 96, 256, (24, 24), half=False, r=5)) == 2
    assert choice(Sizes(16, 96, 256, (24, 24), half=True, r=5)) == 0
    assert choice(Sizes(8, 512, 512, (28, 28), half=True)) == 3
    assert choice(Sizes(8, 512, 512, (28, 28), half=True), ready=True) == 3
    one = Sizes(1, 512, 512, (28, 28), half=False)
    assert filtered_time(one, 4, ready=True) < filtered_time(one, 4)
    assert choice(one, ready=True)
    assert filtered_time(one, choice(one, ready=True), ready=True) < direct_time(one)


@pytest.mark.parametrize(
    ("vendor", "family", "flags", "wanted"),
    [("AuthenticAMD", "25", "avx2 avx512f", 1), ("AuthenticAMD", "26", "avx2 avx512f", 2),
     ("GenuineIntel", "6", "avx512f avx2", 2), ("GenuineIntel", "6", "avx2", 1)],
)  # fmt: skip
def test_cores_that_multiply_faster_filter_less(
    vendor: str, family: str, flags: str, wanted: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nflags\t\t: fpu {flags} sse\n"
    (tmp_path / "cpuinfo").write_text(f"{core}\n{core}\n")
    monkeypatch.setattr(winograd_cost, "PROCESSOR", tmp_path / "cpuinfo")
    winograd_cost.pace.cache_clear()
    try:
        assert winograd_cost.pace() == wanted
        assert choice(Sizes(8, 512, 512, (28, 28), half=False)) == 4
        assert bool(choice(Sizes(8, 64, 64, (28, 28), half=False))) == (wanted == 1)
        monkeypatch.setattr(winograd_cost, "PROCESSOR", tmp_path / "none")
        winograd_cost.pace.cache_clear()
        assert winograd_cost.pace() == 1
    finally:
        winograd_cost.pace.cache_clear()


def test_measurements_can_switch_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd_cost, "ENABLED", False)
    assert choice(Sizes(8, 512, 512, (28, 28), half=False)) == 0


@needs_library
@pytest.mark.parametrize(
    "window",
    [Window((3, 3), stride=(2, 2)), Window((3, 3), dilation=(2, 2), pad=(2, 2)), Window((1, 1)),
     Window((3, 3), pad=(3, 3)), Window((5, 3), pad=(2, 1)), Window((7, 7), pad=(3, 3))],
)  # fmt: skip
def test_other_windows_are_left_alone(window: Window, force: Any) -> None:
    force(2)
    x, w = Tensor("x", Spec((2, 16, 9, 9)), "buffer"), Tensor("w", Spec((16, 16, *window.kernel)), "learned")
    y = Tensor("y", Spec((2, 16, *window.output((9, 9)))), "buffer")
    assert LIBRARY is not None
    with pytest.raises(dnnl.Unsupported):
        onednn_winograd.forward(
            LIBRARY, Call(OPS["conv"], (x, w, None, y), {"window": window, "groups": 1}, Origin("layer"))
        )
