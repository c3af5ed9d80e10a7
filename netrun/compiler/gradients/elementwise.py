"""Rules of copy, pointwise and reduce: the symbolic derivative of the expression that a call carries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...expression import Num, Var, gradient, letters, names_in, parse, substitute, text_of
from ...program import Recorder
from ...types import Shape, Tensor
from .base import Gradients, rule


@rule
def copy(k: Recorder, g: Gradients, x: Tensor, y: Tensor) -> None:
    if g.wants(x):
        k.copy(g.of(y), g.new(x))


@rule
def pointwise(k: Recorder, g: Gradients, xs: Sequence[Tensor], y: Tensor, *, expr: str) -> None:
    names = letters(len(xs))
    for name, x in zip(names, xs, strict=True):
        if not g.wants(x):
            continue
        slope = gradient(parse(expr), name, "out", "dout")
        values = {**dict(zip(names, xs, strict=True)), "out": y, "dout": g.of(y)}
        contribute(k, g, slope, values, x, y.shape)


@rule
def reduce(k: Recorder, g: Gradients, xs: Sequence[Tensor], y: Tensor, *, expr: str, how: str, axes: Shape) -> None:
    full = broadcast(xs)
    kept = tuple(1 if i in axes else n for i, n in enumerate(full))
    names = letters(len(xs))
    tree = parse(expr)
    for name, x in zip(names, xs, strict=True):
        if not g.wants(x):
            continue
        slope = gradient(tree, name, None, "dout")
        if how == "max":  # the places that hold the maximum share it whole
            slope = substitute(parse("slope * (value == out)"), {Var("slope"): slope, Var("value"): tree})
        values = {**dict(zip(names, xs, strict=True)), "dout": k.view(g.of(y), kept), "out": k.view(y, kept)}
        contribute(k, g, slope, values, x, full)


def contribute(k: Recorder, g: Gradients, slope: Any, values: dict[str, Tensor], x: Tensor, full: Shape) -> None:
    """Contribute to x the expression ``slope`` over ``values`` of shape ``full``, summed where x broadcasts."""
    used = names_in(slope)
    if not used:
        return  # the derivative is 0 everywhere
    xs = [values[name] for name in used]
    rank = len(full)
    own = (1,) * (rank - len(x.shape)) + x.shape
    axes = tuple(i for i in range(rank) if own[i] == 1 and full[i] != 1)
    renamed = substitute(slope, {Var(old): Var(new) for old, new in zip(used, letters(len(used)), strict=True)})
    if not axes:
        if renamed == Var("a") and xs[0].spec.count == x.spec.count:
            k.copy(xs[0], g.new(x))  # which the passes turn into a view
        else:  # in the rank of the whole: an input may have leading axes of length 1 that x has not
            k.pointwise(xs, k.view(g.new(x), own), expr=text_of(renamed))
        return
    # An axis over which x broadcasts and nothing else in the slope varies: the sum is a product.
    seen = broadcast(xs)
    seen = (1,) * (rank - len(seen)) + seen
    times = math.prod(full[i] for i in axes if seen[i] == 1)
    if times != 1:
        renamed = substitute(parse("times * slope"), {Var("times"): Num(float(times)), Var("slope"): renamed})
    axes = tuple(i for i in axes if seen[i] != 1)
    if renamed == Var("a") and xs[0].shape == full and g.later_sum(x, xs[0], axes):
        return
    if axes:
        wide = [k.view(t, (1,) * (rank - len(t.shape)) + t.shape) for t in xs]
        if any(s == 1 and n != 1 for s, n in zip(seen, own, strict=True)):
            wide.append(k.view(x, own))  # read for its shape alone: it makes the broadcast as wide as x
        k.reduce(wide, g.new(x), expr=text_of(renamed), how="sum", axes=axes)
    else:
        k.pointwise(xs, k.view(g.new(x), own), expr=text_of(renamed))


def broadcast(xs: Sequence[Tensor]) -> Shape:
    """The shape of tensors taken together, axes of length 1 stretched."""
    rank = max(len(x.shape) for x in xs)
    shapes = [(1,) * (rank - len(x.shape)) + x.shape for x in xs]
    return tuple(max(column) if 0 not in column else 0 for column in zip(*shapes, strict=True))
