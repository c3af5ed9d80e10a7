"""The language of formulas: what a text means, and what is refused at which place."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from netrun.cpu.evaluate import erf
from netrun.cpu.reference import Reference
from netrun.formula.array import FormulaError
from netrun.formula.build import Builder
from netrun.formula.evaluate import evaluate
from netrun.formula.functions import FUNCTIONS, usage
from netrun.formula.lower import lower, reached
from netrun.formula.parse import parse

RNG = np.random.default_rng(5)
X, Y, Z = RNG.normal(size=(3, 4, 5)), RNG.normal(size=(4, 5)), RNG.random((3, 4, 5)) + 0.5
NAMES = {"x": X, "y": Y, "z": Z, "t": np.array([2.0, 0.0, 4.0])}


def value(text: str, tops: int = 1) -> Any:
    """What a formula gives on the reference device."""
    build = Builder("float64")
    known = {name: build.leaf(name, array.shape) for name, array in NAMES.items()}
    roots = evaluate(build, parse(text), known, [""] * tops, [text])
    found = [np.full(root.shape, np.nan) for root in roots]
    given = {id(known[name]): array for name, array in NAMES.items()}
    given |= {id(n): np.array(n.attrs, "float64") for n in reached(roots) if n.op == "table"}
    lower(Reference("float64"), roots, found, given)
    return found[0] if tops == 1 else found


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1 + 2 * 3 ^ 2 ^ 0 - 4 / 2", 5.0),
        ("-2 ^ 2 + (-2) ** 2 + 2 ^ -1", 0.5),
        ("7 // 2 - -7 // 2 + +1", 8.0),
        ("1e2 + .5 + 2.", 102.5),
        ("cos(pi) + exp(-inf)", -1.0),
        ("1 < 2 < 3", 1.0),
        ("3 > 2 > 2", 0.0),
        ("not 1 == 2 and 1 != 1 or 2 >= 2", 1.0),
        ("x - y", X - Y),
        ("x @ y.T", X @ Y.T),
        ("matmul(x, transpose(z, 0, 2, 1))", X @ Z.transpose(0, 2, 1)),
        ("dot(x, y[0])", X @ Y[0]),
        ("y[:, 0] @ y", Y[:, 0] @ Y),
        ("x[1]", X[1]),
        ("x[-1, 1:3, None, :-1]", X[-1, 1:3, None, :-1]),
        ("x[..., 2]", X[..., 2]),
        ("y[None][0]", Y),
        ("x.T", X.swapaxes(1, 2)),
        ("transpose(x)", X.T),
        ("mean(x, axis=1)", X.mean(axis=1, keepdims=True)),
        ("mean(x, axis=1, keepdims=0)", X.mean(axis=1)),
        ("sum(x, [0, -1])", X.sum(axis=(0, 2), keepdims=True)),
        ("sum(x) + max(x) - min(x)", X.sum() + X.max() - X.min()),
        ("var(x, axis=2) + std(x)", X.var(axis=2, keepdims=True) + X.std()),
        ("max(x, 0, y)", np.maximum(np.maximum(X, 0), Y)),
        ("min(x, y)", np.minimum(X, Y)),
        ("clip(x, -0.5, 0.5)", X.clip(-0.5, 0.5)),
        ("where(x > y, x, 0)", np.where(X > Y, X, 0)),
        ("sigmoid(x) * tanh(y) + softplus(x)", sigmoid(X) * np.tanh(Y) + np.log1p(np.exp(X))),
        ("gelu(x)", X * 0.5 * (1 + erf(X / math.sqrt(2)))),
        ("silu(x) + relu(x) + relu(x, slope=0.1)", X * sigmoid(X) + X.clip(0) + np.where(X > 0, X, 0.1 * X)),
        ("log(z) + sqrt(z) + expm1(y) + log1p(z)", np.log(Z) + np.sqrt(Z) + np.expm1(Y) + np.log1p(Z)),
        ("abs(x) + sign(x) + floor(x) + ceil(x) + trunc(x)",
         abs(X) + np.sign(X) + np.floor(X) + np.ceil(X) + np.trunc(X)),
        ("softmax(x, axis=1)", np.exp(X) / np.exp(X).sum(axis=1, keepdims=True)),
        ("log_softmax(x)", X - np.log(np.exp(X).sum(axis=2, keepdims=True))),
        ("normalize(x, axis=[1, 2], eps=0)",
         (X - X.mean(axis=(1, 2), keepdims=True)) / X.std(axis=(1, 2), keepdims=True)),
        ("reshape(x, 2, -1)", X.reshape(2, -1)),
        ("reshape(x, [size(x, 0) * 2, -1])", X.reshape(6, -1)),
        ("concat(x, z, axis=0)", np.concatenate([X, Z])),
        ("stack(y, y + 1, axis=1)", np.stack([Y, Y + 1], axis=1)),
        ("a, b = split(x, [1, 3], axis=1); b - a", X[:, 1:] - X[:, :1]),
        ("broadcast(y, 2, 4, 5)", np.broadcast_to(Y, (2, 4, 5))),
        ("take(y, where(t > 3, 3, t))", Y[[2, 0, 3]]),
        ("onehot(t, 5)", np.eye(5)[[2, 0, 4]]),
        ("onehot(t, 5, axis=0)", np.eye(5)[[2, 0, 4]].T),
        ("pick(x[:, 0], t)", X[range(3), 0, [2, 0, 4]]),
        ("h = x; h = h + 1; h * h", (X + 1) ** 2),
        ("size(x, -1)", 5.0),
        ("a = sqrt(-1); where(a == a, 1, 2)", 2.0),
    ],
)  # fmt: skip
def test_means(text: str, wanted: Any) -> None:
    got = value(text)
    assert got.shape == np.shape(wanted)
    np.testing.assert_allclose(got, wanted, 1e-12, 1e-13)


def test_every_function_of_the_table_is_tried_above() -> None:
    tried = {mark for row in test_means.pytestmark[0].args[1] for mark in FUNCTIONS if f"{mark}(" in row[0]}  # type: ignore[attr-defined]
    assert set(FUNCTIONS) - tried <= {"sin", "erf", "pow", "square", "elu", "arange", "stop"}
    np.testing.assert_allclose(value("sin(x) + erf(x) + pow(z, y) + square(x) + elu(x, alpha=2) + arange(5) + stop(x)"),
        np.sin(X) + erf(X) + Z**Y + X**2 + np.where(X > 0, X, 2 * np.expm1(X)) + np.arange(5) + X, 1e-12)  # fmt: skip
    assert usage("max") == "max(x..., axis=, keepdims=)"


def test_explain_lists_every_function(capsys: pytest.CaptureFixture[str]) -> None:
    from netrun.cli import main

    assert main(["explain", "Expr"]) == 0
    text = capsys.readouterr().out
    assert [name for name in FUNCTIONS if name not in text] == []


@pytest.mark.parametrize(
    ("text", "at", "what"),
    [
        ("x + ", (3, 4), "got the end, wanted a number, a name or '('"),
        ("x $ y", (2, 3), "unexpected character '$'"),
        ("(x + y", (6, 7), "got the end, wanted ',' or ')'"),
        ("x y", (2, 3), "got 'y', wanted an operator, ';' or the end"),
        ("x = 2; x", (0, 1), '"x" is a bottom or a weight'),
        ("h = g = 2", (6, 7), "one = in a line"),
        ("x + 1 = 2", (0, 5), "only a name can stand before ="),
        ("x; y", (0, 1), "this value has no name"),
        ("a, b = x; a + b", (0, 8), "1 values for 2 names"),
        ("x[::2]", (3, 4), "slices have no step"),
        ("x[5]", (0, 4), "index 5 is beyond axis 0, whose length is 3"),
        ("x[0, 0, 0, 0]", (0, 13), "4 indices for the 3 axes"),
        ("x[2:1]", (0, 6), "is empty"),
        ("x[y]", (0, 4), "an index has to be a whole number that is known beforehand, got an array of 4 5"),
        ("x.S", (2, 3), "wanted T"),
        ("y(x)", (0, 1), 'no function "y"; it is a value: write * to multiply'),
        ("x + sigmoid", (4, 11), "called with brackets"),
        ("where(x, y)", (0, 11), "where cannot be called with 2 values"),
        ("mean(x, axes=1)", (0, 15), 'mean has no argument "axes"'),
        ("mean(axis=1, x)", (13, 14), "those without come first"),
        ("mean(x, axis=1, axis=2)", (16, 20), "axis is given twice"),
        ("mean(x, axis=[1, 1])", (0, 20), "an axis is named twice"),
        ("mean(x, axis=0.5)", (0, 17), "axis has to be a whole number"),
        ("reshape(x, 7, -1)", (0, 17), "3 4 5 (60 values) cannot take the shape 7 -1"),
        ("concat(x, y)", (0, 12), "concat along axis 1: 3 4 5 and 4 5 differ elsewhere"),
        ("split(x, 3)", (0, 11), "axis 1 of 3 4 5 has no 3 equal parts"),
        ("max(axis=1)", (0, 11), "one value and an axis, or several values"),
        ("1 @ x", (0, 5), "at least 1 axis on both sides"),
        ("[x, y] * 2", (0, 10), "wants one value, got a list of 2"),
        ("transpose(x, 0, 0, 1)", (0, 21), "are no order of the 3 axes"),
        ("pick(x, t)", (0, 10), "one label for each of 3 5 positions"),
        ("arange(0)", (0, 9), "1 to 1000000 numbers"),
        ("(" * 70 + "x" + ")" * 70, (60, 61), "nested deeper than 60"),
        ("-" * 70 + "x", (59, 60), "nested deeper than 60"),
    ],
)  # fmt: skip
def test_refused(text: str, at: tuple[int, int], what: str) -> None:
    with pytest.raises(FormulaError) as error:
        value(text)
    assert what in error.value.what
    assert error.value.at is not None
    assert error.value.at[1:] == at


def test_tops_by_name_and_by_order() -> None:
    build = Builder()
    x = build.leaf("x", (2, 3))

    def tops(text: str, *names: str) -> list[Any]:
        return [root.shape for root in evaluate(build, parse(text), {"x": x}, names, [text])]

    assert tops("a = x[0]; b = x[:, 0]", "b", "a") == [(2,), (3,)]
    assert tops("a = x[0]; a, x[:, 0]", "q", "r") == [(3,), (2,)]
    assert tops("a = x; b = x[0]", "other") == [(3,)]
    assert tops("split(x, 3)", "a", "b", "c") == [(2, 1)] * 3
    with pytest.raises(FormulaError, match='no line gives a value to the top "aa"; did you mean "a"'):
        tops("a = x; b = x", "b", "aa")
