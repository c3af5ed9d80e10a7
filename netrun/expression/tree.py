"""Trees: what they are made of, how they are built, walked and rewritten."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Num:
    """A number."""

    value: float


@dataclass(frozen=True)
class Var:
    """An input by name."""

    name: str


@dataclass(frozen=True)
class Apply:
    """A function or operator over its arguments.

    It knows its hash from the start: of a tree that is rewritten every part is looked up, which would walk all of it.
    """

    op: str
    args: tuple[Node, ...]
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.op, self.args)))

    def __hash__(self) -> int:
        return self._hash


Node = Num | Var | Apply
ZERO, ONE = Num(0.0), Num(1.0)

# name -> number of arguments. Operators have names too: they print as signs.
FUNCTIONS: Mapping[str, int] = {
    "add": 2, "sub": 2, "mul": 2, "div": 2, "pow": 2, "neg": 1,
    "lt": 2, "le": 2, "gt": 2, "ge": 2, "eq": 2, "ne": 2,
    "max": 2, "min": 2, "where": 3, "abs": 1, "sign": 1, "floor": 1, "trunc": 1,
    "exp": 1, "expm1": 1, "log": 1, "log1p": 1, "sqrt": 1, "sin": 1, "cos": 1, "erf": 1,
    "tanh": 1, "sigmoid": 1, "softplus": 1, "relu": 2, "elu": 2,
}  # fmt: skip


def call(op: str, *args: Node) -> Node:
    """``op`` over ``args`` with the obvious simplifications (constants, + 0, * 1, * 0, - - x)."""
    if op == "add":
        if args[0] == ZERO:
            return args[1]
        if args[1] == ZERO:
            return args[0]
    elif op == "sub":
        if args[1] == ZERO:
            return args[0]
        if args[0] == ZERO:
            return call("neg", args[1])
    elif op == "mul":
        if ZERO in args:
            return ZERO
        if args[0] == ONE:
            return args[1]
        if args[1] == ONE:
            return args[0]
        if args[0] == Num(-1.0):
            return call("neg", args[1])
        if args[1] == Num(-1.0):
            return call("neg", args[0])
    elif op == "div":
        if args[1] == ONE or args[0] == ZERO:
            return args[0]
    elif op == "pow":
        if args[1] == ONE:
            return args[0]
        if args[1] == ZERO:
            return ONE
    elif op == "neg" and isinstance(args[0], Apply) and args[0].op == "neg":
        return args[0].args[0]
    elif op == "where" and args[1] == args[2]:
        return args[1]
    values = [a.value for a in args if isinstance(a, Num)]
    fold = _FOLD.get(op)
    if fold and len(values) == len(args):
        try:
            value = fold(*values)
            if value == value:  # what is no number has no text
                return Num(value)
        except (ZeroDivisionError, OverflowError):
            pass
    return Apply(op, args)


_FOLD: Mapping[str, Callable[..., float]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div": lambda a, b: a / b,
    "neg": lambda a: -a, "max": max, "min": min, "abs": abs,
}  # fmt: skip


def names_in(node: Node) -> tuple[str, ...]:
    """Names used, in order of first use."""
    return tuple(dict.fromkeys(n.name for n in walk(node) if isinstance(n, Var)))


def walk(node: Node) -> Iterator[Node]:
    """Every node of the tree, the root first."""
    open_ = [node]
    while open_:
        at = open_.pop()
        yield at
        if isinstance(at, Apply):
            open_ += reversed(at.args)


def substitute(node: Node, replace: Mapping[Node, Node]) -> Node:
    """The tree with every occurrence of a key replaced by its value (outermost match first)."""
    made: dict[int, Node] = {}  # what stands in a tree several times is often one object

    def put(at: Node) -> Node:
        if at in replace:
            return replace[at]
        if not isinstance(at, Apply):
            return at
        if id(at) not in made:
            made[id(at)] = call(at.op, *map(put, at.args))
        return made[id(at)]

    return put(node)
