"""Which activations of a call lie in one layout: what ``prepare`` joins to regions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..program import Arg, Call
from ..types import Tensor
from .onednn_pointwise import operand_shapes, translatable

CONVOLUTIONS = frozenset({"conv", "conv_then", "conv_grad_x", "conv_grad_w", "conv_grad_wb"})


def roles(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    """(x, y, w) of a convolution or one of its adjoints."""
    names = {"conv": ("x", "y", "w"), "conv_then": ("x", "y", "w"), "conv_grad_x": ("dx", "dy", "w")}.get(
        call.op.name, ("x", "dy", "dw")
    )
    found: Any = [call.argument(n) for n in names]
    x, y, w = found
    return x, y, w


def connected(call: Call) -> list[Tensor]:
    """The activations of a call that have to lie in one layout; none where the kernel knows plain ones only."""
    name, args = call.op.name, call.args
    found: Iterable[Arg]
    if name in CONVOLUTIONS:
        found = roles(call)[:2]
        if name == "conv_then":
            found = [*found, *(t for t in call.reads() if t.shape == call.writes()[0].shape)]
    elif name in ("pool_max", "pool_avg", "lrn", "normalize"):
        found = args[:2]
    elif name in ("batch_norm", "batch_norm_grad"):
        found = [call.argument(n) for n in ("x", "y", "dy", "dx") if n in (a.name for a in call.op.arguments)]
    elif name == "pool_max_grad":
        found = args[1:]
    elif name == "pool_avg_grad":
        found = args
    elif name == "lrn_grad":
        found = (args[0], args[1], args[3], args[4])
    elif name == "normalize_grad":
        found = (args[0], args[2], args[3])
    elif name == "concat" and call.attrs["axis"] == 1:
        found = call.tensors()
    elif name == "slice" or (name == "copy" and len({t.shape for t in call.tensors()}) == 1):
        found = args
    elif name == "pointwise":
        y = call.writes()[0]
        if not translatable(call) or not operand_shapes(call.reads(), y):
            return []
        found = [t for t in call.tensors() if t.shape == y.shape]
    else:
        return []
    group = [t for t in found if isinstance(t, Tensor)]
    if any(not 3 <= len(t.shape) <= 5 or t.dtype != "float32" or t.shape != t.root.shape for t in group):
        return []
    return list(dict.fromkeys(t.root for t in group))
