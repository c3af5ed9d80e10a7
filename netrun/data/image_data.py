"""The data layer that reads image files from a list (type ImageData)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import numpy as np

from ..config.paths import resolve
from ..errors import DataError
from .ahead import AheadFeeder
from .datum import RecordError
from .feeder import Floats
from .image_list import ImageList, read_image_list
from .images import Bytes, read_image
from .prefetch import Decoders
from .resize import resize
from .settings import Settings
from .stats import read_mean
from .transform import Shape3, Transform


def check(settings: Settings) -> None:
    """Raises ConfigError if image_data_param and transform_param cannot be used, whatever the data."""
    parameters = settings.layer.image_data_param
    if not parameters.source:
        raise settings.wrong("image_data_param needs a source, a text file that lists images and labels")
    if not parameters.batch_size:
        raise settings.wrong("image_data_param needs a batch_size of 1 or more")
    if len(settings.layer.top) not in (1, 2):
        raise settings.wrong(f"it has {len(settings.layer.top)} tops, and makes one (data) or two (data and label)")
    if bool(parameters.new_height) != bool(parameters.new_width):
        raise settings.wrong("image_data_param needs new_height and new_width, or neither")
    settings.check_transform()


class ImageBatches:
    """Makes batch after batch; see ahead.Maker. The shape of a batch is that of its first image."""

    def __init__(self, settings: Settings) -> None:
        """Reads the list and, for the shapes, its first image. Raises DataError, ConfigError."""
        check(settings)
        self.settings = settings
        layer = settings.layer
        self._parameters, transform = layer.image_data_param, layer.transform_param
        self._mean: Floats | None = None
        try:
            if transform.mean_file:
                self._mean = read_mean(transform.mean_file, settings.folder)
            self._list: ImageList = read_image_list(
                self._parameters.source, settings.folder, self._parameters.root_folder
            )
        except DataError as error:
            raise settings.bad(error) from None
        with self._blaming(0):
            self._transform = self._transform_of(self._load(0).shape)
        self.count = len(self._list.names)
        self.random = self._transform.random
        self.shapes = _shapes(settings, self._transform.shape, self._list.labels.shape[1])
        self._order = settings.order(self.count, shuffle=self._parameters.shuffle, rand_skip=self._parameters.rand_skip)
        self._decoders = Decoders(settings.threads)

    def make(self, position: int, draws: int) -> list[Floats]:
        """The batch of the images from ``position`` on, with the random decisions from ``draws`` on."""
        numbers = self._order.records(position, self._parameters.batch_size)
        words = self.settings.words(draws, len(numbers)) if self.random else None
        labels = self._labels(numbers)
        images: dict[int, Bytes] = {}

        def load(i: int) -> None:
            with self._blaming(numbers[i]):
                images[i] = self._load(numbers[i])

        self._decoders.each(load, len(numbers))
        with self._blaming(numbers[0]):
            transform = self._transform_of(images[0].shape)
        data = np.empty((len(numbers), *transform.shape), np.float32)

        def apply(i: int) -> None:
            with self._blaming(numbers[i]):
                transform.check(images[i].shape)
            transform.one(images.pop(i), None if words is None else words[i], data[i])

        self._decoders.each(apply, len(numbers))
        return [data, labels][: len(self.shapes)]

    def close(self) -> None:
        """Gives the decoders back."""
        self._decoders.close()

    def _load(self, number: int) -> Bytes:
        """An image as the transform gets it; raises RecordError."""
        parameters = self._parameters
        name = parameters.root_folder + self._list.names[number]
        path = resolve(name, self.settings.folder)
        if not os.path.exists(path):
            raise RecordError(f"there is no file {name}{_root_hint(parameters.root_folder)}")
        image = read_image(path, "colour" if parameters.is_color else "gray")
        return resize(image, parameters.new_height, parameters.new_width) if parameters.new_height else image

    def _transform_of(self, shape: tuple[int, ...]) -> Transform:
        channels, height, width = shape
        return Transform(
            self.settings.layer.transform_param, self.settings.phase, (channels, height, width), self._mean
        )

    def _labels(self, numbers: list[int]) -> Floats:
        """N or, if the list has several a line, N x L. A label that names a class is checked."""
        labels: Floats = self._list.labels[numbers].astype(np.float32)
        classes = self.settings.classes.get(self.names[1]) if len(self.names) > 1 else None
        if classes is not None:
            wrong = np.flatnonzero(((labels < 0) | (labels >= classes)).any(axis=1))
            if wrong.size:
                value = ", ".join(f"{v:g}" for v in labels[wrong[0]])
                raise self.settings.bad(
                    DataError(
                        f"{self._list.place(numbers[int(wrong[0])])} has label {value}, "
                        f'and top "{self.names[1]}" must be 0 to {classes - 1} ({classes} classes)'
                    )
                )
        return labels if labels.shape[1] > 1 else labels[:, 0]

    @property
    def names(self) -> list[str]:
        """Names of the tops."""
        return list(self.settings.layer.top)

    @contextlib.contextmanager
    def _blaming(self, number: int) -> Iterator[None]:
        """What is wrong with an image gets the name of its line, its list and the layer."""
        try:
            yield
        except RecordError as error:
            text = f"{self._list.place(number)} cannot be used: {error}"
            hint = [] if "all must be alike" not in text else ["new_height and new_width bring images to one size"]
            raise self.settings.bad(DataError(text, None, hint)) from None


class ImageFeeder(AheadFeeder):
    """The feeder of an ImageData layer; see feeder.Feeder for the interface.

    ``shapes`` are those of the first line's image. A batch has the shape of its own first image, so that without
    new_height, new_width or crop_size the batches of a list of many sizes differ (and all images within one must not).
    """

    def __init__(self, settings: Settings) -> None:
        """Opens the list.

        Raises:
            DataError, ConfigError: see open_feeder.
        """
        super().__init__(ImageBatches(settings))


def image_shapes(settings: Settings) -> list[tuple[int, ...]]:
    """The shapes of the tops; without the list, from crop_size or new_height and new_width."""
    check(settings)
    parameters, transform = settings.layer.image_data_param, settings.layer.transform_param
    crop, channels = int(transform.crop_size), 3 if parameters.is_color else 1
    if os.path.exists(resolve(parameters.source, settings.folder)) or not (crop or parameters.new_height):
        batches = ImageBatches(settings)
        batches.close()
        return batches.shapes
    shape = (channels, crop or int(parameters.new_height), crop or int(parameters.new_width))
    return _shapes(settings, shape, 1)


def _shapes(settings: Settings, top: Shape3, labels: int) -> list[tuple[int, ...]]:
    batch = settings.layer.image_data_param.batch_size
    shapes: list[tuple[int, ...]] = [(batch, *top), (batch, labels) if labels > 1 else (batch,)]
    return shapes[: len(settings.layer.top)]


def _root_hint(root: str) -> str:
    if root and not root.endswith(("/", os.sep)):
        return f'; root_folder "{root}" is put in front of the name as it is, so it should end in a slash'
    return ""
