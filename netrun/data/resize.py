"""Resizing of 8-bit images: bilinear, with the fixed-point arithmetic of OpenCV's INTER_LINEAR, level by level."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Weights = npt.NDArray[np.int32]

_BITS = 11  # of a weight after the point


def resize(planes: Bytes, height: int, width: int) -> Bytes:
    """The image C H W, uint8, as C height width.

    Pixel centres are mapped onto pixel centres, and the four neighbours are weighed with 11-bit weights; nothing is
    smoothed before an image shrinks. Half the size in both axes is the rounded mean of 2x2 pixels, as in OpenCV, where
    nets were trained on the result.
    """
    rows, columns = planes.shape[1:]
    if (rows, columns) == (height, width):
        return planes
    if (rows, columns) == (2 * height, 2 * width):
        blocks = planes.reshape(len(planes), height, 2, width, 2).sum(axis=(2, 4), dtype=np.uint16)
        quarter: Bytes = ((blocks + np.uint16(2)) >> np.uint16(2)).astype(np.uint8)
        return quarter
    left, right, of_left, of_right = _weights(columns, width)
    # Off the image the border pixel goes on. Along x it then has the whole weight; along y it keeps two parts, which
    # are rounded one by one.
    inside = (left >= 0) & (left < columns - 1)
    of_left, of_right = np.where(inside, of_left, 1 << _BITS), np.where(inside, of_right, 0)
    left, right = np.clip(left, 0, columns - 1), np.clip(right, 0, columns - 1)
    top, bottom, of_top, of_bottom = _weights(rows, height)
    top, bottom = np.clip(top, 0, rows - 1), np.clip(bottom, 0, rows - 1)

    used, place = np.unique(np.concatenate([top, bottom]), return_inverse=True)
    lines = planes[:, used].astype(np.int32)
    lines = (lines[:, :, left] * of_left + lines[:, :, right] * of_right) >> 4
    upper = (lines[:, place[:height]] * of_top[:, np.newaxis]) >> 16
    lower = (lines[:, place[height:]] * of_bottom[:, np.newaxis]) >> 16
    resized: Bytes = ((upper + lower + 2) >> 2).astype(np.uint8)
    return resized


def _weights(size: int, wanted: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Weights, Weights]:
    """For each of the wanted pixels along an axis: its two neighbours, which may lie off the image, and their weights.

    Positions are worked out in double precision and weights in single, since their rounding shows in the result.
    """
    scale = 1.0 / (wanted / size)
    position = ((np.arange(wanted) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(position).astype(np.int64)
    fraction = position - first.astype(np.float32)
    one, unit = np.float32(1), np.float32(1 << _BITS)
    return (
        first,
        first + 1,
        np.rint((one - fraction) * unit).astype(np.int32),
        np.rint(fraction * unit).astype(np.int32),
    )
