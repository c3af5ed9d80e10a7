"""Rules of normalisation, softmax, attention and the losses that have kernels."""

from __future__ import annotations

import math
from typing import Any

from ...program import Recorder
from ...types import Shape, Tensor, Window
from .base import Gradients, rule, zeros


@rule
def lrn(kernels: Recorder, g: Gradients, x: Tensor, y: Tensor, scale: Tensor, **attrs: Any) -> None:
    if not g.wants(x):
        return
    if g.has(y):
        kernels.lrn_grad(x, y, scale, g.of(y), g.new(x), **attrs)
    if g.has(scale):  # dx = 2 alpha x * (mean of dscale over the channels whose sums have x in them)
        size, shape = attrs["size"], (x.shape[0], 1, x.shape[1], math.prod(x.shape[2:]))
        before = (size - 1) // 2
        window = Window((size, 1), pad=(size - 1 - before, 0), pad_end=(before, 0))
        around = kernels.temp("around", shape, x.dtype)
        kernels.pool_avg(g.of(scale).view(shape), around, window=window, count="kernel")
        kernels.pointwise([x, around.view(x.shape)], g.new(x), expr=f"{2 * attrs['alpha']!r} * a * b")


@rule
def normalize(
    k: Recorder, g: Gradients, x: Tensor, y: Tensor, mean: Tensor, var: Tensor, *, axes: Shape, eps: float
) -> None:
    if not g.wants(x):
        return
    if g.has(y):
        k.normalize_grad(y, var, g.of(y), g.new(x), axes=axes, eps=eps)
    count = max(math.prod(x.shape[i] for i in axes), 1)
    if g.has(mean):
        k.pointwise([g.of(mean)], g.new(x), expr=f"a * {1 / count!r}")
    if g.has(var):
        k.pointwise([g.of(var), x, mean], g.new(x), expr=f"a * (b - c) * {2 / count!r}")


@rule
def softmax(k: Recorder, g: Gradients, x: Tensor, y: Tensor, *, axis: int) -> None:
    if g.wants(x):
        k.softmax_grad(y, g.of(y), g.new(x), axis=axis)


@rule
def attention(
    kernels: Recorder, g: Gradients, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None, mask: Tensor | None,
    y: Tensor, lse: Tensor, **attrs: Any,
) -> None:  # fmt: skip
    found = [g.new(x) if g.wants(x) else kernels.temp("unwanted", x.shape, x.dtype) for x in (q, k, v)]
    dy, dlse = g.of(y) if g.has(y) else zeros(kernels, y), g.of(lse) if g.has(lse) else None
    kernels.attention_grad(q, k, v, lengths, mask, y, lse, dy, dlse, *found, **attrs)


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
