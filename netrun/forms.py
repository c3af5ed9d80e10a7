"""The compiled forms of a net in Python: one for each set of input shapes, and the steps of its slices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from .blob import ShapeMismatchError
from .compiler.graph import Graph
from .compiler.passes import elide_copies
from .compiler.record import Recording
from .compiler.sharing import Parameter
from .device import Array
from .lean import Lean, Rooms, may_be_lean
from .program import Origin, Program
from .session import SHARED, Session
from .types import Tensor
from .visible import Visible
from .whole import Move, Whole, compile_whole


@dataclass(eq=False)
class Form:
    """A net compiled and bound for one set of input shapes.

    Args:
        whole: what is kept of it.
        bind: makes the session that keeps everything.
        memories: of parameters, and of everything else.
        both_ways: whether backward is compiled.
        rooms: memory for lean sessions.
    """

    whole: Whole
    bind: Callable[[], Session]
    memories: tuple[Visible, Visible]
    both_ways: bool
    rooms: Rooms
    parts: dict[tuple[bool, int, int], tuple[Callable[[], None], frozenset[str]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        graph, clock = self.whole.recording.graph, self.whole.recording.clock
        device = self.memories[0].device
        self.lean: Lean | None = None
        """What runs in place of the session as long as few look: the session is bound when it is needed."""
        self._alias: dict[Tensor, Tensor] | None = None
        self._homes: dict[Tensor, Array] = {}
        if may_be_lean(self.whole, device, self.both_ways):
            self._alias = elide_copies(self.whole.program)[1]
            self.lean = Lean(self.whole, self.owner, self.array, self._show, self.memories, self.rooms, self._again)
        nodes, calls = graph.nodes, (self.whole.program if self.lean else self.session.program).calls
        self.loose, self.varying = graph.loose, bool(graph.varying)
        self.clocked = self.loose or any(t.root is clock for call in calls for t in call.tensors())
        """Whether anything in the net depends on the number of the pass."""
        self.fed = [(i, n) for i, n in enumerate(nodes) if n.layer.fed and n.layer.type != "Input"]

    @cached_property
    def session(self) -> Session:
        """The session that keeps everything."""
        session = self.bind()
        self.memories[1].lay(laid(self, session))
        return session

    @property
    def bound(self) -> Session:
        """A session with the net's inputs: a lean one, if there are."""
        return self.session if self.lean is None else self.lean.first

    def owner(self, tensor: Tensor) -> Tensor:
        """The tensor whose memory this one is."""
        if self._alias is None:
            return self.session.owner(tensor)
        target = self._alias.get(tensor.root)
        return tensor.root if target is None else self.owner(target)

    def array(self, tensor: Tensor) -> Array:
        """The device's array of what is kept or outlives a run, for which nothing needs to be bound."""
        if self._alias is None:
            return self.session.array(tensor)
        found = self._homes.get(tensor)
        if found is not None:
            return found
        target = self._alias.get(tensor.root)
        if target is not None:
            return self.array(target.view(tensor.shape))
        memory = self.memories[tensor.root.kind not in SHARED]
        found = memory.array(tensor.root)
        if tensor.base is None:
            self._homes[tensor] = found
        return found if tensor.shape == tensor.root.shape else memory.device.view(found, tensor.shape)

    def _show(self, root: Tensor) -> np.ndarray[Any, Any]:
        """The host array of what owns its memory, on a host device."""
        memory = self.memories[root.kind not in SHARED]
        if "session" in self.__dict__ and root in self.session.program.homes:
            return memory.look(root, self.session.array(root))
        return memory.window(root, memory.array(root))

    def part(self, backward: bool, low: int, high: int) -> tuple[Callable[[], None], frozenset[str]]:
        """The function that runs the layers ``low`` to ``high``, both included, forward or backward; and the names of
        what it makes anew."""
        key = backward, low, high
        if key not in self.parts:
            self.parts[key] = part_of(self, backward, low, high)
        return self.parts[key]

    def _again(self) -> None:
        self.part(False, 0, len(self.whole.recording.graph.nodes) - 1)[0]()
        self.memories[1].renew()


def laid(form: Form, session: Session) -> dict[Tensor, Array]:
    """What a session on the host keeps in layouts of the device's own, and people may look at."""
    if form.whole.recording.graph.loose or not hasattr(session.device, "laid"):
        return {}
    return {t: session.array(t) for t in session.program.homes if t.kind != "buffer"}


def part_of(form: Form, backward: bool, low: int, high: int) -> tuple[Callable[[], None], frozenset[str]]:
    """The function that runs the layers ``low`` to ``high``, both included, forward or backward; and the names of what
    it makes anew, whatever was there."""
    nodes = form.whole.recording.graph.nodes
    wanted = {node.origin for node in nodes[low : high + 1]}
    last = high == len(nodes) - 1

    def within(origin: Origin) -> bool:
        if origin.is_backward != backward:
            return False
        return origin.forward in wanted or (last and origin.key is None)

    step = form.session.part(within)
    before, after = form.whole.moves(backward, low, high)
    program, known = form.session.program, {source.root for source, _ in before}
    stands_for = {home.tensor: t for t, home in program.homes.items()}
    made: set[Tensor] = set()
    for call in program.calls:
        if within(call.origin):
            known.update(t.root for t in call.reads() if t.root not in made)
            made.update(t.root for t in call.writes() if t.root not in known)
    names_made = frozenset(stands_for[t].name for t in made if t in stands_for)
    if not before and not after:
        return step, names_made
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

    return run, names_made


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
    layers: dict[str, list[list[Parameter]]] = {}  # the second layer of a name shares with the second of it
    for node in mine.graph.nodes:
        layers.setdefault(node.name, []).append(node.parameters)
    pairs = []
    for node in theirs.graph.nodes:
        found = layers.get(node.name)
        if not found:
            continue
        own = found.pop(0) if len(found) > 1 else found[0]
        if len(own) != len(node.parameters):
            counts = f"{len(own)} here, {len(node.parameters)} there"
            raise ShapeMismatchError(f"share_with: layer {node.name} has another number of parameter blobs: {counts}")
        for a, b in zip(own, node.parameters, strict=True):
            if a.spec.shape != b.spec.shape:
                raise ShapeMismatchError(f"share_with: {node.name}, {a.declared.name}: {a.spec} here, {b.spec} there")
            pairs.append((mine.parameters[a.owner or a], theirs.parameters[b.owner or b]))
    return pairs


__all__ = ["Form", "check_parameters", "part_of", "recompiled", "shared_pairs"]
