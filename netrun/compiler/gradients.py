"""Backward, derived: one rule a kernel, and one place where contributions to a gradient add up.

A rule writes, in the same vocabulary, what the inputs of a call gain from the gradients of its outputs:

    @rule
    def softmax(k, g, x, y, *, axis):
        if g.wants(x):
            k.softmax_grad(y, g.of(y), g.new(x), axis=axis)

``g.wants(x)`` asks whether anybody needs the gradient of x, ``g.has(y)`` whether y has one, ``g.of(y)`` is that
gradient, ``g.new(x)`` is fresh memory for a contribution, which the rule must write whole. Views are seen through.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from ..expression import Num, Var, gradient, letters, names_in, parse, substitute, text_of
from ..kernels import HostStep
from ..program import Call, Recorder
from ..types import Shape, Spec, Tensor, Window

Rule = Callable[..., None]
RULES: dict[str, Rule] = {}
"""The rule of every kernel that has one; what has none passes no gradient."""


def rule(function: Rule) -> Rule:
    """Register the rule of the kernel of the same name."""
    RULES[function.__name__.rstrip("_")] = function
    return function


class Gradients:
    """The gradient of every tensor that needs one. Fan-out, shared weights and several losses meet here only."""

    def __init__(self, recorder: Recorder, needed: set[Tensor]) -> None:
        self.k = recorder
        self._needed = needed
        self._found: dict[Tensor, Tensor] = {}
        self._pending: list[tuple[Tensor, Tensor]] = []
        self.repeated: Collection[tuple[str, Tensor]] = ()
        """Parameters, with the layer, that several calls of a layer use alike: the steps of a loop."""
        self._sums: dict[tuple[Tensor, Shape, Shape, Shape], list[Tensor]] = {}
        self._later: dict[tuple[Tensor, Shape, Shape, Shape], list[tuple[Tensor, Tensor]]] = {}

    def wants(self, x: Tensor | None) -> bool:
        """True if a gradient of x is asked for and may flow through this view of it."""
        return x is not None and x.root in self._needed and not x.is_stopped

    def has(self, y: Tensor) -> bool:
        """True if something contributed to the gradient of y."""
        return y.root in self._found

    def of(self, y: Tensor) -> Tensor:
        """The gradient of y, in y's shape."""
        return self._found[y.root].view(y.shape)

    def new(self, x: Tensor) -> Tensor:
        """Memory for one more contribution to the gradient of x, in x's shape."""
        root = x.root
        name = f"{root.name}'" if root not in self._found else f"{root.name}'+{self.k.origin.rstrip(chr(39))}"
        made = self.k.new(name, root.spec, "grad" if root.kind == "learned" else "diff")
        self._pending.append((root, made))
        return made.view(x.shape)

    def seed(self, y: Tensor, gradient: Tensor) -> None:
        """One more contribution that stands in memory already."""
        self._pending.append((y.root, gradient))
        self.settle()

    def later(self, x: Tensor, a: Tensor, b: Tensor) -> bool:
        """Put the contribution a' b to the gradient of x off until the layer is done; False if it is to be made now.

        The steps of a loop contribute a product each to the gradient of a weight. One product of all their rows is the
        same sum, without T arrays of the weight's size.
        """
        if (self.k.origin.rstrip("'"), x.root) not in self.repeated or len(a.shape) != 2 or len(b.shape) != 2:
            return False
        self._later.setdefault((x.root, x.shape, a.shape, b.shape), []).append((a, b))
        return True

    def later_sum(self, x: Tensor, dy: Tensor, axes: Shape) -> bool:
        """As ``later``, for the contribution "sum of dy over axes": what a bias gets in each step."""
        if (self.k.origin.rstrip("'"), x.root) not in self.repeated or 0 not in axes:
            return False
        self._sums.setdefault((x.root, x.shape, dy.shape, axes), []).append(dy)
        return True

    def catch_up(self) -> None:
        """Make the sums and products that were put off."""
        for (root, shape, _, axes), parts in self._sums.items():
            whole = self._rows(parts[::-1])
            self.k.reduce([whole], self.new(root.view(shape)), expr="a", how="sum", axes=axes)
            self.settle()
        self._sums.clear()
        for (root, shape, *_), pairs in self._later.items():
            a, b = (self._rows([pair[i] for pair in reversed(pairs)]) for i in range(2))
            self.k.gemm(a, b, None, self.new(root.view(shape)), ta=True, tb=False)
            self.settle()
        self._later.clear()

    def _rows(self, parts: Sequence[Tensor]) -> Tensor:
        if len(parts) == 1:
            return parts[0]
        rows, *rest = parts[0].shape
        whole = self.k.temp("rows", (len(parts) * rows, *rest), parts[0].dtype)
        self.k.concat(list(parts), whole, axis=0)
        return whole

    def settle(self) -> None:
        """Add what a rule contributed to what was there: the only adder."""
        for root, made in self._pending:
            if root not in self._found:
                self._found[root] = made
                continue
            total = self.k.new(f"{root.name}'", root.spec, made.kind)
            self.k.pointwise([self._found[root], made], total, expr="a + b")
            self._found[root] = total
        self._pending.clear()

    def found(self) -> dict[Tensor, Tensor]:
        """Gradient by tensor, of everything reached."""
        return dict(self._found)


