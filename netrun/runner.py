"""One net in use: its session, the feeders of its data layers, its outputs as a log shows them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .compiler.graph import Graph, Node, Value
from .compiler.record import Recording, record
from .config import schema
from .data.feeder import Cursor, Feeder
from .device import Device
from .errors import ConfigError, DataError, NetrunError, WeightsError, printable
from .program import Program
from .session import Memory, Session
from .types import Shape, Tensor
from .varying import open_session

Batch = tuple[Node, Sequence[Tensor], Sequence[np.ndarray[Any, Any]]]
"""What a data layer brings to one pass: the layer, the tensors of its tops, their values."""


@dataclass
class Output:
    """One output blob after a run."""

    name: str
    values: np.ndarray[Any, Any]
    weight: float

    def lines(self, first: int, phase: str) -> list[str]:
        """``Train net output #0: loss = 0.5 (* 1 = 0.5 loss)``, one a value; ``first`` is the number of the first."""
        lines = []
        for i, value in enumerate(self.values.reshape(-1)):
            loss = f" (* {self.weight:g} = {self.weight * value:g} loss)" if self.weight else ""
            lines.append(f"    {phase} net output #{first + i}: {printable(self.name)} = {value:g}{loss}")
        return lines


@dataclass
class Averages:
    """Means of the outputs and of the loss over some batches."""

    batches: int = 0
    last: list[Output] = field(default_factory=list)
    """The outputs of the latest batch."""
    _total: float = 0.0
    _sums: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    loose: list[str] = field(default_factory=list)
    """Outputs that have another shape in another batch, and so no mean."""

    def add(self, runner: Runner) -> None:
        """Run one more batch and count it in."""
        runner.feed()
        runner.session.run()
        self.last = runner.outputs()
        for output in self.last:
            total = self._sums.setdefault(output.name, np.zeros(output.values.shape))
            if total.shape == output.values.shape:
                total += output.values
            elif output.name not in self.loose:
                self.loose.append(output.name)
        self._total += runner.loss()
        self.batches += 1

    @property
    def loss(self) -> float:
        """The mean total loss."""
        return self._total / max(self.batches, 1)

    @property
    def means(self) -> list[Output]:
        """The outputs' means over the batches, of those that have one."""
        there = [o for o in self.last if o.name not in self.loose]
        return [Output(o.name, self._sums[o.name] / self.batches, o.weight) for o in there]

    @property
    def notices(self) -> list[str]:
        """Lines for the log."""
        return [f'Output "{name}" changes its shape from batch to batch: it has no mean' for name in self.loose]


@dataclass
class Runner:
    """A recorded net with a session of it, fed by its own data layers.

    Args:
        name: "train", "test0"...: which net a data cursor belongs to.
    """

    name: str
    recording: Recording
    session: Session
    seed: int = 0
    threads: int | None = None
    feeders: dict[str, Feeder] = field(default_factory=dict)
    forwards: int = 0
    waited: float = 0.0
    """Seconds spent waiting for data layers so far."""

    @property
    def graph(self) -> Graph:
        """The graph behind the recording."""
        return self.recording.graph

    def open(self) -> None:
        """Open the sources of all data layers (a layer without one, such as Input, keeps what it was given).

        Raises:
            DataError: a source is missing or damaged.
        """
        ranges = label_ranges(self.graph)
        for node in self.graph.nodes:
            if node.layer.fed and node.key not in self.feeders:
                feeder = open_layer(node, self.seed, self.name, self.threads, ranges)
                if feeder is not None:
                    self.feeders[node.key] = feeder

    def feed(self) -> None:
        """Bring the next batch of every data layer in, and count the pass."""
        brought: list[Batch] = []
        asked = time.perf_counter()
        for node in self.graph.nodes:
            feeder = self.feeders.get(node.key)
            if feeder is not None:
                brought.append((node, [self.recording.tensors[value] for value in node.tops], feeder.next()))
        self.waited += time.perf_counter() - asked
        fit(self.session, brought)
        for _, tensors, values in brought:
            for tensor, array in zip(tensors, values, strict=True):
                self.session.device.write(self.session.array(tensor), array)
        self.tick()

    def tick(self) -> None:
        """Count one forward pass: what is random in the layers is drawn with the number."""
        self.session.write(self.recording.clock, np.int64(self.forwards))
        self.forwards += 1

    def outputs(self) -> list[Output]:
        """The outputs of the last run, in Caffe's order (alphabetical)."""
        found = []
        for name, value in self.graph.outputs:
            weight = value.producer.loss_weights[value.index]
            found.append(Output(name, self.session.read(self.recording.tensors[value]), weight))
        return found

    def loss(self) -> float:
        """The total loss of the last run."""
        return 0.0 if self.recording.loss is None else float(self.session.read(self.recording.loss))

    def later_loss(self) -> Callable[[], float]:
        """The total loss of the last run, waited for only when the function that comes back is called."""
        if self.recording.loss is None:
            return lambda: 0.0
        found = self.session.later(self.recording.loss)
        return lambda: float(found())

    def cursors(self) -> Iterator[schema.DataCursor]:
        """Where every data layer stands."""
        for layer, feeder in self.feeders.items():
            cursor = feeder.state()
            yield schema.DataCursor(net=self.name, layer=layer, position=cursor.position, draws=cursor.draws)

    def restore(self, cursors: Mapping[tuple[str, str], schema.DataCursor]) -> None:
        """Go on where the cursors say; a layer without one starts at its beginning."""
        for layer, feeder in self.feeders.items():
            cursor = cursors.get((self.name, layer))
            if cursor is not None:
                feeder.restore(Cursor(cursor.position, cursor.draws))

    def carried(self) -> dict[tuple[str, str], np.ndarray[Any, Any]]:
        """What the layers carry into the next forward, by net and name."""
        return {(self.name, name): self.session.read(tensor) for name, tensor in self._carrying()}

    def _carrying(self) -> list[tuple[str, Tensor]]:
        """The states that change from forward to forward; one with a value of its own is a constant."""
        return [(n, t) for n, t in self.recording.states.items() if t not in self.recording.initial]

    def restore_carried(self, carried: Mapping[tuple[str, str], np.ndarray[Any, Any]]) -> None:
        """Put back what the layers carried; a state that is not among it is zero, as at the start.

        Raises:
            WeightsError: one has another shape; nothing is changed then.
        """
        found = []
        for name, tensor in self._carrying():
            values = carried.get((self.name, name), np.zeros(tensor.shape, tensor.dtype))
            if np.shape(values) != tensor.shape:
                got, wanted = (" ".join(map(str, s)) or "one number" for s in (np.shape(values), tensor.shape))
                raise WeightsError(
                    f"the state {name} of the {self.name} net has the shape {got} in the snapshot, here {wanted}",
                    None,
                    ["it holds a row for each stream: resume with the batch size of the run that wrote it"],
                )
            found.append((tensor, values))
        for tensor, values in found:
            self.session.write(tensor, values)

    def close(self) -> None:
        """Stop the threads of all data layers, finish the files that layers write."""
        for feeder in self.feeders.values():
            with contextlib.suppress(NetrunError):
                feeder.close()
        self.feeders.clear()
        for node in self.graph.nodes:
            node.layer.close()


