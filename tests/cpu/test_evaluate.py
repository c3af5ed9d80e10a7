"""Expressions on arrays against Python's own mathematics."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from netrun.cpu.evaluate import formula, run_rule
from netrun.expression import FUNCTIONS, rule

POINTS = np.array([-30, -4.2, -1, -0.3, -1e-4, 1e-7, 0.2, 0.5, 1, 2.7, 4.2, 30])
ONE: dict[str, Callable[[float], float]] = {
    "exp": math.exp, "expm1": math.expm1, "sin": math.sin, "cos": math.cos, "tanh": math.tanh, "erf": math.erf,
    "abs": abs, "floor": math.floor, "trunc": math.trunc, "neg": lambda x: -x, "sign": lambda x: math.copysign(1, x),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)), "softplus": lambda x: math.log1p(math.exp(x)),
}  # fmt: skip
POSITIVE: dict[str, Callable[[float], float]] = {"log": math.log, "log1p": math.log1p, "sqrt": math.sqrt}
TWO: dict[str, Callable[[float, float], float]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div": lambda a, b: a / b,
    "max": max, "min": min, "lt": lambda a, b: a < b, "le": lambda a, b: a <= b, "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b, "eq": lambda a, b: a == b, "ne": lambda a, b: a != b,
    "relu": lambda a, b: a if a > 0 else b * a, "elu": lambda a, b: a if a > 0 else b * math.expm1(a),
}  # fmt: skip


def evaluate(text: str, dtype: str, **values: Any) -> Any:
    return formula(text, dtype)(values)


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 4e-7), ("float64", 4e-16)])
@pytest.mark.parametrize("name", [*ONE, *POSITIVE])
def test_functions_of_one(name: str, dtype: str, rtol: float) -> None:
    points = (np.abs(POINTS) if name in POSITIVE else POINTS).astype(dtype)
    wanted = np.array([(ONE | POSITIVE)[name](float(x)) for x in points])
    got = evaluate(f"{name}(a)", dtype, a=points)
    assert got.dtype == dtype
    # sigmoid through tanh is exact to the last bit of 1, not of its own small values
    np.testing.assert_allclose(got, wanted, rtol * 4, np.finfo(dtype).eps if name == "sigmoid" else 1e-20)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", TWO)
def test_functions_of_two(name: str, dtype: str) -> None:
    a, b = np.repeat(POINTS, len(POINTS)).astype(dtype), np.tile(POINTS, len(POINTS)).astype(dtype)
    wanted = [float(TWO[name](float(x), float(y))) for x, y in zip(a, b, strict=True)]
    got = evaluate(f"{name}(a, b)", dtype, a=a, b=b)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, wanted, 1e-6 if dtype == "float32" else 1e-15)


def test_every_function_is_covered() -> None:
    assert {*ONE, *POSITIVE, *TWO, "pow", "where"} == set(FUNCTIONS)


@pytest.mark.parametrize("exponent", ["2", "3", "0.5", "-1", "-0.5", "1.7", "-2", "b"])
def test_powers(exponent: str) -> None:
    a = np.array([0.1, 1, 2.5, 9])
    power = 0.3 if exponent == "b" else float(exponent)
    np.testing.assert_allclose(evaluate(f"a^{exponent}", "float64", a=a, b=np.array(0.3)), a**power, 1e-15)


def test_negative_bases() -> None:
    assert evaluate("a^2", "float32", a=np.float32(-3)) == 9
    assert evaluate("a^3", "float32", a=np.float32(-2)) == -8
    assert np.isnan(evaluate("a^1.5", "float32", a=np.float32("nan")))


def test_where_takes_anything_but_zero_for_true() -> None:
    test = np.array([0, 1, -1, 0.5, -0.0])
    assert evaluate("where(a, 1, 2)", "float64", a=test).tolist() == [2, 1, 1, 1, 2]


def test_integers_become_floats() -> None:
    got = evaluate("a / b", "float32", a=np.array([1, 2], "uint8"), b=np.array([4, 255], "int64"))
    assert got.dtype == np.float32
    assert got.tolist() == [0.25, np.float32(2 / 255)]


def test_large_arguments() -> None:
    a = np.array([-1000.0, 1000.0], "float32")
    assert evaluate("sigmoid(a)", "float32", a=a).tolist() == [0, 1]
    assert evaluate("softplus(a)", "float32", a=a).tolist() == [0, 1000]
    assert evaluate("elu(a, 1)", "float32", a=a).tolist() == [-1, 1000]
    assert evaluate("erf(a)", "float32", a=a).tolist() == [-1, 1]


def test_erf_in_float32_near_every_point() -> None:
    x = np.linspace(-6, 6, 20_001).astype("float32")
    wanted = np.array([math.erf(float(v)) for v in x])
    np.testing.assert_allclose(evaluate("erf(a)", "float32", a=x), wanted, 1.2e-7, 1e-30)


def test_rule_runs_in_order_and_in_place() -> None:
    w, h = np.array([1.0, 2.0]), np.array([0.5, 0.5])
    step = rule(["g"], ["w", "h"], "old = h; h = 2*h + g; w = w - h + old")
    run_rule(step, [np.array([1.0, 3.0])], [w, h])
    assert h.tolist() == [2, 4]
    assert w.tolist() == [-0.5, -1.5]


def test_float32_variables_stay_float32() -> None:
    w = np.array([1], "float32")
    run_rule(rule(["lr"], ["w"], "w = w - 0.1*lr"), [np.array(1.0)], [w])
    assert w.dtype == np.float32
    assert w[0] == np.float32(1) - np.float32(0.1)
