"""A graph of arrays as kernel calls.

Elementwise operations become one ``pointwise`` call a piece, as large as it can be, or the expression of a ``reduce``.
A value that several calls need is made once, unless making it again costs less than reading it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..expression import Node, Num, Var, call, letters, names_in, substitute, text_of
from ..kernels import OPS, Kernels
from ..types import Shape, Tensor
from .addends import joined
from .array import Array, FormulaError, Written, broadcast

CHEAP = 2
"""Operations (weighed by COSTS) that are rather done twice than stored."""
COSTS: Mapping[str, int] = dict.fromkeys(
    ("exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "erf", "tanh", "sigmoid", "softplus", "elu", "pow", "div"), 4
)
LARGEST = 120
"""Operations in one expression: its derivative grows faster than it does."""


def reached(roots: Sequence[Array]) -> list[Array]:
    """Everything the roots are computed from, and they, in an order in which it can be computed."""
    order: list[Array] = []
    seen: set[int] = set()
    stack = [(root, False) for root in reversed(roots)]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack += [(arg, False) for arg in reversed(sources(node)) if id(arg) not in seen]
    return order


def sources(node: Array) -> list[Array]:
    """What a node is computed from."""
    if node.op != "temp":
        return list(node.args)
    writer = node.home.written.get(id(node))
    if writer is None:
        raise FormulaError(f'the temp "{node.attrs[0]}" is read, but no kernel writes it')
    return read_by(writer)


def read_by(writer: Written) -> list[Array]:
    """The arrays that a kernel call reads."""
    found = []
    for argument, arg in zip(OPS[writer.op].arguments, writer.args, strict=True):
        if "w" not in argument.role and arg is not None:
            found += list(arg) if isinstance(arg, tuple) else [arg]
    return found


def lower(k: Kernels, roots: Sequence[Array], tops: Sequence[Any], given: Mapping[int, Any]) -> None:
    """Make the calls that write each root into its top.

    Args:
        given: the tensor of every leaf and table, by the id of its node.

    Raises:
        FormulaError: a temp is read that no kernel writes.
    """
    _Lowering(k, roots, given).run(tops)


class _Lowering:
    def __init__(self, k: Kernels, roots: Sequence[Array], given: Mapping[int, Any]) -> None:
        self.k, self.roots = k, joined(roots, reached(roots))
        self.order = reached(self.roots)
        self.users: dict[int, list[Array]] = {}
        for node in self.order:
            for arg in sources(node):
                self.users.setdefault(id(arg), []).append(node)
        self.values: dict[int, Any] = dict(given)
        self.targets: dict[int, Any] = {}
        self.kept = self._choose()
        self._shrink()

    # ------------------------------------------------------------------------------------------------------- pieces
    def _choose(self) -> set[int]:
        """The elementwise nodes that are computed by a call of their own; all others are part of one."""
        kept = {id(root) for root in self.roots}
        pieces: dict[int, set[int]] = {}
        cost: dict[int, int] = {}
        count = {id(n): (n.args[0].count if n.op == "reduce" else n.count) for n in self.order}
        for node in self.order:
            inner = sum(cost.get(id(a), 0) for a in node.args)
            cost[id(node)] = min(COSTS.get(node.attrs, node.attrs != "id") + inner, 10_000) if node.op == "point" else 0
        for node in reversed(self.order):
            if node.op != "point" or id(node) in kept:
                continue
            where: set[int] = set()
            plain = True
            for user in self.users[id(node)]:
                if user.op == "point" and id(user) not in kept:
                    where |= pieces[id(user)]
                elif user.op in ("point", "reduce"):
                    where.add(id(user))
                else:
                    plain = False
            small = any(count[w] >= 4 * node.count for w in where)
            if not plain or (cost[id(node)] > CHEAP and (len(where) > 1 or small)):
                kept.add(id(node))
            else:
                pieces[id(node)] = where
        return kept

    def _shrink(self) -> None:
        """Cut expressions that are too large, best at a value that stands in them several times."""
        for node in self.order:
            if node.op not in ("point", "reduce"):
                continue
            while True:
                sizes: dict[int, tuple[int, Array]] = {}
                if self._size(node, sizes) <= LARGEST or len(sizes) == 1:
                    break
                del sizes[id(node)]
                often = [pair for pair in sizes.values() if len(self.users[id(pair[1])]) > 1]
                self.kept.add(id(max(often or sizes.values(), key=lambda pair: pair[0])[1]))

    def _size(self, node: Array, found: dict[int, tuple[int, Array]]) -> int:
        """Operations in the expression of a node, those of its parts each time they stand there; ``found``: of all."""
        if id(node) not in found:
            parts = [a for a in node.args if self._inside(a)]
            found[id(node)] = 1 + sum(self._size(a, found) for a in parts), node
        return found[id(node)][0]

    def _inside(self, node: Array) -> bool:
        """True if the node is part of the expressions that use it."""
        return node.op == "point" and id(node) not in self.kept

    # -------------------------------------------------------------------------------------------------------- calls
    def run(self, tops: Sequence[Any]) -> None:
        late = []
        for root, top in zip(self.roots, tops, strict=True):
            node, place = root, top
            while node.op == "view":
                node, place = node.args[0], self.k.view(place, node.args[0].shape)
            if node.op in ("leaf", "table", "number", "stop") or id(node) in self.targets:
                late.append((root, top))
            else:
                self.targets[id(node)] = place
        for node in self.order:
            if not self._inside(node) and id(node) not in self.values and node.op not in ("number", "leaf", "table"):
                self.values[id(node)] = self.make(node)
        for root, top in late:
            if root.op == "number":
                self.k.fill(top, value=root.attrs[0])
            else:
                self.k.copy(self.values[id(root)], top)

    def place(self, node: Array) -> Any:
        """The tensor that a node is written into: the top it is, or memory of its own."""
        target = self.targets.get(id(node))
        if target is not None:
            return target
        name = node.attrs[0] if node.op == "temp" else node.attrs if node.op == "point" else node.op
        return self.k.temp(str(name), node.shape, node.dtype if node.dtype != node.home.dtype else "float32")

    def value(self, node: Array) -> Any:
        """The tensor of a node; a number becomes one."""
        if node.op == "number" and id(node) not in self.values:
            made = self.k.temp("number", ())
            self.k.fill(made, value=node.attrs[0])
            self.values[id(node)] = made
        return self.values[id(node)]

    def make(self, node: Array) -> Any:
        """Compute a node; returns its tensor."""
        method = getattr(self, f"_{node.op}")
        return method(node)

    def _view(self, node: Array) -> Any:
        return self.k.view(self.value(node.args[0]), node.shape)

    def _stop(self, node: Array) -> Any:
        x = self.value(node.args[0])
        return x.stop() if isinstance(x, Tensor) else x

    def _point(self, node: Array) -> Any:
        y = self.place(node)
        xs, expr, _ = self.expression(node)
        if xs:
            self.k.pointwise(xs, y, expr=expr)
        elif isinstance(number := self.tree(node, {}), Num):
            self.k.fill(y, value=number.value)
        else:
            self.k.pointwise([self.value(node.home.number(0))], y, expr=expr)  # sqrt(-1), say: known, but no number
        return y

    def _reduce(self, node: Array) -> Any:
        y, (how, axes), x = self.place(node), node.attrs, node.args[0]
        if self._inside(x):
            xs, expr, seen = self.expression(x)
            if seen != x.shape:  # what made it as wide has dropped out of it
                whole = self.k.temp("whole", x.shape)
                if xs:
                    self.k.pointwise(xs, whole, expr=expr)
                else:
                    self.k.pointwise([self.value(node.home.number(0))], whole, expr=expr)
                xs, expr = [whole], "a"
        else:
            xs, expr = [self.value(x)], "a"
        self.k.reduce(xs, y, expr=expr, how=how, axes=axes)
        return y

    def expression(self, node: Array) -> tuple[list[Any], str, Shape]:
        """The tensors that a piece reads, its text over their letters, and the shape they broadcast to."""
        read: dict[str, Array] = {}
        tree = self.tree(node, read)
        used = names_in(tree)
        short = dict(zip(used, letters(len(used)), strict=True))
        text = text_of(substitute(tree, {Var(old): Var(new) for old, new in short.items()}))
        return [self.value(read[name]) for name in used], text, broadcast([read[name].shape for name in used])

    def tree(self, node: Array, read: dict[str, Array]) -> Node:
        """The expression of a node over the nodes it reads, which are named by number."""
        found: dict[int, Node] = {}

        def walk(at: Array, top: bool = False) -> Node:
            if at.op == "number":
                return Num(at.attrs[0])
            if not top and not self._inside(at):
                name = next((name for name, other in read.items() if other is at), f"t{len(read)}")
                read[name] = at
                return Var(name)
            if id(at) not in found:
                parts = [walk(arg) for arg in at.args]
                found[id(at)] = parts[0] if at.attrs == "id" else call(at.attrs, *parts)
            return found[id(at)]

        return walk(node, True)

    def _matmul(self, node: Array) -> Any:
        y, (ta, tb) = self.place(node), node.attrs
        a, b, *c = (self.value(x) for x in node.args)
        self.k.gemm(a, b, c[0] if c else None, y, ta=ta, tb=tb)
        return y

    def _transpose(self, node: Array) -> Any:
        y = self.place(node)
        self.k.transpose(self.value(node.args[0]), y, axes=node.attrs)
        return y

    def _concat(self, node: Array) -> Any:
        y = self.place(node)
        self.k.concat([self.value(x) for x in node.args], y, axis=node.attrs)
        return y

    def _gather(self, node: Array) -> Any:
        y = self.place(node)
        table, index = (self.value(x) for x in node.args)
        self.k.gather(table, index, y)
        return y

    def _softmax(self, node: Array) -> Any:
        y = self.place(node)
        self.k.softmax(self.value(node.args[0]), y, axis=node.attrs)
        return y

    def _normalize(self, node: Array) -> Any:
        y, (axes, eps) = self.place(node), node.attrs
        kept = tuple(1 if i in axes else n for i, n in enumerate(node.shape))
        mean, var = self.k.temp("mean", kept), self.k.temp("var", kept)
        self.k.normalize(self.value(node.args[0]), y, mean, var, axes=axes, eps=eps)
        return y

    def _slice(self, node: Array) -> Any:
        """A part; parts of one value that lie side by side along an axis are cut out together."""
        x = node.args[0]
        axis = _axis_of(node)
        beside = sorted(
            (n for n in self.users[id(x)] if n.op == "slice" and _axis_of(n) == axis), key=lambda n: int(n.attrs[axis])
        ) if axis >= 0 else []  # fmt: skip
        ends = [n.attrs[axis] + n.shape[axis] for n in beside]
        apart = all(end <= after.attrs[axis] for end, after in zip(ends, beside[1:], strict=False))
        if len(beside) < 2 or not apart or id(beside[0]) in self.values:
            y = self.place(node)
            self.k.slice(self.value(x), y, begin=node.attrs)
            return y
        parts, at = [], 0
        for part in beside:
            if part.attrs[axis] > at:
                parts.append(self._gap(x, axis, part.attrs[axis] - at))
            self.values[id(part)] = self.place(part)
            parts.append(self.values[id(part)])
            at = part.attrs[axis] + part.shape[axis]
        if at < x.shape[axis]:
            parts.append(self._gap(x, axis, x.shape[axis] - at))
        self.k.split(self.value(x), parts, axis=axis)
        return self.values[id(node)]

    def _gap(self, x: Array, axis: int, length: int) -> Any:
        return self.k.temp("unused", (*x.shape[:axis], length, *x.shape[axis + 1 :]))

    def _temp(self, node: Array) -> Any:
        """A temp, through the kernel call that writes it (and whatever else that call writes)."""
        writer = node.home.written[id(node)]
        given: list[Any] = []
        for argument, arg in zip(OPS[writer.op].arguments, writer.args, strict=True):
            several = arg if isinstance(arg, tuple) else (arg,)
            if "w" in argument.role:
                found = [self._written(a) for a in several]
            else:
                found = [None if a is None else self.value(a) for a in several]
            given.append(found if isinstance(arg, tuple) else found[0])
        getattr(self.k, writer.op)(*given, **writer.attrs)
        return self.values[id(node)]

    def _written(self, out: Array) -> Any:
        """Memory for an output, which may be a view of a temp."""
        temp = out
        while temp.op == "view":
            temp = temp.args[0]
        if id(temp) not in self.values:
            self.values[id(temp)] = self.place(temp)
        return self.k.view(self.values[id(temp)], out.shape)


def _axis_of(node: Array) -> int:
    """The one axis along which a slice is shorter than what it is cut from; -1 if there are several."""
    shorter = [i for i, (n, m) in enumerate(zip(node.shape, node.args[0].shape, strict=True)) if n != m]
    return shorter[0] if len(shorter) == 1 else -1


__all__ = ["lower", "reached"]
