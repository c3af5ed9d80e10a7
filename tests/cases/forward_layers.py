"""Layers in Python that say their forward pass alone: what rows of type Python use."""

from __future__ import annotations

from typing import Any

from netrun import ForwardLayer
from netrun.types import Window


class GatedUnit(ForwardLayer):
    """y = (x u) * sigmoid(x v + b)"""

    options = {"units": 4}  # noqa: RUF012

    def weights(self, x: Any) -> Any:
        shape = (x.shape[1], self.option["units"])
        return {"u": (shape, "xavier"), "v": (shape, {"type": "gaussian", "std": 0.1}), "name": ((4,), 0.5)}

    def forward(self, k: Any, x: Any, w: Any) -> Any:
        return (x @ w.u) * k.sigmoid(x @ w.v + w.name)


class Kernels(ForwardLayer):
    """A convolution, its softmax over the channels weighed by the second bottom, and the largest of each plane."""

    def weights(self, x: Any) -> Any:
        return {"filters": ((3, 3, 3, 3), "xavier"), "offset": (3,)}

    def forward(self, k: Any, x: Any, w: Any) -> Any:
        image, other = x
        same = Window((3, 3), pad=(1, 1))
        y, chosen = k.temp("y", image.shape), k.temp("chosen", image.shape)
        k.conv(image * 2, w.filters, w.offset, y, window=same, groups=1)
        k.softmax(y, chosen, axis=1)
        n, c, h, width = image.shape
        best, index = k.temp("best", (n, c, h // 2, width // 2)), k.temp("index", (n, c, h // 2, width // 2), "int32")
        k.pool_max(y + image, best, index, window=Window((2, 2), stride=(2, 2)))
        return chosen * k.stop(other) + 1, k.mean(best, axis=[2, 3], keepdims=0)


class Duck:
    """y = x^2 / 2: told by its first argument, k."""

    def forward(self, k: Any, x: Any, w: Any) -> Any:
        y = k.temp("y", (x.shape[1], x.shape[0]))
        k.transpose(x, y, axes=(1, 0))
        return 0.5 * y.T * x


class Wrong(ForwardLayer):
    """Does what param_str says, wrongly."""

    def weights(self, x: Any) -> Any:
        wrong: dict[str, Any] = {
            "no dictionary": 3, "no shape": {"w": "three"}, "no filler": {"w": ((3,), {"typ": "xavier"})},
            "no such filler": {"w": ((3,), "xaver")}, "no name": {"a b": (3,)},
        }  # fmt: skip
        return wrong.get(self.param_str, {"gain": (1,)})

    def forward(self, k: Any, x: Any, w: Any) -> Any:
        y = k.temp("y", x.shape)
        if self.param_str == "written twice":
            k.softmax(x, y, axis=0)
            k.softmax(x, y, axis=1)
        return {
            "no weight": lambda: x + w.gian,
            "no function": lambda: k.sofmax(x),
            "do not broadcast": lambda: x + k.reshape(x, 3, 4),
            "never written": lambda: y + 1,
            "a kernel's arguments": lambda: k.pool_max(x, y),
            "refused": lambda: k.host([x], [y], fn=None, grad=None),
            "a choice": lambda: x if x > 0 else y,
            "two tops": lambda: (x, x),
            "nothing": lambda: None,
            "their own": lambda: 1 / 0,
        }.get(self.param_str, lambda: x * w.gain)()


__all__ = ["Duck", "GatedUnit", "Kernels", "Wrong"]
