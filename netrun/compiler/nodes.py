"""What a graph is made of: layers in their places, and the versions of blobs between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..config import schema
from ..layers.base import Layer
from ..program import Origin
from ..types import STRICT, Numerics, Shape, Spec
from .sharing import Parameter

AUTOMATIC = "(automatic)"
"""What the top of a loss layer that names none is called where a name is needed."""


@dataclass(eq=False)
class Value:
    """One version of a blob: what one layer wrote under that name. An in-place layer makes the next version."""

    blob: str
    spec: Spec
    producer: Node
    index: int
    readers: list[tuple[Node, int]] = field(default_factory=list)
    hidden: bool = False
    """The top of a loss layer that names none: it has a value and a weight, but no name and is no output."""


@dataclass(eq=False)
class Node:
    """One layer in its place. ``position`` counts the layers of the file, left out ones included."""

    position: int
    layer: Layer
    bottoms: list[Value] = field(default_factory=list)
    tops: list[Value] = field(default_factory=list)
    loss_weights: list[float] = field(default_factory=list)
    parameters: list[Parameter] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.layer.name

    @property
    def key(self) -> str:
        """The name, made unique within the net: two layers of one name share nothing."""
        return self.layer.key

    @property
    def origin(self) -> Origin:
        """What its calls are made for."""
        return Origin(self.layer.name, self.layer.key)

    @property
    def message(self) -> schema.LayerParameter:
        """The layer's message."""
        return self.layer.message

    def stops(self, bottom: int) -> bool:
        """True if no gradient may pass to that bottom."""
        asked = self.message.propagate_down
        return bottom in self.layer.skips or (bool(asked) and not asked[bottom])


@dataclass
class Graph:
    """The layers of one net in one state, connected."""

    name: str
    phase: int
    nodes: list[Node]
    blobs: dict[str, Value]
    """Last version of every blob, in the order in which the names first appear."""
    parameters: list[Parameter]
    """Every learnable blob once, owners only, in Caffe's order."""
    outputs: list[tuple[str, Value]]
    """What nobody reads, by display name, in alphabetical order."""
    force_backward: bool = False
    numerics: Numerics = STRICT
    """What the net asks to be computed in."""
    rebuild: Callable[[Mapping[int, Sequence[Shape]]], Graph] | None = None
    """The same graph for other shapes of the tops of varying layers, given by position."""

    @property
    def varying(self) -> list[Node]:
        """Layers whose top shapes are known only when a forward pass arrives at them."""
        return [n for n in self.nodes if n.layer.varying]

    @property
    def loose(self) -> bool:
        """True if shapes may change while the net runs: with what varying layers find, or what data layers bring."""
        return any(n.layer.varying or n.layer.flexible for n in self.nodes)

    @property
    def inputs(self) -> list[Value]:
        """Tops of layers that the host feeds."""
        return [v for n in self.nodes if n.layer.fed for v in n.tops]

    @property
    def batch(self) -> int:
        """How many samples a batch has: the leading axis of the first input, or the second where that is T N ..."""
        shape = self._first
        return (shape[1] if self._by_time else shape[0]) if shape else 1

    @property
    def sample(self) -> str:
        """What one of them is called."""
        return "sequence" if self._by_time else "image" if len(self._first) == 4 else "sample"

    @property
    def _first(self) -> Shape:
        """The shape of the first input: of what the host feeds, else of what a layer without bottoms makes."""
        made = (v for n in self.nodes if not n.bottoms and not n.parameters for v in n.tops)
        first = next(iter(self.inputs), None) or next(made, None)
        return first.spec.shape if first else ()

    @property
    def _by_time(self) -> bool:
        """Whether a layer over time has the steps and streams that the first input begins with."""
        first = self._first[:2]
        over_time = (n.bottoms[0].spec.shape[:2] for n in self.nodes if n.layer.time_first and n.bottoms)
        return len(first) == 2 and first in over_time


__all__ = ["AUTOMATIC", "Graph", "Node", "Value"]
