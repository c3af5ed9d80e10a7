"""The expressions of the config language: what stands in ``$(...)``, behind ``if`` and behind ``repeat i in``.

    expr    = all {"or" all}            all = test {"and" test}         test = "not" test | compared
    compared = sum [("<" "<=" ">" ">=" "==" "!=") sum]
    sum     = term {("+" "-") term}     term = signed {("*" "/" "//" "%") signed}
    signed  = "-" signed | entry ["^" signed]
    entry   = atom ["[" expr "]"]
    atom    = NUMBER | STRING | NAME | "true" | "false" | FUNCTION "(" expr {"," expr} ")" | "(" expr ")"
            | "[" [expr {"," expr}] "]"

Signs and their strength are those of ``netrun/expression``, the expressions of kernels. The values differ: there
they are arrays of floats, and are differentiated; here they are whole numbers (exact), floats, texts, booleans and
lists, known before there is a net, and errors carry their place in the file. ``/`` of whole numbers is a whole number
where it comes out even. Nothing is ever handed to Python's ``eval``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Protocol

from ..errors import nearest
from .arithmetic import FUNCTIONS, compare, negative, operate, run, truth, whole
from .lexer import closed, shown, unescape
from .value import FormulaError, Value, check, text_of, words

__all__ = ["RESERVED", "Formula", "FormulaError", "Node", "Scope", "template"]

DEEPEST = 30
"""Brackets inside brackets that are accepted."""
RESERVED = ("true", "false", "and", "or", "not", "in")
"""Words that name no value."""
NAME = re.compile(r"[A-Za-z_][0-9A-Za-z_]*")
_TOKEN = re.compile(
    r"""((?:[0-9]+(?:\.(?!\.)[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)
      | ([A-Za-z_][0-9A-Za-z_]*)
      | ("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (<=|>=|==|!=|//|\.\.|[-+*/%^<>()\[\],])""",
    re.VERBOSE,
)
_BLANK = re.compile(r"(?:\s|\#[^\n]*)*")
_COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")


class Scope(Protocol):
    """Where names have values."""

    def value(self, name: str, at: int) -> Value:
        """The value of a name that stands at an offset.

        Raises:
            FormulaError: there is none.
        """
        ...


Node = Callable[[Scope], Value]


class Formula:
    """A text read as an expression from the offset ``at`` on, up to where the expression ends; ``at`` moves along."""

    def __init__(self, text: str, at: int, limit: int | None = None) -> None:
        self.text = text
        self.at = at
        self.limit = len(text) if limit is None else limit
        self._depth = 0

    # ---- tokens

    def peek(self) -> tuple[int, str, int]:
        """The next token: its group in _TOKEN (0 for none), its text and its offset."""
        blank = _BLANK.match(self.text, self.at, self.limit)
        at = blank.end() if blank else self.at
        found = _TOKEN.match(self.text, at, self.limit)
        if not found or found.lastindex is None:
            return 0, self.text[at : min(at + 1, self.limit)], at
        return found.lastindex, found[0], at

    def take(self, *signs: str) -> str:
        """Step over one of these signs or words; which it was, or an empty text."""
        kind, text, at = self.peek()
        if kind not in (2, 4) or text not in signs:
            return ""
        self.at = at + len(text)
        return text

    def want(self, sign: str, what: str) -> None:
        """Step over a sign that has to stand here."""
        if not self.take(sign):
            _, text, at = self.peek()
            raise FormulaError(f"{what}, got {shown(text) if text else 'the end'}", at)

    # ---- the grammar, from the weakest sign to the strongest

    def expression(self) -> Node:
        """An expression, compiled.

        Raises:
            FormulaError: there is none here.
        """
        self._depth += 1
        if self._depth > DEEPEST:
            raise FormulaError(f"brackets are nested deeper than {DEEPEST} here", self.peek()[2])
        node = self._several("or", lambda: self._several("and", self._test))
        self._depth -= 1
        return node

    def _several(self, word: str, below: Callable[[], Node]) -> Node:
        parts = [(below(), self.at)]
        while self.take(word):
            parts.append((below(), self.at))
        found = any if word == "or" else all
        return parts[0][0] if len(parts) == 1 else lambda scope: found(truth(p(scope), at, word) for p, at in parts)

    def _test(self) -> Node:
        at, turns = self.peek()[2], 0
        while self.take("not"):
            turns += 1
        inner = self._compared()
        return inner if not turns else lambda scope: truth(inner(scope), at, "not") == (turns % 2 == 0)

    def _compared(self) -> Node:
        left = self._chain(("+", "-"), self._term)
        at = self.peek()[2]
        sign = self.take(*_COMPARISONS)
        if not sign:
            return left
        right = self._chain(("+", "-"), self._term)
        again = self.peek()
        if again[1] in _COMPARISONS:
            raise FormulaError("one comparison at a time: write a < b and b < c", again[2])
        return lambda scope: compare(sign, left(scope), right(scope), at)

    def _term(self) -> Node:
        return self._chain(("*", "/", "//", "%"), self._signed)

    def _chain(self, signs: Sequence[str], below: Callable[[], Node]) -> Node:
        first = below()
        rest: list[tuple[str, Node, int]] = []
        while True:
            at = self.peek()[2]
            sign = self.take(*signs)
            if not sign:
                return _arithmetic(first, rest) if rest else first
            rest.append((sign, below(), at))

    def _signed(self) -> Node:
        at, signs = self.peek()[2], 0
        while self.take("-"):
            signs += 1
        base = self._entry()
        here = self.peek()[2]
        if self.take("^"):
            self._depth += 1
            if self._depth > DEEPEST:
                raise FormulaError(f"powers are nested deeper than {DEEPEST} here", here)
            base = _arithmetic(base, [("^", self._signed(), here)])
            self._depth -= 1
        return base if not signs else lambda scope: negative(base(scope), signs, at)

    def _entry(self) -> Node:
        node = self._atom()
        at = self.peek()[2]
        if not self.take("["):
            return node
        index = self.expression()
        self.want("]", "] is wanted here to end the index")
        return _pick(node, index, at)

    def _atom(self) -> Node:
        kind, text, at = self.peek()
        if kind == 1:
            self.at = at + len(text)
            follows = self.text[self.at : min(self.at + 1, self.limit)]
            if follows.isalnum() or follows == "_":
                raise FormulaError(f"{shown(text + follows)}: a number ends before a name begins", at)
            # a hundred digits are too many for any field, and thousands for int()
            number: Value = check(int(text.lstrip("0")[:100] or "0") if text.isdigit() else float(text), at)
            return lambda scope: number
        if kind == 2 and text not in RESERVED[2:]:
            self.at = at + len(text)
            if text in ("true", "false"):
                return lambda scope: text == "true"
            if self.take("("):
                return self._call(text, at)
            return lambda scope: scope.value(text, at)
        if kind == 3:
            self.at = at + len(text)
            return template(self.text, at, self.at)
        if self.take("("):
            node = self.expression()
            self.want(")", ") is wanted here")
            return node
        if self.take("["):
            return self._list(at)
        if text == "$":
            raise FormulaError("inside an expression names stand without $", at)
        raise FormulaError(f"a number, a name or ( is wanted here, got {shown(text) if text else 'the end'}", at)

    def _list(self, at: int) -> Node:
        items: list[Node] = []
        while not self.take("]"):
            if items:
                self.want(",", "a comma or ] is wanted in the list")
            items.append(self.expression())
        return lambda scope: check([item(scope) for item in items], at)

    def _call(self, name: str, at: int) -> Node:
        args = [self.expression()]
        while self.take(","):
            args.append(self.expression())
        self.want(")", f"a comma or ) is wanted in the arguments of {name}")
        if name not in FUNCTIONS and name != "where":
            known = [*FUNCTIONS, "where"]
            raise FormulaError(f'there is no function "{name}"{nearest(name, known)}', at)
        least, most = (3, 3) if name == "where" else FUNCTIONS[name][:2]
        if not least <= len(args) <= most:
            wanted = str(least) if least == most else f"{least} or more"
            raise FormulaError(f"{name} takes {wanted} arguments, got {len(args)}", at)
        if name == "where":
            test, yes, no = args
            return lambda scope: (yes if truth(test(scope), at, "where") else no)(scope)
        body = FUNCTIONS[name][2]
        return lambda scope: run(name, body, [arg(scope) for arg in args], at)


def template(text: str, first: int, last: int) -> Node:
    """The STRING token at text[first:last] as a text with its ``$name`` and ``$(...)`` filled in.

    Raises:
        FormulaError: a formula in it, or an escape, is wrong.
    """
    parts: list[str | Node] = []
    if not closed(text[first:last]):
        raise FormulaError(f"the quote is not closed on its line: {shown(text[first:last])}", first)
    at, end = first + 1, last - 1
    while at < end:
        dollar = text.find("$", at, end)
        plain = text[at : end if dollar < 0 else dollar]
        try:
            parts.append(unescape(f'"{plain}"').decode())
        except UnicodeDecodeError:
            raise FormulaError("the escapes in this text make bytes that are not UTF-8", at) from None
        except ValueError as problem:
            raise FormulaError(str(problem), at) from None
        if dollar < 0:
            break
        node, at = dollar_value(text, dollar, end)
        parts.append(node or text[dollar])
    return lambda scope: check("".join(p if isinstance(p, str) else text_of(p(scope), first) for p in parts), first)


def dollar_value(text: str, at: int, limit: int) -> tuple[Node | None, int]:
    """What the ``$`` at an offset begins: a value (None where it is just a dollar), and the offset behind it.

    Raises:
        FormulaError: the formula behind it is wrong.
    """
    follows = text[at + 1 : min(at + 2, limit)]
    if follows == "$":
        return None, at + 2
    if follows == "{":
        raise FormulaError("a value is written $name or $(name), and a dollar itself $$", at)
    if follows == "(":
        formula = Formula(text, at + 2, limit)
        node = formula.expression()
        formula.want(")", "an operator or ) is wanted in this $(...)")
        return node, formula.at
    found = NAME.match(text, at + 1, limit)
    if not found:
        return None, at + 1
    name = found[0]
    return (lambda scope: scope.value(name, at)), found.end()


def _arithmetic(first: Node, rest: Sequence[tuple[str, Node, int]]) -> Node:
    def value(scope: Scope) -> Value:
        found = first(scope)
        for sign, node, at in rest:
            found = operate(sign, found, node(scope), at)
        return found

    return value


def _pick(node: Node, index: Node, at: int) -> Node:
    def value(scope: Scope) -> Value:
        items, i = node(scope), whole(index(scope), at, "an index")
        if not isinstance(items, list):
            raise FormulaError(f"an index wants a list before it, got {words(items)}", at)
        if not 0 <= i < len(items):
            raise FormulaError(f"index {i} is outside of the list, which has {len(items)} values (from 0 on)", at)
        return items[i]

    return value
