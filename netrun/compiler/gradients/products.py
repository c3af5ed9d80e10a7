"""Rules of matrix products."""

from __future__ import annotations

import math

from ...expression import Var
from ...program import Recorder
from ...types import Spec, Tensor
from .base import Gradients, rule
from .elementwise import broadcast, contribute


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
        contribute(k, g, Var("dout"), {"dout": dy}, c, y.shape)


def _product(k: Recorder, g: Gradients, a: Tensor, b: Tensor, x: Tensor, ta: bool, tb: bool) -> None:
    """Contribute op(a) op(b) to x, summed over a batch over which x was broadcast."""
    batch = broadcast([_outer(a), _outer(b)])
    if math.prod(batch) == math.prod(x.shape[:-2]):
        k.gemm(a, b, None, g.new(x), ta=ta, tb=tb)
        return
    full = k.temp(f"{x.name}'", (*batch, *x.shape[-2:]), x.dtype)
    k.gemm(a, b, None, full, ta=ta, tb=tb)
    contribute(k, g, Var("dout"), {"dout": full}, x, full.shape)


def _outer(x: Tensor) -> Tensor:
    return Tensor(x.name, Spec(x.shape[:-2]))
