"""The data layer that reads HDF5 files (type HDF5Data): a list of files, a dataset for each top."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from netrun.config import schema
from netrun.config.paths import resolve
from netrun.data.feeder import Cursor, Floats
from netrun.data.settings import Settings
from netrun.errors import DataError, missing_extra
from netrun.random import generator


class Hdf5Feeder:
    """Rows of the files in the order of the list, wrapping around without a gap; a batch may span files.

    With ``shuffle`` every epoch takes the files in a new order, and the rows of each in a new order; both follow from
    (seed, epoch), so a resumed run goes on exactly. One file is in memory at a time.

    Raises:
        ConfigError: the layer's parameters cannot be used.
        DataError: the list or a file is missing or damaged, a dataset is missing, their numbers of rows differ.
        UsageError: h5py is not installed.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings, self._layer = settings, settings.layer
        self.names = tuple(self._layer.top)
        parameters = self._layer.hdf5_data_param
        self._check(parameters)
        self._batch = parameters.batch_size
        self._files = self._listed(parameters.source, settings.folder)
        self._counts: list[int] = []
        rows: dict[str, tuple[int, ...]] = {}
        for file in self._files:
            with self._open(file) as opened:
                shapes = self._row_shapes(file, opened)
                self._counts.append(next(iter(opened[n].shape[0] for n in self.names)))
            for name, shape in shapes.items():
                if rows.setdefault(name, shape) != shape:
                    raise self._bad(
                        f'{file}: rows of "{name}" have the shape {shape}, {self._files[0]} has {rows[name]}'
                    )
        self.records = sum(self._counts)
        if not self.records:
            raise self._bad(f"the files of {parameters.source} hold no rows")
        self.shapes = tuple((self._batch, *rows[name]) for name in self.names)
        self._position = 0
        self._loaded: tuple[int, int, list[Floats]] = (-1, -1, [])

    # ------------------------------------------------------------------------------------------------------ settings
    def _check(self, parameters: schema.HDF5DataParameter) -> None:
        if self._layer.HasField("transform_param"):
            raise self._settings.wrong("HDF5Data does not transform its data; remove transform_param")
        if not parameters.source:
            raise self._settings.wrong("hdf5_data_param needs a source, a text file that lists HDF5 files")
        if not parameters.batch_size:
            raise self._settings.wrong("hdf5_data_param needs a batch_size of 1 or more")

    def _listed(self, source: str, folder: str) -> list[str]:
        path = resolve(source, folder)
        try:
            with open(path, encoding="utf-8") as lines:
                names = [line.strip() for line in lines if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise self._bad(f'source "{source}" cannot be read as a list of files: {error}') from None
        if not names:
            raise self._bad(f'source "{source}" lists no files')
        return [resolve(name, os.path.dirname(path)) for name in names]

    def _bad(self, what: str) -> DataError:
        return self._settings.bad(DataError(what))

    # --------------------------------------------------------------------------------------------------------- files
    @contextlib.contextmanager
    def _open(self, file: str) -> Iterator[Any]:
        try:
            import h5py
        except ImportError:
            raise missing_extra("HDF5Data", "h5py", "hdf5") from None
        try:
            opened = h5py.File(file, "r")
        except OSError as error:
            raise self._bad(f"{file}: not a readable HDF5 file ({error})") from None
        with opened:
            yield opened

    def _row_shapes(self, file: str, opened: Any) -> dict[str, tuple[int, ...]]:
        found, counts = {}, {}
        for name in self.names:
            data = opened.get(name)
            if data is None or not hasattr(data, "dtype"):
                raise self._bad(f'{file}: no dataset "{name}" (its datasets: {", ".join(opened) or "none"})')
            if data.dtype.kind not in "fiub" or not data.shape:
                raise self._bad(
                    f'{file}: dataset "{name}" holds {data.dtype} of shape {data.shape}, wanted rows of numbers'
                )
            counts[name] = data.shape[0]
            found[name] = tuple(int(n) for n in data.shape[1:])
        if len(set(counts.values())) > 1:
            rows = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise self._bad(f"{file}: the datasets differ in their number of rows: {rows}")
        return found

    def _rows(self, epoch: int, place: int) -> list[Floats]:
        """The tops' rows of the file that comes at ``place`` in this epoch, in this epoch's order."""
        if self._loaded[:2] != (epoch, place):
            file = self._order(epoch)[place]
            with self._open(self._files[file]) as opened:
                try:
                    arrays = [np.asarray(opened[name], np.float32) for name in self.names]
                except OSError as error:
                    raise self._bad(f"{self._files[file]}: damaged ({error})") from None
            if self._layer.hdf5_data_param.shuffle:
                order = self._random(epoch, file).permutation(self._counts[file])
                arrays = [array[order] for array in arrays]
            self._loaded = (epoch, place, arrays)
        return self._loaded[2]

    def _order(self, epoch: int) -> list[int]:
        count = len(self._files)
        if not self._layer.hdf5_data_param.shuffle:
            return list(range(count))
        return [int(i) for i in self._random(epoch, "files").permutation(count)]

    def _random(self, epoch: int, what: object) -> np.random.Generator:
        return generator(self._settings.seed, self._settings.stream, self._layer.name, "shuffle", epoch, what)

    # ------------------------------------------------------------------------------------------------------ a feeder
    def next(self) -> list[Floats]:
        """The next batch, one array a top."""
        batch = [np.empty(shape, np.float32) for shape in self.shapes]
        filled = 0
        while filled < self._batch:
            epoch, row = divmod(self._position + filled, self.records)
            order = self._order(epoch)
            ends = list(itertools.accumulate(self._counts[i] for i in order))
            place = next(i for i, end in enumerate(ends) if row < end)
            start = row - (ends[place] - self._counts[order[place]])
            count = min(self._batch - filled, ends[place] - row)
            for target, rows in zip(batch, self._rows(epoch, place), strict=True):
                target[filled : filled + count] = rows[start : start + count]
            filled += count
        self._check_labels(batch)
        self._position += self._batch
        return batch

    def _check_labels(self, batch: list[Floats]) -> None:
        for name, values in zip(self.names, batch, strict=True):
            classes = self._settings.classes.get(name)
            if classes is None:
                continue
            wrong = np.flatnonzero((values < 0) | (values >= classes) | ~np.isfinite(values))
            if wrong.size:
                row = (self._position + int(wrong[0]) // max(values[0].size, 1)) % self.records
                value = values.reshape(-1)[wrong[0]]
                raise self._bad(
                    f'row {row} of its files: "{name}" is {value:g}, the net knows classes 0 to {classes - 1}'
                )

    def state(self) -> Cursor:
        """The number of rows handed out."""
        return Cursor(self._position, 0)

    def restore(self, cursor: Cursor) -> None:
        """Go on after that many rows."""
        self._position = cursor.position

    def close(self) -> None:
        """Nothing stays open between batches."""
