"""The values of the config language: what a name may stand for, and how it is written into a prototxt."""

from __future__ import annotations

import math
from typing import TypeAlias

from .lexer import NAME, NUMBER, STRING, SYMBOL, shown
from .write import quoted

LONGEST = 10_000
"""Characters of a text, and entries of a list, that are accepted."""
LARGEST = 2**64
"""Whole numbers stay below this."""


class Word(str):
    """A bare word: the name of an enumeration's value such as MAX, written without quotes."""

    __slots__ = ()


Value: TypeAlias = bool | int | float | str | list["Value"]


class FormulaError(Exception):
    """An expression or a value is wrong; ``at`` is the offset in its file. An empty text: it was said already."""

    def __init__(self, what: str, at: int) -> None:
        super().__init__(what)
        self.what, self.at = what, at


class UnknownNameError(FormulaError):
    """Nothing has this name."""


def check(value: Value, at: int) -> Value:
    """The value, if it is of a size that a net may need.

    Raises:
        FormulaError: it is too large, or a list inside a list.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and not -LARGEST < value < LARGEST:
        raise FormulaError("the number here is too large for any field", at)
    if isinstance(value, str | list) and len(value) > LONGEST:
        what = "text" if isinstance(value, str) else "list"
        raise FormulaError(f"the {what} here is longer than {LONGEST}", at)
    if isinstance(value, list) and any(isinstance(item, list) for item in value):
        raise FormulaError("a list holds plain values, not lists", at)
    return value


def same(a: Value, b: Value) -> bool:
    """Whether two values are equal: 1 is 1.0, but neither true nor "1"."""
    return isinstance(a, bool) == isinstance(b, bool) and a == b


def words(value: Value) -> str:
    """The value as a message may show it."""
    if isinstance(value, Word) or not isinstance(value, str | list):
        return text_of(value, 0)
    return f"a list of {len(value)}" if isinstance(value, list) else f'"{shown(value)}"'


def text_of(value: Value, at: int) -> str:
    """The value as it stands inside a text.

    Raises:
        FormulaError: it is a list.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int | float):
        return repr(value)
    raise FormulaError(f"a list of {len(value)} values does not fit into a text", at)


def tokens_of(value: Value) -> list[tuple[int, str]]:
    """The value as tokens of a prototxt, kind and text of each."""
    if isinstance(value, Word):
        return [(NAME, str(value))]
    if isinstance(value, str):
        return [(STRING, f'"{quoted(value)}"')]
    if isinstance(value, bool):
        return [(NAME, text_of(value, 0))]
    if isinstance(value, int | float):
        return [(NUMBER if math.isfinite(value) or value < 0 else NAME, repr(value))]
    found = [(SYMBOL, "[")]
    for index, item in enumerate(value):
        found += [(SYMBOL, ",")] * (index > 0) + tokens_of(item)
    return [*found, (SYMBOL, "]")]