def needing(calls: Iterable[Call], roots: Iterable[Tensor]) -> set[Tensor]:
    """The roots and everything computed from them by kernels that pass gradients."""
    needed = set(roots)
    for call in calls:
        if call.op.name not in RULES:
            continue
        if any(t.root in needed and not t.is_stopped for t in call.reads()):
            needed.update(t.root for t in call.writes() if t.dtype.startswith("float"))
    return needed


def backward(
    recorder: Recorder,
    calls: Sequence[Call],
    roots: Iterable[Tensor],
    losses: Iterable[tuple[Tensor, float]] = (),
    seeds: Iterable[tuple[Tensor, Tensor]] = (),
) -> dict[Tensor, Tensor]:
    """Record the backward pass of ``calls`` after them.

    Args:
        roots: tensors whose gradients are wanted (parameters, inputs).
        losses: tensors and the constant gradient each starts with (loss weights).
        seeds: tensors and the tensor that holds the gradient each starts with.

    Returns:
        Gradient of every tensor that was reached, the roots among them.
    """
    g = Gradients(recorder, needing(calls, roots))
    for tensor, weight in losses:
        if g.wants(tensor):
            recorder.origin = "(loss)'"
            recorder.fill(g.new(tensor), value=weight)
            g.settle()
    for tensor, seed in seeds:
        if g.wants(tensor):
            g.seed(tensor, seed)
    g.repeated = _repeated(calls)
    for call in reversed(calls):
        if recorder.origin != call.origin + "'":
            g.catch_up()
        function = RULES.get(call.op.name)
        if function is None or not any(g.has(t) for t in call.writes()):
            continue
        if not any(g.wants(t) for t in call.reads()):
            continue
        recorder.origin = call.origin + "'"
        function(recorder, g, *call.args, **call.attrs)
        g.settle()
    g.catch_up()
    return g.found()


def _repeated(calls: Iterable[Call]) -> set[tuple[str, Tensor]]:
    """Parameters that several calls of one layer read, with the layer."""
    seen: set[tuple[str, Tensor]] = set()
    found: set[tuple[str, Tensor]] = set()
    for call in calls:
        for weight in dict.fromkeys(t.root for t in call.reads()):
            if weight.kind == "learned":
                key = call.origin, weight
                (found if key in seen else seen).add(key)
    return found


# -------------------------------------------------------------------------------------------------------- elementwise
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
        _elementwise(k, g, slope, values, x, y.shape)


