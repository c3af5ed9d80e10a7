"""The solver's update through the library: rules that are sums of arrays times numbers, a primitive or two an array.

SGD's ``g = raw * scale; g = g + 0.1 * w; rate = lr * 2; h = 0.9 * h + rate * g; w = w - h`` means, in terms of what
lies in memory, ``h = 0.9 h + 2 lr scale raw + 0.2 lr w`` and then ``w = 1 w - 1 h``. The factors of an array are a
number and inputs of one element. Each assignment is a binary primitive whose post-operations do the rest in registers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..expression import Node, Num, Rule, Var, names_in, parse
from ..program import Call
from ..types import PLAIN
from . import dnnl
from .dnnl import Handle, Library, Unsupported
from .layouts import describe
from .onednn_spatial import quick, tensors
from .recipe import LINE, Operand, Recipe

CHUNK = 1024 * 1024
"""Elements that all assignments go through before the next ones are read: three arrays of it stay in the last cache."""

ALONE = 256 * 1024
"""Elements up to which one thread does it: what the others would take off is less than they may need to wake up.

Within iterations 400,000 elements take 0.25 to 0.3 ms alone, with a second thread 0.15 to 0.2 ms, and 0.4 ms where
that one shares its core.
"""

FARTHEST = 1e6
"""The largest ratio of two numbers by which one term may be brought to the other's: no sum overflows early by much."""

SMALLEST, LARGEST = 1e-30, 1e30
"""Numbers that are the same in float32 but for rounding, and so are their products."""

Factors = tuple[str, ...]
Key = tuple[str, Factors]
"""An array, "" for none, and the inputs of one element it is multiplied by, in alphabetical order."""
Sum = Mapping[Key, float]
"""A value: the number that stands before each array and its factors."""
NUMBER: Key = ("", ())


# ---------------------------------------------------------------------------------------------------- what a rule means
@dataclass(frozen=True)
class Term:
    """number * factors * array."""

    array: str
    factors: Factors
    number: float


@dataclass(frozen=True)
class Assignment:
    """target = own * target + the sum of the terms; ``own`` is 0 where the old value is no part."""

    target: str
    own: float
    terms: tuple[Term, ...]

    @property
    def is_copy(self) -> bool:
        """Whether it computes nothing."""
        return not self.own and [(t.factors, t.number) for t in self.terms] == [((), 1.0)]


def assignments(rule: Rule, singles: frozenset[str]) -> list[Assignment]:
    """The rule as assignments to arrays, in order. Targets that are no variable of it are scratch.

    Args:
        singles: the inputs that are one number.

    Raises:
        Unsupported: it does something else than adding up multiples.
    """
    known: dict[str, Sum] = {
        name: {(("", (name,)) if name in singles else (name, ())): 1.0} for name in (*rule.inputs, *rule.variables)
    }
    found = []
    for i, (name, text) in enumerate(rule.body):
        value = _sum(parse(text), known)
        if name not in rule.variables:
            known[name] = value
            continue
        later = {n for _, other in rule.body[i + 1 :] for n in names_in(parse(other))} - {name}
        old = [n for n in later if any(array == name for array, _ in known.get(n, ()))]
        if old:  # they stand for what is about to be overwritten
            kept = f"{name} before {i}"
            found.append(Assignment(kept, 0.0, (Term(name, (), 1.0),)))
            for n in old:
                known[n] = {(kept if array == name else array, f): k for (array, f), k in known[n].items()}
        found.append(_assignment(name, value))
        known[name] = {(name, ()): 1.0}
    return found


def _sum(node: Node, known: Mapping[str, Sum]) -> Sum:
    if isinstance(node, Num):
        return {NUMBER: node.value}
    if isinstance(node, Var):
        return known[node.name]
    if node.op not in ("neg", "add", "sub", "mul", "div"):
        raise Unsupported(node.op)
    first, *rest = (_sum(arg, known) for arg in node.args)
    if node.op == "neg":
        return _product(first, {NUMBER: -1.0})
    (second,) = rest
    if node.op == "mul":
        return _product(first, second)
    if node.op == "div":
        if set(second) != {NUMBER} or not second[NUMBER]:
            raise Unsupported("a division by what is no number")
        return _product(first, {NUMBER: 1.0 / second[NUMBER]})
    signed = second if node.op == "add" else _product(second, {NUMBER: -1.0})
    return {key: first.get(key, 0.0) + signed.get(key, 0.0) for key in (*first, *signed)}


