"""Backward, derived: one rule a kernel, and one place where contributions to a gradient add up.

A rule writes, in the same vocabulary, what the inputs of a call gain from the gradients of its outputs:

    @rule
    def softmax(k, g, x, y, *, axis):
        if g.wants(x):
            k.softmax_grad(y, g.of(y), g.new(x), axis=axis)

``g.wants(x)`` asks whether anybody needs the gradient of x, ``g.has(y)`` whether y has one, ``g.of(y)`` is that
gradient, ``g.new(x)`` is fresh memory for a contribution, which the rule must write whole. Views are seen through.

    elementwise   copy pointwise reduce
    products      gemm
    windows       conv conv_grad_x im2col col2im pool_max pool_avg pool_random
    norm          lrn normalize softmax attention softmax_nll ctc
    shape         concat split slice place transpose gather scatter_add host
    sequence      rnn lstm gru
"""

from __future__ import annotations

from . import elementwise, norm, products, sequence, shape, windows
from .base import RULES, Gradients, rule
from .reverse import backward, needing

FAMILIES = (elementwise, norm, products, sequence, shape, windows)
"""The files of rules; a kernel's rule registers itself when its file is loaded."""

__all__ = ["FAMILIES", "RULES", "Gradients", "backward", "needing", "rule"]
