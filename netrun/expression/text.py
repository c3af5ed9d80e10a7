"""From text to trees and back."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from ..errors import nearest
from .tree import FUNCTIONS, Node, Num, Var, call

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
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?)|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<sign>[<>=!]=|[-+*/^<>(),]))"
)


class ExpressionError(ValueError):
    """The text is not an expression; ``position`` counts characters from 0."""

    def __init__(self, what: str, text: str, position: int) -> None:
        super().__init__(what)
        self.text, self.position = text, position


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
            kind = str(found.lastgroup)
            self.tokens.append((kind, found[kind], found.start(kind)))
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
