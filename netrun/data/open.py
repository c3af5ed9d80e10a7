"""Opens the feeder of a data layer by the layer's type. One table; a new kind of source is a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..config import schema
from ..errors import ConfigError, Where, nearest
from .feeder import Feeder
from .hdf5 import Hdf5Feeder, hdf5_shapes
from .image_data import ImageFeeder, image_shapes
from .records import DataFeeder, shapes_of
from .sequence_data import SequenceFeeder, sequence_shapes
from .settings import Settings
from .window_data import WindowFeeder, window_shapes

FEEDERS: dict[str, tuple[Callable[[Settings], Feeder], Callable[[Settings], list[tuple[int, ...]]]]] = {
    "Data": (DataFeeder, shapes_of),
    "HDF5Data": (Hdf5Feeder, hdf5_shapes),
    "ImageData": (ImageFeeder, image_shapes),
    "SequenceData": (SequenceFeeder, sequence_shapes),
    "WindowData": (WindowFeeder, window_shapes),
}
"""By layer type: what opens a feeder, and what tells the shapes of the tops without starting one."""


def open_feeder(
    layer: schema.LayerParameter,
    phase: int,
    *,
    folder: str = "",
    seed: int = 0,
    stream: str = "train",
    threads: int | None = None,
    classes: Mapping[str, int] | None = None,
    where: Where | None = None,
) -> Feeder:
    """Opens the source of a data layer.

    Args:
        layer: the layer; deprecated fields are already upgraded.
        phase: schema.TRAIN or schema.TEST (crops are random only in TRAIN).
        folder: the folder of the prototxt, for relative paths that are not found from the working directory.
        seed, stream: what all random decisions follow from, together with the layer's name. ``stream`` names the net.
        threads: decode with at most this many threads (never more than cores); 0 reads without any thread of its own.
        classes: for a top, how many classes it may name: its values must be 0 .. classes - 1.
        where: the place of the layer in its file, for messages.

    Raises:
        ConfigError: the layer's parameters cannot be used.
        DataError: the source is missing, damaged or empty, or its first record cannot be used.
        UsageError: an extra (Pillow, plyvel, h5py) is needed and not installed.
    """
    make, _ = _row(layer, where)
    return make(Settings(layer, phase, folder, where, seed, stream, threads, classes or {}))


def data_shapes(
    layer: schema.LayerParameter, phase: int, *, folder: str = "", where: Where | None = None
) -> list[tuple[int, ...]]:
    """The shapes of the tops of a data layer, without starting anything.

    From the first record if the source is there; else from ``record_shape``; else from ``crop_size`` (3 channels, or
    as many as there are mean_values, or 1 with force_gray).

    Raises:
        ConfigError, DataError, UsageError: as open_feeder; a DataError too if the source is missing and nothing tells
            the shape (the message says what to do).
    """
    _, shapes = _row(layer, where)
    return shapes(Settings(layer, phase, folder, where))


def _row(
    layer: schema.LayerParameter, where: Where | None
) -> tuple[Callable[[Settings], Feeder], Callable[[Settings], list[tuple[int, ...]]]]:
    if layer.type not in FEEDERS:
        raise ConfigError(
            f'{layer.name}: "{layer.type}" is no type of data layer{nearest(layer.type, FEEDERS)}',
            where,
            [f"known: {', '.join(sorted(FEEDERS))}"],
        )
    return FEEDERS[layer.type]
