"""Rows for every kernel; a kernel without a row fails the suite. Those with windows are in cases.spatial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import cases.attention
import cases.sequence
import cases.spatial  # noqa: F401  (adds its rows)
from cases import KERNELS, row
from cases.values import Made, Rng, away, coarse, distinct, labels, normal, positive
from netrun.expression import Rule, rule
from netrun.types import Spec

# ------------------------------------------------------------------------------------------------------------- memory
row("fill", "a number", lambda r, t: ((Spec((3, 5), t),), {"value": -1.5}))
row("fill", "one integer", lambda r, t: ((Spec((), "int64"),), {"value": 3.0}))
row("copy", "same shape", lambda r, t: ((normal(r, t, 3, 5), Spec((3, 5), t)), {}), ["x"])
row("copy", "another shape", lambda r, t: ((normal(r, t, 2, 3, 4), Spec((6, 4), t)), {}), ["x"])
row("copy", "bytes to floats", lambda r, t: ((r.integers(0, 256, (2, 7)).astype("uint8"), Spec((2, 7), t)), {}))
row("copy", "floats to integers truncate", lambda r, t: ((normal(r, t, 20) * 3, Spec((20,), "int32")), {}))
row("copy", "nothing", lambda r, t: ((normal(r, t, 0, 3), Spec((0, 3), t)), {}))


# -------------------------------------------------------------------------------------------------------- elementwise
def pointwise(expr: str, *shapes: tuple[int, ...], values: Any = away, out: tuple[int, ...] | None = None) -> Any:
    def make(rng: Rng, dtype: str) -> Made:
        y = out if out is not None else np.broadcast_shapes(*shapes)
        shift = 0.0107 if values is distinct else 0  # keeps the values of two inputs apart as well
        xs = tuple((values(rng, dtype, *s) + shift * i).astype(dtype) for i, s in enumerate(shapes))
        return (xs, Spec(y, dtype)), {"expr": expr}

    return make


for _expr in ("a", "a + b", "a - b", "a * b", "max(a, b)", "min(a, b)", "-a * 0.5 + b"):
    row("pointwise", _expr, pointwise(_expr, *[(4, 6)] * (1 + ("b" in _expr)), values=distinct), ["xs"])
for _expr in (
    "relu(a, 0)", "relu(a, 0.1)", "elu(a, 0.7)", "abs(a)", "exp(a)", "expm1(a)", "sin(a)", "cos(a)", "erf(a)",
    "tanh(a)", "sigmoid(a)", "softplus(a)", "a^2", "a^3", "a^-1", "a * sigmoid(2 * a)", "where(a > 0, a, a * a)",
    "max(min(a, 1.04), -1.04)",
):  # fmt: skip
    row("pointwise", _expr, pointwise(_expr, (3, 2, 5)), ["xs"])
for _expr in ("a / b", "log(a)", "log1p(a)", "sqrt(a)", "a^0.5", "a^-0.5", "a^1.7", "(1 + 2 * a)^-0.75", "a^b"):
    row("pointwise", _expr, pointwise(_expr, *[(3, 7)] * (1 + ("b" in _expr)), values=positive), ["xs"])
for _expr in ("a < b", "a <= b", "a > b", "a >= b", "a == b", "a != b", "sign(a - b)", "floor(a * b)", "trunc(3 * a)"):
    row("pointwise", _expr, pointwise(_expr, (5, 7), (5, 7), values=coarse))
row("pointwise", "a bias over channels", pointwise("a + b", (2, 3, 4, 4), (3, 1, 1)), ["xs"])
row("pointwise", "scale and bias", pointwise("a * b + c", (2, 3, 4, 4), (1, 3, 1, 1), (1, 3, 1, 1)), ["xs"])
row("pointwise", "slopes over channels", pointwise("relu(a, b)", (2, 3, 5), (3, 1)), ["xs"])
row("pointwise", "outer product", pointwise("a * b", (4, 1), (1, 5)), ["xs"])
row("pointwise", "one number with a block", pointwise("a * b", (), (2, 3)), ["xs"])
row("pointwise", "one number", pointwise("3 * a", ()), ["xs"])
row("pointwise", "inputs smaller than the output", pointwise("2 * a", (3, 1), out=(2, 3, 4)), ["xs"])
row("pointwise", "no elements", pointwise("a + b", (0, 3), (1, 3)))
row("pointwise", "more than a block of elements", pointwise("sigmoid(a) * b + a", (3, 50_001), (3, 50_001)))
row("pointwise", "a constant", pointwise("0.25", (2, 3)))
row("pointwise", "five inputs", pointwise("a + 2 * b - c * d / (2 + e * e)", *[(2, 3)] * 5), ["xs"])
row("pointwise", "far from zero nothing overflows", lambda r, t: (
    ((np.array([-1e4, -200, -1e-30, 0, 1e-30, 200, 1e4], t),), Spec((7,), t)),
    {"expr": "sigmoid(a) + softplus(a) + tanh(a) + elu(a, 1) + erf(a)"}))  # fmt: skip
row("pointwise", "a byte mask", lambda r, t: (
    ((normal(r, t, 4, 5), r.integers(0, 2, (4, 5)).astype("uint8")), Spec((4, 5), t)), {"expr": "a * b * 2"}),
    ["xs"])  # fmt: skip
row("pointwise", "integers choose", lambda r, t: (
    ((labels(r, 3, 4, 1).astype("int32"), normal(r, t, 4, 5), normal(r, t, 4, 5)), Spec((4, 5), t)),
    {"expr": "where(a, b, c)"}), ["xs"])  # fmt: skip
row("pointwise", "into bytes", lambda r, t: (((normal(r, t, 30),), Spec((30,), "uint8")), {"expr": "a > 0.25"}))
row("pointwise", "count up an integer", lambda r, t: (
    ((np.array([2**40 + 1], "int64"),), Spec((1,), "int64")), {"expr": "a + 1"}))  # fmt: skip


def reduce(expr: str, how: str, axes: Any, out: tuple[int, ...], *shapes: Any, values: Any = away) -> Any:
    def make(rng: Rng, dtype: str) -> Made:
        given = tuple(values(rng, dtype, *s) for s in shapes)
        return (given, Spec(out, dtype)), {"expr": expr, "how": how, "axes": axes}

    return make


row("reduce", "everything", reduce("a", "sum", (0, 1), (), (4, 5)), ["xs"])
row("reduce", "last axis", reduce("a * a", "sum", (2,), (2, 3), (2, 3, 4)), ["xs"])
row("reduce", "bias gradient", reduce("a", "sum", (0, 2, 3), (3,), (2, 3, 4, 5)), ["xs"])
row("reduce", "axes kept", reduce("a * b", "sum", (0, 2), (1, 3, 1), (2, 3, 4), (2, 3, 4)), ["xs"])
row("reduce", "broadcast inputs", reduce("a * b", "sum", (1,), (4,), (4, 1), (1, 5)), ["xs"])
row("reduce", "an input only for its shape", reduce("a", "sum", (0,), (3,), (3,), (5, 3)), ["xs[0]"])
row("reduce", "no axes", reduce("abs(a)", "sum", (), (2, 3), (2, 3)), ["xs"])
row("reduce", "one number", reduce("a", "sum", (), (), ()), ["xs"])
row("reduce", "absolute maximum", reduce("abs(a)", "max", (0, 1), (), (6, 7), values=distinct), ["xs"])
row("reduce", "maximum of rows", reduce("a", "max", (1,), (6, 1), (6, 7), values=distinct), ["xs"])
row("reduce", "many elements", reduce("a", "sum", (0, 1), (), (100, 1000)), atol=1e-4,
    reason="the order of a long float32 sum")  # fmt: skip


def update(rules: Rule, inputs: Sequence[tuple[int, ...]], variables: Sequence[tuple[int, ...]]) -> Any:
    def make(rng: Rng, dtype: str) -> Made:
        xs, vs = (tuple(positive(rng, dtype, *s) for s in shapes) for shapes in (inputs, variables))
        return (xs, vs), {"rule": rules}

    return make


_SGD = rule(["g", "lr"], ["w", "h"], "h = 0.9*h + lr*g; w = w - h")
_NESTEROV = rule(["g", "lr"], ["w", "h"], "old = h; h = 0.9*h + lr*g; w = w - (1.9*h - 0.9*old)")
_ADAM = rule(["g", "lr"], ["w", "m", "v"], "m = 0.9*m + 0.1*g; v = 0.999*v + 0.001*g*g; w = w - lr*m/(sqrt(v) + 1e-8)")
_DECAY = rule(["g", "lr", "scale"], ["w", "h"], "g = g * scale + 0.05*w; rate = lr*2; h = 0.9*h + rate*g; w = w - h")
row("update", "momentum", update(_SGD, [(3, 4), ()], [(3, 4)] * 2))
row("update", "a local keeps the old value", update(_NESTEROV, [(5,), ()], [(5,)] * 2))
row("update", "decay and multipliers", update(_DECAY, [(7, 5), (), (1,)], [(7, 5)] * 2))
row("update", "one number with decay", update(_DECAY, [(1,), (), ()], [(1,)] * 2))
row("update", "adam", update(_ADAM, [(2, 3), (1,)], [(2, 3)] * 3))
row("update", "more than a block of elements", update(_SGD, [(40_001, 3), ()], [(40_001, 3)] * 2))
row("update", "two variables change places", update(rule([], ["a", "b"], "old = a; a = b; b = old"), [], [(2, 3)] * 2))
row(
    "update",
    "the old value moves on",
    update(rule(["x"], ["a", "b"], "old = a; a = 2*a + x; b = old"), [()], [(7,)] * 2),
)
row("update", "a running mean", update(rule(["x"], ["s"], "s = 0.9*s + x"), [(1, 3, 1)], [(1, 3, 1)]))
row(
    "update",
    "an integer clock",
    lambda r, t: (((), (np.array(2**33, "int64"),)), {"rule": rule([], ["n"], "n = n + 1")}),
)
row("update", "broadcast to the variable", update(rule(["x"], ["s"], "s = x"), [(3, 1)], [(3, 4)]))


# ----------------------------------------------------------------------------------------------------------- products
def gemm(a: Any, b: Any, c: Any, y: tuple[int, ...], ta: bool = False, tb: bool = False) -> Any:
    def make(rng: Rng, dtype: str) -> Made:
        bias = None if c is None else normal(rng, dtype, *c)
        return (normal(rng, dtype, *a), normal(rng, dtype, *b), bias, Spec(y, dtype)), {"ta": ta, "tb": tb}

    return make


_ALL_GEMM = ["a", "b", "c"]
row("gemm", "plain", gemm((3, 4), (4, 5), None, (3, 5)), _ALL_GEMM[:2])
row("gemm", "inner product with bias", gemm((3, 4), (5, 4), (5,), (3, 5), tb=True), _ALL_GEMM)
row("gemm", "weight gradient", gemm((7, 3), (7, 5), None, (3, 5), ta=True), _ALL_GEMM[:2])
row("gemm", "both transposed, a matrix added", gemm((4, 3), (5, 4), (3, 5), (3, 5), True, True), _ALL_GEMM)
row("gemm", "a column added", gemm((3, 4), (4, 5), (3, 1), (3, 5)), _ALL_GEMM)
row("gemm", "one row", gemm((1, 4), (5, 4), (5,), (1, 5), tb=True), _ALL_GEMM)
row("gemm", "a batch", gemm((2, 3, 4), (2, 4, 5), None, (2, 3, 5)), _ALL_GEMM[:2])
row("gemm", "a batch against one", gemm((2, 3, 4), (1, 4, 5), (5,), (2, 3, 5)), _ALL_GEMM)
row("gemm", "a matrix against a batch", gemm((3, 4), (2, 6, 5, 4), None, (2, 6, 3, 5), tb=True), _ALL_GEMM[:2])
row("gemm", "nothing to sum", gemm((3, 0), (0, 5), (5,), (3, 5)))


# ------------------------------------------------------------------------------------------------------ normalisation
def normalize(axes: tuple[int, ...], *shape: int, op: str = "normalize", eps: float = 1e-3) -> Any:
    def make(rng: Rng, dtype: str) -> Made:
        kept = tuple(1 if i in axes else n for i, n in enumerate(shape))
        x, attrs = normal(rng, dtype, *shape) * 2 + 1, {"axes": axes, "eps": eps}
        if op == "normalize":
            return (x, Spec(shape, dtype), Spec(kept, dtype), Spec(kept, dtype)), attrs
        y = (x - x.mean(axes, keepdims=True)) / x.std(axes, keepdims=True)
        return (y, positive(rng, dtype, *kept), normal(rng, dtype, *shape), Spec(shape, dtype)), attrs

    return make


for _note, _axes, _shape in (
    ("channels of a batch", (0, 2, 3), (4, 3, 5, 2)), ("columns", (0,), (6, 4)), ("rows", (1,), (4, 6)),
    ("images", (1, 2, 3), (2, 3, 4, 2)), ("planes", (2, 3), (2, 3, 4, 5)), ("one spatial axis", (0, 2), (3, 2, 7)),
    ("everything", (0, 1), (4, 5)),
):  # fmt: skip
    row("normalize", _note, normalize(_axes, *_shape), ["x"])
    row("normalize_grad", _note, normalize(_axes, *_shape, op="normalize_grad"))
row("normalize", "one element each", normalize((0,), 1, 5))
row("normalize", "a large mean", lambda r, t: (
    ((normal(r, t, 8, 3) + 100).astype(t), Spec((8, 3), t), Spec((1, 3), t), Spec((1, 3), t)),
    {"axes": (0,), "eps": 1e-5}), rtol=1e-4, atol=2e-5,
    reason="x - mean cancels two digits of x")  # fmt: skip


def softmax(axis: int, *shape: int, op: str = "softmax", scale: float = 1.0) -> Any:
    def make(rng: Rng, dtype: str) -> Made:
        x = (normal(rng, dtype, *shape) * scale).astype(dtype)
        if op == "softmax":
            return (x, Spec(shape, dtype)), {"axis": axis}
        return (np.exp(x) / 5, normal(rng, dtype, *shape), Spec(shape, dtype)), {"axis": axis}

    return make


for _note, _axis, _shape in (
    ("rows", 1, (4, 6)), ("channels", 1, (2, 5, 3, 2)), ("first axis", 0, (5, 3)), ("last of three", 2, (2, 3, 4)),
    ("one class", 1, (3, 1)), ("batch of one", 1, (1, 10)),
):  # fmt: skip
    row("softmax", _note, softmax(_axis, *_shape), ["x"])
    row("softmax_grad", _note, softmax(_axis, *_shape, op="softmax_grad"))
row("softmax", "scores of thousands", softmax(1, 4, 6, scale=3000.0))
for _note, _axis, _shape in (("many rows", 1, (130, 260)), ("last of many", 2, (8, 64, 70))):
    row("softmax", _note, softmax(_axis, *_shape))
    row("softmax_grad", _note, softmax(_axis, *_shape, op="softmax_grad"))


# --------------------------------------------------------------------------------------------------------------- loss
def nll(axis: int, shape: Sequence[int], label: Any, normalize: str = "valid", ignore: int | None = None,
        op: str = "softmax_nll", kind: str = "", scale: float = 1.0) -> Any:  # fmt: skip
    def make(rng: Rng, dtype: str) -> Made:
        x = (normal(rng, dtype, *shape) * scale).astype(dtype)
        given = (label(rng) if callable(label) else np.array(label)).astype(kind or dtype)
        one, whole = Spec((), dtype), Spec(tuple(shape), dtype)
        if op == "softmax_nll":
            return (x, given, whole, one, one), {"axis": axis, "ignore": ignore, "normalize": normalize}
        prob = np.exp(x) / np.exp(x).sum(axis, keepdims=True)
        norm, seed = np.array(3, dtype), np.array(0.7, dtype)
        return (prob, given, norm, seed, whole), {"axis": axis, "ignore": ignore}

    return make


_LOSSES: list[tuple[str, int, tuple[int, ...], Any, dict[str, Any]]] = [
    ("rows", 1, (4, 6), [0, 5, 2, 2], {}),
    ("batch of one", 1, (1, 6), [3], {}),
    ("labels N 1 1 1", 1, (3, 4), lambda r: labels(r, 4, 3, 1, 1, 1), {}),
    ("integer labels", 1, (4, 6), [0, 5, 2, 2], {"kind": "int32"}),
    ("byte labels, one ignored", 1, (4, 6), [0, 255, 2, 2], {"kind": "uint8", "ignore": 255}),
    ("labels are truncated", 1, (4, 6), [0.9, 5.5, 2.1, 2.0], {}),
    ("pixels", 1, (2, 5, 3, 4), lambda r: labels(r, 5, 2, 1, 3, 4), {}),
    ("pixels, one class ignored", 1, (2, 5, 3, 4), lambda r: labels(r, 5, 2, 3, 4), {"ignore": 2}),
    ("a negative label ignored", 1, (4, 3), [-1, 2, -1, 0], {"ignore": -1}),
    ("all ignored", 1, (3, 4), [-1, -1, -1], {"ignore": -1}),
    ("last axis", 2, (2, 3, 4), lambda r: labels(r, 4, 2, 3), {}),
    ("first axis", 0, (4, 3), lambda r: labels(r, 4, 3), {}),
]
for _note, _axis, _shape, _label, _more in _LOSSES:
    row("softmax_nll", _note, nll(_axis, _shape, _label, **_more), ["x"])
    row("softmax_nll_grad", _note, nll(_axis, _shape, _label, op="softmax_nll_grad", **_more))
for _how in ("full", "batch", "none"):
    row("softmax_nll", f"normalised by {_how}", nll(1, (2, 5, 3), lambda r: labels(r, 5, 2, 3), _how, 2), ["x"])
row("softmax_nll", "many rows", nll(1, (130, 260), lambda r: labels(r, 260, 130)))
row("softmax_nll", "last of many, one class ignored", nll(2, (8, 64, 70), lambda r: labels(r, 70, 8, 64), ignore=3))
row("softmax_nll", "the logarithm is clamped", nll(1, (4, 6), [0, 5, 2, 2], scale=2000.0))


# -------------------------------------------------------------------------------------------------------------- shape
def joined(axis: int, *shapes: tuple[int, ...], op: str = "concat") -> Any:
    def make(rng: Rng, dtype: str) -> Made:
        whole = tuple(sum(s[axis] for s in shapes) if i == axis else n for i, n in enumerate(shapes[0]))
        if op == "concat":
            return (tuple(normal(rng, dtype, *s) for s in shapes), Spec(whole, dtype)), {"axis": axis}
        return (normal(rng, dtype, *whole), tuple(Spec(s, dtype) for s in shapes)), {"axis": axis}

    return make


for _note, _axis, _shapes in (
    ("channels", 1, ((2, 3, 4), (2, 1, 4), (2, 2, 4))), ("batch", 0, ((2, 3), (1, 3))),
    ("last axis", 2, ((2, 2, 1), (2, 2, 5))),
    ("one", 1, ((2, 3),)), ("one axis", 0, ((2,), (3,))),
):  # fmt: skip
    row("concat", _note, joined(_axis, *_shapes), ["xs"])
    row("split", _note, joined(_axis, *_shapes, op="split"), ["x"])


def boxed(big: tuple[int, ...], small: tuple[int, ...], begin: tuple[int, ...], op: str) -> Any:
    def make(rng: Rng, dtype: str) -> Made:
        ends = (big, small) if op == "slice" else (small, big)
        return (normal(rng, dtype, *ends[0]), Spec(ends[1], dtype)), {"begin": begin}

    return make


for _op in ("slice", "place"):
    row(_op, "inside", boxed((2, 3, 5, 6), (2, 3, 2, 3), (0, 0, 1, 3), _op), ["x"])
    row(_op, "the whole", boxed((2, 3), (2, 3), (0, 0), _op), ["x"])
    row(_op, "one axis", boxed((7,), (2,), (5,), _op), ["x"])
    row(_op, "some images", boxed((5, 3), (2, 3), (2, 0), _op), ["x"])
    row(_op, "no axes", boxed((), (), (), _op), ["x"])


def transpose(axes: tuple[int, ...], *shape: int) -> Any:
    def make(rng: Rng, dtype: str) -> Made:
        return (normal(rng, dtype, *shape), Spec(tuple(shape[a] for a in axes), dtype)), {"axes": axes}

    return make


row("transpose", "matrix", transpose((1, 0), 3, 4), ["x"])
row("transpose", "channels last", transpose((0, 2, 3, 1), 2, 3, 4, 5), ["x"])
row("transpose", "a cycle of three", transpose((2, 0, 1), 2, 3, 4), ["x"])
row("transpose", "nothing moves", transpose((0, 1, 2), 2, 3, 4), ["x"])
row("transpose", "no axes", transpose(()), ["x"])


def indexed(rows: int, width: tuple[int, ...], index: Any, op: str = "gather", kind: str = "") -> Any:
    def make(rng: Rng, dtype: str) -> Made:
        at = np.array(index).astype(kind or dtype)
        if op == "gather":
            return (normal(rng, dtype, rows, *width), at, Spec((*at.shape, *width), dtype)), {}
        return (at, normal(rng, dtype, *at.shape, *width), Spec((rows, *width), dtype)), {}

    return make


for _note, _rows, _width, _index, _kind in (
    ("some, one twice", 6, (3,), [4, 0, 4], ""), ("a matrix of them", 5, (2,), [[1, 2], [4, 0], [1, 1]], "int64"),
    ("truncated", 4, (2, 3), [0.7, 3.9], ""), ("single numbers", 5, (), [2, 2, 0], "int32"),
    ("just one", 5, (3,), 4, ""),
):  # fmt: skip
    row("gather", _note, indexed(_rows, _width, _index, kind=_kind), ["x"])
    row("scatter_add", _note, indexed(_rows, _width, _index, "scatter_add", _kind), ["x"])


def merged(index: Any, width: tuple[int, ...], kind: str = "") -> Any:
    def make(rng: Rng, dtype: str) -> Made:
        at = np.array(index).astype(kind or dtype)
        x = normal(rng, dtype, *at.shape, *width)
        return (at, x, Spec((at.size,), "int32"), Spec((at.size, *width), dtype)), {}

    return make


for _note, _index, _width, _kind in (
    ("some, one three times", [4, 0, 4, 2, 4], (3,), ""), ("a matrix, all alike", [[1, 1], [1, 1]], (2, 3), "int64"),
    ("no row twice, truncated", [3.7, 0.9, 2.0], (300,), ""), ("negative ones", [-1, 2, -5, 2, 0], (), "int32"),
    ("nothing but negative ones", [-1, -1], (4,), "int32"), ("no entries", [], (3,), "int32"),
    ("just one", 5, (3,), ""), ("far apart", [7, *range(600), 7, 599, 300], (2,), "int32"),
):  # fmt: skip
    row("merge_rows", _note, merged(_index, _width, _kind))


def update_rows(rules: Rule, index: Any, table: tuple[int, ...], kind: str = "int32", numbers: int = 1) -> Any:
    """The first input has a row for each entry, ``numbers`` more are one number each."""

    def make(rng: Rng, dtype: str) -> Made:
        at = np.array(index).astype(kind)
        xs = positive(rng, dtype, at.size, *table[1:]), *(positive(rng, dtype) for _ in range(numbers))
        return (at, xs, tuple(positive(rng, dtype, *table) for _ in rules.variables)), {"rule": rules}

    return make


row("update_rows", "momentum", update_rows(_SGD, [3, -1, 0, 5], (6, 3)))
row("update_rows", "adam", update_rows(_ADAM, [1, 6, -1, -1, 0, 2], (7, 2, 5), "int64"))
row("update_rows", "single numbers", update_rows(_NESTEROV, [2, 4], (5,)))
row("update_rows", "nothing to change", update_rows(_SGD, [-1, -1], (4, 3)))
row("update_rows", "no entries", update_rows(_SGD, [], (4, 3)))
row("update_rows", "one entry of one number", update_rows(_SGD, [1], (3, 1), "float32"))
row("update_rows", "a table of one row", update_rows(_SGD, [-1, 0], (1, 70)))
row("update_rows", "long rows", update_rows(_SGD, [2, -1, 0], (3, 50_001)))
row("scatter_add", "negative ones are dropped", indexed(4, (3,), [-1, 2, -5, 2], "scatter_add"), ["x"])


# ------------------------------------------------------------------------------------------------------------ metrics
def rank(axis: int, shape: tuple[int, ...], label: Any, kind: str = "") -> Any:
    def make(rng: Rng, dtype: str) -> Made:
        given = np.array(label(rng) if callable(label) else label).astype(kind or dtype)
        return (coarse(rng, dtype, *shape), given, Spec(given.shape, dtype)), {"axis": axis}

    return make


row("rank", "rows with ties", rank(1, (6, 12), lambda r: labels(r, 12, 6)))
row("rank", "pixels", rank(1, (2, 5, 3, 2), lambda r: labels(r, 5, 2, 3, 2), "int32"))
row("rank", "labels out of range", rank(1, (4, 3), [-1, 3, 0, 255]))
row("rank", "first axis", rank(0, (4, 3), [1, 3, 0]))


def topk(axis: int, k: int, *shape: int, kind: str = "int32") -> Any:
    def make(rng: Rng, dtype: str) -> Made:
        out = tuple(k if i == axis else n for i, n in enumerate(shape))
        return (coarse(rng, dtype, *shape), Spec(out, dtype), Spec(out, kind or dtype)), {"axis": axis}

    return make


row("topk", "three with ties", topk(1, 3, 5, 12))
row("topk", "one", topk(1, 1, 5, 12))
row("topk", "all", topk(1, 6, 3, 6))
row("topk", "positions as floats", topk(1, 2, 3, 6, kind=""))
row("topk", "first axis", topk(0, 2, 5, 3))
row("topk", "channels of pixels", topk(1, 2, 2, 7, 3, 2))


# ------------------------------------------------------------------------------------------------------------- random
def random(how: str, p: float, counter: int, *shape: int, kind: str = "", seed: int = 5) -> Any:
    def make(rng: Rng, dtype: str) -> Made:
        out = Spec(shape, kind or dtype)
        return (np.array(counter, "int64"), out), {"how": how, "p": p, "seed": seed, "stream": 7}

    return make


row("random", "uniform", random("uniform", 0.0, 3, 5, 7), rtol=0, atol=0, reason="the same bits everywhere")
row("random", "bernoulli", random("bernoulli", 0.3, 0, 4, 9), rtol=0, atol=0, reason="the same bits everywhere")
row("random", "a byte mask", random("bernoulli", 0.5, 2**34 + 1, 1001, kind="uint8"))
row("random", "never", random("bernoulli", 0.0, 1, 40))
row("random", "always", random("bernoulli", 1.0, 1, 40))
row("random", "a seed of 64 bits", random("uniform", 0.0, 1, 3, 3, seed=2**60 + 3), rtol=0, atol=0)
row("random", "one number", random("uniform", 0.0, 9), rtol=0, atol=0)


# --------------------------------------------------------------------------------------------------------------- host
def outer_product(xs: Any, ys: Any) -> None:
    """Two outputs of two inputs, in Python."""
    np.multiply.outer(xs[0], xs[1], out=ys[0])
    ys[1][...] = xs[0].sum()


def outer_product_gradient(wanted: tuple[bool, ...]) -> Any:
    """What makes the gradient of it."""

    def step(given: Any, targets: Any) -> None:
        a, b, _, _, dy, dsum = given
        found = dy @ b + dsum, a @ dy
        for target, value in zip(targets, [v for v, want in zip(found, wanted, strict=True) if want], strict=True):
            target[...] = value

    return step


for _note, _wants in (("two inputs", ["xs"]), ("a gradient of one of them", ["xs[1]"])):
    row("host", _note, lambda r, t: (
        ((normal(r, t, 3), normal(r, t, 4)), (Spec((3, 4), t), Spec((), t))),
        {"fn": outer_product, "grad": outer_product_gradient}), _wants)  # fmt: skip
row("host", "no gradient", lambda r, t: (((normal(r, t, 3), normal(r, t, 4)), (Spec((3, 4), t), Spec((), t))),
                                         {"fn": outer_product, "grad": None}))  # fmt: skip

__all__ = ["KERNELS"]
