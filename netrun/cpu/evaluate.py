"""Expressions on NumPy arrays: a text becomes a function once, by walking its tree; Python's ``eval`` is not used.

Everything is computed in one float type. Inputs of other types (integer labels, uint8 masks) are converted first, and
numbers are constants of that type, so that no float32 formula is computed in float64 by accident.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ..expression import ZERO, Apply, Node, Num, Rule, Var, parse

Array = npt.NDArray[Any]
Environment = Mapping[str, Any]
Formula = Callable[[Environment], Any]


def float_type(outputs: Sequence[Array], inputs: Sequence[Array]) -> np.dtype[Any]:
    """The type a formula is computed in: the outputs' float type, else the inputs', else float64."""
    for arrays in (outputs, inputs):
        found = [a.dtype for a in arrays if a.dtype.kind == "f"]
        if found:
            return np.result_type(*found)
    return np.dtype(np.float64)


def formula(text: str, dtype: Any) -> Formula:
    """The expression as a function from a mapping of names to arrays to an array (or NumPy scalar) of ``dtype``.

    Raises:
        ExpressionError: the text is not an expression.
    """
    return _formula(text, np.dtype(dtype))


@lru_cache(maxsize=4096)
def _formula(text: str, dtype: np.dtype[Any]) -> Formula:
    return _build(parse(text), dtype)


def run_rule(rule: Rule, xs: Sequence[Array], vs: Sequence[Array]) -> None:
    """Run the assignments of a rule in order; the variables ``vs`` change in place, the inputs broadcast to them."""
    dtype = float_type(vs, xs)
    variables = dict(zip(rule.variables, vs, strict=True))
    values: dict[str, Any] = {**dict(zip(rule.inputs, xs, strict=True)), **variables}
    for name, text in rule.body:
        value = formula(text, dtype)(values)
        if name in variables:
            variables[name][...] = value
        else:  # a local must not follow a variable that changes later
            values[name] = np.array(value, dtype)


# ------------------------------------------------------------------------------------------------------ the functions
def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)) without overflow."""
    half = x.dtype.type(0.5)
    return half * np.tanh(half * x) + half


def softplus(x: Any) -> Any:
    """log(1 + exp(x)) without overflow."""
    return np.maximum(x, x.dtype.type(0)) + np.log1p(np.exp(-np.abs(x)))


def erf(x: Any) -> Any:
    """The error function: to 1e-7 in float32, to the last digit or two in float64."""
    if x.dtype == np.float32:
        # erf(x) / x is a smooth function of x^2; beyond 4 the value is 1 to the last bit of float32.
        near = np.clip(x, -4, 4).astype(np.float64)
        return (near * _erf_over_x()(near * near)).astype(np.float32)
    return np.asarray(_erf_exact(x), x.dtype)


_erf_exact = np.frompyfunc(math.erf, 1, 1)


@lru_cache(maxsize=1)
def _erf_over_x() -> Callable[[Any], Any]:
    def ratio(t: Any) -> Any:
        root = np.sqrt(np.maximum(t, 1e-12))
        return np.asarray(_erf_exact(root), np.float64) / root

    fitted: Callable[[Any], Any] = np.polynomial.Chebyshev.interpolate(ratio, 28, domain=[0, 16])
    return fitted


def relu(x: Any, slope: Any) -> Any:
    """x where x > 0, else slope * x."""
    return np.where(x > 0, x, slope * x)


def elu(x: Any, alpha: Any) -> Any:
    """x where x > 0, else alpha * (exp(x) - 1)."""
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, x.dtype.type(0))))


def where(test: Any, yes: Any, no: Any) -> Any:
    """``yes`` where the test is not zero, else ``no``."""
    return np.where(test != 0, yes, no)


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "pow": np.power, "neg": np.negative,
    "max": np.maximum, "min": np.minimum, "abs": np.abs, "sign": np.sign, "floor": np.floor, "trunc": np.trunc,
    "exp": np.exp, "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "sqrt": np.sqrt, "sin": np.sin, "cos": np.cos,
    "tanh": np.tanh, "erf": erf, "sigmoid": sigmoid, "softplus": softplus, "relu": relu, "elu": elu, "where": where,
}  # fmt: skip
"""Functions that give back the float type they are given."""

COMPARISONS: Mapping[str, Callable[..., Any]] = {
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal,
}  # fmt: skip
"""Functions that give back truth values, which become 1 and 0."""

POWERS: Mapping[float, Callable[[Any], Any]] = {
    2.0: lambda x: x * x,
    3.0: lambda x: x * x * x,
    0.5: np.sqrt,
    -1.0: lambda x: x.dtype.type(1) / x,
    -0.5: lambda x: x.dtype.type(1) / np.sqrt(x),
}
"""Exponents that have a better way than ``np.power``."""


def _build(node: Node, dtype: np.dtype[Any]) -> Formula:
    if isinstance(node, Num):
        with np.errstate(over="ignore"):
            value = dtype.type(node.value)
        return lambda env: value
    if isinstance(node, Var):
        name = node.name
        return lambda env: np.asarray(env[name], dtype)
    parts = [_build(arg, dtype) for arg in node.args]
    if node.op in COMPARISONS:
        compare, (left, right) = COMPARISONS[node.op], parts
        return lambda env: compare(left(env), right(env)).astype(dtype)
    special = _power(node)
    if special:
        base = parts[0]
        return lambda env: special(base(env))
    if node.op == "relu" and node.args[1] == ZERO:
        rectified, zero = parts[0], dtype.type(0)
        return lambda env: np.maximum(rectified(env), zero)  # 0 for minus infinity too
    function = FUNCTIONS[node.op]
    if len(parts) == 1:
        (only,) = parts
        return lambda env: function(only(env))
    if len(parts) == 2:
        first, second = parts
        return lambda env: function(first(env), second(env))
    return lambda env: function(*(part(env) for part in parts))


def _power(node: Apply) -> Callable[[Any], Any] | None:
    if node.op == "pow" and isinstance(node.args[1], Num):
        return POWERS.get(node.args[1].value)
    return None
