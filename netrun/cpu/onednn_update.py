"""The solver's update through the library: rules that are sums of arrays times numbers, a primitive or two an array.

SGD's ``g = raw * scale; g = g + 0.1 * w; rate = lr * 2; h = 0.9 * h + rate * g; w = w - h`` means, in terms of what
lies in memory, ``h = 0.9 h + 2 lr scale raw + 0.2 lr w`` and then ``w = 1 w - 1 h``. The factors of an array are a
number and inputs of one element. Each assignment is a binary primitive whose post-operations do the rest in registers.
Products, quotients and roots of arrays, as in Adam, are such primitives too, what they take in scratch (update_terms).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..program import Call
from ..types import PLAIN
from . import dnnl
from .dnnl import Handle, Library, Unsupported
from .layouts import describe
from .onednn_spatial import quick, tensors
from .recipe import LINE, Operand, Recipe
from .team import sharers
from .update_terms import Assignment, Factors, Made, Term, assignments

CHUNK = 1024 * 1024
"""Elements that all assignments go through before the next ones are read: three arrays of it stay in the last cache."""

SHARED = 256 * 1024
"""Elements that one thread takes a rule with more arrays and scratch through: fewer, and Python is what takes time."""

ALONE = 256 * 1024
"""Elements up to which one thread does it: what the others would take off is less than they may need to wake up.

Within iterations 400,000 elements take 0.25 to 0.3 ms alone, with a second thread 0.15 to 0.2 ms, and 0.4 ms where
that one shares its core.
"""

FARTHEST = 1e6
"""The largest ratio of two numbers by which one term may be brought to the other's: no sum overflows early by much."""


# ------------------------------------------------------------------------------------------------------- as primitives
def chains(terms: Sequence[Term]) -> list[list[Term]]:
    """The terms in groups that one primitive adds up: what follows a term is multiplied by no more than it is."""
    found: list[list[Term]] = []
    for term in terms:
        for chain in found if isinstance(term.array, str) else ():  # what is made on the way begins one
            ratio = abs(chain[-1].number / term.number) if term.array else 1.0
            if _without(chain[-1].factors, term.factors) is not None and 1 / FARTHEST < ratio < FARTHEST:
                chain.append(term)
                break
        else:
            found.append([term])
    return found


def _without(factors: Factors, others: Factors) -> Factors | None:
    """The factors but for the others; None where they are not all among them."""
    left = list(factors)
    for name in others:
        if name not in left:
            return None
        left.remove(name)
    return tuple(left)


Link = tuple[str, Any]
"""("mul", factor), ("scale", number), ("add", array) or ("shift", number that is added)."""


def links(chain: Sequence[Term]) -> Iterator[Link]:
    """What makes the sum of a chain from its first array: each term is scaled to the next one, which is added."""
    for term, after in zip(chain, (*chain[1:], None), strict=True):
        if not term.array:
            yield "shift", term.number
            continue
        onto = after if after and after.array else None
        for name in _without(term.factors, onto.factors if onto else ()) or ():
            yield "mul", name
        number = term.number / onto.number if onto else term.number
        if number != 1:
            yield "scale", number
        if onto:
            yield "add", onto.array