@rule
def reduce(k: Recorder, g: Gradients, xs: Sequence[Tensor], y: Tensor, *, expr: str, how: str, axes: Shape) -> None:
    full = _broadcast(xs)
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
        _elementwise(k, g, slope, values, x, full)


def _elementwise(k: Recorder, g: Gradients, slope: Any, values: dict[str, Tensor], x: Tensor, full: Shape) -> None:
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
    seen = _broadcast(xs)
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


def _broadcast(xs: Sequence[Tensor]) -> Shape:
    rank = max(len(x.shape) for x in xs)
    shapes = [(1,) * (rank - len(x.shape)) + x.shape for x in xs]
    return tuple(max(column) if 0 not in column else 0 for column in zip(*shapes, strict=True))


# ----------------------------------------------------------------------------------------------------------- products
@rule
def gemm(k: Recorder, g: Gradients, a: Tensor, b: Tensor, c: Tensor | None, y: Tensor, *, ta: bool, tb: bool) -> None:
    dy = g.of(y)
    if g.wants(a):
        if ta:
            _product(k, g, b, dy, a, tb, True)
        else:
            _product(k, g, dy, b, a, False, not tb)
    if g.wants(b) and not (not ta and g.later(b, *((dy, a) if tb else (a, dy)))):
        if tb:
            _product(k, g, dy, a, b, True, ta)
        else:
            _product(k, g, a, dy, b, not ta, False)
    if c is not None and g.wants(c):
        _elementwise(k, g, Var("dout"), {"dout": dy}, c, y.shape)


def _product(k: Recorder, g: Gradients, a: Tensor, b: Tensor, x: Tensor, ta: bool, tb: bool) -> None:
    """Contribute op(a) op(b) to x, summed over a batch over which x was broadcast."""
    batch = _broadcast([_outer(a), _outer(b)])
    if math.prod(batch) == math.prod(x.shape[:-2]):
        k.gemm(a, b, None, g.new(x), ta=ta, tb=tb)
        return
    full = k.temp(f"{x.name}'", (*batch, *x.shape[-2:]), x.dtype)
    k.gemm(a, b, None, full, ta=ta, tb=tb)
    _elementwise(k, g, Var("dout"), {"dout": full}, x, full.shape)


def _outer(x: Tensor) -> Tensor:
    return Tensor(x.name, Spec(x.shape[:-2]))


@rule
def conv(
    k: Recorder, g: Gradients, x: Tensor, w: Tensor, b: Tensor | None, y: Tensor, *, window: Window, groups: int
) -> None:
    if g.wants(w):
        k.conv_grad_w(x, g.of(y), g.new(w), window=window, groups=groups)
    if b is not None and g.wants(b):
        axes = tuple(i for i in range(len(y.shape)) if i != 1)
        k.reduce([g.of(y)], g.new(b), expr="a", how="sum", axes=axes)
    if g.wants(x):
        k.conv_grad_x(w, g.of(y), g.new(x), window=window, groups=groups)


@rule
def conv_grad_x(k: Recorder, g: Gradients, w: Tensor, dy: Tensor, dx: Tensor, *, window: Window, groups: int) -> None:
    if g.wants(w):
        k.conv_grad_w(g.of(dx), dy, g.new(w), window=window, groups=groups)
    if g.wants(dy):
        k.conv(g.of(dx), w, None, g.new(dy), window=window, groups=groups)


@rule
def im2col(k: Recorder, g: Gradients, x: Tensor, y: Tensor, *, window: Window) -> None:
    if g.wants(x):
        k.col2im(g.of(y), g.new(x), window=window)


@rule
def col2im(k: Recorder, g: Gradients, y: Tensor, x: Tensor, *, window: Window) -> None:
    if g.wants(y):
        k.im2col(g.of(x), g.new(y), window=window)


# ------------------------------------------------------------------------------------------------------------ pooling
@rule
def pool_max(k: Recorder, g: Gradients, x: Tensor, y: Tensor, index: Tensor, *, window: Window) -> None:
    if g.wants(x):
        k.pool_max_grad(index, g.of(y), g.new(x), window=window)


