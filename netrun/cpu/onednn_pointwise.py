"""Pointwise expressions through the library: one primitive, and what follows as its post-operations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..expression import Apply, Node, Num, Var, letters, names_in, parse, walk
from ..program import Call
from ..types import PLAIN, Shape, Tensor
from . import dnnl
from .dnnl import Handle, Library, Unsupported
from .layouts import block, describe, full, of, strides
from .onednn_spatial import quick, tensors
from .recipe import Operand, Place, Recipe

BINARY = {"add": dnnl.ADD, "mul": dnnl.MUL, "sub": dnnl.SUB, "div": dnnl.DIV, "max": dnnl.MAX, "min": dnnl.MIN}
TURNS = frozenset({"add", "mul", "max", "min"})
"""Operations whose operands may change places."""
LONGEST = 8


@dataclass
class Chain:
    """A value that starts as one input and goes through operations with constants or other inputs, one by one."""

    start: str
    links: list[tuple[Any, ...]] = field(default_factory=list)


def chain_of(node: Node, start: str = "") -> Chain:
    """The expression as a chain, one that begins with ``start`` where it may begin with either of two inputs.

    Raises:
        Unsupported: it is none, or it holds functions the library rounds differently.
    """
    if isinstance(node, Var):
        return Chain(node.name)
    if not isinstance(node, Apply):
        raise Unsupported("constant")
    op, args = node.op, node.args
    if op == "neg":
        return _linear(chain_of(args[0], start), -1.0, 0.0)
    if op == "relu" and isinstance(args[1], Num):
        found = chain_of(args[0], start)
        found.links.append(("eltwise", dnnl.RELU, args[1].value, 0.0))
        return found
    if op not in BINARY:
        raise Unsupported(op)
    left, right = args
    if isinstance(left, Num) or (isinstance(left, Var) and (isinstance(right, Apply) or right == Var(start))):
        if op in TURNS:
            left, right = right, left
        elif op == "sub" and isinstance(left, Num):
            return _linear(chain_of(right, start), -1.0, left.value)
    if isinstance(right, Num):
        number = right.value
        factors = {"add": (1.0, number), "sub": (1.0, -number), "mul": (number, 0.0)}
        if op == "div" and number:
            factors["div"] = (1.0 / number, 0.0)
        if op not in factors:
            raise Unsupported(op)
        return _linear(chain_of(left, start), *factors[op])
    if not isinstance(right, Var):
        raise Unsupported("a tree")
    found = chain_of(left, start)
    found.links.append(("binary", BINARY[op], right.name))
    return found


def _linear(found: Chain, factor: float, shift: float) -> Chain:
    found.links.append(("eltwise", dnnl.LINEAR, factor, shift))
    return found


def rectified(then: str | None) -> list[tuple[Any, ...]]:
    """What the attribute ``then`` asks for, an expression over the result a alone, as post-operations.

    Raises:
        Unsupported: it is none of those that run inside a primitive.
    """
    links = chain_of(parse(then)).links if then is not None else []
    if any(link[0] != "eltwise" for link in links):
        raise Unsupported(str(then))
    return links


def rectifier_gradient(expr: str) -> tuple[str, str, float] | None:
    """(gradient, output, slope) where the expression is a ReLU's gradient through its output."""
    tree = parse(expr)
    if not (isinstance(tree, Apply) and tree.op == "mul"):
        return None
    seed, slope = tree.args
    if not (isinstance(seed, Var) and isinstance(slope, Apply) and slope.op == "where"):
        return None
    test, yes, no = slope.args
    if yes != Num(1.0) or not isinstance(no, Num) or no.value < 0:
        return None
    if isinstance(test, Apply) and test.op == "gt" and isinstance(test.args[0], Var) and test.args[1] == Num(0.0):
        return seed.name, test.args[0].name, no.value
    return None


def translatable(call: Call) -> bool:
    """Whether the library has the expression of a pointwise call; says nothing about shapes and layouts."""
    expr = call.attrs["expr"]
    if rectifier_gradient(expr):
        return True
    try:
        return 0 < len(chain_of(parse(expr)).links) <= LONGEST
    except Unsupported:
        return False


def pointwise(lib: Library, call: Call) -> Recipe:
    """Kernels.pointwise for chains of operations and for the gradient of ReLU."""
    tensors(call)
    args: Any = call.args
    xs, y = args
    given = dict(zip(letters(len(xs)), enumerate(xs), strict=True))
    expr = call.attrs["expr"]
    for _, x in given.values():
        if x.shape == y.shape and x.spec.layout != y.spec.layout:
            raise Unsupported("two layouts")
    gradient = rectifier_gradient(expr)
    if gradient is not None:
        return _rectifier(lib, given, y, gradient)
    found = chain_of(parse(expr))
    if not 0 < len(found.links) <= LONGEST or given[found.start][1].shape != y.shape:
        raise Unsupported("chain")
    if len([n for n in walk(parse(expr)) if isinstance(n, Var)]) != len(names_in(parse(expr))):
        raise Unsupported("an input read twice")
    flat = y.spec.layout == PLAIN and all(given[n][1].shape in (y.shape, ()) for n in names_in(parse(expr)))
    return _chain(lib, given, y, found, flat)


