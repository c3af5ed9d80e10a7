"""The text of a formula as statements.

    formula    = statement { (";" | newline) statement }
    statement  = [ NAME { "," NAME } "=" ] value { "," value }
    value      = either { "or" either }              either  = not { "and" not }
    not        = "not" not | comparison
    comparison = sum { ("<" "<=" ">" ">=" "==" "!=") sum }         a < b < c is a < b and b < c
    sum        = product { ("+" "-") product }
    product    = sign { ("*" "/" "//" "@") sign }
    sign       = ("-" "+") sign | power              power   = part [ ("^" "**") sign ]
    part       = atom { "[" index { "," index } "]" | ".T" }
    atom       = NUMBER | NAME | NAME "(" [ argument { "," argument } ] ")" | "(" value ")" | "(" | "[" list ")" | "]"
    argument   = [ NAME "=" ] value                  index   = [ value ] ":" [ value ] | value | "..." | "None"

Every part knows where it stands. Nothing is ever handed to Python.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from .array import FormulaError

_TOKEN = re.compile(
    r"[ \t\r]*(?:(?P<number>\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?)|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<sign>\.\.\.|\*\*|//|[<>=!]=|[-+*/^@<>=(),\[\]:;.\n]))"
)
_COMPARE = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne"}
_ARITHMETIC = {"+": "add", "-": "sub", "*": "mul", "/": "div", "//": "floordiv", "@": "matmul"}
WORDS = frozenset({"and", "or", "not", "None"})
"""Names that are no names."""


@dataclass(frozen=True)
class Part:
    """A part of a formula.

    Attributes:
        kind: number, name, call, op, list, index, all (a whole axis or a range of it), new (None), rest (...).
        text: the number of the text it stands in; ``start`` and ``end`` its characters there.
        value: the number, the name, or the name of the function or operator.
        parts: what it is made of; a missing end of a range is None.
        named: arguments given by name.
    """

    kind: str
    text: int
    start: int
    end: int
    value: str | float = ""
    parts: tuple[Part | None, ...] = ()
    named: tuple[tuple[str, Part], ...] = ()

    @property
    def at(self) -> tuple[int, int, int]:
        """Its place, as :class:`FormulaError` wants it."""
        return self.text, self.start, self.end


@dataclass(frozen=True)
class Statement:
    """Values, and the names they get (none in a last line that says the tops)."""

    targets: tuple[Part, ...]
    values: tuple[Part, ...]
    at: tuple[int, int, int] = field(default=(0, 0, 0))


def parse(text: str, number: int = 0) -> list[Statement]:
    """The statements of a text; ``number`` is the text's own, for places.

    Raises:
        FormulaError: with the place of what is wrong.
    """
    return _Parser(text, number).statements()


class _Parser:
    def __init__(self, text: str, number: int) -> None:
        self.text, self.number, self.next, self.depth = text, number, 0, 0
        self.tokens: list[tuple[str, str, int]] = []
        at = 0
        while text[at:].strip(" \t\r"):
            found = _TOKEN.match(text, at)
            if not found:
                at += len(text[at:]) - len(text[at:].lstrip(" \t\r"))
                raise FormulaError(f"unexpected character {text[at]!r}", at=(number, at, at + 1))
            group = str(found.lastgroup)
            value = found[group]
            kind = "word" if value in WORDS else group
            self.tokens.append((kind, ";" if value == "\n" else value, found.start(group)))
            at = found.end()
        self.tokens.append(("end", "", len(text.rstrip())))

    # ------------------------------------------------------------------------------------------------------- tokens
    @property
    def kind(self) -> str:
        return self.tokens[self.next][0]

    @property
    def start(self) -> int:
        return self.tokens[self.next][2]

    @property
    def end(self) -> int:
        """Where the token before this one ends."""
        _, value, at = self.tokens[self.next - 1]
        return at + len(value)

    def sees(self, *signs: str) -> bool:
        return self.kind in ("sign", "word") and self.tokens[self.next][1] in signs

    def take(self, *signs: str) -> str:
        if not self.sees(*signs):
            return ""
        self.next += 1
        return self.tokens[self.next - 1][1]

    def fail(self, wanted: str) -> FormulaError:
        kind, value, at = self.tokens[self.next]
        got = "the end" if kind == "end" else repr(value)
        return FormulaError(f"got {got}, wanted {wanted}", at=(self.number, at, at + max(1, len(value))))

    def made(
        self, kind: str, start: int, value: str | float = "", *parts: Part | None,
        named: tuple[tuple[str, Part], ...] = (),
    ) -> Part:  # fmt: skip
        return Part(kind, self.number, start, self.end, value, parts, named)

    # --------------------------------------------------------------------------------------------------- statements
    def statements(self) -> list[Statement]:
        found: list[Statement] = []
        while True:
            while self.take(";"):
                pass
            if self.kind == "end":
                return found
            found.append(self.statement())
            if self.kind != "end" and not self.sees(";"):
                raise self.fail("an operator, ';' or the end")

    def statement(self) -> Statement:
        start = self.start
        values = self.values()
        if not self.take("="):
            return Statement((), values, (self.number, start, self.end))
        for target in values:
            if target.kind != "name":
                raise FormulaError("only a name can stand before =", ["compare with =="], target.at)
        targets, values = values, self.values()
        if self.sees("="):
            raise self.fail("an operator, ';' or the end (one = in a line)")
        return Statement(targets, values, (self.number, start, self.end))

    def values(self) -> tuple[Part, ...]:
        found = [self.value()]
        while self.take(","):
            found.append(self.value())
        return tuple(found)

    # ------------------------------------------------------------------------------------------------------- values
    def value(self) -> Part:
        self.depth += 1
        if self.depth > 60:
            raise FormulaError("nested deeper than 60", at=(self.number, self.start, self.start + 1))
        start, left = self.start, self.either()
        while self.take("or"):
            left = self.made("op", start, "or", left, self.either())
        self.depth -= 1
        return left

    def either(self) -> Part:
        start, left = self.start, self.negation()
        while self.take("and"):
            left = self.made("op", start, "and", left, self.negation())
        return left

    def negation(self) -> Part:
        start = self.start
        if self.take("not"):
            return self.made("op", start, "not", self.negation())
        return self.comparison()

    def comparison(self) -> Part:
        start, left = self.start, self.sum()
        whole: Part | None = None
        while sign := self.take(*_COMPARE):
            right = self.sum()
            test = self.made("op", left.start, _COMPARE[sign], left, right)
            whole = test if whole is None else self.made("op", start, "and", whole, test)
            left = right
        return whole or left

    def sum(self) -> Part:
        start, left = self.start, self.product()
        while sign := self.take("+", "-"):
            left = self.made("op", start, _ARITHMETIC[sign], left, self.product())
        return left

    def product(self) -> Part:
        start, left = self.start, self.sign()
        while sign := self.take("*", "/", "//", "@"):
            left = self.made("op", start, _ARITHMETIC[sign], left, self.sign())
        return left

    def sign(self) -> Part:
        start = self.start
        if sign := self.take("-", "+"):
            self.depth += 1
            if self.depth > 60:
                raise FormulaError("nested deeper than 60", at=(self.number, start, start + 1))
            inner = self.sign()
            self.depth -= 1
            return self.made("op", start, "neg", inner) if sign == "-" else inner
        base = self.part()
        return self.made("op", start, "pow", base, self.sign()) if self.take("^", "**") else base

    def part(self) -> Part:
        start, base = self.start, self.atom()
        while sign := self.take("[", "."):
            if sign == "[":
                items = [self.index()]
                while self.take(","):
                    items.append(self.index())
                if not self.take("]"):
                    raise self.fail("',' or ']'")
                base = self.made("index", start, "", base, *items)
            else:
                if self.tokens[self.next][1] != "T":
                    raise self.fail("T (.T exchanges the last two axes)")
                self.next += 1
                base = self.made("op", start, "T", base)
        return base

    def index(self) -> Part:
        start = self.start
        if self.take("..."):
            return self.made("rest", start)
        if self.take("None"):
            return self.made("new", start)
        first = None if self.sees(":") else self.value()
        if not self.take(":"):
            assert first is not None
            return first
        last = None if self.sees(",", "]", ":") else self.value()
        if self.sees(":"):
            raise self.fail("',' or ']' (slices have no step)")
        return self.made("all", start, "", first, last)

    def atom(self) -> Part:
        kind, value, start = self.tokens[self.next]
        if kind == "number":
            self.next += 1
            return self.made("number", start, float(value))
        if kind == "name":
            self.next += 1
            return self.call(value, start) if self.take("(") else self.made("name", start, value)
        opened = self.take("(", "[")
        if not opened:
            raise self.fail("a number, a name or '('")
        closing = ")" if opened == "(" else "]"
        items: list[Part] = []
        several = opened == "["
        while not self.sees(closing):
            items.append(self.value())
            if not self.take(","):
                break
            several = True
        if not self.take(closing):
            raise self.fail(f"',' or '{closing}'")
        return self.made("list", start, "", *items) if several or not items else items[0]

    def call(self, name: str, start: int) -> Part:
        args: list[Part] = []
        named: list[tuple[str, Part]] = []
        while not self.sees(")"):
            kind, value, at = self.tokens[self.next]
            if kind == "name" and self.tokens[self.next + 1][1] == "=":
                self.next += 2
                if value in dict(named):
                    raise FormulaError(f"{value} is given twice", at=(self.number, at, at + len(value)))
                named.append((value, self.value()))
            elif named:
                raise self.fail("an argument by name (name=...): those without come first")
            else:
                args.append(self.value())
            if not self.take(","):
                break
        if not self.take(")"):
            raise self.fail("',' or ')'")
        return self.made("call", start, name, *args, named=tuple(named))


def names_before(statements: Sequence[Statement]) -> set[str]:
    """The names that the statements give to values."""
    return {str(target.value) for statement in statements for target in statement.targets}


__all__ = ["Part", "Statement", "names_before", "parse"]
