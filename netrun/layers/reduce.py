"""Many values into one: Eltwise over bottoms, Reduction over axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..config import schema
from ..expression import letters
from ..kernels import Kernels
from ..types import Spec
from .base import Layer

_OPERATION = schema.EltwiseParameter
_HOW = schema.ReductionParameter


class Eltwise(Layer):
    """y = the sum of coeff_i * x_i, or the product of the x_i, or the largest of them, element by element

    Bottoms: two or more of the same shape. Top: that shape. MAX sends the gradient to the bottom that won; of equals
    the second among the first two, and a later one has to be larger. The gradient of PROD multiplies the other bottoms,
    whatever stable_prod_grad says, so it is right at 0 too (Caffe divides by 0 there unless told otherwise). coeff is
    for SUM: PROD refuses it, MAX takes no notice of it, as in Caffe.
    """

    param = "eltwise_param"
    bottoms = (2, None)

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        for i, other in enumerate(bottom):
            if other.shape != bottom[0].shape:
                self.fail("its bottoms need the same shape", bottom=[0, i])
        coefficients = [float(c) for c in self.p.coeff]
        if coefficients and self.p.operation == _OPERATION.PROD:
            self.fail("coeff goes with operation: SUM only", at="coeff")
        if coefficients and len(coefficients) != len(bottom):
            what = f"has {len(coefficients)} coeff and {len(bottom)} bottoms"
            self.fail(what, at="coeff", hint="give one for each bottom, or none")
        if not all(map(math.isfinite, coefficients)):
            self.fail("every coeff has to be a finite number", at="coeff")
        names = letters(len(bottom))
        if self.p.operation == _OPERATION.PROD:
            self._expr = " * ".join(names)
        else:
            pairs = zip(coefficients or [1.0] * len(bottom), names, strict=True)
            self._expr = " + ".join(name if c == 1 else f"{c!r} * {name}" for c, name in pairs)
        return [bottom[0]]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        if self.p.operation != _OPERATION.MAX:
            k.pointwise(bottom, top[0], expr=self._expr)
            return
        best, expr = bottom[0], "where(a > b, a, b)"
        for i, x in enumerate(bottom[1:], 2):
            into = top[0] if i == len(bottom) else k.temp(f"best{i}", x.shape)
            k.pointwise([best, x], into, expr=expr)
            best, expr = into, "where(b > a, b, a)"


class Reduction(Layer):
    """y = coeff * the sum (SUM), the sum of |x| (ASUM), the sum of x^2 (SUMSQ) or the mean (MEAN) of x from ``axis`` on

    Bottom: any shape. Top: the axes in front of ``axis``; a single number for axis 0.
    """

    param = "reduction_param"

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        shape = bottom[0].shape
        first = self.axis(self.p.axis, len(shape))
        self._axes = tuple(range(first, len(shape)))
        factor = float(self.number("coeff"))
        if self.p.operation == _HOW.MEAN:
            factor /= max(math.prod(shape[first:]), 1)
        element = {_HOW.ASUM: "abs(a)", _HOW.SUMSQ: "a * a"}.get(self.p.operation, "a")
        self._expr = element if factor == 1 else f"{element} * {factor!r}"
        return [self.spec(shape[:first], bottom[0].dtype)]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        k.reduce([bottom[0]], top[0], expr=self._expr, how="sum", axes=self._axes)
