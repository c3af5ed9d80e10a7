"""Images in, scores out: every image is prepared as the net's own config says, in batches."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .config import schema
from .data.datum import RecordError
from .data.images import read_image
from .data.resize import resize
from .data.stats import read_mean
from .data.transform import Transform
from .errors import DataError, UsageError
from .images import resize_floats
from .types import Shape

if TYPE_CHECKING:
    from .net import Net

Image = Any
Images = Any
"""One image (path, PIL image, array) or a sequence of them."""

Planes = npt.NDArray[Any]

MARGIN = 8 / 7
"""An image that is cropped is first scaled so that its shorter side is this times the crop: 256 for 224."""


class Predictor:
    """Prepares images for one net: transform_param of its input layer, or nothing but the size without one."""

    def __init__(self, net: schema.NetParameter, folder: str, inputs: Sequence[str]) -> None:
        """
        Raises:
            UsageError: the net has not exactly one input.
            DataError: its mean file cannot be read.
        """
        if len(inputs) != 1:
            listed = ", ".join(inputs) or "none"
            raise UsageError(
                f"predict needs a net with one input, this one has {listed}",
                None,
                ["netrun.load(net, weights) makes one of a training net"],
            )
        self.input = inputs[0]
        layer = next(m for m in net.layer if self.input in m.top)
        self.param = schema.TransformationParameter()
        self.param.CopyFrom(layer.transform_param)
        self.param.mirror = False  # predictions are not a matter of chance
        self.mean = read_mean(self.param.mean_file, folder) if self.param.mean_file else None
        self.size: tuple[int, int] | None = None
        if layer.HasField("image_data_param") and layer.image_data_param.new_height:
            self.size = layer.image_data_param.new_height, layer.image_data_param.new_width
        elif self.mean is not None:
            self.size = self.mean.shape[1], self.mean.shape[2]
        self._transforms: dict[tuple[int, int, int], Transform] = {}
        self._given = self.param.crop_size, self.mean
        self._settled: Shape = ()

    def _settle(self, wanted: Shape) -> None:
        """A net for use says no crop: of a mean image larger than its input the middle is taken, as of the images that
        it is subtracted from; any other one is scaled."""
        if self._settled == wanted:
            return
        self._settled = wanted
        self._transforms.clear()
        self.param.crop_size, self.mean = self._given
        if self.mean is None or self.param.crop_size or self.mean.shape[1:] == wanted[1:]:
            return
        if wanted[1] == wanted[2] <= min(self.mean.shape[1:]):
            self.param.crop_size = wanted[1]
        else:
            self.mean = resize_floats(self.mean, wanted[1], wanted[2])
            self.size = wanted[1], wanted[2]

    def set_mean(self, mean: npt.ArrayLike) -> None:
        """Subtract this in place of what the config says: a number a channel (B, G, R), or C H W.

        Raises:
            UsageError: it has other axes.
        """
        values = np.asarray(mean, np.float32)
        if values.ndim not in (1, 3):
            raise UsageError(f"a mean is a number a channel or C H W, this one has the shape {values.shape}")
        self.param.ClearField("mean_file")
        self.param.ClearField("mean_value")
        if values.ndim == 1:
            self.mean = None
            self.param.mean_value.extend(values.tolist())
        else:
            self.mean, self.size = values, (values.shape[1], values.shape[2])
        self._given, self._settled = (self._given[0], self.mean), ()

    def run(self, net: Net, images: Images, batch: int | None = None) -> Any:
        """The outputs for one image or several; see Net.predict."""
        several = isinstance(images, (list, tuple)) or (isinstance(images, np.ndarray) and images.ndim == 4)
        given: list[Image] = list(images) if several else [images]
        blob = net.blobs[self.input]
        if len(blob.shape) != 4:
            raise UsageError(f"predict needs an input with the axes N C H W, {blob!r} has other ones")
        configured = blob.shape
        size = max(1, min(batch or configured[0], len(given)))
        rows: list[dict[str, Any]] = []
        try:
            for start in range(0, len(given), size):
                part = given[start : start + size]
                values = np.zeros((size, *configured[1:]), np.float32)
                for i, image in enumerate(part):
                    values[i] = self.prepare(image, configured[1:], start + i)
                net.reshape(**{self.input: values.shape})
                feed: dict[str, Any] = {self.input: values}
                found = net.forward(**feed)
                rows.append({name: np.array(value[: len(part)]) for name, value in found.items()})
        finally:
            net.reshape(**{self.input: configured})
        return _joined(rows, several)

    def prepare(self, image: Image, wanted: Shape, number: int = 0) -> Planes:
        """One image as values C H W of the shape ``wanted``.

        Raises:
            DataError: it cannot be read, or is no image.
        """
        self._settle(wanted)
        named = f'"{image}"' if isinstance(image, (str, os.PathLike)) else f"image {number}"
        try:
            planes = self._planes(image, wanted[0])
            planes = self._scaled(planes, wanted)
            transform = self._transforms.get(planes.shape)
            if transform is None:
                transform = Transform(self.param, schema.TEST, planes.shape, self.mean)
                self._transforms[planes.shape] = transform
            out = np.empty(transform.shape, np.float32)
            transform.one(planes, None, out)
        except RecordError as error:
            raise DataError(f"{named}: {error}") from None
        if out.shape != tuple(wanted):
            got, needs = (" ".join(map(str, s)) for s in (out.shape, wanted))
            raise DataError(f"{named}: prepared it has the shape {got}, the net wants {needs}")
        return out

    def _planes(self, image: Image, channels: int) -> Planes:
        """C H W, colours in the order B, G, R."""
        if isinstance(image, (str, os.PathLike)):
            return read_image(str(Path(image)), "gray" if channels == 1 else "colour")
        array = np.asarray(image)
        if array.dtype.kind not in "uifb" or array.ndim not in (2, 3):
            raise RecordError(f"it is no image: {type(image).__name__} of {array.ndim} axes, type {array.dtype}")
        if array.ndim == 2:
            array = array[:, :, np.newaxis]
        elif array.shape[-1] not in (1, 3, 4) or (array.shape[0] == channels and array.shape[-1] != channels):
            if array.shape[0] != channels:
                raise RecordError(f"an array of the shape {array.shape} is no image of {channels} channels")
            return np.ascontiguousarray(array)
        array = array[:, :, :3] if array.shape[-1] == 4 else array
        if array.shape[-1] == 1 and channels == 3:
            array = np.repeat(array, 3, axis=2)
        elif array.shape[-1] == 3 and channels == 1:
            array = (array @ np.array([0.299, 0.587, 0.114]))[:, :, np.newaxis].astype(array.dtype)
        return np.ascontiguousarray(array[:, :, ::-1].transpose(2, 0, 1))

    def _scaled(self, planes: Planes, wanted: Shape) -> Planes:
        height, width = planes.shape[1:]
        crop = int(self.param.crop_size)
        target = (wanted[1], wanted[2])
        if self.size is not None:
            target = self.size
        elif crop:
            if (height, width) == target:
                return planes
            shorter = round(crop * MARGIN)
            scale = shorter / min(height, width)
            target = max(shorter, round(height * scale)), max(shorter, round(width * scale))
        if (height, width) == target:
            return planes
        if planes.dtype == np.uint8:
            return resize(planes, *target)
        return resize_floats(planes, *target)


def _joined(rows: Sequence[Mapping[str, Any]], several: bool) -> Any:
    if not rows:
        return np.zeros((0,), np.float32)
    found = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    if not several:
        found = {name: value[0] for name, value in found.items()}
    return next(iter(found.values())) if len(found) == 1 else found


__all__ = ["Images", "Predictor"]
