"""Device "cpu": the kernels that matter, bound to NumPy and BLAS calls on memory laid out beforehand.

A module a family (conv, pool, ...) has one function a kernel: it takes the arrays and the scratch block and gives
back the step to run. What has no such function runs as the reference does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..device import Step
from ..program import Call
from . import conv, dense, lrn, pointwise, pool, shape
from .host import step_of
from .reference import Reference

BODIES: Mapping[str, Callable[..., Step]] = {
    "conv": conv.conv, "conv_grad_x": conv.conv_grad_x, "conv_grad_w": conv.conv_grad_w,
    "pool_max": pool.pool_max, "pool_max_grad": pool.pool_max_grad,
    "pool_avg": pool.pool_avg, "pool_avg_grad": pool.pool_avg_grad,
    "lrn": lrn.lrn, "lrn_grad": lrn.lrn_grad,
    "pointwise": pointwise.pointwise, "update": pointwise.update, "reduce": pointwise.reduce,
    "gemm": dense.gemm, "fill": shape.fill, "copy": shape.copy, "softmax": dense.softmax,
    "softmax_grad": dense.softmax_grad, "softmax_nll": dense.softmax_nll, "softmax_nll_grad": dense.softmax_nll_grad,
    "normalize": dense.normalize, "normalize_grad": dense.normalize_grad,
    "concat": shape.concat, "split": shape.split, "slice": shape.slice_, "place": shape.place,
    "transpose": shape.transpose, "random": shape.random,
}  # fmt: skip
"""Kernel name -> function of (tensors in order, scratch, attributes by name) that gives back the step."""

WORKSPACES: Mapping[str, Callable[[Call], int]] = {
    **{op: lambda call: conv.conv_bytes(call.op.name, call.args, **call.attrs)
       for op in ("conv", "conv_grad_x", "conv_grad_w")},
    "pool_max": pool.workspace, "pool_max_grad": pool.workspace,
    "pool_avg": pool.workspace, "pool_avg_grad": pool.workspace,
    "lrn": lrn.workspace, "lrn_grad": lrn.workspace,
    "pointwise": pointwise.workspace, "update": pointwise.workspace, "reduce": pointwise.workspace,
    "softmax_grad": dense.workspace, "normalize": dense.workspace, "normalize_grad": dense.workspace,
}  # fmt: skip
"""Kernel name -> scratch bytes."""


class Fast(Reference):
    """The host device that trains."""

    name = "cpu"

    def workspace(self, call: Call) -> int:
        """Scratch bytes of the call."""
        measure = WORKSPACES.get(call.op.name)
        return measure(call) if measure else 0

    def bind(self, call: Call, args: Sequence[Any], scratch: Any) -> Step:
        """The fast body where there is one, else the reference's."""
        body = BODIES.get(call.op.name)
        if body is None:
            return super().bind(call, args, scratch)
        return step_of(call, body(*args, scratch, **call.attrs))
