"""The data layer of sequences (type SequenceData): padded batches of whole ones, or the next steps of a long one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from .ahead import AheadFeeder
from .feeder import Floats
from .order import Order
from .sequence_files import Stream, read_streams
from .settings import Settings

MADE = ("cont", "length")
"""What the layer makes itself: 0 where a sequence begins and in the padding; the steps of each sequence."""


class SequenceBatches:
    """Makes batch after batch; see ahead.Maker. Positions count batches.

    Batches of whole sequences: the sequences of an epoch in the order of the file or of a permutation, or sorted by
    length (shorter first, equal ones as they come), cut into batches; sorted batches come in an order of their own. How
    many there are and how long each is does not depend on the epoch.
    """

    random = False

    def __init__(self, settings: Settings) -> None:
        """Reads the source. Raises DataError, ConfigError, UsageError."""
        self.settings, self.p = settings, settings.layer.sequence_data_param
        self._check()
        try:
            self.streams = read_streams(self.p, settings.folder)
        except DataError as error:
            raise settings.bad(error) from None
        self._names = list(self.p.input) or list(settings.layer.top)
        given = list(self.p.padding) or [0.0]
        self._padding = given * len(self._names) if len(given) == 1 else given
        if self.p.continuous:
            self._flow()
        self._lengths = self._find_streams()
        if not self.p.continuous:
            self._plan()
        self.shapes = [batch.shape for batch in self.make(0, 0)]

    # -------------------------------------------------------------------------------------------------------- checks
    def _check(self) -> None:
        p, settings = self.p, self.settings
        if settings.layer.HasField("transform_param"):
            raise settings.wrong("SequenceData does not transform its data; remove transform_param")
        if not p.source:
            raise settings.wrong("sequence_data_param needs a source")
        if bool(p.batch_size) == bool(p.batch_tokens):
            raise settings.wrong("sequence_data_param needs a batch_size or batch_tokens, one of them")
        if p.continuous and not (p.batch_size and p.steps):
            raise settings.wrong("continuous needs a batch_size (streams side by side) and steps (of each batch)")
        if p.continuous and (p.shuffle or p.bucket):
            raise settings.wrong("a continuous stream has its order: it can be neither shuffled nor bucketed")
        if not p.multiple:
            raise settings.wrong("multiple is 0, and has to be at least 1")
        for what in ("input", "padding"):
            count = len(getattr(p, what))
            if count not in (0, len(settings.layer.top)) and (what == "input" or count != 1):
                raise settings.wrong(f"{what} is given {count} times for {len(settings.layer.top)} tops")

    def _find_streams(self) -> npt.NDArray[np.int64]:
        """The lengths of the sequences: those of the first stream that is used and has steps."""
        known = sorted({*self.streams, *MADE, *(("label",) if self.p.continuous else ())})
        for name in self._names:
            if name not in known:
                raise self._bad(f'the source has no "{name}"; there are {", ".join(known)}, and input names them')
        used = [self.streams[n] for n in self._names if n in self.streams] or list(self.streams.values())
        lengths = next((s.lengths for s in used if s.lengths is not None), None)
        if lengths is None:
            raise self._bad("the tops name no stream with steps")
        for name in self._names:
            other = self.streams.get(name)
            if other is not None and not _fits(other, lengths):
                raise self._bad(f'"{name}" has sequences of other lengths than the stream of the first top')
        return lengths

    # -------------------------------------------------------------------------------------------------------- batches
    def _flow(self) -> None:
        """One long sequence as batch_size streams side by side."""
        name, stream = next((n, self.streams[n]) for n in [*self._names, *self.streams] if n in self.streams)
        streams, steps = self.p.batch_size, self.p.steps
        self.count = (len(stream.values) - 1) // streams // steps
        if self.count < 1:
            what = f"{len(stream.values)} steps are too few for {streams} streams of {steps} steps and one more"
            raise self._bad(what)
        rows = self.count * steps
        self._flowing = {
            key: stream.values[at : at + rows * streams].reshape(streams, rows, *stream.values.shape[1:]).swapaxes(0, 1)
            for at, key in enumerate([name, "label"])
        }

    def _plan(self) -> None:
        p, lengths = self.p, self._lengths
        if not len(lengths):
            raise self._bad("the source holds no sequences")
        self._cut = np.minimum(lengths, p.steps) if p.steps else lengths
        self._starts = np.cumsum(lengths) - lengths
        self._sorted = p.bucket or bool(p.batch_tokens)
        if not p.batch_tokens:
            self._bounds = [*range(0, len(lengths), p.batch_size), len(lengths)]
        else:
            self._bounds = [0]
            for i, length in enumerate(np.sort(self._cut)):
                steps = self._rounded(int(length))
                if steps > p.batch_tokens:
                    raise self._bad(
                        f"a sequence of {steps} steps (rounded up) does not fit into {p.batch_tokens} batch_tokens"
                    )
                if (i + 1 - self._bounds[-1]) * steps > p.batch_tokens:
                    self._bounds.append(i)
            self._bounds.append(len(lengths))
        self.count = len(self._bounds) - 1
        self._sequences = self._order("sequences", len(lengths))
        self._batches = self._order("batches", self.count)

    def _order(self, what: str, count: int) -> Order:
        settings = self.settings
        stream = f"{settings.stream}/{settings.layer.name}/{what}"
        return Order(count, seed=settings.seed, stream=stream, shuffle=self.p.shuffle)

    def _rounded(self, length: int) -> int:
        return self.p.steps or max(1, -(-length // self.p.multiple)) * self.p.multiple

    def make(self, position: int, draws: int) -> list[Floats]:
        """The batch number ``position`` of the run."""
        epoch, number = divmod(position, self.count)
        if self.p.continuous:
            return self._next_steps(number)
        order = self._sequences.permutation(epoch)
        if self._sorted:
            order = order[np.argsort(self._cut[order], kind="stable")]
            number = int(self._batches.permutation(epoch)[number])
        chosen = order[self._bounds[number] : self._bounds[number + 1]]
        lengths = self._cut[chosen]
        steps = self._rounded(int(lengths.max()))
        made = [
            self._one(name, chosen, lengths, steps, pad) for name, pad in zip(self._names, self._padding, strict=True)
        ]
        self._check_labels(made)
        return made

    def _one(self, name: str, chosen: Any, lengths: Any, steps: int, padding: float) -> Floats:
        if name == "length":
            return np.asarray(lengths, np.float32)
        inside = np.arange(steps)[:, None] < lengths
        if name == "cont":
            inside[0] = False
            return np.asarray(inside, np.float32)
        stream = self.streams[name]
        if stream.lengths is None:
            rows: Floats = stream.values[chosen]
            return rows
        batch = np.full((steps, len(chosen), *stream.values.shape[1:]), padding, np.float32)
        for n, (sequence, length) in enumerate(zip(chosen, lengths, strict=True)):
            begin = self._starts[sequence]
            batch[:length, n] = stream.values[begin : begin + length]
        return batch

    def _next_steps(self, number: int) -> list[Floats]:
        steps, streams = self.p.steps, self.p.batch_size
        cont = np.ones((steps, streams), np.float32)
        if not number:
            cont[0] = 0
        own = {"cont": cont, "length": np.full(streams, steps, np.float32)}
        for name, rows in self._flowing.items():
            own[name] = np.array(rows[number * steps : (number + 1) * steps])
        made = [own[name] for name in self._names]
        self._check_labels(made)
        return made

    def _check_labels(self, batch: list[Floats]) -> None:
        tops = self.settings.layer.top
        for top, values, padding in zip(tops, batch, self._padding, strict=True):
            classes = self.settings.classes.get(top)
            if classes is None:
                continue
            wrong = values[~((values >= 0) & (values < classes)) & (values != padding)]
            if wrong.size:
                raise self._bad(f'"{top}" is {wrong[0]:g}, and has to be 0 to {classes - 1} ({classes} classes)')

    def close(self) -> None:
        """Nothing is open."""

    def _bad(self, what: str) -> DataError:
        return self.settings.bad(DataError(what))


def _fits(stream: Stream, lengths: npt.NDArray[np.int64]) -> bool:
    if stream.lengths is None:
        return stream.count == len(lengths)
    return stream.count == len(lengths) and bool((stream.lengths == lengths).all())


class SequenceFeeder(AheadFeeder):
    """The feeder of a SequenceData layer; see feeder.Feeder for the interface. Its positions count batches."""

    def __init__(self, settings: Settings) -> None:
        """Reads the source.

        Raises:
            ConfigError: the layer's parameters cannot be used.
            DataError: the source is missing, damaged or empty, or a top names nothing in it.
            UsageError: h5py is needed and not installed.
        """
        super().__init__(SequenceBatches(settings))
        self._size = 1


def sequence_shapes(settings: Settings) -> list[tuple[int, ...]]:
    """The shapes of the tops of the first batch; see open.data_shapes."""
    return [tuple(shape) for shape in SequenceBatches(settings).shapes]