class _Maker:
    """Primitives of one rule, in all sizes."""

    def __init__(self, lib: Library, recipe: Recipe, homes: dict[str, Operand], singles: frozenset[str]) -> None:
        self.lib, self.recipe, self.homes, self.singles = lib, recipe, homes, singles
        self._one = lib.strided((1,), (1,))
        self._numbers: dict[float, Operand] = {}

    def number(self, value: float) -> Operand:
        """A number as an operand."""
        if value not in self._numbers:
            self._numbers[value] = self.recipe.constant(self._one, np.array([value], np.float32))
        return self._numbers[value]

    def made(self, todo: Sequence[Assignment], size: int) -> list[tuple[Handle, dict[int, Operand]]]:
        """Primitives and operands that carry out the assignments on the first ``size`` elements."""
        whole = describe(self.lib, (size,))
        found = []
        for a in todo:
            own = a.own
            for chain in chains(a.terms):
                found.append(self._primitive(whole, chain, a.target, own))
                own = 1.0
        return found

    def _primitive(
        self, whole: Handle, chain: Sequence[Term], target: str, own: float
    ) -> tuple[Handle, dict[int, Operand]]:
        todo, head = list(links(chain)), chain[0].array
        if isinstance(head, str):
            head, (kind, value) = Made("", head), todo.pop(0) if todo else _AS_IT_IS
        else:
            kind, value = (head.kind, head.second) if head.kind else _AS_IT_IS
        second = self._operand(whole, kind, value)
        operands = {dnnl.SRC: self._at(whole, head.first), dnnl.SRC_1: second, dnnl.DST: self._at(whole, target)}
        post: list[tuple[Any, ...]] = [("eltwise", dnnl.SQRT, 0.0, 0.0)] if head.root else []
        for step, other in todo:
            if step in ("scale", "shift"):
                post.append(("eltwise", dnnl.LINEAR, *((other, 0.0) if step == "scale" else (1.0, other))))
                continue
            operands[dnnl.post_op(len(post))] = operand = self._operand(whole, step, other)
            post.append(("binary", _SIGNS[step], operand.md))
        if own:
            post.append(("sum", own))
        lib = self.lib
        pd = lib.describe("binary", _SIGNS[kind], whole, second.md, whole, lib.attributes(post))
        return quick(lib, pd), operands

    def _operand(self, whole: Handle, kind: str, value: Any) -> Operand:
        if kind in ("scale", "shift"):
            return self.number(value)
        return self._at(self._one if kind == "mul" and value in self.singles else whole, value)

    def _at(self, md: Handle, name: str) -> Operand:
        return replace(self.homes[name], md=md)


_AS_IT_IS: Link = ("scale", 1.0)
_SIGNS = {"mul": dnnl.MUL, "div": dnnl.DIV, "scale": dnnl.MUL, "add": dnnl.ADD, "shift": dnnl.ADD}


def update(lib: Library, call: Call) -> Recipe:
    """Kernels.update for rules of sums, products, quotients and roots; inputs are like the variables, or one number.

    Raises:
        Unsupported: another rule, other arrays, or nothing to compute.
    """
    if any(t.spec.layout != PLAIN for t in tensors(call)):
        raise Unsupported("layout")
    args: Any = call.args
    (xs, vs), rule = args, call.attrs["rule"]
    shape, count = vs[0].shape, vs[0].spec.count
    single = {name: x.spec.count == 1 for name, x in zip(rule.inputs, xs, strict=True) if x.shape != shape}
    if any(v.shape != shape for v in vs) or not all(single.values()):
        raise Unsupported("shapes")
    todo = assignments(rule, frozenset(single))
    if all(a.is_copy for a in todo):
        raise Unsupported("copies alone")
    recipe = Recipe(lib)
    recipe.alone = count <= ALONE
    # Between short primitives threads would wait for each other longer than they compute: each takes a part of its own.
    is_long = any(isinstance(t.array, Made) for a in todo for t in a.terms)
    parts = sharers(count) if is_long and not recipe.alone else 1
    part = _even(count, parts)
    size = _even(part, -(-part // (SHARED if is_long else CHUNK)) if len(todo) > 1 else 1)
    whole, areas = describe(lib, (size,)), describe(lib, (parts * size,))
    homes = {name: Operand(whole, ("xs", i)) for i, name in enumerate(rule.inputs)}
    homes |= {name: Operand(whole, ("vs", i)) for i, name in enumerate(rule.variables)}
    scratch = {a.target: recipe.area(areas) for a in todo if a.target not in homes}
    maker = _Maker(lib, recipe, homes | scratch, frozenset(single))
    moves = [homes[name].place for name in homes if name not in single]
    own = [o.place for o in scratch.values()]
    made: dict[int, list[tuple[Handle, dict[int, Operand]]]] = {}
    rows = []
    for number, start in enumerate(range(0, count, part)):
        row: list[tuple[Handle, dict[int, Operand]]] = []
        rows.append(row)
        end = min(start + part, count)
        for at in range(start, end, size):
            length = min(size, end - at)
            if length not in made:
                made[length] = maker.made(todo, length)
            offsets = dict.fromkeys(moves, 4 * at) | dict.fromkeys(own, 4 * number * size)
            for pd, operands in made[length]:
                row.append((pd, {n: replace(o, offset=offsets.get(o.place, 0)) for n, o in operands.items()}))
    if len(rows) > 1:
        recipe.share(rows)
    else:
        for pd, operands in rows[0]:
            recipe.run(pd, operands)
    return recipe


def _even(count: int, parts: int) -> int:
    """Elements of each of that many parts, in whole lines; the last one may have fewer."""
    return min(count, -(-count // (parts * LINE)) * LINE)
