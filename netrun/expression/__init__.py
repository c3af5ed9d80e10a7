"""The expressions that ``pointwise``, ``reduce`` and ``update`` carry: parsed, differentiated, printed.

Devices evaluate them, each in its own way. The grammar:

    expr  = expr ("<" "<=" ">" ">=" "==" "!=") sum | sum        comparisons are 1 or 0
    sum   = sum ("+" "-") term | term
    term  = term ("*" "/") power | power
    power = unary ("^" power)?
    unary = "-" unary | NUMBER | NAME | NAME "(" expr {"," expr} ")" | "(" expr ")"

Nothing is ever handed to Python's ``eval``. An expression is a tree of :class:`Num`, :class:`Var` and :class:`Apply`;
trees compare and hash by content. The functions are those of :data:`FUNCTIONS`.
"""

from __future__ import annotations

from .carried import Rule, letters, rule
from .differentiate import derivative, gradient
from .text import ExpressionError, parse, text_of
from .tree import FUNCTIONS, ONE, ZERO, Apply, Node, Num, Var, call, names_in, substitute, walk

__all__ = [
    "FUNCTIONS",
    "ONE",
    "ZERO",
    "Apply",
    "ExpressionError",
    "Node",
    "Num",
    "Rule",
    "Var",
    "call",
    "derivative",
    "gradient",
    "letters",
    "names_in",
    "parse",
    "rule",
    "substitute",
    "text_of",
    "walk",
]
