"""Expressions lowered to a list of NumPy operations on few buffers: what pointwise, reduce and update run as.

Common parts are computed once. Composite functions (sigmoid, relu, elu, softplus) become the operations they are made
of, so that every operation writes into memory that is already there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..expression import ONE, ZERO, Apply, Node, Num, Rule, Var, call, parse

HALF = Num(0.5)

UFUNCS: Mapping[str, str] = {
    "add": "add", "sub": "subtract", "mul": "multiply", "div": "divide", "pow": "power", "neg": "negative",
    "max": "maximum", "min": "minimum", "abs": "abs", "sign": "sign", "floor": "floor", "trunc": "trunc",
    "exp": "exp", "expm1": "expm1", "log": "log", "log1p": "log1p", "sqrt": "sqrt", "sin": "sin", "cos": "cos",
    "tanh": "tanh", "square": "square",
}  # fmt: skip
"""Operations that are one NumPy ufunc, by its name."""

TESTS: Mapping[str, str] = {
    "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "eq": "equal", "ne": "not_equal",
}  # fmt: skip


@dataclass(frozen=True)
class Operation:
    """One value of the tape: ``op`` over earlier values.

    op is a key of UFUNCS or TESTS (1 and 0), "mask" plus a key of TESTS (truth values), "where" (mask, yes, no),
    "erf", "copy", "input" (``name``) or "number" (``value``).
    """

    op: str
    args: tuple[int, ...] = ()
    name: str = ""
    value: float = 0.0


def lower(node: Node) -> Node:
    """The same value without composite functions."""
    if not isinstance(node, Apply):
        return node
    args = [lower(arg) for arg in node.args]
    u, op = args[0], node.op
    if op == "sigmoid":
        return call("add", call("mul", HALF, call("tanh", call("mul", HALF, u))), HALF)
    if op == "softplus":
        return call("add", call("max", u, ZERO), call("log1p", call("exp", call("neg", call("abs", u)))))
    if op == "relu":
        slope = args[1]
        if isinstance(slope, Num) and 0 <= slope.value <= 1:
            return call("max", u, call("mul", slope, u))
        return call("add", call("max", u, ZERO), call("mul", slope, call("min", u, ZERO)))
    if op == "elu":
        return call("add", call("max", u, ZERO), call("mul", args[1], call("expm1", call("min", u, ZERO))))
    if op == "pow" and isinstance(args[1], Num):
        return _power(u, args[1].value)
    if op == "where":
        test = u if isinstance(u, Apply) and u.op in TESTS else call("ne", u, ZERO)
        if args[1:] == [ONE, ZERO]:
            return test
        return Apply("where", (test, args[1], args[2]))
    return call(op, *args)


def _power(u: Node, exponent: float) -> Node:
    if exponent == 2:
        return Apply("square", (u,))
    if exponent == 3:
        return call("mul", Apply("square", (u,)), u)
    if abs(exponent) == 0.5 or exponent == -1:
        root = u if exponent == -1 else call("sqrt", u)
        return root if exponent == 0.5 else call("div", ONE, root)
    return call("pow", u, Num(exponent))


class Tape:
    """Operations in an order in which they can run, and what is written where at the end.

    ``writes``: (name of a variable, number of its value), in order.
    """

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.writes: dict[str, int] = {}
        self._known: dict[Operation, int] = {}
        self._bound: dict[str, int] = {}

    @classmethod
    def of(cls, expr: str) -> Tape:
        """The tape of one expression; its value is written to ""."""
        tape = cls()
        tape.writes[""] = tape._value(lower(parse(expr)))
        return tape

    @classmethod
    def of_rule(cls, rule: Rule) -> Tape:
        """The tape of a rule's assignments."""
        tape = cls()
        for name, text in rule.body:
            value = tape._value(lower(parse(text)))
            tape._bound[name] = value
            if name in rule.variables:
                # The old value of a variable, kept: it must be taken out before the variable itself is written.
                kept = tape.operations[value].op == "input"
                tape.writes[name] = tape._add(Operation("copy", (value,))) if kept else value
        return tape

    def _value(self, node: Node) -> int:
        if isinstance(node, Var):
            return self._bound[node.name] if node.name in self._bound else self._add(Operation("input", name=node.name))
        if isinstance(node, Num):
            return self._add(Operation("number", value=node.value))
        if node.op == "where":
            test = node.args[0]
            assert isinstance(test, Apply)  # lower() sees to it
            mask = self._add(Operation("mask " + test.op, tuple(self._value(a) for a in test.args)))
            return self._add(Operation("where", (mask, *(self._value(a) for a in node.args[1:]))))
        return self._add(Operation(node.op, tuple(self._value(a) for a in node.args)))

    def _add(self, operation: Operation) -> int:
        if operation not in self._known:
            self._known[operation] = len(self.operations)
            self.operations.append(operation)
        return self._known[operation]

    def last_uses(self) -> list[int]:
        """For each value the number of the last operation that reads it (its own number if none does)."""
        last = list(range(len(self.operations)))
        for i, operation in enumerate(self.operations):
            for arg in operation.args:
                last[arg] = i
        for value in self.writes.values():
            last[value] = len(self.operations)
        return last


@dataclass(frozen=True)
class Layout:
    """Where each value of a tape lives: the number of a buffer, or -1 for a value that needs none."""

    homes: tuple[int, ...]
    buffers: int
    masks: int


def layout(tape: Tape, converted: Sequence[str]) -> Layout:
    """Assign buffers; a buffer is free again after the last use of its value.

    Masks are numbered on their own. ``converted`` names inputs that must be brought into the float type first. The
    result of an operation may lie over one of its arguments, except of "where", which writes twice.
    """
    last = tape.last_uses()
    homes: list[int] = []
    free: dict[bool, list[int]] = {False: [], True: []}
    made = {False: 0, True: 0}
    for i, operation in enumerate(tape.operations):
        if operation.op == "number" or (operation.op == "input" and operation.name not in converted):
            homes.append(-1)
            continue
        mask = operation.op.startswith("mask")
        released = [a for a in dict.fromkeys(operation.args) if last[a] == i and homes[a] >= 0]
        if operation.op != "where":
            _release(tape, released, homes, free)
        if free[mask]:
            homes.append(free[mask].pop())
        else:
            homes.append(made[mask])
            made[mask] += 1
        if operation.op == "where":
            _release(tape, released, homes, free)
    return Layout(tuple(homes), made[False], made[True])


def _release(tape: Tape, values: Sequence[int], homes: Sequence[int], free: dict[bool, list[int]]) -> None:
    for value in values:
        free[tape.operations[value].op.startswith("mask")].append(homes[value])
