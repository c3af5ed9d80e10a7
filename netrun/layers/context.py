"""What a layer and the compiler tell each other: its surroundings, what it owns, that its tops need other shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..config import schema
from ..errors import Where
from ..types import Shape, Spec

if TYPE_CHECKING:
    from .base import Layer


@dataclass
class Declared:
    """A tensor a layer owns: ``role`` is "learned" (trained), "statistic" (a parameter blob no gradient reaches, such
    as a running mean) or "state" (carried between forwards, in no weight file). ``value``: what it holds at first,
    where no filler says it. ``streams``: the axis of a state along which the streams stand side by side; None of a
    constant. ``sparse``: its gradient shall stay the rows that the batch used (netrun.sparse)."""

    name: str
    spec: Spec
    role: str
    filler: schema.FillerParameter | None = None
    value: Any = None
    streams: int | None = None
    sparse: bool = False


class Reshaped(Exception):  # noqa: N818
    """Raised by a step of a varying layer that finds, in the middle of a pass, that its tops need other shapes.

    The pass goes on with the layer's step in the program for ``shapes``.
    """

    def __init__(self, shapes: Sequence[Shape]) -> None:
        super().__init__("the tops of a layer need other shapes")
        self.shapes: tuple[Shape, ...] = tuple(shapes)


@dataclass
class Context:
    """What the compiler tells a layer about its surroundings; the defaults serve a layer that stands alone.

    Attributes:
        measured: shapes of the tops that the data asked for (:meth:`Layer.measure`); None in the first compilation.
        before: the same layer in the first compilation, for what it carries on in Python.
        inner: builds the layers inside this one (netrun.layers.body.Build).
        inside: the layer stands in another one's body, where the shapes of tops are fixed.
        key: the layer's name, or one made of it where an earlier layer of the net has that name already.
    """

    phase: int = schema.TEST
    dtype: str = "float32"
    seed: int = 0
    folder: str = ""
    locate: Callable[..., Where | None] = lambda *path, into=None: None
    producers: list[str] = field(default_factory=list)
    tops: int | None = None
    measured: Sequence[Shape] | None = None
    before: Layer | None = None
    inner: Any = None
    inside: bool = False
    key: str = ""


__all__ = ["Context", "Declared", "Reshaped"]
