"""Statements as a graph of arrays; what cannot be is refused with its place in the text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import nearest
from .array import Array, FormulaError, words
from .build import Builder
from .functions import FUNCTIONS, apply
from .parse import Part, Statement

CONSTANTS: Mapping[str, float] = {"pi": math.pi, "inf": math.inf}
_WORDS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "floordiv": "//", "matmul": "@", "pow": "^", "lt": "<",
          "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}  # fmt: skip


def evaluate(
    build: Builder,
    statements: Sequence[Statement],
    known: Mapping[str, Array],
    tops: Sequence[str],
    texts: Sequence[str],
) -> list[Array]:
    """The arrays of the tops.

    The last statement says them: values without names, in the order of the tops. If it has names, each top is the
    value of its own name; a single top may have another name, and is the last value then.

    Raises:
        FormulaError: with the place of what is wrong.
    """
    names = dict(known)
    run = _Evaluator(build, names, texts)
    values: list[Array] = []
    for i, statement in enumerate(statements):
        values = run.statement(statement, set(known))
        if not statement.targets and i + 1 < len(statements):
            raise FormulaError("this value has no name, and only the last line needs none", at=statement.at)
    last = statements[-1]
    if not last.targets:
        if len(values) != len(tops):
            raise FormulaError(f"the last line has {len(values)} values, the layer {len(tops)} tops", at=last.at)
        return values
    made = {name: value for name, value in names.items() if name not in known or name in run.assigned}
    if len(tops) == 1 and tops[0] not in run.assigned:
        return values[-1:]
    for top in tops:
        if top not in run.assigned:
            raise FormulaError(
                f'no line gives a value to the top "{top}"{nearest(top, run.assigned)}',
                ["write the tops as the last line, in their order: y, h"],
                last.at,
            )
    return [made[top] for top in tops]


class _Evaluator:
    def __init__(self, build: Builder, names: dict[str, Array], texts: Sequence[str]) -> None:
        self.build, self.names, self.texts = build, names, texts
        self.assigned: set[str] = set()

    def statement(self, statement: Statement, given: set[str]) -> list[Array]:
        found: list[Any] = [self.value(part) for part in statement.values]
        if len(found) == 1 and isinstance(found[0], (tuple, list)):
            found = list(found[0])
        if statement.targets and len(found) != len(statement.targets):
            many = "name" if len(statement.targets) == 1 else "names"
            raise FormulaError(f"{len(found)} values for {len(statement.targets)} {many}", at=statement.at)
        values = []
        for i, value in enumerate(found):
            part = statement.values[min(i, len(statement.values) - 1)]
            if not isinstance(value, Array):
                raise FormulaError("a list is no value here", at=part.at)
            values.append(value)
        for target, value in zip(statement.targets, values, strict=False):
            name = str(target.value)
            if name in given:
                raise FormulaError(
                    f'"{name}" is a bottom or a weight and cannot get another value', ["take another name"], target.at
                )
            self.names[name] = value
            self.assigned.add(name)
        return values

    def value(self, part: Part) -> Any:
        """An array, or a tuple of them for a list."""
        try:
            return self._value(part)
        except FormulaError as error:
            if error.at is None:
                raise FormulaError(error.what, error.notes, part.at) from None
            raise

    def _value(self, part: Part) -> Any:
        if part.kind == "number":
            return self.build.number(float(part.value))
        if part.kind == "name":
            return self.name(part)
        if part.kind == "list":
            return tuple(self.value(p) for p in part.parts if p is not None)
        if part.kind == "index":
            return self.indexed(part)
        args = [self.value(p) for p in part.parts if p is not None]
        if part.kind == "call":
            name = str(part.value)
            if name not in FUNCTIONS:
                at = (part.text, part.start, part.start + len(name))
                known = name in self.names
                hint = "; it is a value: write * to multiply" if known else nearest(name, FUNCTIONS)
                raise FormulaError(f'no function "{name}"{hint}', at=at)
            return apply(self.build, name, args, {key: self.value(p) for key, p in part.named})
        return self.operator(part, args)

    def name(self, part: Part) -> Array:
        name = str(part.value)
        if name in self.names:
            return self.names[name]
        if name in CONSTANTS:
            return self.build.number(CONSTANTS[name])
        hint = nearest(name, self.names)
        if not hint and name in FUNCTIONS:
            hint = f"; the function is called with brackets: {name}(...)"
        last = {id(v): n for n, v in self.names.items()}  # each value once, by its latest name
        known = ", ".join(f"{n} ({words(self.names[n].shape)})" for n in list(last.values())[:12])
        raise FormulaError(f'no value "{name}"{hint}', [f"known here: {known}"] if known else [], part.at)

    def operator(self, part: Part, args: list[Any]) -> Array:
        op, build = str(part.value), self.build
        values = [build.array(a) for a in args]
        try:
            if op == "matmul":
                return build.matmul(*values)
            if op == "T":
                return values[0].T
            if op == "floordiv":
                return build.point("floor", build.point("div", *values))
            if op == "not":
                return build.point("eq", values[0], 0)
            if op in ("and", "or"):
                truths = [build.point("ne", v, 0) for v in values]
                return build.point("min" if op == "and" else "max", *truths)
            return build.point(op, *values)
        except FormulaError as error:
            if error.at is not None or len(values) != 2:
                raise
            sides = [
                f"{self.text(p):<{self._width(part)}}  {words(v.shape)}"
                for p, v in zip(part.parts, values, strict=True)
            ]
            what = error.what if op == "matmul" else f"{_WORDS.get(op, op)}: {error.what}"
            raise FormulaError(what, [*sides, *error.notes], part.at) from None

    def _width(self, part: Part) -> int:
        return max(len(self.text(p)) for p in part.parts)

    def text(self, part: Part | None) -> str:
        """What stands there, shortened."""
        found = self.texts[part.text][part.start : part.end] if part else ""
        return found if len(found) <= 40 else found[:37] + "..."

    def indexed(self, part: Part) -> Array:
        base, *items = part.parts
        assert base is not None
        index: list[Any] = []
        for item in items:
            assert item is not None
            if item.kind == "rest":
                index.append(Ellipsis)
            elif item.kind == "new":
                index.append(None)
            elif item.kind == "all":
                index.append(slice(*(None if p is None else self.value(p) for p in item.parts)))
            else:
                index.append(self.value(item))
        return self.build.index(self.build.array(self.value(base)), tuple(index))


__all__ = ["CONSTANTS", "evaluate"]
