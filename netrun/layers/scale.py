"""Scale and Bias: a factor and a summand that spread over the axes they do not have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..config import schema
from ..kernels import Kernels
from ..types import Shape, Spec
from .base import Layer


class _Spread(Layer):
    """What both share: where the factor (or summand), a parameter or the second bottom, lies on the axes of x."""

    type = ""
    bottoms = (1, 2)

    def place(self, bottom: Sequence[Spec]) -> Shape:
        """Shape of the factor; sets ``_wide``, the same with axes of length 1 wherever x has more."""
        shape = bottom[0].shape
        if len(bottom) == 2:
            own = bottom[1].shape
            first = self.axis(self.p.axis, len(shape)) if own else 0
            if shape[first : first + len(own)] != own:
                what = f"the second bottom has to have the sizes of the first from axis {first} on"
                self.fail(what, at="axis", bottom=[0, 1])
        else:
            axes = self.p.num_axes
            if axes < -1:
                self.fail(f"num_axes is {axes}, and has to be -1 (all from axis on), 0 or more", at="num_axes")
            first = self.axis(self.p.axis, len(shape)) if axes else 0
            last = len(shape) if axes == -1 else first + axes
            if last > len(shape):
                self.fail(f"axis {first} and num_axes {axes} reach beyond the last axis", at="num_axes", bottom=0)
            own = shape[first:last]
        self._wide = (1,) * first + own + (1,) * (len(shape) - first - len(own))
        return own


class Scale(_Spread):
    """y = x * scale (+ bias), both spread over the axes they do not have

    Bottoms: x, any shape; if there is a second one it is the scale, and covers its own number of axes from ``axis`` on
    (a single number: all). Top: the shape of x; may be in place. Otherwise the scale is learned and covers ``num_axes``
    axes from ``axis`` on, ones at first. With bias_term there is a learned bias of the shape of the scale.
    """

    param = "scale_param"
    scale: Any
    bias: Any

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        own = self.place(bottom)
        if len(bottom) == 1:
            ones = schema.FillerParameter(type="constant", value=1)
            self.learned("scale", own, self.p.filler if self.has("filler") else ones)
        if self.p.bias_term:
            self.learned("bias", own, self.p.bias_filler)
        return [bottom[0]]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        scale = bottom[1] if len(bottom) == 2 else self.scale
        xs = [bottom[0], k.view(scale, self._wide)]
        if self.p.bias_term:
            k.pointwise([*xs, k.view(self.bias, self._wide)], top[0], expr="a * b + c")
        else:
            k.pointwise(xs, top[0], expr="a * b")


class Bias(_Spread):
    """y = x + bias, spread over the axes it does not have

    Bottoms: x, any shape; if there is a second one it is the bias, otherwise the bias is learned: see Scale. Zeros at
    first. Top: the shape of x; may be in place.
    """

    param = "bias_param"
    bias: Any

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        own = self.place(bottom)
        if len(bottom) == 1:
            self.learned("bias", own, self.p.filler)
        return [bottom[0]]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        bias = bottom[1] if len(bottom) == 2 else self.bias
        k.pointwise([bottom[0], k.view(bias, self._wide)], top[0], expr="a + b")