@rule
def pool_avg(k: Recorder, g: Gradients, x: Tensor, y: Tensor, *, window: Window, count: str) -> None:
    if g.wants(x):
        k.pool_avg_grad(g.of(y), g.new(x), window=window, count=count)


@rule
def pool_random(
    k: Recorder, g: Gradients, x: Tensor, noise: Tensor, y: Tensor, index: Tensor, *, window: Window
) -> None:
    if g.wants(x):
        k.pool_max_grad(index, g.of(y), g.new(x), window=window)


# ------------------------------------------------------------------------------------------------------ normalisation
@rule
def lrn(kernels: Recorder, g: Gradients, x: Tensor, y: Tensor, scale: Tensor, **attrs: Any) -> None:
    if g.wants(x):
        kernels.lrn_grad(x, y, scale, g.of(y), g.new(x), **attrs)


@rule
def normalize(
    k: Recorder, g: Gradients, x: Tensor, y: Tensor, mean: Tensor, var: Tensor, *, axes: Shape, eps: float
) -> None:
    if g.wants(x) and g.has(y):
        k.normalize_grad(y, var, g.of(y), g.new(x), axes=axes, eps=eps)


@rule
def softmax(k: Recorder, g: Gradients, x: Tensor, y: Tensor, *, axis: int) -> None:
    if g.wants(x):
        k.softmax_grad(y, g.of(y), g.new(x), axis=axis)


@rule
def softmax_nll(
    k: Recorder,
    g: Gradients,
    x: Tensor,
    label: Tensor,
    prob: Tensor,
    loss: Tensor,
    norm: Tensor,
    *,
    axis: int,
    ignore: int | None,
    normalize: str,
) -> None:
    if g.wants(x) and g.has(loss):
        k.softmax_nll_grad(prob, label, norm, g.of(loss), g.new(x), axis=axis, ignore=ignore)
    if g.wants(x) and g.has(prob):
        k.softmax_grad(prob, g.of(prob), g.new(x), axis=axis)


@rule
def ctc(
    k: Recorder, g: Gradients, x: Tensor, label: Tensor, steps: Tensor, count: Tensor, loss: Tensor, slope: Tensor, *,
    blank: int,
) -> None:  # fmt: skip
    if g.wants(x) and g.has(loss):
        k.pointwise([slope, k.view(g.of(loss), (1, loss.spec.count, 1))], g.new(x), expr="a * b")


# -------------------------------------------------------------------------------------------------------------- shape
@rule
def concat(k: Recorder, g: Gradients, xs: Sequence[Tensor], y: Tensor, *, axis: int) -> None:
    start = 0
    for x in xs:
        if g.wants(x):
            begin = tuple(start if i == axis else 0 for i in range(len(y.shape)))
            k.slice(g.of(y), g.new(x), begin=begin)
        start += x.shape[axis]


@rule
def split(k: Recorder, g: Gradients, x: Tensor, ys: Sequence[Tensor], *, axis: int) -> None:
    if not g.wants(x):
        return
    parts = []
    for y in ys:
        parts.append(g.of(y) if g.has(y) else _zeros(k, y))
    k.concat(parts, g.new(x), axis=axis)


def _zeros(k: Recorder, y: Tensor) -> Tensor:
    """The gradient of a tensor that nothing contributed to."""
    zeros: Tensor = k.temp(f"{y.name}'", y.shape, y.dtype)
    k.fill(zeros, value=0.0)
    return zeros


@rule
def slice_(k: Recorder, g: Gradients, x: Tensor, y: Tensor, *, begin: Shape) -> None:
    if g.wants(x):
        k.place(g.of(y), g.new(x), begin=begin)


@rule
def place(k: Recorder, g: Gradients, x: Tensor, y: Tensor, *, begin: Shape) -> None:
    if g.wants(x):
        k.slice(g.of(y), g.new(x), begin=begin)


