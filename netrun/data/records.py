"""The data layer that reads a database (type Data): its parameters, its batches, its feeder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from ..errors import DataError
from .ahead import AheadFeeder
from .database import is_there, missing, open_database
from .datum import Plain, Record, RecordError, parse, size_text
from .feeder import Floats
from .images import Colour, pixels_of
from .lmdb_file import show_key
from .order import Words
from .prefetch import Decoders
from .settings import Settings
from .stats import read_mean
from .transform import Shape3, Transform


def check(settings: Settings) -> None:
    """Raises ConfigError if data_param and transform_param cannot be used, whatever the data."""
    layer = settings.layer
    data = layer.data_param
    if not data.source:
        raise settings.wrong("data_param needs a source, the folder of a database")
    if not data.batch_size:
        raise settings.wrong("data_param needs a batch_size of 1 or more")
    if len(layer.top) not in (1, 2):
        raise settings.wrong(f"it has {len(layer.top)} tops, and makes one (data) or two (data and label)")
    settings.check_transform()
    shape = data.record_shape.dim
    if data.HasField("record_shape") and (len(shape) != 3 or min(shape) < 1):
        raise settings.wrong("record_shape needs three positive numbers: channels, height, width")


@contextlib.contextmanager
def _blaming(settings: Settings, key: bytes = b"") -> Iterator[None]:
    """Errors of the source, or of the record ``key``, get the names of record, source and layer."""
    try:
        yield
    except RecordError as error:
        name = f'record "{show_key(key)}" of {settings.layer.data_param.source}'
        raise settings.bad(DataError(f"{name} cannot be used: {error}")) from None
    except DataError as error:
        raise settings.bad(error) from None


def _shapes(settings: Settings, top: Shape3) -> list[tuple[int, ...]]:
    """The shapes of the tops, from that of one transformed record."""
    batch = settings.layer.data_param.batch_size
    return [(batch, *top), (batch,)][: len(settings.layer.top)]


def _colour(settings: Settings) -> Colour:
    transform = settings.layer.transform_param
    return "colour" if settings.forces_colour else "gray" if transform.force_gray else "as stored"


class Batches:
    """Makes batch after batch; used by one thread at a time. The shape of a batch is that of its first record."""

    def __init__(self, settings: Settings) -> None:
        """Opens the source and fixes the shapes by its first record. Raises DataError, ConfigError."""
        check(settings)
        self.settings, self._colour = settings, _colour(settings)
        layer = settings.layer
        data, transform = layer.data_param, layer.transform_param
        with contextlib.ExitStack() as undo:
            with _blaming(settings):
                mean = read_mean(transform.mean_file, settings.folder) if transform.mean_file else None
                self._database = open_database(data.source, data.backend, settings.folder)
                undo.callback(self._database.close)
                key, value = self._database.read(0)
            with _blaming(settings, key):
                record = parse(value)
                shape = pixels_of(record, self._colour).shape
                self._transform = Transform(transform, settings.phase, shape, mean)
            stated = tuple(data.record_shape.dim)
            if stated and stated != shape:
                raise settings.wrong(f"record_shape is {size_text(stated)}, and the first record is {size_text(shape)}")
            undo.pop_all()
        self.count = self._database.count
        self.random = self._transform.random
        self.shapes = _shapes(settings, self._transform.shape)
        self._shape, self._plain = shape, Plain.of(value, record)
        self._order = settings.order(self.count, shuffle=data.shuffle, rand_skip=data.rand_skip)
        self._decoders = Decoders(settings.threads)

    def make(self, position: int, draws: int) -> list[Floats]:
        """The batch of the records from ``position`` on, with the random decisions from ``draws`` on."""
        size = self.settings.layer.data_param.batch_size
        words = self.settings.words(draws, size) if self.random else None
        with _blaming(self.settings):
            found = [self._database.read(number) for number in self._order.records(position, size)]
        data, labels = self._alike(found, words) or self._different(found, words)
        if len(self.shapes) == 1:
            return [data]
        self._check_labels(found, labels)
        return [data, np.array(labels, np.float32)]

    def close(self) -> None:
        """Gives source and decoders back."""
        self._decoders.close()
        self._database.close()

    def _alike(self, found: list[tuple[bytes, bytes]], words: Words | None) -> tuple[Floats, list[int]] | None:
        """Raw 8-bit records that differ in pixels and label alone: no parsing, one transform for the batch."""
        if self._plain is None:
            return None
        split = self._plain.split
        parts = [split(value) for _, value in found]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        values = np.frombuffer(b"".join([pixels for pixels, _ in known]), np.uint8)
        data = np.empty(self.shapes[0], np.float32)
        self._transform.batch(values.reshape(len(known), *self._shape), words, data)
        return data, [label for _, label in known]

    def _different(self, found: list[tuple[bytes, bytes]], words: Words | None) -> tuple[Floats, list[int]]:
        """All other records, each on its own; images are decoded on several cores. The first one gives the shape."""
        settings = self.settings
        records: list[Record] = []
        for key, value in found:
            with _blaming(settings, key):
                records.append(parse(value))
        with _blaming(settings, found[0][0]):
            first = pixels_of(records[0], self._colour)
            transform = self._transform_for(first.shape)
        data = np.empty((len(found), *transform.shape), np.float32)

        def work(i: int) -> None:
            with _blaming(settings, found[i][0]):
                pixels = pixels_of(records[i], self._colour) if i else first
                transform.check(pixels.shape)
            transform.one(pixels, None if words is None else words[i], data[i])

        if any(record.encoded for record in records):
            self._decoders.each(work, len(records))
        else:
            for i in range(len(records)):
                work(i)
        return data, [record.label for record in records]

    def _transform_for(self, shape: Shape3) -> Transform:
        """The transform of a batch whose first record has this shape: without a crop, batches follow their records."""
        transform = self.settings.layer.transform_param
        if shape == self._shape or transform.crop_size or transform.mean_file or shape[0] != self._shape[0]:
            return self._transform
        return Transform(transform, self.settings.phase, shape, None)

    def _check_labels(self, found: list[tuple[bytes, bytes]], labels: list[int]) -> None:
        top = self.settings.layer.top[1]
        classes = self.settings.classes.get(top)
        if classes is None or (min(labels) >= 0 and max(labels) < classes):
            return
        i = next(i for i, label in enumerate(labels) if not 0 <= label < classes)
        source = self.settings.layer.data_param.source
        raise self.settings.bad(
            DataError(
                f'record "{show_key(found[i][0])}" of {source} has label {labels[i]}, '
                f'and top "{top}" must be 0 to {classes - 1} ({classes} classes)'
            )
        )


class DataFeeder(AheadFeeder):
    """The feeder of a Data layer; see feeder.Feeder for the interface."""

    def __init__(self, settings: Settings) -> None:
        """Opens the source.

        Raises:
            DataError, ConfigError: see open_feeder.
        """
        super().__init__(Batches(settings))


def shapes_of(settings: Settings) -> list[tuple[int, ...]]:
    """The shapes of the tops without reading more than one record; see open.data_shapes."""
    check(settings)
    data, transform = settings.layer.data_param, settings.layer.transform_param
    if is_there(data.source, settings.folder):
        batches = Batches(settings)
        batches.close()
        return batches.shapes
    crop = int(transform.crop_size)
    stated = tuple(data.record_shape.dim)
    if stated:
        channels, height, width = stated
        if crop > min(height, width):
            raise settings.wrong(f"crop_size {crop} does not fit record_shape {size_text(stated)}")
        return _shapes(settings, (channels, crop or height, crop or width))
    if crop:
        channels = 1 if transform.force_gray else len(transform.mean_value) if len(transform.mean_value) > 1 else 3
        return _shapes(settings, (channels, crop, crop))
    hint = "to see the shapes without the data, say in data_param: record_shape { dim: 3 dim: 32 dim: 32 }"
    raise settings.bad(missing(data.source, hint))
