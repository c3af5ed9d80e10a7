"""Images to scores, as ``caffe.Classifier``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..config import schema
from . import io
from .net import Net

Array = npt.NDArray[Any]


class Prepared(Net):
    """A net with a Transformer for its first input; arguments as those of Classifier."""

    def __init__(
        self,
        model_file: Any,
        pretrained_file: Any,
        mean: npt.ArrayLike | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ) -> None:
        super().__init__(model_file, schema.TEST, weights=pretrained_file)
        name = self.inputs[0]
        self.transformer = io.Transformer({name: self.blobs[name].data.shape})
        self.transformer.set_transpose(name, (2, 0, 1))
        if mean is not None:
            self.transformer.set_mean(name, mean)
        if input_scale is not None:
            self.transformer.set_input_scale(name, input_scale)
        if raw_scale is not None:
            self.transformer.set_raw_scale(name, raw_scale)
        if channel_swap is not None:
            self.transformer.set_channel_swap(name, channel_swap)

    def _classify(self, images: Sequence[Array] | Array) -> Array:
        """The first output for every image H W C."""
        name = self.inputs[0]
        values = np.zeros((len(images), *self.blobs[name].shape[1:]), np.float32)
        for i, image in enumerate(images):
            values[i] = self.transformer.preprocess(name, image)
        given: dict[str, Any] = {name: values}
        found: Array = self.forward_all(**given)[self.outputs[0]]
        return found


class Classifier(Prepared):
    """A net that takes images.

    Args:
        model_file, pretrained_file: the deploy net and its weights.
        image_dims: height and width images are scaled to before they are cropped; the input's own by default.
        mean, input_scale, raw_scale, channel_swap: see ``caffe.io.Transformer``.
    """

    def __init__(
        self,
        model_file: Any,
        pretrained_file: Any,
        image_dims: Sequence[int] | None = None,
        mean: npt.ArrayLike | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ) -> None:
        super().__init__(model_file, pretrained_file, mean, input_scale, raw_scale, channel_swap)
        self.crop_dims = np.array(self.blobs[self.inputs[0]].data.shape[2:])
        self.image_dims = self.crop_dims if image_dims is None else np.array(image_dims)

    def predict(self, inputs: Any, oversample: bool = True, **_: Any) -> Array:  # type: ignore[override]
        """Scores N x classes of images H W C.

        Args:
            oversample: average over ten crops (corners, centre, mirrored) in place of the centre alone.
        """
        images = [io.resize_image(image, self.image_dims) for image in inputs]
        if oversample:
            found = self._classify(io.oversample(images, self.crop_dims))
            mean: Array = found.reshape(len(found) // 10, 10, -1).mean(1)
            return mean
        height, width = (int(n) for n in self.crop_dims)
        top, left = (int(n) for n in (self.image_dims - self.crop_dims) / 2)
        return self._classify([image[top : top + height, left : left + width] for image in images])
