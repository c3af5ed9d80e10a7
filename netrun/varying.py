"""Nets whose shapes depend on data: a program is run up to such a layer, and the rest is compiled for what it finds.

Data layers bring batches of the shapes that their records have. Filter, and layers in Python, say the shapes of their
tops only when a forward pass arrives at them. What is compiled for one set of shapes is kept; all of it works on the
same memory, so what came before the layer stands where it was.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .compiler.graph import Graph, Node
from .compiler.record import Recording
from .device import Array, Device, Step
from .errors import ConfigError, ShapeError
from .layers.context import Reshaped
from .program import Origin, Program
from .session import Fed, Memory, Room, Session, Timing
from .types import Shape, Tensor

Compiled = tuple[Recording, Program]
Shapes = tuple[tuple[Shape, ...] | None, ...]
"""Top shapes of every varying layer in order; None: as in the first compilation."""

LIMIT = 16
"""Compiled sets of shapes that are kept."""


def open_session(
    first: Compiled,
    again: Callable[[Graph], Compiled],
    device: Device,
    shared: Memory | None = None,
    own: Memory | None = None,
    *,
    frozen: bool = False,
) -> Session:
    """A session of the first program; one that compiles again where the shapes of its net vary.

    Args:
        first: a recorded net and a program made of it.
        again: makes both for a graph of the same net with other shapes.
        frozen: as in Session; a net with a varying layer computes everything in every run.

    Raises:
        as Session and as ``compile``.
    """
    recording, program = first
    if not recording.graph.loose:
        return Session(program, device, shared, own, frozen=frozen)
    return Varying(first, again, device, shared or Memory(device), own or Memory(device), frozen)


@dataclass(eq=False)
class _Variant:
    """What is there for one set of shapes."""

    recording: Recording
    session: Session
    tensors: dict[str, Tensor]
    """The program's tensors by name: names do not depend on shapes."""
    positions: list[int]
    """For every call the number of its layer; what belongs to no layer's forward pass comes behind all of them."""


