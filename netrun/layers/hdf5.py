"""Layers that read HDF5 files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from ..data.feeder import Feeder
from ..data.hdf5 import Hdf5Feeder
from ..types import Spec
from .base import Count
from .inputs import Fed


class HDF5Data(Fed):
    """y = the next rows of the datasets that are named like the tops

    No bottom. Tops: one or more, each batch_size rows of its dataset, whatever their shape; all numbers become floats.
    """

    param = "hdf5_data_param"
    tops: ClassVar[Count] = (1, None)

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        return [self.spec(shape) for shape in self._open().shapes]

    def feeder(
        self,
        *,
        folder: str = "",
        seed: int = 0,
        stream: str = "train",
        threads: int | None = None,
        classes: Mapping[str, int] | None = None,
    ) -> Feeder:
        """What produces the tops, batch after batch (see Hdf5Feeder); ``threads`` is not used."""
        return self._open(seed, stream, classes)

    def _open(self, seed: int = 0, stream: str = "", classes: Mapping[str, int] | None = None) -> Hdf5Feeder:
        context = self.context
        return Hdf5Feeder(self.message, context.folder, context.locate(), seed, stream, classes)
