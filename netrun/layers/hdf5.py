"""Layers that read HDF5 files."""

from __future__ import annotations

from typing import ClassVar

from .base import Count
from .inputs import Data


class HDF5Data(Data):
    """y = the next rows of the datasets that are named like the tops

    No bottom. Tops: one or more, each batch_size rows of its dataset, whatever their shape; all numbers become floats.
    """

    param = "hdf5_data_param"
    tops: ClassVar[Count] = (1, None)
