"""The data layer that reads HDF5 files (type HDF5Data): a list of files, a dataset for each top."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..config.paths import resolve
from ..errors import DataError, missing_extra
from .ahead import AheadFeeder
from .feeder import Floats
from .order import Order
from .settings import Settings


class Hdf5Batches:
    """Makes batch after batch; see ahead.Maker.

    Rows of the files in the order of the list, wrapping around without a gap; a batch may span files. With ``shuffle``
    every epoch takes the files in a new order, and the rows of each in a new order; both follow from (seed, epoch), so
    a resumed run goes on exactly. One file is in memory at a time.
    """

    random = False

    def __init__(self, settings: Settings) -> None:
        """Looks at every file's datasets. Raises DataError, ConfigError, UsageError."""
        self.settings = settings
        self._names = tuple(settings.layer.top)
        parameters = settings.layer.hdf5_data_param
        _check(settings)
        self._batch = parameters.batch_size
        self._files = self._listed(parameters.source, settings.folder)
        self._counts: list[int] = []
        rows: dict[str, tuple[int, ...]] = {}
        for file in self._files:
            count, shapes = self._look(file)
            self._counts.append(count)
            for name, shape in shapes.items():
                if rows.setdefault(name, shape) != shape:
                    raise self._bad(
                        f'{file}: rows of "{name}" have the shape {_text(shape)}, '
                        f"those of {self._files[0]} {_text(rows[name])}"
                    )
        self.count = sum(self._counts)
        if not self.count:
            raise self._bad(f"the files of {parameters.source} hold no rows")
        self.shapes = [(self._batch, *rows[name]) for name in self._names]
        self._order_of_files = self._order("files", len(self._files))
        self._orders = [self._order(file, count) for file, count in enumerate(self._counts)]
        self._loaded: tuple[int, list[Floats]] = (-1, [])

    def make(self, position: int, draws: int) -> list[Floats]:
        """The batch of the rows from ``position`` on."""
        batch = [np.empty(shape, np.float32) for shape in self.shapes]
        for at, file, rows in self._runs(position):
            for target, values in zip(batch, self._read(file), strict=True):
                target[at : at + len(rows)] = values[rows]
        self._check_labels(batch, position)
        return batch

    def close(self) -> None:
        """Lets the file in memory go; nothing stays open between batches."""
        self._loaded = (-1, [])

    # ---------------------------------------------------------------------------------------------------------- order
    def _order(self, what: object, count: int) -> Order:
        settings = self.settings
        stream = f"{settings.stream}/{settings.layer.name}/{what}"
        return Order(count, seed=settings.seed, stream=stream, shuffle=settings.layer.hdf5_data_param.shuffle)

    def _runs(self, position: int) -> Iterator[tuple[int, int, Any]]:
        """What a batch consists of: its first row, the number of a file, and the rows of that file."""
        at = 0
        while at < self._batch:
            epoch, row = divmod(position + at, self.count)
            files = self._order_of_files.permutation(epoch).tolist()
            ends = list(itertools.accumulate(self._counts[file] for file in files))
            place = next(i for i, end in enumerate(ends) if row < end)
            file = files[place]
            start = row - (ends[place] - self._counts[file])
            stop = min(start + self._batch - at, self._counts[file])
            shuffled = self.settings.layer.hdf5_data_param.shuffle
            yield at, file, self._orders[file].permutation(epoch)[start:stop] if shuffled else np.arange(start, stop)
            at += stop - start

    # ---------------------------------------------------------------------------------------------------------- files
    def _listed(self, source: str, folder: str) -> list[str]:
        path = resolve(source, folder)
        try:
            with open(path, encoding="utf-8") as lines:
                names = [line.strip() for line in lines if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not text"
            raise self._bad(f"source {source} cannot be read as a list of files: {why}") from None
        if not names:
            raise self._bad(f"source {source} lists no files")
        # Beside the prototxt, as any name in it; else beside the list.
        return [resolve(resolve(name, folder), os.path.dirname(path)) for name in names]

    @contextlib.contextmanager
    def _open(self, file: str) -> Iterator[Any]:
        try:
            import h5py
        except ImportError:
            raise missing_extra("HDF5Data", "h5py", "hdf5") from None
        if not os.path.exists(file):
            raise self._bad(f"{file}, which {self.settings.layer.hdf5_data_param.source} lists, is not there")
        try:
            opened = h5py.File(file, "r")
        except OSError as error:
            raise self._bad(f"{file} is no readable HDF5 file ({error})") from None
        with opened:
            yield opened

    def _look(self, file: str) -> tuple[int, dict[str, tuple[int, ...]]]:
        """How many rows a file has, and their shape by dataset."""
        found, counts = {}, {}
        with self._open(file) as opened:
            for name in self._names:
                data = opened.get(name)
                if data is None or not hasattr(data, "dtype"):
                    raise self._bad(f'{file}: no dataset "{name}" (its datasets: {", ".join(opened) or "none"})')
                if data.dtype.kind not in "fiub" or not data.shape:
                    raise self._bad(
                        f'{file}: dataset "{name}" holds {data.dtype} of shape {_text(data.shape)}, '
                        "wanted rows of numbers"
                    )
                counts[name] = int(data.shape[0])
                found[name] = tuple(int(n) for n in data.shape[1:])
        if len(set(counts.values())) > 1:
            rows = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise self._bad(f"{file}: the datasets differ in their number of rows: {rows}")
        return counts[self._names[0]], found

    def _read(self, file: int) -> list[Floats]:
        """The datasets of a file."""
        if self._loaded[0] != file:
            self._loaded = (-1, [])  # the last file goes before the next one comes: never two in memory
            name = self._files[file]
            with self._open(name) as opened:
                try:
                    arrays = [opened[top].astype(np.float32)[...] for top in self._names]
                except (OSError, KeyError) as error:
                    raise self._bad(f"{name} is damaged ({error})") from None
            for top, array, shape in zip(self._names, arrays, self.shapes, strict=True):
                if array.shape != (self._counts[file], *shape[1:]):
                    raise self._bad(f'{name} has changed while it was used: "{top}" is now {_text(array.shape)}')
            self._loaded = (file, arrays)
        return self._loaded[1]

    def _check_labels(self, batch: list[Floats], position: int) -> None:
        for name, values in zip(self._names, batch, strict=True):
            classes = self.settings.classes.get(name)
            if classes is None:
                continue
            flat = values.reshape(len(values), -1)
            wrong = np.argwhere(~((flat >= 0) & (flat < classes)))
            if len(wrong):
                row, column = wrong[0]
                for at, file, rows in self._runs(position):
                    if at <= row < at + len(rows):
                        place = f"row {rows[row - at]} of {self._files[file]}"
                raise self._bad(
                    f'{place}: "{name}" is {flat[row, column]:g}, and has to be 0 to {classes - 1} ({classes} classes)'
                )

    def _bad(self, what: str) -> DataError:
        return self.settings.bad(DataError(what))


class Hdf5Feeder(AheadFeeder):
    """The feeder of an HDF5Data layer; see feeder.Feeder for the interface."""

    def __init__(self, settings: Settings) -> None:
        """Opens the list and looks at every file.

        Raises:
            ConfigError: the layer's parameters cannot be used.
            DataError: the list or a file is missing or damaged, a dataset is missing, numbers of rows differ.
            UsageError: h5py is not installed.
        """
        super().__init__(Hdf5Batches(settings))


def hdf5_shapes(settings: Settings) -> list[tuple[int, ...]]:
    """The shapes of the tops; see open.data_shapes."""
    return Hdf5Batches(settings).shapes


def _check(settings: Settings) -> None:
    parameters = settings.layer.hdf5_data_param
    if settings.layer.HasField("transform_param"):
        raise settings.wrong("HDF5Data does not transform its data; remove transform_param")
    if not parameters.source:
        raise settings.wrong("hdf5_data_param needs a source, a text file that lists HDF5 files")
    if not parameters.batch_size:
        raise settings.wrong("hdf5_data_param needs a batch_size of 1 or more")


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one number"
