"""The derivative of a tree, as a tree."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .tree import ONE, ZERO, Apply, Node, Num, Var, call, substitute


def derivative(node: Node, name: str) -> Node:
    """d node / d name. Kinks take the derivative Caffe takes (relu 0 at 0: the slope; abs at 0: 0; max: the first)."""
    if isinstance(node, Num):
        return ZERO
    if isinstance(node, Var):
        return ONE if node.name == name else ZERO
    inner = [derivative(a, name) for a in node.args]
    if node.op == "where":  # a choice, no product: the branch that is not taken may have no finite derivative
        return call("where", node.args[0], inner[1], inner[2])
    total: Node = ZERO
    for i, du in enumerate(inner):
        if du != ZERO:
            total = call("add", total, call("mul", _partial(node, i), du))
    return total


def _partial(node: Apply, i: int) -> Node:
    """d node / d argument i. Where it can be said through the value of the node itself, it is: see gradient()."""
    op, args = node.op, node.args
    u = args[0]
    simple: Mapping[str, Callable[[], Node]] = {
        "add": lambda: ONE,
        "sub": lambda: ONE if i == 0 else Num(-1.0),
        "neg": lambda: Num(-1.0),
        "mul": lambda: args[1 - i],
        "div": lambda: call("div", ONE, args[1]) if i == 0 else call("neg", call("div", node, args[1])),
        "pow": lambda: _power(node, i),
        "max": lambda: call("ge" if i == 0 else "lt", u, args[1]),
        "min": lambda: call("le" if i == 0 else "gt", u, args[1]),
        "abs": lambda: call("sign", u),
        "exp": lambda: node,
        "expm1": lambda: call("add", node, ONE),
        "log": lambda: call("div", ONE, u),
        "log1p": lambda: call("div", ONE, call("add", ONE, u)),
        "sqrt": lambda: call("div", Num(0.5), node),
        "sin": lambda: call("cos", u),
        "cos": lambda: call("neg", call("sin", u)),
        "erf": lambda: call("mul", Num(1.1283791670955126), call("exp", call("neg", call("mul", u, u)))),
        "tanh": lambda: call("sub", ONE, call("mul", node, node)),
        "sigmoid": lambda: call("mul", node, call("sub", ONE, node)),
        "softplus": lambda: call("sigmoid", u),
        "relu": lambda: _rectifier(node, i),
        "elu": lambda: call("where", call("gt", u, ZERO), ONE, call("add", node, args[1])) if i == 0
        else call("where", call("gt", u, ZERO), ZERO, call("expm1", u)),
    }  # fmt: skip
    return simple[op]() if op in simple else ZERO  # comparisons, sign, floor, trunc: flat


def _power(node: Apply, i: int) -> Node:
    base, exponent = node.args
    if i == 1:
        return call("mul", node, call("log", base))
    return call("mul", exponent, call("pow", base, call("sub", exponent, ONE)))


def _rectifier(node: Apply, i: int) -> Node:
    u, slope = node.args
    if i == 1:
        return call("where", call("gt", u, ZERO), ZERO, u)
    # The sign of the output is the sign of the input only for slopes that are not negative.
    test = node if isinstance(slope, Num) and slope.value >= 0 else u
    return call("where", call("gt", test, ZERO), ONE, slope)


def gradient(node: Node, name: str, output: str | None, seed: str) -> Node:
    """seed * d node / d name, written through ``output`` (the value already computed) wherever that is possible.

    A ReLU's gradient then needs its output alone, so that the input's memory is free and it can run in place.
    """
    slope = derivative(node, name)
    if output is not None and isinstance(node, Apply):
        slope = substitute(slope, {node: Var(output)})
    return call("mul", Var(seed), slope)
