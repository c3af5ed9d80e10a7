"""The reference device itself: against loops over single numbers, values worked out by hand, and adjointness."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from cases import KernelCase
from cases.reference import K, inner, normal, rows, run

from netrun import random
from netrun.cpu.noise import BLOCK, Noise
from netrun.cpu.reference import Reference

Array = Any


# ----------------------------------------------------------------------------------------------------- against loops
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
