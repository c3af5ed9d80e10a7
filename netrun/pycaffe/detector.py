"""Windows of images to scores, as ``caffe.Detector``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from . import io
from .classifier import Prepared

Array = npt.NDArray[Any]
Window = Sequence[float]
"""ymin, xmin, ymax, xmax."""


class Detector(Prepared):
    """A net that scores windows of images.

    Args:
        model_file, pretrained_file: the deploy net and its weights.
        mean, input_scale, raw_scale, channel_swap: see ``caffe.io.Transformer``.
        context_pad: pixels of the surroundings around each window, measured in the net's input.
    """

    def __init__(
        self,
        model_file: Any,
        pretrained_file: Any,
        mean: npt.ArrayLike | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
        context_pad: int | None = None,
    ) -> None:
        super().__init__(model_file, pretrained_file, mean, input_scale, raw_scale, channel_swap)
        self.configure_crop(context_pad)

    def detect_windows(self, images_windows: Iterable[tuple[Any, Iterable[Window]]]) -> list[dict[str, Any]]:
        """Scores of windows.

        Args:
            images_windows: pairs of an image's file name and its windows (ymin, xmin, ymax, xmax).

        Returns:
            A dictionary for each window: ``window``, ``prediction`` and ``filename``.
        """
        found: list[tuple[str, Any]] = []
        crops: list[Array] = []
        for name, windows in images_windows:
            image = io.load_image(name).astype(np.float32)
            for window in windows:
                crops.append(self.crop(image, np.asarray(window)))
                found.append((name, window))
        scores: Any = self._classify(crops).reshape(len(crops), -1) if crops else []
        return [
            {"window": window, "prediction": score, "filename": name}
            for (name, window), score in zip(found, scores, strict=True)
        ]

    def detect_selective_search(self, image_fnames: Sequence[Any]) -> list[dict[str, Any]]:
        """Selective search needs a package for MATLAB that is not part of netrun.

        Raises:
            UsageError: always.
        """
        raise UsageError("selective search is not available: find the windows and call detect_windows")

    def crop(self, im: Array, window: Array) -> Array:
        """The window of an image H W C with its surroundings (``context_pad``), what lies off the image filled with the
        mean."""
        box = np.asarray(window, float)
        if not self.context_pad:
            top, left, bottom, right = (int(n) for n in box)
            return im[top:bottom, left:right]
        side = self.blobs[self.inputs[0]].shape[2]
        middle = (box[:2] + box[2:]) / 2
        half = (box[2:] - box[:2]) / 2 * side / (side - 2 * self.context_pad)
        start, stop = np.round(middle - half).astype(int), np.round(middle + half).astype(int)
        inner_start, inner_stop = np.maximum(start, 0), np.minimum(stop, im.shape[:2])
        scale = side / np.maximum(stop - start, 1)
        found = np.array(self.crop_mean)
        at = np.round((inner_start - start) * scale).astype(int)
        size = np.clip(np.round((inner_stop - inner_start) * scale).astype(int), 1, side - at)
        part = im[inner_start[0] : inner_stop[0], inner_start[1] : inner_stop[1]]
        found[at[0] : at[0] + size[0], at[1] : at[1] + size[1]] = io.resize_image(part, size)
        return found

    def configure_crop(self, context_pad: int | None) -> None:
        """Set ``context_pad``, and the mean as an image to fill up with."""
        name = self.inputs[0]
        channels, height, width = self.blobs[name].shape[1:]
        self.context_pad = context_pad
        self.crop_mean: Array = np.zeros((height, width, channels), np.float32)
        if context_pad and name in self.transformer.mean:
            mean = np.broadcast_to(self.transformer.mean[name], (channels, height, width))
            if name in self.transformer.channel_swap:
                mean = mean[list(np.argsort(self.transformer.channel_swap[name]))]
            if name in self.transformer.raw_scale:
                mean = mean / self.transformer.raw_scale[name]
            self.crop_mean = mean.transpose(1, 2, 0).astype(np.float32)
