"""A net in Python that keeps only what is asked for: as fast and as small as a session that nobody looks into.

A whole forward pass in the TEST phase runs a program that keeps the outputs, and the blobs that somebody held or looked
at since the pass before; everything between them is fused and shares memory. Parameters lie packed as in a frozen
session. Whoever looks at another blob gets what the pass made of it: the pass is run again, on the inputs it had, by
the program that keeps everything. That is the same value only where a pass depends on nothing but inputs and
parameters, so that program is the only one for nets with chance, states, statistics that move or code of their own, for
nets that share parameters with others, and for all that is not a whole forward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from .device import Array, Device
from .kernels import EFFECTS
from .session import SHARED, Memory, Room, Session
from .types import PERSISTENT, Tensor
from .visible import Visible
from .whole import Whole

SETS = 2
"""Sets of looked-at blobs that have a program, besides that of the outputs alone."""


class Rooms:
    """Memory that the lean sessions of a net share, whatever its shapes: only one of them runs at a time."""

    def __init__(self, device: Device) -> None:
        self.own = Memory(device)
        self.arena, self.scratch = Room(device), Room(device)


class _Pass(Session):
    """The session of one lean program."""

    def __init__(self, whole: Whole, keeps: frozenset[Tensor], shared: Memory, rooms: Rooms) -> None:
        program = replace(whole.program, keeps=keeps, apart=frozenset(), visible=frozenset())
        super().__init__(
            program, shared.device, shared, rooms.own, arena=rooms.arena, scratch=rooms.scratch, frozen=True
        )
        self.keeps = keeps
        self.given = [self.array(tensor) for tensor in whole.recording.feeds.values()]
        """Its own arrays of what is fed, in the order of the net's."""


