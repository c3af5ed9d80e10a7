"""Plain functions of single elements: AbsVal, Clip, Exp, Log, Power, Threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..kernels import Kernels
from ..types import Spec
from .base import Layer


class _Function(Layer):
    """y = f(x): one expression, made by ``formula`` from the parameters."""

    type = ""

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        self._expr = self.formula()
        return [bottom[0]]

    def formula(self) -> str:
        """f as an expression in a."""
        raise NotImplementedError

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        k.pointwise([bottom[0]], top[0], expr=self._expr)


class AbsVal(_Function):
    """y = |x|

    Bottom: any shape. Top: the same shape; may be in place, where the gradient is right too (Caffe takes the signs of
    the top). The gradient at 0 is 0.
    """

    def formula(self) -> str:
        return "abs(a)"


class Threshold(_Function):
    """y = 1 if x > threshold, else 0

    Bottom: any shape. Top: the same shape; may be in place. It has no gradient.
    """

    param = "threshold_param"

    def formula(self) -> str:
        return f"a > {self.number('threshold')}"


class Clip(_Function):
    """y = max(min(x, max), min)

    Bottom: any shape. Top: the same shape; may be in place, and the gradient is right then too (Caffe passes it
    everywhere). The gradient passes at both limits. A limit may be inf or
    -inf: then there is none on that side. If min is larger than max, every y is min, and so it is if no clip_param
    stands there at all (both limits are 0 then).
    """

    param = "clip_param"

    def formula(self) -> str:
        expr = "a"
        if self.p.max != math.inf:
            expr = f"min({expr}, {self.number('max')})"
        if self.p.min != -math.inf:
            expr = f"max({expr}, {self.number('min')})"
        return expr


class Exp(_Function):
    """y = base ^ (shift + scale * x), base e if it is -1

    Bottom: any shape. Top: the same shape; may be in place.
    """

    param = "exp_param"

    def formula(self) -> str:
        inner = f"{self.number('scale')} * a + {self.number('shift')}"
        return f"exp(({inner}) * {_log_base(self)!r})"


class Log(_Function):
    """y = log(shift + scale * x) to the base ``base``, e if it is -1

    Bottom: any shape; shift + scale * x has to be above 0, elsewhere y is -inf or no number. Top: the same shape; may
    be in place, and the gradient is right then too (Caffe divides by what it made of the top).
    """

    param = "log_param"

    def formula(self) -> str:
        base = _log_base(self)
        if base == 0:
            self.fail("base is 1: there is no logarithm to that base", at="base")
        return f"log({self.number('scale')} * a + {self.number('shift')}) * {1 / base!r}"


class Power(_Function):
    """y = (shift + scale * x) ^ power

    Bottom: any shape; for a power that is no whole number shift + scale * x must not be negative. Top: the same shape;
    may be in place, where the gradient is right too (Caffe's is not). The gradient is the derivative,
    scale * power * (shift + scale * x) ^ (power - 1), also where the base is 0 (Caffe divides 0 by 0 there). With
    power 0 every y is 1 and there is no gradient.
    """

    param = "power_param"

    def formula(self) -> str:
        power, scale, shift = (float(getattr(self.p, name)) for name in ("power", "scale", "shift"))
        base = f"{self.number('scale')} * a + {self.number('shift')}"
        if power == 0:
            return "1"
        if power == 1:
            return base
        if scale == 0 and ((shift < 0 and not power.is_integer()) or (shift == 0 and power < 0)):
            self.fail(f"scale is 0, and {shift:g} ^ {power:g} is no number", at="scale")
        return f"({base})^({self.number('power')})"


def _log_base(layer: Layer) -> float:
    """The natural logarithm of the layer's base."""
    base = float(layer.p.base)
    if base == -1:
        return 1.0
    if not 0 < base < math.inf:
        layer.fail(f"base is {base:g}, and has to be above 0", at="base", hint="-1 stands for e")
    return math.log(base)
