"""Layers in Python as users of pycaffe write them: what the rows of type Python use."""

from __future__ import annotations

from typing import Any

import numpy as np

from netrun.layers.python import PythonLayer


class Affine(PythonLayer):
    """y = w * x + b * param_str, w and b trained."""

    def setup(self, bottom: Any, top: Any) -> None:
        self.factor = float(self.param_str)
        self.blobs.add_blob(1).data[...] = 2
        self.blobs.add_blob(*bottom[0].shape[1:])

    def reshape(self, bottom: Any, top: Any) -> None:
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom: Any, top: Any) -> None:
        top[0].data[...] = self.blobs[0].data * bottom[0].data + self.factor * self.blobs[1].data

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        self.blobs[0].diff[...] = (top[0].diff * bottom[0].data).sum()
        self.blobs[1].diff[...] += self.factor * top[0].diff.sum(axis=0)
        if propagate_down[0]:
            bottom[0].diff[...] = self.blobs[0].data * top[0].diff


class Distance:
    """The squared distance as a loss, deriving from nothing; it keeps what backward needs in itself."""

    param_str: str
    phase: int

    def setup(self, bottom: Any, top: Any) -> None:
        if len(bottom) != 2:
            raise ValueError("wants two bottoms")

    def reshape(self, bottom: Any, top: Any) -> None:
        if bottom[0].count != bottom[1].count:
            raise ValueError("wants as many targets as values")
        self.diff = np.zeros_like(bottom[0].data)
        top[0].reshape(1)

    def forward(self, bottom: Any, top: Any) -> None:
        self.diff[...] = bottom[0].data - bottom[1].data
        top[0].data[...] = np.sum(self.diff**2) / bottom[0].num / 2

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        for i, sign in enumerate((1, -1)):
            if propagate_down[i]:
                bottom[i].diff[...] = sign * self.diff / bottom[i].num * top[0].diff[0]


class Rows(PythonLayer):
    """A source: one row more with every forward; the phase and the number of the pass in it."""

    def setup(self, bottom: Any, top: Any) -> None:
        self.passes = 0

    def reshape(self, bottom: Any, top: Any) -> None:
        top[0].reshape(1 + self.passes, 3)

    def forward(self, bottom: Any, top: Any) -> None:
        top[0].data[...] = self.passes + 10 * self.phase
        self.passes += 1


class Broken(PythonLayer):
    """Fails where param_str says."""

    def _may_fail(self, where: str) -> None:
        if self.param_str == where:
            raise RuntimeError("out of luck")

    def setup(self, bottom: Any, top: Any) -> None:
        self._may_fail("setup")

    def reshape(self, bottom: Any, top: Any) -> None:
        self._may_fail("reshape")
        top[0].reshape(*bottom[0].shape)
        if self.param_str == "write":
            top[0].data[...] = 5

    def forward(self, bottom: Any, top: Any) -> None:
        self._may_fail("forward")
        if self.param_str == "write":
            bottom[0].data[...] = 1

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        self._may_fail("backward")


class Late(PythonLayer):
    """The rows of x that are not zero, and how many; it knows in forward."""

    def __init__(self, layer_param: Any, *more: Any) -> None:
        super().__init__(layer_param, *more)
        self.calls = 0
        assert layer_param.type == "Python"

    def setup(self, bottom: Any, top: Any) -> None:
        top[0].reshape(1, 3)
        top[1].reshape(1)

    def reshape(self, bottom: Any, top: Any) -> None:
        pass

    def forward(self, bottom: Any, top: Any) -> None:
        self.calls += 1
        self.rows = np.flatnonzero(bottom[0].data.any(axis=1))
        top[0].reshape(len(self.rows), 3)
        top[0].data[...] = bottom[0].data[self.rows]
        top[1].data[...] = len(self.rows)

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        assert propagate_down == [True]
        bottom[0].diff[...] = 0
        bottom[0].diff[self.rows] = top[0].diff


class LateSource(PythonLayer):
    """A source of as many samples as come in this pass: x, and t = 3 x."""

    def setup(self, bottom: Any, top: Any) -> None:
        self.passes = 0
        for blob in top:
            blob.reshape(1, 1)

    def reshape(self, bottom: Any, top: Any) -> None:
        pass

    def forward(self, bottom: Any, top: Any) -> None:
        self.passes += 1
        rows = 1 + self.passes % 3
        for blob, factor in zip(top, (1, 3), strict=True):
            blob.reshape(rows, 1)
            blob.data[...] = factor * np.linspace(1, 2, rows)[:, np.newaxis]


class InPlace(PythonLayer):
    """y = 2 x in place; its shapes and, where x is negative, its gradient stay as they are."""

    def setup(self, bottom: Any, top: Any) -> None:
        assert top[0].shape == bottom[0].shape

    def reshape(self, bottom: Any, top: Any) -> None:
        pass

    def forward(self, bottom: Any, top: Any) -> None:
        top[0].data[...] *= 2
        assert (bottom[0].data == top[0].data).all()

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        bottom[0].diff[bottom[0].data > 0] *= 2


class Half:
    """Lacks some methods."""

    def setup(self, bottom: Any, top: Any) -> None:
        pass


class Unfinished:
    """Lacks methods."""

    def forward(self, bottom: Any, top: Any) -> None:
        pass


class Square(PythonLayer):
    """y = x^2, with a backward that is right, wrong, absent, or right in single precision: what param_str says."""

    def setup(self, bottom: Any, top: Any) -> None:
        self.number = np.float32 if self.param_str == "single" else np.float64

    def reshape(self, bottom: Any, top: Any) -> None:
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom: Any, top: Any) -> None:
        top[0].data[...] = bottom[0].data.astype(self.number) ** 2

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        factor = 1.9 if self.param_str == "wrong" else 2
        bottom[0].diff[...] = factor * bottom[0].data * top[0].diff
        if self.param_str == "corner":
            bottom[0].diff[-1, -1] = 0


class Alternating:
    """Tops: 1 and -1 by turns, and ones."""

    def setup(self, bottom: Any, top: Any) -> None:
        """It starts with 1."""
        self.sign = -1.0

    def reshape(self, bottom: Any, top: Any) -> None:
        """A number, and 3 4 of them."""
        top[0].reshape(1)
        top[1].reshape(3, 4)

    def forward(self, bottom: Any, top: Any) -> None:
        """The other sign."""
        self.sign = -self.sign
        top[0].data[...] = self.sign
        top[1].data[...] = 1
