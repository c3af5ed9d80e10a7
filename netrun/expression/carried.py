"""How kernels carry expressions: the names of their inputs, and the assignments of ``update``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import nearest
from .text import ExpressionError, parse, text_of
from .tree import names_in


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
