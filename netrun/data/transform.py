"""transform_param: subtract the mean, scale, crop, mirror.

``top = (value - mean) * scale`` in float32; a mean file is cropped and mirrored together with the values it belongs to.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..config import schema
from .datum import RecordError, size_text
from .feeder import Floats
from .order import Words

Values = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
Shape3 = tuple[int, int, int]


class Transform:
    """The transform of one data layer, for records of C channels.

    In TRAIN the crop is at a random place, in TEST at the centre (offset rounded down); a mirror is random in both,
    as in Caffe.
    """

    def __init__(self, param: schema.TransformationParameter, phase: int, record: Shape3, mean: Floats | None) -> None:
        """``record`` is C, H, W of the first record; ``mean`` is the content of mean_file, if there is one.

        Raises:
            RecordError: the mean or the crop does not fit the record.
        """
        channels, height, width = record
        self._crop, self._scale = int(param.crop_size), np.float32(param.scale)
        self._mirror = bool(param.mirror)
        self._random_crop = bool(self._crop) and phase == schema.TRAIN
        self._record = record
        self._mean: Any = None  # broadcasts against C H W, or None
        if mean is not None:
            if mean.shape != record:
                raise RecordError(f"mean_file is {size_text(mean.shape)}, and the record is {size_text(record)}")
            self._mean = mean
        elif param.mean_value:
            if len(param.mean_value) not in (1, channels):
                raise RecordError(
                    f"mean_value is given {len(param.mean_value)} times, and the record has {channels} channels"
                )
            self._mean = np.array(param.mean_value, np.float32).reshape(-1, 1, 1)
        self._whole_mean = mean is not None
        side = self._crop
        self.shape: Shape3 = (channels, side or height, side or width)
        self.check(record)

    @property
    def random(self) -> bool:
        """Whether it makes random decisions, so that it needs words."""
        return self._random_crop or self._mirror

    def check(self, record: Shape3) -> None:
        """Raises RecordError if a record of this shape cannot become a top of the shape that was fixed."""
        if record[0] != self.shape[0]:
            raise RecordError(f"it has {record[0]} channels, and the first record has {self.shape[0]}")
        if self._crop > min(record[1:]):
            raise RecordError(f"it is {record[1]}x{record[2]}, too small for crop_size {self._crop}")
        if record != self._record and (self._whole_mean or not self._crop):
            why = "mean_file has the size of the first" if self._crop else "without crop_size all must be alike"
            raise RecordError(f"it is {size_text(record)}, and the first record is {size_text(self._record)}: {why}")

    def batch(self, values: Values, words: Words | None, out: Floats) -> None:
        """Transforms equal records at once: values B C H W, words B x 4, out B C h w."""
        if self._random_crop:
            for i in range(len(out)):
                self.one(values[i], None if words is None else words[i], out[i])
            return
        y, x = self._corner(values.shape, None)
        self._apply(values, y, x, out)
        if self._mirror and words is not None:
            chosen = np.flatnonzero(words[:, 2] & np.uint64(1))
            out[chosen] = out[chosen, :, :, ::-1]

    def one(self, values: Values, words: Words | None, out: Floats) -> None:
        """Transforms one record: values C H W, its four random words, out C h w."""
        y, x = self._corner(values.shape, words)
        flip = self._mirror and words is not None and int(words[2]) & 1
        self._apply(values, y, x, out[:, :, ::-1] if flip else out)

    def _corner(self, shape: tuple[int, ...], words: Words | None) -> tuple[int, int]:
        if not self._crop:
            return 0, 0
        free_y, free_x = shape[-2] - self._crop, shape[-1] - self._crop
        if self._random_crop and words is not None:
            return int(words[0]) % (free_y + 1), int(words[1]) % (free_x + 1)
        return free_y // 2, free_x // 2

    def _apply(self, values: Values, y: int, x: int, out: Floats) -> None:
        """out = (values[crop] - mean[crop]) * scale; the dtype is told so that no NumPy version takes a smaller one."""
        height, width = out.shape[-2:]
        part = values[..., y : y + height, x : x + width]
        if self._mean is None:
            np.multiply(part, self._scale, out=out, dtype=np.float32)
            return
        mean = self._mean[:, y : y + height, x : x + width] if self._whole_mean else self._mean
        np.subtract(part, mean, out=out, dtype=np.float32)
        if self._scale != 1:
            out *= self._scale