def _product(a: Sum, b: Sum) -> Sum:
    made: dict[Key, float] = {}
    for (array, factors), number in a.items():
        for (other, more), second in b.items():
            if array and other:
                raise Unsupported("a product of arrays")
            key = array or other, tuple(sorted(factors + more))
            made[key] = made.get(key, 0.0) + number * second
    return made


def _assignment(target: str, value: Sum) -> Assignment:
    terms = [
        Term(array, factors, number) for (array, factors), number in value.items() if (array, factors) != (target, ())
    ]
    for number in value.values():
        if not SMALLEST < abs(number) < LARGEST:  # 0 * inf is no 0: nothing is left out
            raise Unsupported("a number")
    if not terms or any(t.array in ("", target) for t in terms):
        raise Unsupported("not a sum of other arrays")
    return Assignment(target, value.get((target, ()), 0.0), tuple(sorted(terms, key=lambda t: -len(t.factors))))


# ------------------------------------------------------------------------------------------------------- as primitives
def chains(terms: Sequence[Term]) -> list[list[Term]]:
    """The terms in groups that one primitive adds up: what follows a term is multiplied by no more than it is."""
    found: list[list[Term]] = []
    for term in terms:
        for chain in found:
            ratio = abs(chain[-1].number / term.number)
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
"""("mul", factor), ("scale", number) or ("add", array)."""


def links(chain: Sequence[Term]) -> Iterator[Link]:
    """What makes the sum of a chain from its first array: each term is scaled to the next one, which is added."""
    for term, after in zip(chain, (*chain[1:], None), strict=True):
        for name in _without(term.factors, after.factors if after else ()) or ():
            yield "mul", name
        number = term.number / after.number if after else term.number
        if number != 1:
            yield "scale", number
        if after:
            yield "add", after.array


class _Maker:
    """Primitives of one rule, in all sizes."""

    def __init__(self, lib: Library, recipe: Recipe, homes: dict[str, Operand]) -> None:
        self.lib, self.recipe, self.homes = lib, recipe, homes
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
        todo = list(links(chain))
        kind, value = todo.pop(0) if todo else _AS_IT_IS
        second = self.number(value) if kind == "scale" else self._operand(whole, kind, value)
        operands = {dnnl.SRC: self._at(whole, chain[0].array), dnnl.SRC_1: second, dnnl.DST: self._at(whole, target)}
        post: list[tuple[Any, ...]] = []
        for i, (step, other) in enumerate(todo):
            if step == "scale":
                post.append(("eltwise", dnnl.LINEAR, other, 0.0))
                continue
            operands[dnnl.post_op(i)] = operand = self._operand(whole, step, other)
            post.append(("binary", _SIGNS[step], operand.md))
        if own:
            post.append(("sum", own))
        lib = self.lib
        pd = lib.describe("binary", _SIGNS[kind], whole, second.md, whole, lib.attributes(post))
        return quick(lib, pd), operands

    def _operand(self, whole: Handle, kind: str, name: str) -> Operand:
        return self._at(whole if kind == "add" else self._one, name)

    def _at(self, md: Handle, name: str) -> Operand:
        return replace(self.homes[name], md=md)


_AS_IT_IS: Link = ("scale", 1.0)
_SIGNS = {"mul": dnnl.MUL, "scale": dnnl.MUL, "add": dnnl.ADD}


def update(lib: Library, call: Call) -> Recipe:
    """Kernels.update for rules that add up multiples of arrays; the inputs are like the variables, or one number each.

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
    parts = -(-count // CHUNK) if len(todo) > 1 else 1
    size = min(count, -(-count // (parts * LINE)) * LINE)
    whole = describe(lib, (size,))
    homes = {name: Operand(whole, ("xs", i)) for i, name in enumerate(rule.inputs)}
    homes |= {name: Operand(whole, ("vs", i)) for i, name in enumerate(rule.variables)}
    scratch = {a.target: recipe.area(whole) for a in todo if a.target not in homes}
    maker = _Maker(lib, recipe, homes | scratch)
    moves = {homes[name].place for name in homes if name not in single}
    made: dict[int, list[tuple[Handle, dict[int, Operand]]]] = {}
    for at in range(0, count, size):
        length = min(size, count - at)
        if length not in made:
            made[length] = maker.made(todo, length)
        for pd, operands in made[length]:
            here = {n: replace(o, offset=4 * at) if o.place in moves else o for n, o in operands.items()}
            recipe.run(pd, here)
    return recipe
