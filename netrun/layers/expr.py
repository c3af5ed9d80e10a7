"""Expr: a layer that is a formula in the prototxt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar, NoReturn

from ..errors import ShapeError, nearest
from ..fillers import filler_problem
from ..formula.array import Array, FormulaError, words
from ..formula.build import Builder
from ..formula.evaluate import evaluate
from ..formula.lower import lower, reached
from ..formula.parse import WORDS, Statement, names_before, parse
from ..kernels import Kernels
from ..types import Shape, Spec
from .base import Count, Layer

_NAME = re.compile(r"[A-Za-z_]\w*\Z")
_OWN = frozenset({"message", "context", "name", "declared", "clock", "p", "option"})
"""Attributes of every layer, which no weight may replace."""


class Formula(Layer):
    """What layers made of a graph of arrays share: leaves for bottoms and weights, and the calls in the end."""

    type = ""
    bottoms: ClassVar[Count] = (0, None)
    tops: ClassVar[Count] = (1, None)
    build: Builder
    roots: list[Array]

    def begin(self) -> None:
        """Start a new graph."""
        self.build = Builder(self.context.dtype)
        self._weights: dict[str, tuple[str, Array]] = {}
        self._inputs: list[Array] = []

    def inputs(self) -> list[Array]:
        """A leaf for each bottom."""
        self._inputs = [self.build.leaf(f"bottom {i}", b.shape, b.dtype) for i, b in enumerate(self.bottom_specs)]
        return self._inputs

    def weight(self, name: str, shape: Shape, filler: Any, value: Any = None) -> Array:
        """Declare a learned weight and give its leaf."""
        own = name if not hasattr(type(self), name) and name not in _OWN else f"{name}_"
        self._declare(own, shape, "learned", filler, value)
        leaf = self.build.leaf(f"weight {name}", shape)
        self._weights[name] = own, leaf
        return leaf

    def finish(self, roots: Sequence[Array]) -> list[Spec]:
        """Take these arrays for the tops; declares the tables among them."""
        self.roots = [self.build.array(root) for root in roots]
        self._tables = [node for node in reached(self.roots) if node.op == "table"]
        for i, table in enumerate(self._tables):
            self.state(f"table{i}", table.shape, list(table.attrs))
        return [self.spec(root.shape) for root in self.roots]

    def used(self) -> set[int]:
        """Ids of everything that a top's value or some shape comes from."""
        return {id(node) for node in reached([*self.roots, *self.build.looked])}

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        given = {id(leaf): x for leaf, x in zip(self._inputs, bottom, strict=True)}
        given |= {id(leaf): getattr(self, own) for own, leaf in self._weights.values()}
        given |= {id(table): getattr(self, f"table{i}") for i, table in enumerate(self._tables)}
        lower(k, self.roots, top, given)


