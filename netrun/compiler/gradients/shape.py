"""Rules of what moves elements: concat, slice, transpose, gather, and steps on the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...kernels import HostStep
from ...program import Recorder
from ...types import Shape, Tensor
from .base import Gradients, rule, zeros


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
        parts.append(g.of(y) if g.has(y) else zeros(k, y))
    k.concat(parts, g.new(x), axis=axis)


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
    seeds = [g.of(y) if g.has(y) else zeros(k, y) for y in ys]
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
