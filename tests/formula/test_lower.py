"""Formulas as kernel calls: what is fused, what is made once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from netrun.cpu.reference import Reference
from netrun.formula.array import Array
from netrun.formula.build import Builder
from netrun.formula.evaluate import evaluate
from netrun.formula.lower import LARGEST, lower
from netrun.formula.parse import parse
from netrun.program import Call, Origin, Recorder
from netrun.types import Spec, Tensor

SHAPES = {"x": (4, 6), "g": (4, 6), "c": (6,), "w": (6, 8), "n": (4, 1)}


def calls(text: str, tops: int = 1) -> list[Call]:
    """The calls of a formula."""
    build = Builder()
    known = {name: build.leaf(name, shape) for name, shape in SHAPES.items()}
    roots = evaluate(build, parse(text), known, [""] * tops, [text])
    k = Recorder()
    k.origin = Origin("e")
    given = {id(leaf): Tensor(name, Spec(SHAPES[name])) for name, leaf in known.items()}
    lower(k, roots, [Tensor(f"y{i}", Spec(root.shape)) for i, root in enumerate(roots)], given)
    return k.calls


def ops(text: str, tops: int = 1) -> str:
    return " ".join(call.op.name for call in calls(text, tops))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("x * sigmoid(g) + 0.1 * c - tanh(x) / 3", "pointwise"),
        ("x * sigmoid(g) + 0.1 * mean(x, axis=1)", "reduce pointwise"),
        ("mean((x - g)^2)", "reduce"),
        ("mean(x * c, axis=0)", "reduce"),
        ("d = x - g; d * d, abs(d)", "pointwise pointwise"),  # a difference is made again rather than stored
        ("e = exp(x); e / sum(e, axis=1)", "pointwise reduce pointwise"),  # an exponential is stored
        ("x * exp(n)", "pointwise pointwise"),  # 4 values instead of 24
        ("x * (n + 1)", "pointwise"),
        ("x @ w + exp(c @ w)", "gemm pointwise gemm"),
        ("h = tanh(x); h @ w, h", "pointwise gemm"),  # a top is computed once, where it belongs
        ("x @ w @ w.T", "gemm gemm"),
        ("z = x @ w; sigmoid(z[:, 0:4]) * z[:, 4:8]", "gemm split pointwise"),
        ("z = x @ w; z[:, 1:3] + z[:, 4:6]", "gemm split pointwise"),
        ("z = x @ w; z[:, 1:3]", "gemm slice"),
        ("v = x @ w; v + w[0]", "slice gemm"),
        ("x @ w + tanh(x @ w + w[0])", "gemm slice pointwise"),  # the product is needed without it, too
        ("sigmoid(x @ w + g @ w + w[0])", "gemm slice gemm pointwise"),
        ("x[None] @ w + w[0]", "slice gemm"),
        ("x", "copy"),
        ("2", "fill"),
        ("reshape(x + 1, 3, 8)", "pointwise"),
        ("gelu(x) + gelu(x)", "pointwise"),
    ],
)
def test_calls(text: str, wanted: str) -> None:
    tops = len(parse(text)[-1].values)
    assert ops(text, tops) == wanted


def test_what_is_written_twice_is_one_operation() -> None:
    (call,) = calls("sigmoid(x * g) * (1 - sigmoid(x * g)) + sigmoid(x * g)")
    assert [t.name for t in call.reads()] == ["x", "g"]
    first, *_ = calls("max(x, axis=1) + max(x, axis=1) * max(x, axis=1)")
    assert first.op.name == "reduce"
    assert ops("max(x, axis=1) + max(x, axis=1) * max(x, axis=1)") == "reduce pointwise"


def test_expressions_stay_small_enough_to_differentiate() -> None:
    found = calls("h = x; " + "h = gelu(h) + h * g; " * 12 + "h")
    assert 3 < len(found) < 13
    assert all(len(str(call.attrs["expr"])) < 12 * LARGEST for call in found)


def test_transposes_are_left_to_the_product() -> None:
    (call,) = calls("w.T @ x.T")
    assert call.attrs == {"ta": True, "tb": True}
    assert ops("x @ (w.T + 1).T") == "transpose pointwise gemm"


def test_equal_nodes_are_one() -> None:
    build = Builder()
    x = build.leaf("x", (2, 3))
    assert (x + 1) is (x + 1)
    assert (x * 0.0) is not (x * -0.0)
    assert build.number(2) is build.array(2.0)


def test_python_arithmetic() -> None:
    build = Builder("float64")
    x = build.leaf("x", (2, 3))
    value = np.arange(6.0).reshape(2, 3) + 1
    rows: list[tuple[Any, Any]] = [
        (2 + x - 1, 1 + value), (3 - x, 3 - value), (2 * x / 4, value / 2), (6 / x, 6 / value), (x**2, value**2),
        (2**x, 2**value), (-x, -value), (abs(x), value), (x @ x.T, value @ value.T), (x < 2, value < 2),
        (x <= 2, value <= 2), (x > 2, value > 2), (x >= 2, value >= 2), (x == 2, value == 2), (x != 2, value != 2),
        (x[:, 1], value[:, 1]), (sum(x), value.sum(0)),
    ]  # fmt: skip
    for node, wanted in rows:
        assert isinstance(node, Array)
        top = np.full(node.shape, np.nan)
        lower(Reference("float64"), [node], [top], {id(x): value})
        np.testing.assert_allclose(top, wanted, 1e-12)
