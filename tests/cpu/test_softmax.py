"""Softmax and its loss on device cpu: what runs in oneDNN, what is no number, and labels nobody has checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases.kernels import KERNELS

from netrun.cpu import dnnl, onednn
from netrun.cpu.fast import Fast
from netrun.cpu.reference import Reference
from netrun.device import Device
from netrun.kernels import OPS
from netrun.program import Call, Origin
from netrun.types import Spec, Tensor

LIBRARY = dnnl.library()
needs_library = pytest.mark.skipif(LIBRARY is None, reason=f"no oneDNN here: {dnnl.reason()}")
SMALL = onednn.SMALL["softmax"]
DEVICES = (Fast(), Fast(numpy=True))


def call_of(op: str, arrays: list[Any], attrs: dict[str, Any]) -> Call:
    tensors = [Tensor(f"t{i}", Spec(a.shape, a.dtype.name)) for i, a in enumerate(arrays)]
    return Call(OPS[op], tuple(tensors), attrs, Origin("layer"))


def run(device: Device, op: str, arrays: list[Any], **attrs: Any) -> list[Any]:
    homes = []
    for a in arrays:
        homes.append(device.array(device.allocate(a.nbytes), 0, Spec(a.shape, a.dtype.name)))
        device.write(homes[-1], a)
    call = call_of(op, arrays, attrs)
    device.capture([device.bind(call, homes, device.allocate(device.workspace(call)))])()
    return [device.read(home) for home in homes]


def near(got: Any, wanted: Any) -> None:
    finite = np.abs(wanted[np.isfinite(wanted)])
    np.testing.assert_allclose(got, wanted, 1e-5, 2e-6 * float(finite.max(initial=1e-30)))


@needs_library
@pytest.mark.parametrize(
    ("shape", "axis", "taken"),
    [
        ((SMALL // 64, 64), 1, True), ((8, 8, 8, SMALL // 512), 3, True), ((64, SMALL // 64, 1, 1), 1, True),
        ((SMALL,), 0, True), ((SMALL // 64 - 1, 64), 1, False), ((SMALL // 64, 64, 2), 1, False),
        ((SMALL // 64, 64), 0, False),
    ],
)  # fmt: skip
def test_what_the_library_runs(shape: tuple[int, ...], axis: int, taken: bool) -> None:
    """Classes innermost, and enough of them for its threads to pay."""
    recipes = Fast().recipes
    assert recipes is not None
    assert (np.prod(shape) >= SMALL) or not taken
    x, y = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    assert (recipes.of(call_of("softmax", [x, y], {"axis": axis})) is not None) == taken
    assert (recipes.of(call_of("softmax_grad", [x, x, y], {"axis": axis})) is not None) == taken
    double = [np.zeros(shape), np.zeros(shape)]
    assert recipes.of(call_of("softmax", double, {"axis": axis})) is None


def test_there_are_rows_that_the_library_runs() -> None:
    """The table of kernels holds softmax, its gradient and the loss large enough."""
    for op in ("softmax", "softmax_grad", "softmax_nll"):
        sizes = [max(np.size(a) for a in case.build("float32")[0] if isinstance(a, np.ndarray)) for case in KERNELS
                 if case.op == op]  # fmt: skip
        assert max(sizes) >= SMALL, op


STRANGE = {
    "large": lambda x: x * 3000, "huge": lambda x: x * 1e37, "denormal": lambda x: x * 1e-40,
    "some minus infinity": lambda x: np.where(x < 0, -np.inf, x), "minus infinity": lambda x: np.full_like(x, -np.inf),
    "lowest": lambda x: np.where(x < 0, np.finfo(np.float32).min, x), "all lowest": lambda x: np.full_like(x, -3.4e38),
    "underflow": lambda x: np.where(x < 0, -95, x), "infinity": lambda x: np.where(x > 2, np.inf, x),
    "nan": lambda x: np.full_like(x, np.nan),
}  # fmt: skip


@pytest.mark.parametrize("device", DEVICES, ids=["library", "numpy"])
@pytest.mark.parametrize("classes", [5, 16, 33, 100])
@pytest.mark.parametrize("kind", STRANGE)
def test_strange_scores(device: Device, classes: int, kind: str) -> None:
    """Infinities and what is no number go where the definition lets them go, in both directions."""
    rows = -(-SMALL // classes)
    x = np.random.default_rng(2).standard_normal((rows, classes)).astype(np.float32)
    with np.errstate(all="ignore"):
        x = STRANGE[kind](x).astype(np.float32)
    empty = np.empty_like(x)
    (_, got), (_, wanted) = (run(d, "softmax", [x, empty], axis=1) for d in (device, Reference()))
    near(got, wanted)
    label = np.arange(rows, dtype=np.float32) % classes
    given = [x, label, empty, np.array(0, np.float32), np.array(0, np.float32)]
    attrs = {"axis": 1, "ignore": None, "normalize": "valid"}
    for a, b in zip(run(device, "softmax_nll", given, **attrs), run(Reference(), "softmax_nll", given, **attrs),
                    strict=True):  # fmt: skip
        near(a, b)
    seed = np.random.default_rng(3).standard_normal(x.shape).astype(np.float32)
    *_, got = run(device, "softmax_grad", [wanted, seed, empty], axis=1)
    *_, exact = run(Reference(), "softmax_grad", [wanted, seed, empty], axis=1)
    near(got, exact)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("classes", [3, 16, 17, 70])
def test_one_score_that_is_no_number_takes_its_row_with_it(classes: int, value: float) -> None:
    """At any place in the row; other rows stay as they are. A loss that diverges must not look finite."""
    rows = max(classes + 1, -(-SMALL // classes))
    x = np.zeros((rows, classes), np.float32)
    x[np.arange(classes), np.arange(classes)] = value
    _, y = run(Fast(), "softmax", [x, np.empty_like(x)], axis=1)
    assert np.isnan(y[:classes]).all()
    near(y[classes:], np.full((rows - classes, classes), 1 / classes))


@pytest.mark.parametrize("device", DEVICES, ids=["library", "numpy"])
@pytest.mark.parametrize("ignore", [None, 1])
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 5)])
def test_the_gradient_of_labels_out_of_range(device: Device, ignore: int | None, shape: tuple[int, ...]) -> None:
    """Forward refuses them; a gradient that is asked for alone has no class to take 1 from."""
    generator = np.random.default_rng(5)
    prob = generator.random(shape).astype(np.float32)
    label = generator.integers(-2, 5, (shape[0], *shape[2:])).astype(np.float32)
    label.reshape(-1)[:3] = 1, 77, np.nan
    numbers = [np.array(v, np.float32) for v in (2, 0.5)]
    given = [prob, label, *numbers, np.empty_like(prob)]
    *_, got = run(device, "softmax_nll_grad", given, axis=1, ignore=ignore)
    *_, wanted = run(Reference(), "softmax_nll_grad", given, axis=1, ignore=ignore)
    near(got, wanted)