def fit(session: Session, brought: Sequence[Batch]) -> None:
    """Bring a session to the shapes of the batches that its data layers are about to write: of all of them at once, for
    an image and the map of its labels change together.

    Raises:
        DataError: a layer's batches have to have one shape, or a layer behind one does not fit the new one.
    """
    changed: dict[int, list[Shape]] = {}
    told = None
    for node, tensors, batches in brought:
        for value, tensor, batch in zip(node.tops, tensors, batches, strict=True):
            wanted = session.resolve(tensor).shape
            if batch.shape == wanted:
                continue
            if not node.layer.flexible:
                raise _unfit(node, value, batch, [f"the net is compiled for {' '.join(map(str, wanted))}"])
            changed[node.position] = [b.shape for b in batches]
            told = told or (node, value, batch)
    if told is None:
        return
    try:
        session.fit(changed)
    except ConfigError as error:
        raise _unfit(*told, [line for p in error.problems for line in (p.what, *p.notes)]) from None


def _unfit(node: Node, value: Value, batch: np.ndarray[Any, Any], notes: Sequence[str]) -> DataError:
    shape = " ".join(map(str, batch.shape))
    return DataError(
        f'{node.name} ({node.layer.type}): this batch of "{value.blob}" has the shape {shape}, which the net cannot '
        "follow",
        node.layer.context.locate(),
        [*notes, "records of different sizes need a crop_size, or new_height and new_width"],
    )


def kept(recording: Recording) -> frozenset[Tensor]:
    """What a run must leave readable: the outputs and the total loss."""
    keeps = {recording.tensors[v] for _, v in recording.graph.outputs}
    if recording.loss is not None:
        keeps.add(recording.loss)
    return frozenset(keeps)


def forward_program(recording: Recording) -> Program:
    """The forward pass alone, with only the outputs kept."""
    return recording.program(recording.forward, kept(recording))


def open_forward(recording: Recording, device: Device, memory: Memory, *, frozen: bool = False) -> Session:
    """A session of the forward pass alone; ``frozen`` as in Session."""

    def again(graph: Graph) -> tuple[Recording, Program]:
        other = record(graph)
        return other, forward_program(other)

    return open_session((recording, forward_program(recording)), again, device, memory, frozen=frozen)


def open_layer(node: Node, seed: int, stream: str, threads: int | None, ranges: Mapping[Value, int]) -> Feeder | None:
    """The feeder of one data layer; None for a layer that the caller feeds."""
    opener = getattr(node.layer, "feeder", None)
    if opener is None:
        return None
    classes = {v.blob: ranges[v] for v in node.tops if v in ranges}
    feeder: Feeder | None = opener(
        folder=node.layer.context.folder, seed=seed, stream=stream, threads=threads, classes=classes
    )
    return feeder


def label_ranges(graph: Graph) -> dict[Value, int]:
    """Tops of data layers that serve as labels, and the number of classes they must stay below.

    A label that a loss may ignore is not checked here: it may be any number.
    """
    found: dict[Value, int] = {}
    for node in graph.nodes:
        classes = getattr(node.layer, "classes", 0)
        if classes and len(node.bottoms) > 1:
            label = _source(node.bottoms[1])
            if label.producer.layer.fed:
                found[label] = min(classes, found.get(label, classes))
    ignoring = {
        _source(n.bottoms[1])
        for n in graph.nodes
        if len(n.bottoms) > 1
        and (n.message.loss_param.HasField("ignore_label") or n.message.accuracy_param.HasField("ignore_label"))
    }
    return {value: classes for value, classes in found.items() if value not in ignoring}


def _source(value: Value) -> Value:
    while value.producer.layer.type == "Split":
        value = value.producer.bottoms[0]
    return value
