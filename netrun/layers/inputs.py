"""Where data comes in: Input (the caller feeds it), and layers with a feeder: Data, DummyData, MemoryData."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import numpy as np
import numpy.typing as npt

from ..config import schema
from ..data.feeder import Feeder
from ..data.open import data_shapes, open_feeder
from ..errors import DataError
from ..fillers import filler_problem
from ..types import Shape, Spec
from .base import Count, Layer
from .context import Context
from .feeders import Arrays, DummyFeeder, MemoryFeeder


class Fed(Layer):
    """A layer without bottoms whose tops the host writes before each forward."""

    type = ""
    bottoms = 0
    tops: ClassVar[Count] = (1, None)
    fed = True

    def one_per_top(self, values: Sequence[Any], what: str) -> list[Any]:
        """``values`` for each top: one a top, or one for all."""
        tops = len(self.message.top)
        if len(values) not in (1, tops):
            self.fail(f"{what} is given {len(values)} times for {tops} tops", at=what, hint="give one a top, or one")
        return list(values) * tops if len(values) == 1 else list(values)


@dataclass(frozen=True)
class Opening:
    """How a feeder is opened; see ``feeder`` for what each means."""

    folder: str
    seed: int
    stream: str
    threads: int | None
    classes: Mapping[str, int] | None


class _Read(Fed):
    """A layer that a feeder fills."""

    type = ""

    def feeder(
        self,
        *,
        folder: str = "",
        seed: int = 0,
        stream: str = "train",
        threads: int | None = None,
        classes: Mapping[str, int] | None = None,
    ) -> Feeder:
        """What produces the tops, batch after batch.

        Args:
            folder: the folder of the prototxt, for relative paths that are not found from the working directory.
            seed, stream: what everything random follows from, together with the layer's name; ``stream`` names the net.
            threads: as many at most decode; 0 reads without any thread of its own.
            classes: for a top, how many classes it may name: its values must be 0 .. classes - 1.

        Raises:
            ConfigError, DataError, UsageError: the source cannot be used.
        """
        return self.open(Opening(folder, seed, stream, threads, classes))

    def open(self, how: Opening) -> Feeder:
        """The feeder of this type."""
        raise NotImplementedError(f"{type(self).__name__}.open")


class Input(Fed):
    """y = what the caller feeds

    No bottom. Tops: one or more, of the shapes in ``shape``: one a top, or one for all.
    """

    param = "input_param"

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        if not self.p.shape:
            self.fail("has no shape", hint="write input_param { shape { dim: 1 dim: 3 dim: 224 dim: 224 } }, say")
        return [self.spec(_positive(self, shape)) for shape in self.one_per_top(self.p.shape, "shape")]


class Data(_Read):
    """y = the next records of a database

    No bottom. Tops: the images, N C H W, N = batch_size and C H W those of a record after the crop; if named, the
    labels, (N,). Without a crop_size every batch has the shape of its first record, and the net goes along; all of its
    records have to agree, so that only with batch_size 1 records of all sizes can follow one another.
    """

    param = "data_param"
    tops: ClassVar[Count] = (1, 2)

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        context, transform = self.context, self.message.transform_param
        fixed = transform.crop_size or transform.mean_file or getattr(self.p, "new_height", 0)
        self.flexible = self.type in ("Data", "ImageData") and not fixed
        shapes = context.measured
        if shapes is None:
            shapes = data_shapes(self.message, context.phase, folder=context.folder, where=context.locate())
        return [self.spec(shape) for shape in shapes]

    def open(self, how: Opening) -> Feeder:
        where = self.context.locate()
        return open_feeder(self.message, self.context.phase, where=where, **vars(how))


class DummyData(_Read):
    """y = what data_filler says: a constant, or random numbers, new ones for every batch

    No bottom. Tops: one or more, of the shapes in ``shape`` (or num, channels, height, width): one a top, or one for
    all; so with data_filler, zeros if there is none.
    """

    param = "dummy_data_param"

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        fillers = self.one_per_top(self.p.data_filler or [schema.FillerParameter()], "data_filler")
        old = {name: list(getattr(self.p, name)) for name in ("num", "channels", "height", "width")}
        given = [name for name, values in old.items() if values]
        if given and self.p.shape:
            self.fail(f"has both shape and {given[0]}", at=given[0], hint="write shape alone")
        if not given and not self.p.shape:
            self.fail("has no shape", hint="write dummy_data_param { shape { dim: 10 dim: 3 } }, say")
        if given:
            if len(given) < 4:
                self.fail(f"num, channels, height and width go together, got {', '.join(given)}", at=given[0])
            columns = [self.one_per_top(values, name) for name, values in old.items()]
            shapes = [tuple(int(n) for n in row) for row in zip(*columns, strict=True)]
        else:
            shapes = [_positive(self, shape) for shape in self.one_per_top(self.p.shape, "shape")]
        for filler, shape in zip(fillers, shapes, strict=True):
            problem = filler_problem(filler, shape)
            if problem:
                self.fail(problem, at="data_filler")
        self._parts = list(zip(fillers, shapes, strict=True))
        return [self.spec(shape) for shape in shapes]

    def open(self, how: Opening) -> Feeder:
        return DummyFeeder(self.key, tuple(self.message.top), self._parts, how.seed, how.stream)


class MemoryData(_Read):
    """y = the next records of the arrays handed over with ``set_arrays``, round and round

    No bottom. Tops: the data, N C H W by batch_size, channels, height and width, and the labels, (N,). The values go in
    as they are: transform_param has no effect, as in Caffe, and ``set_arrays`` warns of it.
    """

    param = "memory_data_param"
    tops = 2

    def __init__(self, message: schema.LayerParameter, context: Context | None = None) -> None:
        super().__init__(message, context)
        self._arrays = Arrays(f"{self.name} ({self.type})", self.context.locate())

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        sizes = {name: getattr(self.p, name) for name in ("batch_size", "channels", "height", "width")}
        missing = [name for name, value in sizes.items() if value < 1]
        if missing:
            self.fail(f"has no {', '.join(missing)}", hint="all four sizes have to be at least 1")
        shape = tuple(int(value) for value in sizes.values())
        return [self.spec(shape), self.spec(shape[:1])]

    def set_arrays(self, data: npt.ArrayLike, labels: npt.ArrayLike) -> None:
        """The records of the coming batches, from the first one on.

        Args:
            data: count C H W, count a multiple of batch_size.
            labels: count numbers.

        Raises:
            DataError: shapes or counts do not fit.
        """
        if self.message.HasField("transform_param"):
            what = f"{self.name} ({self.type}): arrays go in as they are, transform_param has no effect"
            warnings.warn(what, stacklevel=2)
        records, numbers = np.asarray(data), np.asarray(labels)
        wanted = (self.p.channels, self.p.height, self.p.width)
        if records.ndim != 4 or records.shape[1:] != wanted:
            shape = " ".join(map(str, wanted))
            self._refuse(f"wants data of N {shape}, got {' '.join(map(str, records.shape))}")
        if numbers.size != len(records):
            self._refuse(f"got {len(records)} records and {numbers.size} labels")
        if not len(records) or len(records) % self.p.batch_size:
            self._refuse(f"got {len(records)} records, which is no multiple of batch_size {self.p.batch_size}")
        self._arrays.hand_over(records, numbers.reshape(-1))

    def _refuse(self, what: str) -> NoReturn:
        raise DataError(f"{self.name} ({self.type}): {what}", self.context.locate())

    def open(self, how: Opening) -> Feeder:
        shapes = [spec.shape for spec in self.setup(())]
        return MemoryFeeder(tuple(self.message.top), shapes, self._arrays)


def _positive(layer: Layer, shape: schema.BlobShape) -> Shape:
    dims = tuple(int(n) for n in shape.dim)
    if any(n < 1 for n in dims):
        layer.fail(f"shape {' '.join(map(str, dims))}: every axis needs at least 1", at="shape")
    return dims
