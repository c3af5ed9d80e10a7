"""The few types every floor speaks in: the shape of a tensor, a tensor of a program, a sliding window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from .errors import printable

Shape = tuple[int, ...]
Kind = Literal["feed", "data", "diff", "learned", "statistic", "grad", "state", "history", "control", "buffer"]
"""What a tensor is for.

feed      written by the host before a run (a data layer's tops, the inputs of a deploy net)
data      a blob of the net
diff      the gradient of a blob, or one contribution to it
learned   a parameter; grad is its gradient
statistic a parameter blob that the forward pass itself updates (a running mean)
state     what a layer carries from one forward to the next (a hidden state)
history   what the solver carries for a parameter (momentum)
control   what changes from one iteration to the next though nothing is fed: learning rate, iteration number
buffer    between two calls of one layer
"""

PLAIN = "plain"
"""The layout everything outside a device sees: C order, N C then the spatial axes. A device may add its own names."""

PERSISTENT: frozenset[str] = frozenset({"feed", "learned", "statistic", "state", "history", "control"})
"""Kinds that own their memory: their values outlive a run, so the planner leaves them alone."""


def itemsize(dtype: str) -> int:
    """Bytes of an element; bfloat16 is a type of devices that NumPy does not have."""
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


@dataclass(frozen=True)
class Numerics:
    """What a program may be computed and stored in; a property of the program, so that two in one process may differ.

    precision      FP32, TF32, BF16 or FP16, as `netrun explain Precision` says
    deterministic  only kernels that give the same bits in every run
    """

    precision: str = "FP32"
    deterministic: bool = False


STRICT = Numerics()
"""Plain float32."""


class Axes:
    """Caffe's old names for the lengths of up to four axes, of whatever has a ``shape``."""

    __slots__ = ()

    @property
    def shape(self) -> Shape:
        """Length of every axis."""
        raise NotImplementedError

    @property
    def count(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def num(self) -> int:
        """Length of the first axis, 1 if there is none."""
        return self._axis(0)

    @property
    def channels(self) -> int:
        """Length of the second axis, 1 if there is none."""
        return self._axis(1)

    @property
    def height(self) -> int:
        """Length of the third axis, 1 if there is none."""
        return self._axis(2)

    @property
    def width(self) -> int:
        """Length of the fourth axis, 1 if there is none."""
        return self._axis(3)

    def _axis(self, axis: int) -> int:
        return self.shape[axis] if axis < len(self.shape) else 1


@dataclass(frozen=True)
class Spec:
    """Shape, element type and memory layout of a tensor. ``shape == ()`` is one number."""

    shape: Shape
    dtype: str = "float32"
    layout: str = PLAIN

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in the plain layout."""
        return self.count * itemsize(self.dtype)

    def __str__(self) -> str:
        text = "x".join(map(str, self.shape)) or "scalar"
        kind = "" if self.dtype == "float32" else f":{self.dtype}"
        return text + kind + ("" if self.layout == PLAIN else f"@{self.layout}")


@dataclass(frozen=True, eq=False)
class Tensor:
    """A named value of a program. It owns no memory and is written once (except by ``update`` and ``update_rows``).

    ``base`` is set on a view: the same elements in the same order under another shape. ``stopped`` marks a view
    through which no gradient flows (``propagate_down: false``).
    """

    name: str
    spec: Spec
    kind: Kind = "data"
    base: Tensor | None = None
    stopped: bool = False

    @property
    def root(self) -> Tensor:
        """The tensor that owns the memory."""
        return self if self.base is None else self.base.root

    @property
    def shape(self) -> Shape:
        """The shape, so that kernels can be written for arrays and tensors alike."""
        return self.spec.shape

    @property
    def dtype(self) -> str:
        """The element type by NumPy's name."""
        return self.spec.dtype

    def view(self, shape: Sequence[int]) -> Tensor:
        """The same elements as another shape; one -1 is worked out."""
        shape = resolve_shape(shape, self.spec.count)
        if shape == self.shape:
            return self
        return Tensor(self.name, replace(self.spec, shape=shape), self.kind, self)

    def stop(self) -> Tensor:
        """A view through which no gradient flows."""
        return Tensor(self.name, self.spec, self.kind, self, stopped=True)

    @property
    def is_stopped(self) -> bool:
        """True if this view, or one it is made from, stops gradients."""
        return self.stopped or (self.base is not None and self.base.is_stopped)

    def __repr__(self) -> str:
        name = printable(self.name)
        return name if self.base is None or self.spec.shape == self.root.shape else f"{name}[{self.spec}]"


def resolve_shape(shape: Sequence[int], count: int) -> Shape:
    """Replace one -1 of ``shape`` so that it holds ``count`` elements.

    Raises:
        ValueError: no such shape exists.
    """
    fixed = math.prod(n for n in shape if n != -1)
    if list(shape).count(-1) == 1 and fixed > 0 and count % fixed == 0:
        shape = tuple(count // fixed if n == -1 else n for n in shape)
    if math.prod(shape) != count or any(n < 0 for n in shape):
        raise ValueError(f"{count} elements cannot take the shape {tuple(shape)}")
    return tuple(int(n) for n in shape)


@dataclass(frozen=True)
class Window:
    """A sliding window over the spatial axes: one entry an axis. ``pad_end`` differs from ``pad`` only where said."""

    kernel: Shape
    stride: Shape = ()
    pad: Shape = ()
    dilation: Shape = ()
    pad_end: Shape = field(default=())

    def __post_init__(self) -> None:
        rank = len(self.kernel)
        for name, default in (("stride", (1,) * rank), ("pad", (0,) * rank), ("dilation", (1,) * rank)):
            object.__setattr__(self, name, tuple(getattr(self, name)) or default)
        object.__setattr__(self, "pad_end", tuple(self.pad_end) or self.pad)

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def extent(self) -> Shape:
        """Inputs that one window spans along each axis: dilation * (kernel - 1) + 1."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    def output(self, size: Sequence[int]) -> Shape:
        """Output size of a convolution: floor((size + pads - extent) / stride) + 1."""
        rows = zip(size, self.extent, self.stride, self.pad, self.pad_end, strict=True)
        return tuple((n + p + q - e) // s + 1 for n, e, s, p, q in rows)

    def transposed(self, size: Sequence[int]) -> Shape:
        """Output size of the transposed convolution: stride * (size - 1) + extent - pads."""
        rows = zip(size, self.extent, self.stride, self.pad, self.pad_end, strict=True)
        return tuple(s * (n - 1) + e - p - q for n, e, s, p, q in rows)

    def __str__(self) -> str:
        parts = ["x".join(map(str, self.kernel))]
        for mark, values, default in (("s", self.stride, 1), ("p", self.pad, 0), ("d", self.dilation, 1)):
            if any(v != default for v in values):
                parts.append(mark + ("x".join(map(str, values)) if len(set(values)) > 1 else str(values[0])))
        if self.pad_end != self.pad:
            parts.append("e" + "x".join(map(str, self.pad_end)))
        return " ".join(parts)
