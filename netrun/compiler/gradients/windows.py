"""Rules of convolution, of its unrolling and of pooling."""

from __future__ import annotations

from ...program import Recorder
from ...types import Tensor, Window
from .base import Gradients, rule


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