class Expr(Formula):
    """y = what the formula says: expr_param { expr: "x * sigmoid(g) + 0.1 * mean(x, axis=1)" }

    Bottoms: any number, of any shapes, each used in the formula, by the names of their blobs. Tops: one or more, of the
    shapes that come out. ``netrun explain Expr`` prints the language. Every elementwise piece of the formula is one
    kernel call, and the gradient is the derivative. Parameter blobs: the weights, in their order.
    """

    param = "expr_param"

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        self.begin()
        texts = list(self.p.expr)
        if not any(text.strip("; \n\t") for text in texts):
            self.fail("has no formula", at="expr", hint='write expr_param { expr: "x * sigmoid(g)" }, say')
        known = self._names()
        try:
            statements = [s for i, text in enumerate(texts) for s in parse(text, i)]
            known |= self._learned(known, names_before(statements))
            roots = evaluate(self.build, statements, known, list(self.message.top) or [""], texts)
            specs = self.finish(roots)
        except FormulaError as error:
            self._refuse(error, texts)
        except RecursionError:
            self.fail("the formula is nested too deeply", at="expr", hint="give names to parts of it: h = ...; ...")
        self._check_used(known, statements)
        return specs

    # --------------------------------------------------------------------------------------------------------- names
    def _names(self) -> dict[str, Array]:
        """The bottoms by every name they have."""
        given, found = list(self.p.input), {}
        if given and len(given) != len(self.message.bottom):
            self.fail(f"has {len(given)} input and {len(self.message.bottom)} bottoms", at="input")
        leaves = self.inputs()
        for i, leaf in enumerate(leaves):
            found[f"in{i}"] = leaf
        for i, (blob, leaf) in enumerate(zip(self.message.bottom, leaves, strict=False)):
            name = given[i] if given else blob
            if _NAME.match(name) and name not in WORDS:
                if found.get(name, leaf) is not leaf and name in (given or self.message.bottom)[:i]:
                    if given:
                        self._at(f'two inputs are called "{name}"', "input", i)
                    continue  # the same blob twice
                found[name] = leaf
            elif given:
                self._at(f'"{name}" is no name: letters, digits and _, no digit first', "input", i)
        return found

    def _learned(self, known: dict[str, Array], made: set[str]) -> dict[str, Array]:
        """Declare the weights."""
        found: dict[str, Array] = {}
        for i, weight in enumerate(self.p.weight):
            name = weight.name
            if not _NAME.match(name) or name in WORDS:
                what = f'"{name}" is no name for a weight' if name else "a weight has no name"
                self._at(what, "weight", i, "name" if name else "", hint="letters, digits and _, no digit first")
            if name in known or name in found:
                other = "another weight" if name in found else "a bottom"
                self._at(f'the weight "{name}" has the name of {other}', "weight", i, "name", hint="take another name")
            shape = self._shape(i, {**known, **found})
            if any(n < 1 for n in shape):
                self._at(f'the weight "{name}" would have the shape {words(shape)}', "weight", i, "shape")
            problem = filler_problem(weight.filler, shape) if weight.HasField("filler") else ""
            if problem:
                self._at(f"{name}: {problem}", "weight", i, "filler")
            found[name] = self.weight(name, shape, weight.filler if weight.HasField("filler") else None)
        return found

    def _shape(self, i: int, known: dict[str, Array]) -> Shape:
        weight = self.p.weight[i]
        if not weight.HasField("sizes"):
            return tuple(int(n) for n in weight.shape.dim)
        if weight.HasField("shape"):
            self._at(f'the weight "{weight.name}" has both shape and sizes', "weight", i, "sizes")
        try:
            statements = parse(weight.sizes)
            if len(statements) != 1 or statements[0].targets:
                raise FormulaError("wants the sizes, a comma between them", at=(0, 0, 1))
            count = len(statements[0].values)
            values = evaluate(self.build, statements, known, [""] * count, [weight.sizes])
            return tuple(self.build.whole(value, "a size") for value in values)
        except FormulaError as error:
            self._refuse(error, [weight.sizes], "weight", i, "sizes")

    def _check_used(self, known: dict[str, Array], statements: Sequence[Statement]) -> None:
        used = self.used()
        free = {n for s in statements for n in (str(t.value) for t in s.targets)}
        for i, leaf in enumerate(self._inputs):
            if id(leaf) not in used:
                name = next(n for n, other in reversed(known.items()) if other is leaf)
                what = f'no top depends on the bottom "{self.message.bottom[i]}" ({name} in the formula)'
                where = self.context.locate("bottom", i)
                raise ShapeError(f"{self.name} ({self.type}): {what}", where, ["use it, or leave it out"])
        for i, weight in enumerate(self.p.weight):
            if id(self._weights[weight.name][1]) not in used:
                near = nearest(weight.name, free)
                self._at(f'no top depends on the weight "{weight.name}"{near}', "weight", i, "name")

    # -------------------------------------------------------------------------------------------------------- errors
    def _at(self, what: str, *path: str | int, hint: str = "") -> NoReturn:
        where = self.context.locate(self.param, *path)
        raise ShapeError(f"{self.name} ({self.type}): {what}", where, [hint] if hint else [])

    def _refuse(self, error: FormulaError, texts: Sequence[str], *field: str | int) -> NoReturn:
        """The error with its place in the file, and the line of the formula with a mark under what is wrong."""
        text, start, end = error.at or (0, 0, 0)
        path = field or ("expr", text)
        where = self.context.locate(self.param, *path, into=start)
        line_start = texts[text].rfind("\n", 0, start) + 1
        line = texts[text][line_start:].split("\n", 1)[0]
        first = max(0, start - line_start - 60)
        shown = ("..." if first else "") + line[first : first + 100].replace("\t", " ")
        at = start - line_start - first + (3 if first else 0)
        mark = " " * at + "^" * max(1, min(end - start, len(shown) - at))
        raise ShapeError(f"{self.name} ({self.type}): {error.what}", where, [shown, mark, *error.notes]) from None


__all__ = ["Expr", "Formula"]
