"""What a rule of ``update`` means to a library that adds up multiples, and multiplies, divides and takes roots.

A value is a sum of arrays, each times a number and inputs of one element. Where a rule multiplies or divides arrays
that are sums themselves, those are kept in scratch first: Adam with weight decay is ``g = scale raw + decay w``,
``m = b1 m + (1 - b1) g``, ``v = b2 v + (1 - b2) (g * g)``, ``s = root(v) + delta`` and ``w = w - rate (m / s)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ..expression import Apply, Node, Num, Rule, Var, names_in, parse
from .dnnl import Unsupported

SMALLEST, LARGEST = 1e-30, 1e30
"""Numbers that are the same in float32 but for rounding, and so are their products."""

Factors = tuple[str, ...]


@dataclass(frozen=True)
class Made:
    """What is computed of arrays on the way: first * second ("mul"), first / second ("div") or first (""), its root."""

    kind: str
    first: str
    second: str = ""
    root: bool = False


Key = tuple[str | Made, Factors]
"""An array, "" for none, and the inputs of one element it is multiplied by, in alphabetical order."""
Sum = Mapping[Key, float]
"""A value: the number that stands before each array and its factors."""
NUMBER: Key = ("", ())


@dataclass(frozen=True)
class Term:
    """number * factors * array; without an array a number that is added."""

    array: str | Made
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
        plain = [(t.factors, t.number) for t in self.terms if isinstance(t.array, str)]
        return not self.own and len(self.terms) == 1 and plain == [((), 1.0)]


def assignments(rule: Rule, singles: frozenset[str]) -> list[Assignment]:
    """The rule as assignments to arrays, in order. Targets that are no variable of it are scratch.

    Args:
        singles: the inputs that are one number.

    Raises:
        Unsupported: it does something else than sums of multiples, products, quotients and roots.
    """
    kept: set[int] = set()
    while True:
        reader = _Reader(rule, singles, frozenset(kept))
        if not reader.wanted:
            return reader.found
        kept |= reader.wanted  # once each, however often they are multiplied


class _Reader:
    """One pass through a rule.

    found: the assignments. wanted: the lines of other names than variables that should have been among ``kept``, those
    whose values are stored.
    """

    def __init__(self, rule: Rule, singles: frozenset[str], kept: frozenset[int]) -> None:
        self.found: list[Assignment] = []
        self.wanted: set[int] = set()
        self._lines: dict[str, int] = {}
        self._known: dict[str, Sum] = {
            name: {(("", (name,)) if name in singles else (name, ())): 1.0} for name in (*rule.inputs, *rule.variables)
        }
        for i, (name, text) in enumerate(rule.body):
            value = self._value(parse(text))
            if name in rule.variables:
                self._assign(name, value, {n for _, other in rule.body[i + 1 :] for n in names_in(parse(other))})
                continue
            self._lines[name] = i
            self._known[name] = {(self._stored(value), ()): 1.0} if i in kept else value

    def _assign(self, name: str, value: Sum, later: set[str]) -> None:
        old = [n for n in later - {name} if any(name in _arrays(array) for array, _ in self._known.get(n, ()))]
        if old:  # they stand for what is about to be overwritten
            copy = self._stored({(name, ()): 1.0})
            for n in old:
                self._known[n] = {(_with(array, name, copy), f): k for (array, f), k in self._known[n].items()}
        self._add(name, value)
        self._known[name] = {(name, ()): 1.0}

    def _add(self, target: str, value: Sum) -> None:
        rest = {key: number for key, number in value.items() if key != (target, ()) and (key != NUMBER or number)}
        own = value.get((target, ()), 0.0)
        for number in (*rest.values(), *([own] if (target, ()) in value else ())):
            if not SMALLEST < abs(number) < LARGEST:  # 0 * inf is no 0: nothing is left out
                raise Unsupported("a number")
        if any(array == "" and factors for array, factors in rest) or not _holds_arrays(rest):
            raise Unsupported("not a sum of other arrays")
        if any(
            target in _arrays(array) for array, _ in rest
        ):  # nothing but its own multiple is read while it is written
            rest = {(self._stored(rest), ()): 1.0}
        terms = [Term(array, factors, number) for (array, factors), number in rest.items()]
        terms.sort(key=lambda t: (-len(t.factors), not isinstance(t.array, Made), t.array == ""))
        self.found.append(Assignment(target, own, tuple(terms)))

    def _stored(self, value: Sum) -> str:
        """The name of scratch that holds the value."""
        name = f"scratch {len(self.found)}"
        self._add(name, value)
        return name

    # ------------------------------------------------------------------------------------------------------- values
    def _value(self, node: Node) -> Sum:
        if isinstance(node, Num):
            return {NUMBER: node.value}
        if isinstance(node, Var):
            return self._known[node.name]
        if node.op in ("neg", "mul", "div"):
            return self._quotient(node)
        if node.op == "sqrt":
            return self._root(self._value(node.args[0]))
        if node.op not in ("add", "sub"):
            raise Unsupported(node.op)
        first, second = (self._value(arg) for arg in node.args)
        signed = second if node.op == "add" else _product(second, {NUMBER: -1.0})
        both = {key: first.get(key, 0.0) + signed.get(key, 0.0) for key in (*first, *signed)}
        return {key: number for key, number in both.items() if key != NUMBER or number} or {NUMBER: 0.0}

    def _root(self, value: Sum) -> Sum:
        ((array, factors), number), *more = value.items()
        if more or factors or number != 1 or (isinstance(array, Made) and array.root):
            array = self._stored(value)
        if not array:
            raise Unsupported("the root of a number")
        return {(replace(array, root=True) if isinstance(array, Made) else Made("", array, root=True), ()): 1.0}

    def _quotient(self, node: Node) -> Sum:
        whole: Sum = {NUMBER: 1.0}  # what holds no array
        above: list[tuple[Node, Sum]] = []
        below: list[tuple[Node, Sum]] = []
        for part, is_above in _parts(node, True):
            value = self._value(part)
            if _holds_arrays(value):
                (above if is_above else below).append((part, value))
            elif is_above:
                whole = _product(whole, value)
            elif set(value) == {NUMBER} and value[NUMBER]:
                whole = _product(whole, {NUMBER: 1.0 / value[NUMBER]})
            else:
                raise Unsupported("a division by an input of one element, or by 0")
        if not above and below:
            raise Unsupported("a number divided by an array")
        if len(above) + len(below) < 2:
            return _product(above[0][1], whole) if above else whole
        # A factor goes before a product: a clipped gradient's square may be finite where the other's is not.
        array: str | Made
        array, factors, number = self._plain(*above[0], factors=len(above) == 1)
        whole = _product(whole, {("", factors): number})
        for kind, (part, value) in (*(("mul", a) for a in above[1:]), *(("div", b) for b in below)):
            other, _, number = self._plain(part, value)
            whole = _product(whole, {NUMBER: number if kind == "mul" else 1.0 / number})
            first = self._stored({(array, ()): 1.0}) if isinstance(array, Made) else array
            array = Made(kind, first, other)
        return _product({(array, ()): 1.0}, whole)

    def _plain(self, node: Node, value: Sum, factors: bool = False) -> tuple[str, Factors, float]:
        """The value as a multiple of one array in memory, of one with factors where they are welcome."""
        ((array, times), number), *more = value.items()
        if not more and isinstance(array, str) and (factors or not times) and SMALLEST < abs(number) < LARGEST:
            return array, times, number
        if isinstance(node, Var) and node.name in self._lines:
            self.wanted.add(self._lines[node.name])
        return self._stored(value), (), 1.0


def _parts(node: Node, above: bool) -> Iterable[tuple[Node, bool]]:
    """What a product multiplies, and whether it stands above the line."""
    if isinstance(node, Apply) and node.op == "neg":
        return (Num(-1.0), True), *_parts(node.args[0], above)
    if isinstance(node, Apply) and node.op in ("mul", "div"):
        first, second = node.args
        return *_parts(first, above), *_parts(second, above == (node.op == "mul"))
    return ((node, above),)


def _arrays(array: str | Made) -> tuple[str, ...]:
    return (array.first, array.second) if isinstance(array, Made) else (array,)


def _with(array: str | Made, name: str, other: str) -> str | Made:
    """The array with another one in place of that name."""
    if isinstance(array, str):
        return other if array == name else array
    first, second = (other if n == name else n for n in _arrays(array))
    return replace(array, first=first, second=second)


def _holds_arrays(value: Sum) -> bool:
    return any(array for array, _ in value)


def _product(a: Sum, b: Sum) -> Sum:
    """One of both holds no arrays."""
    made: dict[Key, float] = {}
    for (array, factors), number in a.items():
        for (other, more), second in b.items():
            key = array or other, tuple(sorted(factors + more))
            made[key] = made.get(key, 0.0) + number * second
    return made
