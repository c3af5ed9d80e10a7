"""The compiled forms of a net in Python: one for each set of input shapes, and the steps of its slices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from .compiler.graph import Graph
from .compiler.record import Recording
from .program import Program
from .session import Session
from .types import Tensor
from .visible import ShapeMismatchError
from .whole import Move, Whole, compile_whole


@dataclass(eq=False)
class Form:
    """A net compiled and bound for one set of input shapes."""

    whole: Whole
    session: Session
    both_ways: bool
    parts: dict[tuple[bool, int, int], Callable[[], None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        graph, clock = self.whole.recording.graph, self.whole.recording.clock
        nodes, calls = graph.nodes, self.session.program.calls
        self.loose, self.varying = graph.loose, bool(graph.varying)
        self.clocked = self.loose or any(t.root is clock for call in calls for t in call.tensors())
        """Whether anything in the net depends on the number of the pass."""
        self.fed = [(i, n) for i, n in enumerate(nodes) if n.layer.fed and n.layer.type != "Input"]


def part_of(form: Form, backward: bool, low: int, high: int) -> Callable[[], None]:
    """The function that runs the layers ``low`` to ``high``, both included, forward or backward."""
    nodes = form.whole.recording.graph.nodes
    wanted = {node.name for node in nodes[low : high + 1]}
    names = {node.name for node in nodes}
    last = high == len(nodes) - 1

    def within(origin: str) -> bool:
        if origin.endswith("'") != backward:
            return False
        name = origin.rstrip("'")
        return name in wanted or (last and name not in names)

    step = form.session.part(within)
    before, after = form.whole.moves(backward, low, high)
    if not before and not after:
        return step
    session = form.session

    def move(pairs: Sequence[Move]) -> None:
        for source, target in pairs:
            array = session.array(source)
            # a host array goes as it is: no copy of a copy
            session.write(target, array if isinstance(array, np.ndarray) else session.read(source))

    def run() -> None:
        move(before)
        step()
        move(after)

    return run


def recompiled(graph: Graph) -> tuple[Recording, Program]:
    """Compile once more: what a net whose shapes vary asks for when they did."""
    whole = compile_whole(graph)
    return whole.recording, whole.program


def check_parameters(old: Graph, new: Graph) -> None:
    """Refuse input shapes that would need other parameters.

    Raises:
        ShapeMismatchError: a parameter would have another shape.
    """
    for before, after in zip(old.parameters, new.parameters, strict=True):
        if before.spec != after.spec:
            raise ShapeMismatchError(
                f"{after.layer}: its parameter {after.declared.name} has the shape {before.spec}, for these inputs it "
                f"would need {after.spec}"
            )


def shared_pairs(mine: Recording, theirs: Recording) -> list[tuple[Tensor, Tensor]]:
    """The parameters of layers that have the same name in both nets, in pairs: what one net shares with the other.

    Raises:
        ShapeMismatchError: a layer's parameters differ in number or shape.
    """
    layers = {node.name: node.parameters for node in reversed(mine.graph.nodes)}
    pairs = []
    for node in theirs.graph.nodes:
        own = layers.get(node.name)
        if own is None:
            continue
        if len(own) != len(node.parameters):
            counts = f"{len(own)} here, {len(node.parameters)} there"
            raise ShapeMismatchError(f"share_with: layer {node.name} has another number of parameter blobs: {counts}")
        for a, b in zip(own, node.parameters, strict=True):
            if a.spec.shape != b.spec.shape:
                raise ShapeMismatchError(f"share_with: {node.name}, {a.declared.name}: {a.spec} here, {b.spec} there")
            pairs.append((mine.parameters[a.owner or a], theirs.parameters[b.owner or b]))
    return pairs


__all__ = ["Form", "check_parameters", "part_of", "recompiled", "shared_pairs"]