@rule
def transpose(k: Recorder, g: Gradients, x: Tensor, y: Tensor, *, axes: Shape) -> None:
    if g.wants(x):
        inverse = tuple(sorted(range(len(axes)), key=lambda i: axes[i]))
        k.transpose(g.of(y), g.new(x), axes=inverse)


@rule
def host(
    k: Recorder,
    g: Gradients,
    xs: Sequence[Tensor],
    ys: Sequence[Tensor],
    *,
    fn: HostStep,
    grad: Callable[[tuple[bool, ...]], HostStep] | None,
) -> None:
    if grad is None:
        return
    wanted = tuple(g.wants(x) for x in xs)
    seeds = [g.of(y) if g.has(y) else _zeros(k, y) for y in ys]
    k.host([*xs, *ys, *seeds], [g.new(x) for x, w in zip(xs, wanted, strict=True) if w], fn=grad(wanted), grad=None)


@rule
def gather(k: Recorder, g: Gradients, x: Tensor, index: Tensor, y: Tensor) -> None:
    if g.wants(x):
        k.scatter_add(index, g.of(y), g.new(x))


@rule
def scatter_add(k: Recorder, g: Gradients, index: Tensor, x: Tensor, y: Tensor) -> None:
    if not g.wants(x):
        return
    rows = k.temp("rows", index.shape, index.dtype)  # gather refuses the negative ones that scatter_add drops
    k.pointwise([index], rows, expr="max(a, 0)")
    gathered = k.temp("gathered", x.shape, x.dtype)
    k.gather(g.of(y), rows, gathered)
    dropped = k.view(index, index.shape + (1,) * (len(x.shape) - len(index.shape)))
    k.pointwise([gathered, dropped], g.new(x), expr="where(b > -1, a, 0)")


# ---------------------------------------------------------------------------------------------------------- sequences
def _before(k: Recorder, y: Tensor, first: Tensor | None, cont: Tensor | None, reverse: bool) -> Tensor | None:
    """cont[t] y[before], T N R, for all steps of a walk; None where it is 0 everywhere."""
    steps, streams, size = y.shape
    last, begin = (steps - 1, streams, size), 0 if reverse else 1
    if steps == 1 and first is None:
        return None
    parts = []
    if first is not None:
        parts.append(k.view(first, (1, streams, size)))
    if steps > 1:
        moved = k.temp("before", last, y.dtype)
        k.slice(y, moved, begin=(1 - begin, 0, 0))
        parts.insert(0 if reverse else len(parts), moved)
    whole: Tensor = parts[0]
    if first is None:
        whole = k.temp("before", y.shape, y.dtype)
        k.place(parts[0], whole, begin=(begin, 0, 0))
    elif steps > 1:
        whole = k.temp("before", y.shape, y.dtype)
        k.concat(parts, whole, axis=0)
    if cont is None:
        return whole
    seen: Tensor = k.temp("before", y.shape, y.dtype)
    k.pointwise([whole, k.view(cont, (steps, streams, 1))], seen, expr="a * b")
    return seen


def _over_steps(k: Recorder, g: Gradients, dy: Tensor, seen: Tensor | None, w: Tensor) -> None:
    """Contribute the sum over steps and streams of dy seen' to w."""
    if not g.wants(w):
        return
    if seen is None:
        k.fill(g.new(w), value=0.0)
        return
    rows = dy.shape[0] * dy.shape[1]
    k.gemm(k.view(dy, (rows, -1)), k.view(seen, (rows, -1)), None, g.new(w), ta=True, tb=False)


def _or_temp(k: Recorder, g: Gradients, x: Tensor | None, shape: Shape, dtype: str) -> Tensor:
    """Memory for the gradient of x, or for one that nobody wants."""
    made: Tensor = g.new(x) if x is not None and g.wants(x) else k.temp("unwanted", shape, dtype)
    return k.view(made, shape)  # type: ignore[no-any-return]


