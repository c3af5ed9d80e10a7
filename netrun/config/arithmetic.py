"""What the signs and functions of the config language's formulas do; ``formula.py`` is their grammar."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from .value import FormulaError, Value, check, same, words


def truth(value: Value, at: int, who: str) -> bool:
    """The value as a truth.

    Raises:
        FormulaError: it is none.
    """
    if isinstance(value, bool):
        return value
    raise FormulaError(f"{who} wants true, false or a comparison, got {words(value)}", at)


def whole(value: Value, at: int, who: str) -> int:
    """The value as a whole number.

    Raises:
        FormulaError: it is none.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise FormulaError(f"{who} wants a whole number, got {words(value)}", at)


def _number(value: Value, at: int, who: str) -> int | float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise FormulaError(f"{who} wants numbers, got {words(value)}", at)


def compare(sign: str, a: Value, b: Value, at: int) -> bool:
    """``a sign b`` for one of the six signs; texts compare by their characters.

    Raises:
        FormulaError: they are of kinds that have no order.
    """
    if sign in ("==", "!="):
        return same(a, b) == (sign == "==")
    if isinstance(a, str) and isinstance(b, str):
        return {"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[sign]
    x, y = _number(a, at, sign), _number(b, at, sign)
    return {"<": x < y, "<=": x <= y, ">": x > y, ">=": x >= y}[sign]


def operate(sign: str, a: Value, b: Value, at: int) -> Value:
    """``a sign b`` for + - * / // % ^; + also joins texts.

    Raises:
        FormulaError: they are no numbers, or what comes out is none.
    """
    if sign == "+" and isinstance(a, str) and isinstance(b, str):
        return check(str(a) + str(b), at)
    return run(sign, _OPERATORS[sign], [_number(a, at, sign), _number(b, at, sign)], at)


def negative(value: Value, signs: int, at: int) -> Value:
    """The value behind so many minus signs."""
    number = _number(value, at, "-")
    return -number if signs % 2 else number


def run(name: str, body: Callable[..., Value], args: Sequence[Value], at: int) -> Value:
    """``body`` of the arguments; ``name`` is what it is called.

    Raises:
        FormulaError: an argument is no number, or what comes out is none.
    """
    if name != "len":
        args = [_number(arg, at, name) for arg in args]
    try:
        return check(body(*args), at)
    except ZeroDivisionError:
        raise FormulaError(f"{name} divides by zero", at) from None
    except (OverflowError, ValueError):
        shown_args = ", ".join(words(arg) for arg in args)
        raise FormulaError(f"{name} of {shown_args} is no number, or too large", at) from None


def _divide(a: int | float, b: int | float) -> int | float:
    return a // b if isinstance(a, int) and isinstance(b, int) and a % b == 0 else a / b


def _power(a: int | float, b: int | float) -> int | float:
    if isinstance(a, int) and isinstance(b, int) and b >= 0:
        if b > 64 and abs(a) > 1:
            raise OverflowError
        return int(a**b)
    if a < 0 and b != int(b):
        raise ValueError
    return float(a) ** b


def _length(value: Value) -> int:
    if not isinstance(value, list | str):
        raise ValueError
    return len(value)


_OPERATORS: Mapping[str, Callable[..., Value]] = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": _divide,
    "//": lambda a, b: a // b, "%": lambda a, b: a % b, "^": _power,
}  # fmt: skip
_MANY = 100
# name -> the least and most arguments it takes, and what it does; where(test, yes, no) is built in
FUNCTIONS: Mapping[str, tuple[int, int, Callable[..., Value]]] = {
    "min": (2, _MANY, min), "max": (2, _MANY, max), "abs": (1, 1, abs), "sqrt": (1, 1, math.sqrt),
    "floor": (1, 1, math.floor), "ceil": (1, 1, math.ceil), "round": (1, 1, lambda x: math.floor(x + 0.5)),
    "len": (1, 1, _length),
}  # fmt: skip
