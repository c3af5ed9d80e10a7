"""oneDNN under device "cpu": which kernels it runs, and the private kernels that ``prepare`` fuses calls into.

A function here makes a :class:`Recipe` from the specs of a call, or raises Unsupported; then NumPy runs the call. What
is built once serves every call of the same specs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..kernels import CHANGES, OPS, Argument, Op
from ..program import Call
from ..types import Tensor
from . import (
    onednn_attention,
    onednn_conv,
    onednn_norm,
    onednn_pointwise,
    onednn_products,
    onednn_reduce,
    onednn_softmax,
    onednn_spatial,
    onednn_update,
    onednn_winograd,
)
from .dnnl import Library, Unsupported
from .recipe import Recipe

GRAD_WB = Op(
    "conv_grad_wb",
    (*OPS["conv_grad_w"].arguments, Argument("db", "w", False, False)),
    OPS["conv_grad_w"].attributes,
)
"""conv_grad_w and the gradient of the bias in one pass over dy."""

GRADS = Op(
    "conv_grads",
    tuple(Argument(name, role, False, False) for name, role in (
        ("x", "r"), ("w", "r"), ("dy", "r"), ("dw", "w"), ("db", "w"), ("dx", "w"))),
    OPS["conv_grad_w"].attributes,
)  # fmt: skip
"""conv_grad_wb and conv_grad_x, which share what they make of dy. ``x`` may be what CONV_KEEP made of it."""

CONV_KEEP = Op("conv_keep", (*OPS["conv"].arguments, Argument("values", "w", False, False)), OPS["conv"].attributes)
"""conv that also gives the values of x at points or frequencies, for GRADS."""

ATTENTION_KEEP = Op("attention_keep", (*OPS["attention"].arguments, Argument("weights", "w", False, False)),
                    OPS["attention"].attributes)  # fmt: skip
"""attention that also gives its weights, N H Tq Tk."""

ATTENTION_GRAD_KEPT = Op(
    "attention_grad_kept",
    (*OPS["attention_grad"].arguments[:9], Argument("weights", "r", False, False),
     *OPS["attention_grad"].arguments[9:]),
    OPS["attention_grad"].attributes,
)  # fmt: skip
"""attention_grad that reads them."""

CONV_THEN = Op(
    "conv_then",
    (*OPS["conv"].arguments[:3], Argument("others", "r", True, False), OPS["conv"].arguments[3]),
    (*OPS["conv"].attributes, "then"),
)
"""y = then over a, the result of conv, and b, c ...: the others, each like y or one value a channel."""

BATCH_NORM = Op(
    "batch_norm",
    tuple(Argument(name, role, False, False) for name, role in (
        ("x", "r"), ("scale", "r"), ("shift", "r"), ("y", "w"), ("mean", "w"), ("var", "w"), ("mask", "w"))),
    ("axes", "eps", "relu"),
)  # fmt: skip
"""y = scale * normalize(x) + shift, then ReLU if ``relu``; ``mask`` is where that let values through."""

BATCH_NORM_GRAD = Op(
    "batch_norm_grad",
    tuple(Argument(name, role, False, False) for name, role in (
        ("x", "r"), ("mean", "r"), ("var", "r"), ("scale", "r"), ("mask", "r"), ("dy", "r"), ("dx", "w"),
        ("dscale", "w"), ("dshift", "w"))),
    ("axes", "eps", "relu"),
)  # fmt: skip
"""Adjoint of batch_norm in x, scale and shift."""


def _copy(lib: Library, call: Call) -> Recipe:
    packed = onednn_winograd.packed_tile(call.writes()[0].spec.layout) is not None
    return (onednn_winograd.pack if packed else onednn_spatial.copy)(lib, call)


Builder = Callable[[Library, Call], Recipe]

BUILDERS: Mapping[str, Builder] = {
    "conv": onednn_conv.conv, "conv_grad_x": onednn_conv.conv_grad_x, "conv_grad_w": onednn_conv.conv_grad_w,
    "conv_then": onednn_conv.conv, "conv_grad_wb": onednn_conv.conv_grad_w, "gemm": onednn_products.gemm,
    "conv_grads": onednn_conv.conv_grads, "conv_keep": onednn_conv.conv_keep,
    "pool_max": onednn_spatial.pool_max, "pool_max_grad": onednn_spatial.pool_max_grad,
    "pool_avg": onednn_spatial.pool_avg, "pool_avg_grad": onednn_spatial.pool_avg_grad,
    "lrn": onednn_norm.lrn, "lrn_grad": onednn_norm.lrn_grad,
    "normalize": onednn_norm.normalize, "normalize_grad": onednn_norm.normalize_grad,
    "batch_norm": onednn_norm.batch_norm, "batch_norm_grad": onednn_norm.batch_norm_grad,
    "copy": _copy, "concat": onednn_spatial.concat, "slice": onednn_spatial.slice_,
    "pointwise": onednn_pointwise.pointwise, "update": onednn_update.update,
    "reduce": onednn_reduce.reduce,
    "softmax": onednn_softmax.softmax, "softmax_grad": onednn_softmax.softmax_grad,
    "softmax_nll": onednn_softmax.softmax_nll,
    "attention": onednn_attention.attention, "attention_grad": onednn_attention.attention,
    "attention_keep": onednn_attention.attention, "attention_grad_kept": onednn_attention.attention,
}  # fmt: skip
"""Kernel name -> function that builds its recipe."""

SMALL: Mapping[str, int] = {"pointwise": 1 << 12, "softmax": 1 << 15, "softmax_grad": 1 << 15, "softmax_nll": 1 << 15}
"""Elements below which NumPy's light kernels start faster than the library's threads, or as fast."""


class Recipes:
    """Recipes by what they depend on: kernel, specs and attributes."""

    def __init__(self, lib: Library) -> None:
        self.lib = lib
        self._made: dict[Any, Recipe | None] = {}

    def of(self, call: Call) -> Recipe | None:
        """The recipe of a call; None where NumPy runs it."""
        builder = BUILDERS.get(call.op.name)
        if builder is None or (call.op.name in CHANGES and _overlapping(call)):
            return None
        key = _key(call)
        if key not in self._made:
            self._made[key] = self._build(builder, call)
        return self._made[key]

    def _build(self, builder: Builder, call: Call) -> Recipe | None:
        if _plain(call) and call.writes()[0].spec.count < SMALL.get(call.op.name, 0):
            return None
        try:
            return builder(self.lib, call)
        except Unsupported:
            return None


def _overlapping(call: Call) -> bool:
    """Whether memory that the call changes is another argument of it as well: a recipe sees specs alone."""
    roots = [t.root for t in call.tensors()]
    return any(roots.count(t.root) > 1 for t in call.writes())


def _plain(call: Call) -> bool:
    return all(t.spec.layout == "plain" for t in call.tensors())


def _key(call: Call) -> Any:
    def part(arg: Any) -> Any:
        if isinstance(arg, tuple):
            return tuple(t.spec for t in arg)
        return arg.spec if isinstance(arg, Tensor) else None

    return call.op.name, tuple(part(a) for a in call.args), tuple(sorted(call.attrs.items(), key=lambda kv: kv[0]))
