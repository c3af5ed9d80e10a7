"""Every function a formula may use: its name, what it takes, what it is. ``netrun explain Expr`` lists them.

Reductions keep the axes they are given as axes of length 1, so that the result broadcasts against what it was made
from (``x - mean(x, axis=1)``); ``keepdims=0`` leaves them out. Without an axis they reduce to a single number.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..expression import FUNCTIONS as POINTWISE
from .array import Array, FormulaError, words
from .build import Builder

Function = Callable[..., Any]
F = TypeVar("F", bound=Function)
FUNCTIONS: dict[str, Function] = {}
"""By name: functions of a builder and the arguments."""


def function(run: F) -> F:
    """Register a function under its name (a trailing _ is left out)."""
    FUNCTIONS[run.__name__.rstrip("_")] = run
    return run


def usage(name: str) -> str:
    """``sum(x, axis=None, keepdims=None)``"""
    given = list(inspect.signature(FUNCTIONS[name]).parameters.values())[1:]
    shown = [
        f"{p.name}..." if p.kind is p.VAR_POSITIONAL else p.name if p.default is p.empty else f"{p.name}={p.default:g}"
        if isinstance(p.default, (int, float)) else f"{p.name}="
        for p in given
    ]  # fmt: skip
    return f"{name}({', '.join(shown)})"


def apply(build: Builder, name: str, args: Any, named: Mapping[str, Any]) -> Any:
    """Call a function of the table.

    Raises:
        FormulaError: it takes other arguments, or cannot have these.
    """
    run = FUNCTIONS[name]
    parameters = inspect.signature(run).parameters
    for key in named:
        if key not in parameters or parameters[key].kind is inspect.Parameter.VAR_POSITIONAL:
            raise FormulaError(f'{name} has no argument "{key}"', [f"it is {usage(name)}"])
    try:
        inspect.signature(run).bind(build, *args, **named)
    except TypeError:
        count = f"{len(args)} value{'s' if len(args) != 1 else ''}"
        raise FormulaError(f"{name} cannot be called with {count}", [f"it is {usage(name)}"]) from None
    return run(build, *args, **named)


def _pointwise(name: str) -> Function:
    count = POINTWISE[name]
    if count == 1:

        def one(build: Builder, x: Any) -> Array:
            return build.point(name, x)

        return one

    def two(build: Builder, x: Any, y: Any) -> Array:
        return build.point(name, x, y)

    return two


for _name in ("exp", "expm1", "log", "log1p", "sqrt", "abs", "sign", "floor", "trunc", "sin", "cos", "erf", "tanh",
              "sigmoid", "softplus", "pow"):  # fmt: skip
    FUNCTIONS[_name] = _pointwise(_name)


# -------------------------------------------------------------------------------------------------------- elementwise
@function
def where(build: Builder, test: Any, yes: Any, no: Any) -> Array:
    return build.point("where", test, yes, no)


@function
def relu(build: Builder, x: Any, slope: Any = 0) -> Array:
    return build.point("relu", x, slope)


@function
def elu(build: Builder, x: Any, alpha: Any = 1) -> Array:
    return build.point("elu", x, alpha)


@function
def gelu(build: Builder, x: Any) -> Array:
    given = build.array(x)
    return 0.5 * given * (1 + build.point("erf", given * (1 / math.sqrt(2))))


@function
def silu(build: Builder, x: Any) -> Array:
    given = build.array(x)
    return given * build.point("sigmoid", given)


@function
def square(build: Builder, x: Any) -> Array:
    return build.point("pow", x, 2)


@function
def ceil(build: Builder, x: Any) -> Array:
    return -build.point("floor", -build.array(x))


@function
def clip(build: Builder, x: Any, low: Any, high: Any) -> Array:
    return build.point("max", build.point("min", x, high), low)


# --------------------------------------------------------------------------------------------------------- reductions
@function
def sum_(build: Builder, x: Any, axis: Any = None, keepdims: Any = None) -> Array:
    return build.reduce("sum", x, axis, keepdims)


@function
def mean(build: Builder, x: Any, axis: Any = None, keepdims: Any = None) -> Array:
    x = build.array(x)
    count = math.prod(x.shape[i] for i in build.axes(x, axis))
    return build.reduce("sum", x * (1 / max(count, 1)), axis, keepdims)


@function
def var(build: Builder, x: Any, axis: Any = None, keepdims: Any = None) -> Array:
    given = build.array(x)
    return mean(build, build.point("pow", given - mean(build, given, axis, 1), 2), axis, keepdims)


@function
def std(build: Builder, x: Any, axis: Any = None, keepdims: Any = None) -> Array:
    return build.point("sqrt", var(build, x, axis, keepdims))


@function
def max_(build: Builder, *x: Any, axis: Any = None, keepdims: Any = None) -> Array:
    if len(x) == 1:
        return build.reduce("max", x[0], axis, keepdims)
    return _fold(build, "max", x, axis, keepdims)


@function
def min_(build: Builder, *x: Any, axis: Any = None, keepdims: Any = None) -> Array:
    if len(x) == 1:
        return build.point("neg", build.reduce("max", build.point("neg", x[0]), axis, keepdims))
    return _fold(build, "min", x, axis, keepdims)


def _fold(build: Builder, name: str, xs: tuple[Any, ...], axis: Any, keepdims: Any) -> Array:
    if not xs or axis is not None or keepdims is not None:
        raise FormulaError(
            f"{name} takes one value and an axis, or several values", [f"{name}(x, axis=1), {name}(x, y)"]
        )
    found = build.array(xs[0])
    for x in xs[1:]:
        found = build.point(name, found, x)
    return found


@function
def softmax(build: Builder, x: Any, axis: Any = -1) -> Array:
    x = build.real(x)
    return build.make("softmax", [x], build.axis(axis, x.ndim), x.shape)


@function
def log_softmax(build: Builder, x: Any, axis: Any = -1) -> Array:
    given = build.array(x)
    near = given - stop(build, build.reduce("max", given, axis, 1))
    return near - build.point("log", build.reduce("sum", build.point("exp", near), axis, 1))


@function
def normalize(build: Builder, x: Any, axis: Any = -1, eps: Any = 1e-5) -> Array:
    x = build.real(x)
    small = build.array(eps)
    if small.op != "number" or not small.attrs[0] >= 0:
        raise FormulaError("eps has to be a number that is not negative")
    return build.make("normalize", [x], (build.axes(x, axis), small.attrs[0]), x.shape)


@function
def stop(build: Builder, x: Any) -> Array:
    x = build.real(x)
    return build.make("stop", [x], (), x.shape) if x.op != "number" else x


# -------------------------------------------------------------------------------------------------- products and shape
@function
def matmul(build: Builder, x: Any, y: Any) -> Array:
    return build.matmul(x, y)


FUNCTIONS["dot"] = matmul


def _listed(sizes: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes


@function
def size(build: Builder, x: Any, axis: Any) -> Array:
    x = build.array(x)
    build.looked.append(x)
    return build.number(x.shape[build.axis(axis, x.ndim)])


@function
def reshape(build: Builder, x: Any, *sizes: Any) -> Array:
    return build.reshape(x, _listed(sizes))


@function
def broadcast(build: Builder, x: Any, *sizes: Any) -> Array:
    return build.widen(build.real(x), [build.whole(n, "a size") for n in _listed(sizes)])


@function
def transpose(build: Builder, x: Any, *axes: Any) -> Array:
    x = build.array(x)
    return build.transpose(x, _listed(axes) or tuple(reversed(range(x.ndim))))


@function
def concat(build: Builder, *x: Any, axis: Any = 1) -> Array:
    return build.concat(_listed(x), axis)


@function
def stack(build: Builder, *x: Any, axis: Any = 0) -> Array:
    parts = [build.array(p) for p in _listed(x)]
    at = build.axis(axis, max((p.ndim for p in parts), default=0) + 1)
    return build.concat([build.view(p, (*p.shape[:at], 1, *p.shape[at:])) for p in parts], at)


@function
def split(build: Builder, x: Any, parts: Any, axis: Any = 1) -> tuple[Array, ...]:
    x = build.array(x)
    at = build.axis(axis, x.ndim)
    if isinstance(parts, (tuple, list)):
        sizes = [build.whole(n, "a size") for n in parts]
    else:
        count = build.whole(parts, "parts")
        if count < 1 or x.shape[at] % count:
            raise FormulaError(f"axis {at} of {words(x.shape)} has no {count} equal parts")
        sizes = [x.shape[at] // count] * count
    if sum(sizes) != x.shape[at] or min(sizes, default=0) < 1:
        raise FormulaError(f"the parts {words(sizes)} do not make up axis {at} of {words(x.shape)}")
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return tuple(build.part(x, at, start, n) for start, n in zip(starts, sizes, strict=True))


# -------------------------------------------------------------------------------------------------------------- picking
@function
def take(build: Builder, table: Any, index: Any) -> Array:
    table, index = build.real(table), build.array(index)
    if not table.ndim:
        raise FormulaError("take wants a table of at least 1 axis")
    return build.make("gather", [table, index], (), (*index.shape, *table.shape[1:]))


@function
def arange(build: Builder, count: Any) -> Array:
    length = build.whole(count, "count")
    if not 0 < length <= 1_000_000:
        raise FormulaError(f"arange wants 1 to 1000000 numbers, got {length}")
    return build.table(range(length))


@function
def onehot(build: Builder, label: Any, count: Any, axis: Any = -1) -> Array:
    label, numbers = build.array(label), arange(build, count)
    at = build.axis(axis, label.ndim + 1)
    wide = build.view(build.point("trunc", label), (*label.shape[:at], 1, *label.shape[at:]))
    return build.point("eq", wide, build.view(numbers, (numbers.count, *(1,) * (label.ndim - at))))


@function
def pick(build: Builder, x: Any, label: Any, axis: Any = 1) -> Array:
    x, label = build.array(x), build.array(label)
    at = build.axis(axis, x.ndim)
    rest = (*x.shape[:at], *x.shape[at + 1 :])
    if label.count != math.prod(rest):
        raise FormulaError(f"pick wants one label for each of {words(rest)} positions, got {words(label.shape)}")
    chosen = onehot(build, build.view(label, rest), x.shape[at], at)
    return build.reduce("sum", build.point("where", chosen, x, 0), at, 0)


__all__ = ["FUNCTIONS", "apply", "usage"]