class Varying(Session):
    """A session that is another one for every set of shapes that it meets. Tensors are those of the first program."""

    def __init__(
        self,
        first: Compiled,
        again: Callable[[Graph], Compiled],
        device: Device,
        shared: Memory,
        own: Memory,
        frozen: bool = False,
    ) -> None:
        self.device, self.shared, self.own = device, shared, own
        self._first, self._again = first[0].graph, again
        self._places = [i for i, node in enumerate(self._first.nodes) if node.layer.varying]
        self._frozen = frozen and not self._places
        self._fed: Fed = ()
        self._shapes: Shapes = (None,) * len(self._places)
        self._arena, self._scratch = Room(device), Room(device)
        self._now = self._open(*first)
        self._known: OrderedDict[tuple[Fed, Shapes], _Variant] = OrderedDict({(self._fed, self._shapes): self._now})
        self._show()
        self._all = self.part(lambda origin: True)

    def _open(self, recording: Recording, program: Program) -> _Variant:
        tensors = {t.name: t for t in (*program.tensors(), *program.keeps)}
        program = _surviving(program, recording, self._places)
        rooms = {"arena": self._arena, "scratch": self._scratch}
        session = Session(program, self.device, self.shared, self.own, **rooms, frozen=self._frozen)
        positions = _positions(recording.graph, (call.origin for call in session.program.calls))
        return _Variant(recording, session, tensors, positions)

    def _show(self) -> None:
        session = self._now.session
        self.program, self.plan, self.steps, self.feeds = session.program, session.plan, session.steps, session.feeds

    # ------------------------------------------------------------------------------------------------------- memory
    def resolve(self, tensor: Tensor) -> Tensor:
        """The tensor of the same name in the program for the shapes of the last run."""
        found = self._now.tensors.get(tensor.root.name)
        if found is None or found is tensor.root:
            return tensor
        return found if tensor.base is None else found.view(tensor.shape)

    def owner(self, tensor: Tensor) -> Tensor:
        """As Session.owner, in the program for the shapes of the last run."""
        return self._now.session.owner(self.resolve(tensor))

    def array(self, tensor: Tensor) -> Array:
        """The device array of a tensor, in the shape of the last run."""
        return self._now.session.array(self.resolve(tensor))

    # ---------------------------------------------------------------------------------------------------------- run
    def run(self) -> None:
        """One pass over all calls."""
        if not self._places:
            self._now.session.run()
            return
        self._all()
        self.shared.version += self._now.session.learns

    def part(self, wanted: Callable[[Origin], bool]) -> Step:
        """As Session.part; the shapes of a varying layer are asked for if its forward pass is wanted."""
        ready: dict[_Variant, list[Step]] = {}  # the segments between varying layers

        def run() -> None:
            for number, place in enumerate(self._places):
                self._segment(number, ready, wanted)
                if wanted(self._first.nodes[place].origin):
                    self._adapt(number)
            self._segment(len(self._places), ready, wanted)

        return run

    def _segment(self, number: int, ready: dict[_Variant, list[Step]], wanted: Callable[[Origin], bool]) -> None:
        """Run the calls before varying layer ``number``; the layer before it, whose calls come first, may find that it
        needs other shapes."""
        while True:
            try:
                return self._segments(ready, wanted)[number]()
            except Reshaped as asked:  # a loop may ask again, for more steps each time
                if asked.shapes == self._shapes[number - 1]:
                    raise
                self._go_over(number - 1, asked.shapes)

    def _segments(self, ready: dict[_Variant, list[Step]], wanted: Callable[[Origin], bool]) -> list[Step]:
        now = self._now
        if now not in ready:
            for gone in set(ready) - set(self._known.values()):
                del ready[gone]
            cuts: list[list[Step]] = [[] for _ in range(len(self._places) + 1)]
            for call, step, position in zip(now.session.program.calls, now.session.steps, now.positions, strict=True):
                if wanted(call.origin):
                    cuts[sum(position >= place for place in self._places)].append(step)
            ready[now] = [self.device.capture(steps) for steps in cuts]
        return ready[now]

    def _adapt(self, number: int) -> None:
        """Ask a varying layer for its shapes, and go over to what is compiled for them."""
        node = self._now.recording.graph.nodes[self._places[number]]
        measured = tuple(tuple(shape) for shape in node.layer.measure(lambda i: self._bottom(node, i)))
        tops = [value.spec.shape for value in node.tops]
        if measured != tuple(tuple(shape) for shape in node.layer.settled(tops)):
            self._go_over(number, measured)

    def _go_over(self, number: int, measured: tuple[Shape, ...]) -> None:
        self._enter(self._fed, (*self._shapes[:number], measured, *(None,) * (len(self._places) - number - 1)))

    @property
    def fed(self) -> Fed:
        """As Session.fed."""
        return self._fed

    def fit(self, brought: Mapping[int, Sequence[Shape]]) -> None:
        """As Session.fit."""
        given = dict(self._fed)
        for node in self._first.nodes:
            if node.position in brought and node.layer.fed:
                given[node.position] = tuple(tuple(shape) for shape in brought[node.position])
                if given[node.position] == tuple(value.spec.shape for value in node.tops):
                    del given[node.position]
        self._enter(tuple(sorted(given.items())), (None,) * len(self._places))

    def _enter(self, fed: Fed, shapes: Shapes) -> None:
        """Go over to what is compiled for these shapes."""
        if (fed, shapes) not in self._known:
            before = self._arena.size, self._scratch.size
            made = self._build(fed, shapes)
            if before != (self._arena.size, self._scratch.size):
                self._known.clear()  # they hold on to the smaller block, and would cost its memory once more
            self._known[fed, shapes] = made
            if len(self._known) > LIMIT:
                self._known.popitem(last=False)
        self._known.move_to_end((fed, shapes))
        self._fed, self._shapes, self._now = fed, shapes, self._known[fed, shapes]
        self._show()

    def _bottom(self, node: Node, i: int) -> np.ndarray[Any, Any]:
        return self._now.session.read(self._now.recording.tensors[node.bottoms[i]])

    def _build(self, fed: Fed, shapes: Shapes) -> _Variant:
        rebuild = self._first.rebuild
        assert rebuild is not None  # whoever builds a graph with varying layers gives it
        nodes = [self._first.nodes[place] for place in self._places]
        measured = {n.position: s for n, s in zip(nodes, shapes, strict=True) if s is not None}
        graph = rebuild({**dict(fed), **measured})
        for old, new in zip(self._first.parameters, graph.parameters, strict=True):
            if old.spec != new.spec:
                raise ShapeError(
                    f"{new.layer}: its parameter {new.declared.name} would need another shape for this data",
                    None,
                    [
                        f"it has the shape  {old.spec}, it would need {new.spec}",
                        "the axes behind the batch have to stay as they are",
                    ],
                )
        return self._open(*self._again(graph))

    def feed(self, values: Mapping[str, Any]) -> None:
        """As Session.feed."""
        self._now.session.feed(values)

    def time(self, rounds: int) -> list[Timing]:
        """As Session.time, for the shapes of the last run.

        Raises:
            ConfigError: they change from pass to pass, by layers that say so only while they run.
        """
        for _ in range(LIMIT):
            try:
                return self._now.session.time(rounds)
            except Reshaped:
                self.run()
        raise ConfigError("the shapes of this net are other ones in every pass: its layers cannot be timed one by one")


def _positions(graph: Graph, origins: Iterable[Origin]) -> list[int]:
    """For every call the number of its layer, never falling; the number of layers for what is no forward pass."""
    places = {node.origin: i for i, node in enumerate(graph.nodes)}
    found, last = [], 0
    for origin in origins:
        last = max(last, places.get(origin, len(graph.nodes)))
        found.append(last)
    return found


def _surviving(program: Program, recording: Recording, places: Sequence[int]) -> Program:
    """The program with everything kept that one session makes and another may read: what is alive at a varying layer,
    and what such a layer is asked about."""
    nodes = recording.graph.nodes
    positions = _positions(recording.graph, (call.origin for call in program.calls))
    written: dict[Tensor, int] = {}
    keeps = {*program.keeps, *(recording.tensors[value].root for place in places for value in nodes[place].bottoms)}
    for call, position in zip(program.calls, positions, strict=True):
        for tensor in (t.root for t in call.reads()):
            if tensor in written and any(written[tensor] < place <= position for place in places):
                keeps.add(tensor)
        for tensor in (t.root for t in call.writes()):
            written.setdefault(tensor, position)
    return replace(program, keeps=frozenset(keeps))


__all__ = ["Varying", "open_session"]