def _shape(t: Tensor, flat: bool) -> Shape:
    return (math.prod(t.shape),) if flat else t.shape


def _operand(lib: Library, number: int, x: Tensor, y: Tensor, flat: bool) -> Operand:
    """An input as the library sees it: like y, or one value a channel."""
    return operand(lib, x, y, ("xs", number), flat)


def operand(lib: Library, x: Tensor, y: Tensor, place: Place, flat: bool = False) -> Operand:
    """An input of a chain as the library wants it beside y.

    Raises:
        Unsupported: it is neither like y nor one value a channel.
    """
    if x.shape == y.shape:
        return Operand(_whole(lib, y, flat), place)
    shape = (1,) * (len(y.shape) - len(x.shape)) + x.shape
    if flat:
        shape = (1,)
    elif any(n != 1 for axis, n in enumerate(shape) if axis != 1) or len(shape) != len(y.shape):
        raise Unsupported("broadcast")
    elif math.prod(shape) > 1 and block(y.spec.layout) > 1:
        if shape[1] % block(y.spec.layout):
            raise Unsupported("channels that fill no block")
        return Operand(describe(lib, shape, full(y.spec.layout)), place)  # the same bytes
    return Operand(lib.strided(shape, strides(shape)), place)


def _whole(lib: Library, y: Tensor, flat: bool) -> Handle:
    return describe(lib, (math.prod(y.shape),)) if flat else of(lib, y.spec)


def post_operations(
    links: Sequence[tuple[Any, ...]], find: Callable[[str], Operand]
) -> tuple[list[tuple[Any, ...]], dict[int, Operand]]:
    """The links of a chain as post-operations, and their operands by argument number."""
    post: list[tuple[Any, ...]] = []
    operands = {}
    for i, link in enumerate(links):
        if link[0] == "binary":
            operands[dnnl.post_op(i)] = other = find(link[2])
            post.append(("binary", link[1], other.md))
        else:
            post.append(link)
    return post, operands


def _chain(lib: Library, given: dict[str, tuple[int, Tensor]], y: Tensor, found: Chain, flat: bool) -> Recipe:
    home = Operand(_whole(lib, y, flat), ("y", 0))
    first, *rest = found.links
    post, operands = post_operations(rest, lambda name: _operand(lib, *given[name], y, flat))
    operands |= {dnnl.SRC: _operand(lib, *given[found.start], y, flat), dnnl.DST: home}
    attributes = lib.attributes(post)
    if first[0] == "binary":
        second = operands[dnnl.SRC_1] = _operand(lib, *given[first[2]], y, flat)
        pd = lib.describe("binary", first[1], home.md, second.md, home.md, attributes)
    else:
        _, algorithm, alpha, beta = first
        pd = lib.describe("eltwise_forward", dnnl.INFERENCE, algorithm, home.md, home.md, alpha, beta, attributes)
    r = Recipe(lib)
    r.run(quick(lib, pd), operands)
    return r


def _rectifier(
    lib: Library, given: dict[str, tuple[int, Tensor]], y: Tensor, gradient: tuple[str, str, float]
) -> Recipe:
    seed, output, slope = gradient
    (i, dy), (j, out) = given[seed], given[output]
    if dy.shape != y.shape or out.shape != y.shape:
        raise Unsupported("broadcast")
    md = _whole(lib, y, y.spec.layout == PLAIN)
    algorithm = dnnl.RELU_BY_OUTPUT
    hint = lib.describe("eltwise_forward", dnnl.TRAINING, algorithm, md, md, slope, 0.0, lib.attributes())
    pd = lib.describe("eltwise_backward", algorithm, md, md, md, slope, 0.0, hint, lib.attributes())
    r = Recipe(lib)
    r.run(quick(lib, pd), {dnnl.DST: Operand(md, ("xs", j)), dnnl.DIFF_DST: Operand(md, ("xs", i)),
                           dnnl.DIFF_SRC: Operand(md, ("y", 0))})  # fmt: skip
    return r


def operand_shapes(xs: Sequence[Tensor], y: Tensor) -> bool:
    """Whether every input is like y or one value a channel, as the library wants them."""
    for x in xs:
        shape = (1,) * (len(y.shape) - len(x.shape)) + x.shape
        if x.shape != y.shape and any(n != 1 for axis, n in enumerate(shape) if axis != 1):
            return False
    return True
