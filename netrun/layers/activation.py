"""Activations: what becomes of each element by itself, and Softmax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..config import schema
from ..kernels import Kernels
from ..types import Spec
from .base import Layer


class ReLU(Layer):
    """y = x if x > 0, else negative_slope * x

    Bottom: any shape. Top: the same shape; may be in place, with a slope below 0 too (Caffe's gradient is wrong then).
    The gradient at 0 is the slope.
    """

    param = "relu_param"

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        k.pointwise([bottom[0]], top[0], expr=f"relu(a, {self.number('negative_slope')})")


class PReLU(Layer):
    """y = x if x > 0, else slope[c] * x

    Bottom: N C and any further axes. Top: the same shape; may be in place. The slope is learned: shape (C,), or one
    number with channel_shared; 0.25 at first. The gradient at 0 is the slope.
    """

    param = "prelu_param"
    slope: Any

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        shape = bottom[0].shape
        if len(shape) < 2:
            self.fail(f"wants a bottom of at least 2 axes (N C ...), got {len(shape)}", bottom=0)
        filler = self.p.filler if self.has("filler") else schema.FillerParameter(type="constant", value=0.25)
        self._wide = (1,) * len(shape) if self.p.channel_shared else (1, shape[1], *(1,) * (len(shape) - 2))
        self.learned("slope", () if self.p.channel_shared else (shape[1],), filler)
        return [bottom[0]]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        k.pointwise([bottom[0], k.view(self.slope, self._wide)], top[0], expr="relu(a, b)")


class ELU(Layer):
    """y = x if x > 0, else alpha * (exp(x) - 1)

    Bottom: any shape. Top: the same shape; may be in place.
    """

    param = "elu_param"

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        self._expr = f"elu(a, {self.number('alpha')})"
        return [bottom[0]]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        k.pointwise([bottom[0]], top[0], expr=self._expr)


class Sigmoid(Layer):
    """y = 1 / (1 + exp(-x))

    Bottom: any shape. Top: the same shape; may be in place.
    """

    param = "sigmoid_param"

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        k.pointwise([bottom[0]], top[0], expr="sigmoid(a)")


class TanH(Layer):
    """y = tanh(x)

    Bottom: any shape. Top: the same shape; may be in place.
    """

    param = "tanh_param"

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        k.pointwise([bottom[0]], top[0], expr="tanh(a)")


class Swish(Layer):
    """y = x / (1 + exp(-beta * x))

    Bottom: any shape. Top: the same shape; may be in place.
    """

    param = "swish_param"

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        self._expr = f"a * sigmoid({self.number('beta')} * a)"
        return [bottom[0]]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        k.pointwise([bottom[0]], top[0], expr=self._expr)


class BNLL(Layer):
    """y = log(1 + exp(x))

    Bottom: any shape. Top: the same shape; may be in place. It cannot overflow; the gradient is sigmoid(x), in place
    too (Caffe's is that of the top).
    """

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        k.pointwise([bottom[0]], top[0], expr="softplus(a)")


class Softmax(Layer):
    """y = exp(x) / sum of exp(x) along ``axis``

    Bottom: any shape. Top: the same shape; may be in place. The largest x is subtracted first, so nothing overflows.
    """

    param = "softmax_param"

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        self._axis = self.axis(self.p.axis, len(bottom[0].shape))
        return [bottom[0]]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        k.softmax(bottom[0], top[0], axis=self._axis)


_GELU = "0.5 * a * (1 + erf(a * 0.7071067811865476))"


class GELU(Layer):
    """y = x * P(x), P(x) = (1 + erf(x / sqrt 2)) / 2 the share of a normal distribution below x

    Bottom: any shape. Top: the same shape; may be in place. approximate: 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715
    x^3))) instead. (Hendrycks, Gimpel, "Gaussian error linear units", 2016.)
    """

    param = "gelu_param"

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        near = "0.5 * a * (1 + tanh(0.7978845608028654 * (a + 0.044715 * a * a * a)))"
        k.pointwise([bottom[0]], top[0], expr=near if self.p.approximate else _GELU)


_GATES = {
    "SIGMOID": "sigmoid(a)", "SWISH": "a * sigmoid(a)", "GELU": _GELU, "RELU": "relu(a, 0)", "LINEAR": "a",
}  # fmt: skip


class GLU(Layer):
    """y = gate(a) * b, where a and b are the halves of x along ``axis``

    Bottom: any shape with an even length along ``axis``. Top: half as long there. The gates: sigmoid, swish, gelu, relu
    or none. (Dauphin et al., "Language modeling with gated convolutional networks", 2017; Shazeer, "GLU variants
    improve transformer", 2020.)
    """

    param = "glu_param"

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        shape = bottom[0].shape
        self._axis = self.axis(self.p.axis, len(shape))
        length = shape[self._axis]
        if length % 2:
            self.fail(f"axis {self._axis} has the length {length}, which has no half", at="axis", bottom=0)
        self._half = (*shape[: self._axis], length // 2, *shape[self._axis + 1 :])
        return [self.spec(self._half, bottom[0].dtype)]

    @property
    def gate(self) -> str:
        """The gate's name in the schema."""
        return schema.GLUParameter.Gate.Name(self.p.gate)

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        a, b = k.temp("gate", self._half), k.temp("value", self._half)
        k.split(bottom[0], [a, b], axis=self._axis)
        k.pointwise([a, b], top[0], expr=f"{_GATES[self.gate]} * b")


class SwiGLU(GLU):
    """y = a * sigmoid(a) * b, where a and b are the halves of x along ``axis``

    As GLU with gate: SWISH. Bottom: any shape with an even length along ``axis``. Top: half as long there.
    """

    @property
    def gate(self) -> str:
        """SWISH."""
        return "SWISH"
