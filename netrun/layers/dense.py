"""Layers whose work is one matrix: InnerProduct, Embed; and Parameter, a bare one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..kernels import Kernels
from ..types import Spec
from .base import Layer


class InnerProduct(Layer):
    """y[n] = weight @ x[n] + bias, with everything from ``axis`` on as one vector x[n]

    Bottom: any shape. Top: the axes before ``axis``, then num_output. Weights: (num_output, inputs), with ``transpose``
    (inputs, num_output); bias: (num_output,).
    """

    param = "inner_product_param"
    weight: Any
    bias: Any

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        shape = bottom[0].shape
        axis, outputs = self.axis(self.p.axis, len(shape)), self.p.num_output
        if outputs < 1:
            self.fail("has no num_output", hint="write num_output: 10, say: the length of its output")
        inputs = math.prod(shape[axis:])
        self._rows, self._inputs = math.prod(shape[:axis]), inputs
        weights = (inputs, outputs) if self.p.transpose else (outputs, inputs)
        self.learned("weight", weights, self.p.weight_filler)
        if self.p.bias_term:
            self.learned("bias", (outputs,), self.p.bias_filler)
        return [self.spec((*shape[:axis], outputs), bottom[0].dtype)]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        x = k.view(bottom[0], (self._rows, self._inputs))
        y = k.view(top[0], (self._rows, self.p.num_output))
        bias = self.bias if self.p.bias_term else None
        k.gemm(x, self.weight, bias, y, ta=False, tb=not self.p.transpose)


class Embed(Layer):
    """y[i] = weight[x[i]] + bias: one learned row for each index

    Bottom: indices 0 .. input_dim - 1, any shape; fractions are cut off, and no gradient passes to them. Top: the
    bottom's shape, then num_output. Weights: (input_dim, num_output); bias: (num_output,). An index out of range is an
    error on the host devices (Caffe reads whatever lies there).

    With ``sparse_gradient`` an iteration touches only the rows it used: their gradients, added up where an index occurs
    several times, go through the solver's rule, weight decay included; all other rows and their history stay as they
    are. That is the same for SGD without momentum and decay, else the lazy form of the rule (LazyAdam and the like).
    """

    param = "embed_param"
    skips = frozenset({0})
    weight: Any
    bias: Any

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        outputs, rows = self.p.num_output, self.p.input_dim
        for field, value, meaning in (
            ("num_output", outputs, "the length of a row"),
            ("input_dim", rows, "the number of rows"),
        ):
            if value < 1:
                self.fail(f"has no {field}", hint=f"write {field}: 100, say: {meaning}")
        self.learned("weight", (rows, outputs), self.p.weight_filler, sparse=self.p.sparse_gradient)
        if self.p.bias_term:
            self.learned("bias", (outputs,), self.p.bias_filler)
        return [self.spec((*bottom[0].shape, outputs))]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        if not self.p.bias_term:
            k.gather(self.weight, bottom[0], top[0])
            return
        rows = k.temp("rows", top[0].shape)
        k.gather(self.weight, bottom[0], rows)
        k.pointwise([rows, self.bias], top[0], expr="a + b")


class Parameter(Layer):
    """y = value, a learned parameter

    No bottom. Top and parameter: ``shape``; zeros at first.
    """

    param = "parameter_param"
    bottoms = 0
    value: Any

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        if not self.has("shape"):
            self.fail("has no shape", hint="write shape { dim: 3 dim: 4 }, say")
        shape = tuple(int(n) for n in self.p.shape.dim)
        if any(n < 1 for n in shape):
            self.fail(f"shape {' '.join(map(str, shape))}: every axis needs at least 1", at="shape")
        self.learned("value", shape)
        return [self.spec(shape)]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        k.copy(self.value, top[0])
