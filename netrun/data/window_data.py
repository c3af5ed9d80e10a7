"""The data layer that cuts windows out of images (type WindowData)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..config.paths import resolve
from ..errors import DataError
from .ahead import AheadFeeder
from .datum import RecordError
from .feeder import Floats
from .images import Bytes, decode, read_file
from .order import Words
from .prefetch import Decoders
from .resize import resize
from .settings import Settings
from .stats import read_mean
from .window_file import read_window_file

CHANNELS = 3
MODES = ("warp", "square")


@dataclass(frozen=True)
class Crop:
    """Where a window lies in its image, and where it lands in the square: all in pixels, the corners inside."""

    x1: int
    y1: int
    x2: int
    y2: int
    width: int
    """Columns that it is warped to."""
    height: int
    left: int
    """Columns of the square that stay empty before it."""
    top: int


def place(
    box: tuple[int, int, int, int], image: tuple[int, int], side: int, context: int, square: bool, flip: bool
) -> Crop:
    """How a window becomes a square of ``side`` pixels.

    Args:
        box: x1, y1, x2, y2.
        image: height and width.
        context: pixels of surroundings on every side of the square.
        square: enlarge the shorter side of the window to the longer one first.
        flip: it will be mirrored, and with it the empty columns.

    The window is enlarged around its middle by side / (side - 2 * context) and cut at the border of the image; what is
    missing there stays empty in the square. Positions are worked out in single precision, as in Caffe.

    Raises:
        RecordError: it holds no pixel of the image, or (without any enlarging) some that are not in the image.
    """
    x1, y1, x2, y2 = box
    height, width = image
    if x2 < x1 or y2 < y1:
        raise RecordError(f"its corners are {x1} {y1} and {x2} {y2}: the first has to be the upper left one")
    if not context and not square:
        if x1 < 0 or y1 < 0 or x2 >= width or y2 >= height:
            raise RecordError(f"its corners {x1} {y1} and {x2} {y2} are not both in the image, {height}x{width}")
        return Crop(x1, y1, x2, y2, side, side, 0, 0)
    across = _Axis.of(x1, x2, y2 - y1 + 1 if square else 0, width, side, context)
    down = _Axis.of(y1, y2, x2 - x1 + 1 if square else 0, height, side, context)
    if across.first > across.last or down.first > down.last:
        raise RecordError(f"its corners are {x1} {y1} and {x2} {y2}: it lies outside of the image, {height}x{width}")
    left, top = across.after if flip else across.before, down.before
    # Rounding may make the parts one pixel more than the whole.
    columns, rows = min(across.size, side - left), min(down.size, side - top)
    if columns < 1 or rows < 1:
        raise RecordError(f"its corners are {x1} {y1} and {x2} {y2}: too little of it lies in the image")
    return Crop(across.first, down.first, across.last, down.last, columns, rows, left, top)


@dataclass(frozen=True)
class _Axis:
    """One axis of an enlarged window: its pixels in the image, the pixels they become, the empty ones around them."""

    first: int
    last: int
    size: int
    before: int
    after: int

    @classmethod
    def of(cls, low: int, high: int, least: int, length: int, side: int, context: int) -> _Axis:
        scale = np.float32(side) / np.float32(side - 2 * context)
        own = np.float32((high - low + 1) / 2)
        half = np.float32(max(high - low + 1, least) / 2)
        middle = np.float32(low) + own
        low, high = _round(middle - half * scale), _round(middle + half * scale)
        whole = high - low + 1
        under, over = max(0, -low), max(0, high - length + 1)
        low, high = low + under, high - over
        factor = np.float32(side) / np.float32(whole)
        return cls(low, high, *(_round(np.float32(n) * factor) for n in (high - low + 1, under, over)))


def _round(value: np.float32) -> int:
    """To the nearest whole number, halves away from zero (as C does, unlike Python)."""
    return int(math.copysign(math.floor(abs(float(value)) + 0.5), float(value)))


class WindowBatches:
    """Makes batch after batch; see ahead.Maker. Background windows come first, then those of objects."""

    random = True

    def __init__(self, settings: Settings) -> None:
        """Reads the window file. Raises DataError, ConfigError."""
        self.settings = settings
        layer = settings.layer
        self._parameters, self._transform = layer.window_data_param, layer.transform_param
        check(settings)
        self._side = int(self._transform.crop_size)
        self._scale = np.float32((self._parameters if self._parameters.HasField("scale") else self._transform).scale)
        try:
            self._mean = self._read_mean()
            self._file = read_window_file(
                self._parameters.source,
                settings.folder,
                self._parameters.fg_threshold,
                self._parameters.bg_threshold,
            )
        except DataError as error:
            raise settings.bad(error) from None
        batch = self._parameters.batch_size
        self._objects = int(np.float32(batch) * np.float32(self._parameters.fg_fraction))
        for wanted, windows, what in (
            (batch - self._objects, self._file.background, f"an overlap below {self._parameters.bg_threshold:g}"),
            (self._objects, self._file.objects, f"an overlap of {self._parameters.fg_threshold:g} or more"),
        ):
            if wanted and not len(windows):
                raise settings.bad(
                    DataError(f"no window of {self._file.source} has {what}, and a batch needs {wanted} such windows")
                )
        self.count = len(self._file.objects) + len(self._file.background)
        self.shapes: list[tuple[int, ...]] = [(batch, CHANNELS, self._side, self._side), (batch,)]
        self._cache: dict[str, bytes] = {}
        self._decoders = Decoders(settings.threads)

    def make(self, position: int, draws: int) -> list[Floats]:
        """The batch with the random decisions from ``draws`` on; every record is drawn anew."""
        words = self.settings.words(draws, self._parameters.batch_size)
        data = np.zeros(self.shapes[0], np.float32)
        labels = np.empty(len(words), np.float32)
        first_object = len(words) - self._objects
        chosen = []
        for i, word in enumerate(words):
            windows = self._file.objects if i >= first_object else self._file.background
            chosen.append(windows.rows[int(word[0] % np.uint64(len(windows)))])
            labels[i] = chosen[-1][1]
        self._check_labels(labels, [int(row[6]) for row in chosen])

        def work(i: int) -> None:
            image, _, x1, y1, x2, y2, line = (int(n) for n in chosen[i])
            with self._blaming(line, self._file.images[image]):
                self._warp(self._load(image), (x1, y1, x2, y2), words[i], data[i])

        self._decoders.each(work, len(words))
        return [data, labels]

    def close(self) -> None:
        """Gives the decoders back."""
        self._decoders.close()

    def _load(self, image: int) -> Bytes:
        name = self._parameters.root_folder + self._file.images[image]
        content = self._cache.get(name)
        if content is None:
            content = read_file(resolve(name, self.settings.folder))
            if self._parameters.cache_images:
                self._cache[name] = content
        return decode(content, "colour")

    def _warp(self, image: Bytes, box: tuple[int, int, int, int], words: Words, out: Floats) -> None:
        flip = bool(self._transform.mirror) and bool(int(words[2]) & 1)
        height, width = image.shape[1:]
        square = self._parameters.crop_mode == "square"
        crop = place(box, (height, width), self._side, self._parameters.context_pad, square, flip)
        part = resize(image[:, crop.y1 : crop.y2 + 1, crop.x1 : crop.x2 + 1], crop.height, crop.width)
        rows, columns = slice(crop.top, crop.top + crop.height), slice(crop.left, crop.left + crop.width)
        pixels = part[:, :, ::-1] if flip else part
        mean = self._mean if self._mean.shape[1] == 1 else self._mean[:, rows, columns]
        out[:, rows, columns] = (pixels - mean) * self._scale

    def _read_mean(self) -> Floats:
        """The mean, channels x 1 x 1 or channels x side x side: what lies under the square, cut out of the middle."""
        values = self._transform.mean_value
        if not self._transform.mean_file:
            if len(values) not in (0, 1, CHANNELS):
                raise self.settings.wrong(
                    f"mean_value is given {len(values)} times, and windows have {CHANNELS} channels"
                )
            return np.array(values or [0], np.float32).reshape(-1, 1, 1)
        mean = read_mean(self._transform.mean_file, self.settings.folder)
        top, left = (mean.shape[1] - self._side) // 2, (mean.shape[2] - self._side) // 2
        if len(mean) != CHANNELS or min(top, left) < 0:
            shape = "x".join(map(str, mean.shape))
            raise self.settings.wrong(
                f"mean_file is {shape}, and has to be {CHANNELS}x{self._side}x{self._side} or larger (crop_size)"
            )
        return mean[:, top : top + self._side, left : left + self._side]

    def _check_labels(self, labels: Floats, lines: list[int]) -> None:
        top = self.settings.layer.top[1]
        classes = self.settings.classes.get(top)
        if classes is None or labels.max() < classes:
            return
        i = int(np.argmax(labels >= classes))
        raise self.settings.bad(
            DataError(
                f"line {lines[i]} of {self._file.source} has class {labels[i]:g}, "
                f'and top "{top}" must be 0 to {classes - 1} ({classes} classes, 0 for background)'
            )
        )

    @contextlib.contextmanager
    def _blaming(self, line: int, image: str) -> Iterator[None]:
        try:
            yield
        except RecordError as error:
            text = f"the window on line {line} of {self._file.source} ({image}) cannot be used: {error}"
            raise self.settings.bad(DataError(text)) from None


class WindowFeeder(AheadFeeder):
    """The feeder of a WindowData layer; see feeder.Feeder for the interface."""

    def __init__(self, settings: Settings) -> None:
        """Opens the window file.

        Raises:
            DataError, ConfigError: see open_feeder.
        """
        super().__init__(WindowBatches(settings))


def check(settings: Settings) -> None:
    """Raises ConfigError if window_data_param and transform_param cannot be used, whatever the data."""
    parameters, transform = settings.layer.window_data_param, settings.layer.transform_param
    if not parameters.source:
        raise settings.wrong("window_data_param needs a source, a window file")
    if not parameters.batch_size:
        raise settings.wrong("window_data_param needs a batch_size of 1 or more")
    if len(settings.layer.top) != 2:
        raise settings.wrong(f"it has {len(settings.layer.top)} tops, and makes two (data and label)")
    if not transform.crop_size:
        raise settings.wrong("transform_param needs a crop_size, the side of the squares that windows become")
    if parameters.crop_mode not in MODES:
        raise settings.wrong(f'crop_mode "{parameters.crop_mode}" is not known; it is warp or square')
    if 2 * parameters.context_pad >= transform.crop_size:
        raise settings.wrong(
            f"context_pad {parameters.context_pad} on both sides leaves nothing of crop_size {transform.crop_size}"
        )
    if not 0 <= parameters.fg_fraction <= 1:
        raise settings.wrong(f"fg_fraction is {parameters.fg_fraction:g}, and has to be 0 to 1")
    settings.check_transform()


def window_shapes(settings: Settings) -> list[tuple[int, ...]]:
    """The shapes of the tops, which do not depend on the data."""
    check(settings)
    batch, side = settings.layer.window_data_param.batch_size, int(settings.layer.transform_param.crop_size)
    return [(batch, CHANNELS, side, side), (batch,)]


__all__ = ["Crop", "WindowBatches", "WindowFeeder", "check", "place", "window_shapes"]
