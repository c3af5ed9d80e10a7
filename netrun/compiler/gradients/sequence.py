"""Rules of the recurrent kernels: what has no step after step in it is one call over all of them."""

from __future__ import annotations

from ...program import Recorder
from ...types import Shape, Tensor
from .base import Gradients, rule, zeros


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
    return made.view(shape)


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
    dy, dcell = g.of(y) if g.has(y) else zeros(k, y), g.of(cell) if g.has(cell) else None
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
