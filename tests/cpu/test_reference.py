"""The reference device itself: against loops over single numbers, values worked out by hand, and adjointness."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from cases import KernelCase
from cases.kernels import KERNELS

from netrun import random
from netrun.cpu.noise import BLOCK, Noise
from netrun.cpu.reference import Reference
from netrun.types import Spec, Window

K = Reference("float64")
Array = Any


def rows(*ops: str) -> list[KernelCase]:
    return [case for case in KERNELS if case.op in ops]


def run(case: KernelCase) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments after the reference has run in float64, and the attributes."""
    given, attrs = case.build("float64")

    def memory(argument: Any) -> Any:
        if isinstance(argument, Spec):
            return K.temp("out", argument.shape, argument.dtype)
        return tuple(memory(a) for a in argument) if isinstance(argument, tuple) else argument

    args = tuple(memory(a) for a in given)
    getattr(K, case.op)(*args, **attrs)
    return args, dict(attrs)


def inputs_of(
    window: Window, at: Sequence[int], size: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(kernel index, input position) of every element of the window at one output position that lies inside."""
    for tap in itertools.product(*map(range, window.kernel)):
        rows_ = zip(at, window.stride, window.pad, tap, window.dilation, strict=True)
        position = tuple(o * s - p + i * d for o, s, p, i, d in rows_)
        if all(0 <= p < n for p, n in zip(position, size, strict=True)):
            yield tap, position


# ----------------------------------------------------------------------------------------------------- against loops
@pytest.mark.parametrize("case", rows("conv"), ids=str)
def test_conv_by_loops(case: KernelCase) -> None:
    (x, w, b, y), attrs = run(case)
    groups, per_group = attrs["groups"], w.shape[0] // attrs["groups"]
    for at in np.ndindex(*y.shape[2:]):
        met = list(inputs_of(attrs["window"], at, x.shape[2:]))
        for n, k in itertools.product(range(min(2, len(y))), range(w.shape[0])):
            first = k // per_group * (x.shape[1] // groups)
            total = 0.0 if b is None else b[k]
            for c in range(w.shape[1]):
                total += sum(w[(k, c, *tap)] * x[(n, first + c, *position)] for tap, position in met)
            assert y[(n, k, *at)] == pytest.approx(total, abs=1e-12)


@pytest.mark.parametrize("case", rows("im2col"), ids=str)
def test_im2col_by_loops(case: KernelCase) -> None:
    (x, y), attrs = run(case)
    window = attrs["window"]
    columns = y.reshape(*x.shape[:2], *window.kernel, *y.shape[2:])
    wanted = np.zeros_like(columns)
    for at in np.ndindex(*y.shape[2:]):
        for tap, position in inputs_of(window, at, x.shape[2:]):
            wanted[(slice(None), slice(None), *tap, *at)] = x[(slice(None), slice(None), *position)]
    np.testing.assert_array_equal(columns, wanted)


@pytest.mark.parametrize("case", rows("pool_max"), ids=str)
def test_pool_max_by_loops(case: KernelCase) -> None:
    (x, y, index), attrs = run(case)
    size = x.shape[2:]
    for n, c, *at in np.ndindex(*y.shape):
        best, winner = None, -1
        for _, position in inputs_of(attrs["window"], at, size):
            value = x[(n, c, *position)]
            if best is None or value > best:
                best, winner = value, int(np.ravel_multi_index(position, size)) if size else 0
        assert y[(n, c, *at)] == (np.finfo("float64").min if best is None else best)
        assert index[(n, c, *at)] == winner


@pytest.mark.parametrize("case", rows("pool_avg"), ids=str)
def test_pool_avg_by_loops(case: KernelCase) -> None:
    (x, y), attrs = run(case)
    window, size = attrs["window"], x.shape[2:]
    for n, c, *at in np.ndindex(*y.shape):
        inside = [position for _, position in inputs_of(window, at, size)]
        padded = 0
        for tap in itertools.product(*map(range, window.kernel)):
            starts = [o * s - p for o, s, p in zip(at, window.stride, window.pad, strict=True)]
            meets = [a + i * d for a, i, d in zip(starts, tap, window.dilation, strict=True)]
            padded += all(m < e + q for m, e, q in zip(meets, size, window.pad_end, strict=True))
        divisor = {"padded": max(1, padded), "inside": len(inside), "kernel": math.prod(window.kernel)}[attrs["count"]]
        wanted = sum(x[(n, c, *position)] for position in inside) / divisor if divisor else 0.0
        assert y[(n, c, *at)] == pytest.approx(wanted, abs=1e-14)


@pytest.mark.parametrize("case", rows("pool_random"), ids=str)
def test_pool_random_by_loops(case: KernelCase) -> None:
    (x, noise, y, index), attrs = run(case)
    size = x.shape[2:]
    for n, c, *at in np.ndindex(*y.shape):
        inside = [position for _, position in inputs_of(attrs["window"], at, size)]
        values = [x[(n, c, *position)] for position in inside]
        running, chosen = 0.0, len(inside) - 1
        for i, value in enumerate(values):
            running += value
            if running > noise[(n, c, *at)] * sum(values):
                chosen = i
                break
        assert y[(n, c, *at)] == (values[chosen] if inside else 0)
        flat = int(np.ravel_multi_index(inside[chosen], size)) if inside and size else len(inside) - 1
        assert index[(n, c, *at)] == flat


@pytest.mark.parametrize("case", rows("lrn"), ids=str)
def test_lrn_by_loops(case: KernelCase) -> None:
    (x, y, scale), attrs = run(case)
    size, before = attrs["size"], (attrs["size"] - 1) // 2
    for c in range(x.shape[1]):
        around = x[:, max(0, c - before) : c - before + size]
        wanted = attrs["k"] + attrs["alpha"] / size * (around**2).sum(axis=1)
        np.testing.assert_allclose(scale[:, c], wanted, 1e-13)
        np.testing.assert_allclose(y[:, c], x[:, c] / wanted ** attrs["beta"], 1e-13)


@pytest.mark.parametrize("case", rows("normalize"), ids=str)
def test_normalize_by_loops(case: KernelCase) -> None:
    (x, y, mean, var), attrs = run(case)
    kept = [range(n) if i not in attrs["axes"] else [slice(None)] for i, n in enumerate(x.shape)]
    for box in itertools.product(*kept):
        part = x[box].reshape(-1)
        m = math.fsum(part) / part.size
        v = math.fsum((part - m) ** 2) / part.size
        assert mean[box].item() == pytest.approx(m, abs=1e-13)
        assert var[box].item() == pytest.approx(v, rel=1e-11, abs=1e-13)
        np.testing.assert_allclose(y[box].reshape(-1), (part - m) / math.sqrt(v + attrs["eps"]), 1e-9, 1e-11)


@pytest.mark.parametrize("case", [c for c in rows("softmax_nll") if "clamped" not in c.note], ids=str)
def test_softmax_nll_by_loops(case: KernelCase) -> None:
    (x, label, prob, loss, norm), attrs = run(case)
    axis = attrs["axis"]
    scores = np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])
    total, counted = 0.0, 0
    for row, value in zip(scores, label.reshape(-1), strict=True):
        if int(value) != attrs["ignore"]:
            counted += 1
            total += math.log(math.fsum(np.exp(row))) - row[int(value)]
    outer = math.prod(x.shape[:axis])
    wanted = max(1, {"valid": counted, "full": len(scores), "batch": outer, "none": 1}[attrs["normalize"]])
    assert norm == wanted
    assert loss == pytest.approx(total / wanted, abs=1e-13)
    np.testing.assert_allclose(prob.sum(axis=axis), 1, 1e-14)


@pytest.mark.parametrize("case", rows("topk", "rank"), ids=str)
def test_order_by_sorting(case: KernelCase) -> None:
    args, attrs = run(case)
    axis, x = attrs["axis"], args[0]
    lines = np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])
    if case.op == "topk":
        values, index = (np.moveaxis(a, axis, -1).reshape(len(lines), -1) for a in args[1:])
        for line, v, i in zip(lines, values, index, strict=True):
            order = sorted(range(len(line)), key=lambda k: (-line[k], -k))[: len(v)]
            assert (i.tolist(), v.tolist()) == (order, line[order].tolist())
        return
    for line, value, got in zip(lines, args[1].reshape(-1), args[2].reshape(-1), strict=True):
        k = int(value)
        ahead = sum(line[j] >= line[k] for j in range(len(line)) if j != k) if 0 <= k < len(line) else len(line)
        assert got == ahead


# ---------------------------------------------------------------------------------------------------------- adjointness
def normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape)


def inner(a: Array, b: Array) -> float:
    return float(np.vdot(a, b))


@pytest.mark.parametrize("case", rows("conv"), ids=str)
def test_conv_adjoints(case: KernelCase) -> None:
    (x, w, _, _), attrs = run(case)
    y = K.temp("y", case.build("float64")[0][3].shape, "float64")
    K.conv(x, w, None, y, **attrs)
    dy = normal(np.random.default_rng(2), *y.shape)
    dx, dw = np.full_like(x, np.nan), np.full_like(w, np.nan)
    K.conv_grad_x(w, dy, dx, **attrs)
    K.conv_grad_w(x, dy, dw, **attrs)
    assert inner(y, dy) == pytest.approx(inner(x, dx), rel=1e-12, abs=1e-12)
    assert inner(y, dy) == pytest.approx(inner(w, dw), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(
    ("forward", "backward"),
    [("im2col", "col2im"), ("pool_avg", "pool_avg_grad"), ("slice", "place"), ("gather", "scatter_add")],
)
def test_linear_adjoints(forward: str, backward: str) -> None:
    for case in rows(forward):
        args, attrs = run(case)
        x, y = args[0], args[-1]
        dy, dx = normal(np.random.default_rng(2), *y.shape), np.full(x.shape, np.nan)
        if forward == "gather":
            K.scatter_add(args[1], dy, dx)
        else:
            getattr(K, backward)(dy, dx, **attrs)
        assert inner(y, dy) == pytest.approx(inner(x, dx), rel=1e-12, abs=1e-12), str(case)


@pytest.mark.parametrize("case", rows("pool_max", "pool_random"), ids=str)
def test_pool_max_adjoint(case: KernelCase) -> None:
    """The outputs are the inputs at the indices, and the gradients come back to them."""
    args, attrs = run(case)
    x, y, index = args[0], args[-2], args[-1]
    dy, dx = normal(np.random.default_rng(2), *y.shape), np.full(x.shape, np.nan)
    K.pool_max_grad(index, dy, dx, **attrs)
    hit = index >= 0
    assert inner(np.where(np.isinf(y), -1, y)[hit], dy[hit]) == pytest.approx(
        inner(np.where(np.isinf(x), -1, x), dx), rel=1e-12, abs=1e-12
    )


def slope(f: Any, x: Array, step: Array, h: float = 1e-5) -> float:
    return float((f(x + h * step) - f(x - h * step)) / (2 * h))


@pytest.mark.parametrize("case", [c for c in rows("lrn", "normalize", "softmax") if "thousands" not in c.note], ids=str)
def test_adjoint_of_the_derivative(case: KernelCase) -> None:
    args, attrs = run(case)
    x, y = args[0], args[1]
    rng = np.random.default_rng(2)
    dy, step, dx = normal(rng, *y.shape), normal(rng, *x.shape), np.full(x.shape, np.nan)
    between = {"lrn": args[:3], "normalize": (y, args[-1]), "softmax": (y,)}[case.op]
    getattr(K, case.op + "_grad")(*between, dy, dx, **attrs)

    def forward(at: Array) -> float:
        outs = [np.empty_like(a) for a in args[1:]]
        getattr(K, case.op)(at, *outs, **attrs)
        return inner(outs[0], dy)

    assert inner(dx, step) == pytest.approx(slope(forward, x, step), rel=2e-6, abs=1e-7)


@pytest.mark.parametrize("case", [c for c in rows("softmax_nll") if "clamped" not in c.note], ids=str)
def test_softmax_nll_derivative(case: KernelCase) -> None:
    (x, label, prob, _, norm), attrs = run(case)
    step, dx = normal(np.random.default_rng(2), *x.shape), np.full(x.shape, np.nan)
    K.softmax_nll_grad(prob, label, norm, np.array(0.7), dx, axis=attrs["axis"], ignore=attrs["ignore"])

    def forward(at: Array) -> float:
        p, loss, n = np.empty_like(x), np.empty(()), np.empty(())
        K.softmax_nll(at, label, p, loss, n, **attrs)
        return 0.7 * float(loss)

    assert inner(dx, step) == pytest.approx(slope(forward, x, step), rel=1e-6, abs=1e-9)


# ------------------------------------------------------------------------------------------------------ worked by hand
def test_caffe_average_of_a_padded_window() -> None:
    """3x3 by 2 with padding 1 on 4x4: the last window is cut at 5 = 4 + 1, so its divisor is 2 rows of 3."""
    x, y = np.ones((1, 1, 4, 4)), np.empty((1, 1, 3, 3))
    K.pool_avg(x, y, window=Window((3, 3), (2, 2), (1, 1)), count="padded")
    np.testing.assert_allclose(y[0, 0], np.outer([2, 3, 1], [2, 3, 1]) / np.outer([3, 3, 2], [3, 3, 2]))


def test_the_first_maximum_wins() -> None:
    x, y, index = (
        np.array([[[[1.0, 3, 3], [3, 0, 1], [2, 3, 1]]]]),
        np.empty((1, 1, 2, 2)),
        np.empty((1, 1, 2, 2), "int32"),
    )
    K.pool_max(x, y, index, window=Window((2, 2)))
    assert y.reshape(-1).tolist() == [3, 3, 3, 3]
    assert index.reshape(-1).tolist() == [1, 1, 3, 7]


def test_nan_comes_through_the_maximum() -> None:
    for place in range(4):
        x = np.ones((1, 1, 2, 2))
        x.reshape(-1)[place] = np.nan
        y, index = np.empty((1, 1, 1, 1)), np.empty((1, 1, 1, 1), "int32")
        K.pool_max(x, y, index, window=Window((2, 2)))
        assert np.isnan(y).all()
        assert 0 <= index.item() < 4


def test_gemm_by_hand() -> None:
    y = np.empty((2, 2))
    K.gemm(np.array([[1.0, 2], [3, 4]]), np.array([[5.0, 6], [7, 8]]), np.array([100.0, 0]), y, ta=True, tb=False)
    assert y.tolist() == [[126, 30], [138, 44]]


def test_the_clamped_loss() -> None:
    x, prob, loss, norm = (
        np.array([[0, 1e5]], "float32"),
        np.empty((1, 2), "float32"),
        np.empty((), "float32"),
        np.empty(()),
    )
    K.softmax_nll(x, np.zeros(1), prob, loss, norm, axis=1, ignore=None, normalize="valid")
    assert loss == pytest.approx(-math.log(np.finfo("float32").tiny))


def test_view_and_temp() -> None:
    x = np.arange(6)
    assert K.view(x, (2, -1)).tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ValueError, match="6 elements cannot take the shape"):
        K.view(x, (4, 2))
    with pytest.raises(ValueError, match="cannot be seen as"):
        K.view(np.zeros((3, 2)).T, (6,))
    assert np.isnan(Reference().temp("t", (2,))).all()
    assert Reference().temp("t", (2,)).dtype == np.float32
    assert Reference("float64").temp("t", (2,)).dtype == np.float64
    assert (Reference().temp("t", (2,), "int32") < -1000).all()
    assert (Reference().temp("t", (2,), "uint8") == 77).all()


# --------------------------------------------------------------------------------------------------------------- random
def test_philox_known_answer() -> None:
    words = random.philox(4, seed=0, stream=0, counter=0)
    assert [hex(w) for w in words] == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]


@pytest.mark.parametrize("count", [1, 3, 4, 4 * BLOCK + 5])
def test_noise_draws_what_random_draws(count: int) -> None:
    noise = Noise(count, 2**40 + 3, 99)
    for counter in (0, 7, 2**33 + 1):
        wanted = random.uniform(count, seed=2**40 + 3, stream=99, counter=counter)
        assert noise.uniform(counter).tobytes() == wanted.tobytes()


def test_draws_are_uniform_and_bernoulli_is_a_threshold() -> None:
    uniform, coin = np.empty((100, 200), "float32"), np.empty((100, 200), "uint8")
    counter = np.array(5)
    K.random(counter, uniform, how="uniform", p=0.0, seed=1, stream=2)
    K.random(counter, coin, how="bernoulli", p=0.3, seed=1, stream=2)
    assert 0 <= uniform.min() < uniform.max() < 1
    assert uniform.mean() == pytest.approx(0.5, abs=0.01)
    np.testing.assert_array_equal(coin, uniform < np.float32(0.3))