@rule
def rnn(
    k: Recorder, g: Gradients, x: Tensor, w: Tensor, cont: Tensor | None, first: Tensor | None, y: Tensor, *,
    act: str, reverse: bool,
) -> None:  # fmt: skip
    dx, dfirst = _or_temp(k, g, x, x.shape, x.dtype), _or_temp(k, g, first, y.shape[1:], x.dtype)
    k.rnn_grad(w, cont, y, g.of(y), dx, dfirst, act=act, reverse=reverse)
    if g.wants(w):
        _over_steps(k, g, dx, _before(k, y, first, cont, reverse), w)


@rule
def lstm(
    k: Recorder, g: Gradients, x: Tensor, w: Tensor, peep: Tensor | None, proj: Tensor | None, cont: Tensor | None,
    first: Tensor | None, first_cell: Tensor | None, y: Tensor, cell: Tensor, gates: Tensor, *, reverse: bool,
) -> None:  # fmt: skip
    (steps, streams, size), dtype = cell.shape, x.dtype
    dx, dout = _or_temp(k, g, x, x.shape, dtype), k.temp(f"{y.name}'", y.shape, dtype)
    dfirst = _or_temp(k, g, first, y.shape[1:], dtype)
    dfirst_cell = _or_temp(k, g, first_cell, cell.shape[1:], dtype)
    dy, dcell = g.of(y) if g.has(y) else _zeros(k, y), g.of(cell) if g.has(cell) else None
    k.lstm_grad(w, peep, proj, cont, first_cell, cell, gates, dy, dcell, dx, dout, dfirst, dfirst_cell, reverse=reverse)
    if g.wants(w):
        _over_steps(k, g, dx, _before(k, y, first, cont, reverse), w)
    rows = (steps * streams, size)
    if proj is not None and g.wants(proj):
        o, inner = k.temp("o", (steps, streams, size), dtype), k.temp("inner", rows, dtype)
        k.slice(gates, o, begin=(0, 0, 2 * size))
        k.pointwise([k.view(o, rows), k.view(cell, rows)], inner, expr="a * tanh(b)")
        k.gemm(k.view(dout, (rows[0], -1)), inner, None, g.new(proj), ta=True, tb=False)
    if peep is not None and g.wants(peep):
        seen = _before(k, cell, first_cell, cont, reverse)
        parts = []
        for i, other in enumerate((seen, seen, cell)):
            part = k.temp("peep'", (1, size), dtype)
            if other is None:
                k.fill(part, value=0.0)
            else:
                slope = k.temp("gate'", (steps, streams, size), dtype)
                k.slice(dx, slope, begin=(0, 0, i * size))
                k.reduce([k.view(slope, rows), k.view(other, rows)], part, expr="a * b", how="sum", axes=(0,))
            parts.append(part)
        k.concat(parts, g.new(peep), axis=0)


@rule
def gru(
    k: Recorder, g: Gradients, x: Tensor, w: Tensor, b: Tensor | None, cont: Tensor | None, first: Tensor | None,
    y: Tensor, gates: Tensor, *, reverse: bool,
) -> None:  # fmt: skip
    (steps, streams, size), dtype = y.shape, x.dtype
    dx, du = _or_temp(k, g, x, x.shape, dtype), k.temp("product'", x.shape, dtype)
    dfirst = _or_temp(k, g, first, y.shape[1:], dtype)
    k.gru_grad(w, cont, first, y, gates, g.of(y), dx, du, dfirst, reverse=reverse)
    if g.wants(w):
        _over_steps(k, g, du, _before(k, y, first, cont, reverse), w)
    if b is not None and g.wants(b):
        slope = k.temp("u'", (steps, streams, size), dtype)
        k.slice(du, slope, begin=(0, 0, 2 * size))
        k.reduce([slope], g.new(b), expr="a", how="sum", axes=(0, 1))


__all__ = ["RULES", "Gradients", "backward", "needing", "rule"]
