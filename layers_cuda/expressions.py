"""Expressions and rules of netrun.expression as one line of CUDA C++ over src/functions.cuh."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

from netrun.expression import FUNCTIONS, ZERO, Apply, Node, Num, Rule, Var, parse

_SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
_COMPARISONS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_POWERS = {
    2.0: "f_square({0})", 3.0: "f_cube({0})", 0.5: "f_sqrt({0})", -1.0: "((R)1 / {0})", -0.5: "((R)1 / f_sqrt({0}))",
}  # fmt: skip
NAMED = frozenset(FUNCTIONS) - set(_SIGNS) - set(_COMPARISONS) - {"neg"}
"""Functions that functions.cuh has as ``f_<name>``."""


@lru_cache(maxsize=4096)
def cuda_expression(text: str) -> str:
    """The expression over ``v_<name>``, computed in R.

    Raises:
        ExpressionError: the text is not an expression.
    """
    return _print(parse(text))


def cuda_rule(rule: Rule, types: Mapping[str, str]) -> str:
    """The assignments as statements; ``types`` holds the C++ type of each variable, to which it is rounded."""
    lines, declared = [], {*rule.inputs, *rule.variables}
    for name, text in rule.body:
        value = cuda_expression(text)
        if name in rule.variables:
            lines.append(f"v_{name} = to<R>(to<{types[name]}>({value}));")
        elif name in rule.inputs:  # what is given is not written to: the name means the new value from here on
            lines.append(f"v_{name} = {value};")
        else:
            lines.append(f"{'' if name in declared else 'R '}v_{name} = {value};")
            declared.add(name)
    return " ".join(lines)


def _print(node: Node) -> str:
    if isinstance(node, Num):
        return _number(node.value)
    if isinstance(node, Var):
        return f"v_{node.name}"
    parts = [_print(arg) for arg in node.args]
    if node.op in _SIGNS:
        return f"({parts[0]} {_SIGNS[node.op]} {parts[1]})"
    if node.op in _COMPARISONS:
        return f"(R)({parts[0]} {_COMPARISONS[node.op]} {parts[1]})"
    if node.op == "neg":
        return f"(-{parts[0]})"
    return _power(node, parts) or _rectifier(node, parts) or f"f_{node.op}({', '.join(parts)})"


def _number(value: float) -> str:
    if math.isinf(value):
        return "infinity()" if value > 0 else "(-infinity())"
    return f"(R){value!r}" if value >= 0 else f"((R){value!r})"


def _power(node: Apply, parts: list[str]) -> str:
    exponent = node.args[1] if node.op == "pow" else None
    better = _POWERS.get(exponent.value) if isinstance(exponent, Num) else None
    return better.format(parts[0]) if better else ""


def _rectifier(node: Apply, parts: list[str]) -> str:
    """max(x, 0), not slope * x: 0 for minus infinity too."""
    return f"f_max({parts[0]}, (R)0)" if node.op == "relu" and node.args[1] == ZERO else ""
