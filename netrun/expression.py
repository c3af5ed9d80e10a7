"""The expressions that ``pointwise``, ``reduce`` and ``update`` carry: parsed, differentiated, printed, evaluated.

    expr  = expr ("<" "<=" ">" ">=" "==" "!=") sum | sum        comparisons are 1 or 0
    sum   = sum ("+" "-") term | term
    term  = term ("*" "/") power | power
    power = unary ("^" power)?
    unary = "-" unary | NUMBER | NAME | NAME "(" expr {"," expr} ")" | "(" expr ")"

Nothing is ever handed to Python's ``eval``. An expression is a tree of :class:`Num`, :class:`Var` and :class:`Apply`;
trees compare and hash by content. The functions are those of :data:`FUNCTIONS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from .errors import nearest


@dataclass(frozen=True)
class Num:
    """A number."""

    value: float


@dataclass(frozen=True)
class Var:
    """An input by name."""

    name: str


@dataclass(frozen=True)
class Apply:
    """A function or operator over its arguments."""

    op: str
    args: tuple[Node, ...]


Node = Num | Var | Apply
ZERO, ONE = Num(0.0), Num(1.0)


class ExpressionError(ValueError):
    """The text is not an expression; ``position`` counts characters from 0."""

    def __init__(self, what: str, text: str, position: int) -> None:
        super().__init__(what)
        self.text, self.position = text, position


# name -> number of arguments. Operators have names too: they print as signs.
FUNCTIONS: Mapping[str, int] = {
    "add": 2, "sub": 2, "mul": 2, "div": 2, "pow": 2, "neg": 1,
    "lt": 2, "le": 2, "gt": 2, "ge": 2, "eq": 2, "ne": 2,
    "max": 2, "min": 2, "where": 3, "abs": 1, "sign": 1, "floor": 1, "trunc": 1,
    "exp": 1, "expm1": 1, "log": 1, "log1p": 1, "sqrt": 1, "sin": 1, "cos": 1, "erf": 1,
    "tanh": 1, "sigmoid": 1, "softplus": 1, "relu": 2, "elu": 2,
}  # fmt: skip
_SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "pow": "^",
          "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}  # fmt: skip
_NAMES = {sign: name for name, sign in _SIGNS.items()}
_LEVEL = {
    "lt": 1,
    "le": 1,
    "gt": 1,
    "ge": 1,
    "eq": 1,
    "ne": 1,
    "add": 2,
    "sub": 2,
    "mul": 3,
    "div": 3,
    "neg": 4,
    "pow": 5,
}
_TOKEN = re.compile(r"\s*(?:(\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?)|([A-Za-z_]\w*)|([<>=!]=|[-+*/^<>(),]))")


# ------------------------------------------------------------------------------------------------------------- build
def call(op: str, *args: Node) -> Node:
    """``op`` over ``args`` with the obvious simplifications (constants, + 0, * 1, * 0, - - x)."""
    if op == "add":
        if args[0] == ZERO:
            return args[1]
        if args[1] == ZERO:
            return args[0]
    elif op == "sub":
        if args[1] == ZERO:
            return args[0]
        if args[0] == ZERO:
            return call("neg", args[1])
    elif op == "mul":
        if ZERO in args:
            return ZERO
        if args[0] == ONE:
            return args[1]
        if args[1] == ONE:
            return args[0]
        if args[0] == Num(-1.0):
            return call("neg", args[1])
        if args[1] == Num(-1.0):
            return call("neg", args[0])
    elif op == "div":
        if args[1] == ONE or args[0] == ZERO:
            return args[0]
    elif op == "pow":
        if args[1] == ONE:
            return args[0]
        if args[1] == ZERO:
            return ONE
    elif op == "neg" and isinstance(args[0], Apply) and args[0].op == "neg":
        return args[0].args[0]
    elif op == "where" and args[1] == args[2]:
        return args[1]
    values = [a.value for a in args if isinstance(a, Num)]
    fold = _FOLD.get(op)
    if fold and len(values) == len(args):
        try:
            value = fold(*values)
            if value == value:  # what is no number has no text
                return Num(value)
        except (ZeroDivisionError, OverflowError):
            pass
    return Apply(op, args)


_FOLD: Mapping[str, Callable[..., float]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div": lambda a, b: a / b,
    "neg": lambda a: -a, "max": max, "min": min, "abs": abs,
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- parse
@lru_cache(maxsize=4096)
def parse(text: str) -> Node:
    """The tree of an expression.

    Raises:
        ExpressionError: with the position of what is wrong.
    """
    return _Parser(text).whole()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str, int]] = []
        at = 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if not found:
                at += len(text[at:]) - len(text[at:].lstrip())
                raise ExpressionError(f"unexpected character {text[at]!r}", text, at)
            kind = ("number", "name", "sign")[found.lastindex - 1]  # type: ignore[operator]
            self.tokens.append((kind, found[found.lastindex], found.start(found.lastindex)))  # type: ignore[index,arg-type]
            at = found.end()
        self.tokens.append(("end", "the end", len(text)))
        self.next = 0

    def whole(self) -> Node:
        tree = self.comparison()
        if self.peek[0] != "end":
            self.fail("an operator")
        return tree

    @property
    def peek(self) -> tuple[str, str, int]:
        return self.tokens[self.next]

    def take(self, *signs: str) -> str:
        kind, value, _ = self.peek
        if kind == "sign" and value in signs:
            self.next += 1
            return value
        return ""

    def fail(self, wanted: str) -> None:
        raise ExpressionError(f"got {self.peek[1]!r}, wanted {wanted}", self.text, self.peek[2])

    def comparison(self) -> Node:
        tree = self.chain(("+", "-"), lambda: self.chain(("*", "/"), self.unary))
        while sign := self.take("<", "<=", ">", ">=", "==", "!="):
            tree = call(_NAMES[sign], tree, self.chain(("+", "-"), lambda: self.chain(("*", "/"), self.unary)))
        return tree

    def chain(self, signs: tuple[str, ...], below: Callable[[], Node]) -> Node:
        tree = below()
        while sign := self.take(*signs):
            tree = call(_NAMES[sign], tree, below())
        return tree

    def unary(self) -> Node:
        if self.take("-"):
            return call("neg", self.unary())
        base = self.atom()
        return call("pow", base, self.unary()) if self.take("^") else base

    def atom(self) -> Node:
        kind, value, at = self.peek
        if kind == "number":
            self.next += 1
            return Num(float(value))
        if kind == "name":
            self.next += 1
            return self.function(value, at) if self.take("(") else Var(value)
        if not self.take("("):
            self.fail("a number, a name or '('")
        tree = self.comparison()
        if not self.take(")"):
            self.fail("')'")
        return tree

    def function(self, name: str, at: int) -> Node:
        args = [self.comparison()]
        while self.take(","):
            args.append(self.comparison())
        if not self.take(")"):
            self.fail("',' or ')'")
        if name not in FUNCTIONS:
            raise ExpressionError(f'no function "{name}"{nearest(name, FUNCTIONS)}', self.text, at)
        if len(args) != FUNCTIONS[name]:
            raise ExpressionError(f"{name} takes {FUNCTIONS[name]} arguments, got {len(args)}", self.text, at)
        return call(name, *args)


# ------------------------------------------------------------------------------------------------------- look at one
def text_of(node: Node, level: int = 0) -> str:
    """The expression as text that parses back to the same tree."""
    if isinstance(node, Num):
        text = repr(int(node.value)) if node.value == int_or_none(node.value) else repr(node.value)
        text = text.replace("inf", "1e999")
        return f"({text})" if node.value < 0 and level > 1 else text
    if isinstance(node, Var):
        return node.name
    sign, own = _SIGNS.get(node.op), _LEVEL.get(node.op, 9)
    if node.op == "neg":
        text = "-" + text_of(node.args[0], own)
    elif sign:
        left = text_of(node.args[0], own + (node.op == "pow"))
        text = f"{left} {sign} {text_of(node.args[1], own + (node.op != 'pow'))}"
    else:
        return f"{node.op}({', '.join(text_of(a) for a in node.args)})"
    return f"({text})" if own < level else text


def int_or_none(value: float) -> int | None:
    """The whole number that a float is, if it is one that prints shorter that way."""
    return int(value) if abs(value) < 1e15 and value == int(value) else None


def names_in(node: Node) -> tuple[str, ...]:
    """Names used, in order of first use."""
    return tuple(dict.fromkeys(n.name for n in walk(node) if isinstance(n, Var)))


def walk(node: Node) -> Iterator[Node]:
    """Every node of the tree, the root first."""
    yield node
    if isinstance(node, Apply):
        for arg in node.args:
            yield from walk(arg)


def substitute(node: Node, replace: Mapping[Node, Node]) -> Node:
    """The tree with every occurrence of a key replaced by its value (outermost match first)."""
    if node in replace:
        return replace[node]
    if isinstance(node, Apply):
        return call(node.op, *(substitute(a, replace) for a in node.args))
    return node


# ------------------------------------------------------------------------------------------------------ differentiate
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


# ------------------------------------------------------------------------------------------------------------ carried
def letters(count: int) -> tuple[str, ...]:
    """The names of the inputs of ``pointwise`` and ``reduce``: a, b, ... z, a1, b1 ..."""
    return tuple(chr(97 + i % 26) + (str(i // 26) if i >= 26 else "") for i in range(count))


@dataclass(frozen=True)
class Rule:
    """The body of ``update``: assignments in order, over input names and variable names.

    ``Rule(("g", "lr"), ("w", "h"), (("h", "0.9*h + lr*g"), ("w", "w - h")))``. A name that is assigned and is no
    variable is local.
    """

    inputs: tuple[str, ...]
    variables: tuple[str, ...]
    body: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return "; ".join(f"{name} = {text}" for name, text in self.body)


def rule(inputs: Sequence[str], variables: Sequence[str], body: str) -> Rule:
    """A :class:`Rule` from text: ``rule(["g"], ["w"], "w = w - 0.1*g")``."""
    lines = [line.split("=", 1) for line in body.replace("\n", ";").split(";") if line.strip()]
    steps = tuple((name.strip(), text_of(parse(text.strip()))) for name, text in lines)
    known = {*inputs, *variables}
    for name, text in steps:
        for used in names_in(parse(text)):
            if used not in known:
                raise ExpressionError(f'no value "{used}"{nearest(used, known)}', text, 0)
        known.add(name)
    return Rule(tuple(inputs), tuple(variables), tuple(step for step in steps if step[0] != step[1]))