class Lean:
    """The lean programs of a net for one set of input shapes.

    Args:
        whole: the net, and the program that keeps everything.
        owner: the tensor whose memory another one is, where everything is kept.
        home: the plain array of such an owner.
        show: the same for somebody who looks, with what was made last.
        memories: of the parameters, and of what is looked at.
        rooms: what the lean sessions of the net share.
        again: runs the pass with everything kept.
    """

    def __init__(
        self,
        whole: Whole,
        owner: Callable[[Tensor], Tensor],
        home: Callable[[Tensor], Array],
        show: Callable[[Tensor], np.ndarray[Any, Any]],
        memories: tuple[Visible, Visible],
        rooms: Rooms,
        again: Callable[[], None],
    ) -> None:
        self._whole, self._owner, self._home, self._show, self._again = whole, owner, home, show, again
        self._rooms = rooms
        self._shared, self._own = memories
        recording = whole.recording
        weighted = [v for n in recording.graph.nodes for v, w in zip(n.tops, n.loss_weights, strict=True) if w]
        base = {recording.tensors[v] for v in (*weighted, *(v for _, v in recording.graph.outputs))}
        if recording.loss is not None:
            base.add(recording.loss)
        every = {*map(owner, recording.tensors.values()), *map(owner, base)}
        self._blobs = frozenset(root for root in every if root.kind not in PERSISTENT)
        self._base = self._blobs.intersection(map(owner, base))
        self._feeds = [home(tensor) for tensor in recording.feeds.values()]
        self._owners: dict[Tensor, Tensor] = {}
        self._sessions: dict[frozenset[Tensor], _Pass] = {}
        self._asked: set[Tensor] = set()
        """Looked at since the last pass began."""
        self._before: frozenset[Tensor] = frozenset()
        """Wanted of the last pass."""
        self._begun = False
        self._ran: _Pass | None = None
        """The session of the last pass, if it was a lean one, and not everything holds what it made."""
        self._waiting: set[Tensor] = set()
        """What it kept and is not in its home yet."""
        self.first = self._open(self._base)

    def _open(self, keeps: frozenset[Tensor]) -> _Pass:
        if len(self._sessions) > SETS:
            del self._sessions[next(known for known in self._sessions if known != self._base)]
        made = self._sessions[keeps] = _Pass(self._whole, keeps, self._shared, self._rooms)
        return made

    # -------------------------------------------------------------------------------------------------------- running
    def run(self, everything: bool) -> bool:
        """A whole forward pass that leaves readable what is likely to be looked at; False (and nothing done) where that
        is better left to the program that keeps everything.

        Args:
            everything: whether it is a whole pass that is asked for, not that of some layers.
        """
        if not everything:
            self.fill()
            self._asked |= self._blobs
            return False
        held = self._own.holding() & self._blobs
        wanted = self._base | held | self._asked
        again, self._before, self._asked = wanted == self._before, wanted, set()
        self._ran, self._begun = None, True
        if self._shared.users > 1 or self._shared.holding():
            return False
        keeps = min((keeps for keeps in self._sessions if keeps >= wanted), key=len, default=None)
        if keeps is None and (not again or 2 * len(wanted) > len(self._blobs)):
            return False
        session = self._open(wanted) if keeps is None else self._sessions[keeps]
        for given, home in zip(session.given, self._feeds, strict=True):
            np.copyto(given, home)
        session.run()
        self._ran, self._waiting = session, set(session.keeps)
        for root in held:
            self._bring(root)
        return True

    def _bring(self, root: Tensor) -> None:
        """What the last pass made of something it kept is in its home from now on."""
        if self._ran is not None and root in self._waiting:
            array = self._ran.array(root)
            np.copyto(self._home(root), array if isinstance(array, np.ndarray) else self._ran.read(root))
            self._own.written(root)
            self._waiting.discard(root)

    def follow(self, before: Lean) -> None:
        """Take over from the lean programs for other shapes: what is looked at there, will be here."""
        for root in before._base:
            before._bring(root)
        before._ran = None
        names = {root.name: root for root in self._blobs}
        self._asked = {names[t.name] for t in before._asked if t.name in names}
        self._before = frozenset(names[t.name] for t in before._before if t.name in names)
        self._begun = before._begun

    # -------------------------------------------------------------------------------------------------------- looking
    def look(self, tensor: Tensor) -> np.ndarray[Any, Any]:
        """The array of a blob or parameter, for reading and writing."""
        root = self.looked(tensor)
        window = self._show(root)
        return window if window.shape == tensor.shape else window.reshape(tensor.shape)

    def looked(self, tensor: Tensor) -> Tensor:
        """Somebody is going to read or to write a tensor: its home holds what the last pass made of it, from now on.
        Returns the tensor that owns the home."""
        root = self._owners.get(tensor.root)
        if root is None:
            root = self._owners[tensor.root] = self._owner(tensor)
        if root in self._blobs:
            if self._begun:
                self._asked.add(root)
            if self._ran is not None:
                if root in self._ran.keeps:
                    self._bring(root)
                else:
                    self.fill()
        elif root.kind in SHARED:
            self.fill()
        return root

    def value(self, tensor: Tensor) -> np.ndarray[Any, Any]:
        """What the last pass made of an output."""
        self._bring(self._owner(tensor))
        return np.array(self._home(tensor))

    def fill(self) -> None:
        """Every home holds what the last pass made; what may have been written to some since then stays."""
        session = self._ran
        if session is None:
            return
        for root in session.keeps:
            self._bring(root)
        homes = [*self._feeds, *(self._home(root) for root in session.keeps)]
        values = [home.copy() for home in homes]
        for given, home in zip(session.given, self._feeds, strict=True):
            np.copyto(home, given)
        self._ran = None
        try:
            self._again()
        finally:
            for home, value in zip(homes, values, strict=True):
                np.copyto(home, value)
            for root in session.keeps:
                self._own.written(root)


def may_be_lean(whole: Whole, device: Device, both_ways: bool) -> bool:
    """Whether a forward pass may be run again, with the same results, on what it was given and the parameters."""
    graph = whole.recording.graph
    if both_ways or not getattr(device, "lean", False) or graph.loose or graph.varying or whole.recording.states:
        return False
    calls = whole.program.calls
    if any(c.op.name in EFFECTS or c.op.name == "random" for c in calls):
        return False
    kinds = PERSISTENT - SHARED - {"feed"}
    if any(t.root.kind in kinds for c in calls for t in c.tensors()):
        return False
    return whole.moves(False, 0, len(graph.nodes) - 1) == ([], [])
