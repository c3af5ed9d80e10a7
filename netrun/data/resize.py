"""Resizing of 8-bit images: bilinear, with the fixed-point arithmetic of OpenCV's INTER_LINEAR, level by level."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]
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
    outside = (left < 0) | (left >= columns - 1)
    of_left[outside], of_right[outside] = 1 << _BITS, 0
    top, bottom, of_top, of_bottom = _weights(rows, height)

    # Only rows that are used, and in place where it goes: this takes as long as decoding the image does.
    used, place = np.unique(np.clip(np.concatenate([top, bottom]), 0, rows - 1), return_inverse=True)
    lines = np.take(np.ascontiguousarray(planes), used, axis=1)
    mixed = _weighed(lines, left, of_left, 2)
    mixed += _weighed(lines, right, of_right, 2)
    mixed >>= 4
    upper = _weighed(mixed, place[:height], of_top, 1)
    upper >>= 16
    lower = _weighed(mixed, place[height:], of_bottom, 1)
    lower >>= 16
    upper += lower
    upper += 2
    upper >>= 2
    resized: Bytes = upper.astype(np.uint8)
    return resized


def _weighed(values: npt.NDArray[Any], places: Places, weights: Weights, axis: int) -> npt.NDArray[np.int32]:
    """The values at places along an axis (the nearest one there is), each times its weight."""
    found = np.take(values, places, axis=axis, mode="clip").astype(np.int32, copy=False)
    found *= weights if axis == 2 else weights[:, np.newaxis]
    return found


def _weights(size: int, wanted: int) -> tuple[Places, Places, Weights, Weights]:
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
