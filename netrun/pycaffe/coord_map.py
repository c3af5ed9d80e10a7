"""How the pixels of one blob lie over those of another, and the Crop layer that brings two of them to the same frame.

A map is (axis, scale, shift): coordinate x of the upper blob lies over scale * x + shift of the lower one, along the
axes from ``axis`` on; None means that a layer leaves coordinates alone. As ``caffe.coord_map``.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from ..errors import UsageError
from ..netspec import Function, Top
from ..netspec import layers as L

Map = tuple[Any, Any, Any]

PASS_THROUGH_LAYERS = [
    "AbsVal", "BatchNorm", "Bias", "BNLL", "Dropout", "Eltwise", "ELU", "Exp", "Log", "LRN", "MVN", "Power", "PReLU",
    "ReLU", "Scale", "Sigmoid", "Split", "TanH", "Threshold", "Clip", "Swish",
]  # fmt: skip
"""Layers that leave every pixel where it is."""

IDENTITY: Map = (None, 1, 0)


class UndefinedMapException(UsageError):  # noqa: N818
    """A layer has no map of coordinates (InnerProduct, say)."""


class AxisMismatchException(UsageError):  # noqa: N818
    """Two maps are about different axes."""


class NotConnectedError(UsageError, RuntimeError):
    """No chain of layers with maps leads from one top to the other."""


class CropError(UsageError, AssertionError):
    """No crop brings one top to the other: they differ in scale, or it would grow, or move by half a pixel."""


def conv_params(fn: Function) -> tuple[Any, Any, Any, Any]:
    """(axis, stride, extent of the kernel, pad) of a Convolution, Deconvolution, Im2col or Pooling."""
    given = fn.params.get("convolution_param", fn.params.get("pooling_param", fn.params))
    legacy = {f"{what}_{side}" for what in ("kernel", "pad", "stride") for side in "hw"} & {*given, *fn.params}
    if legacy:
        raise CropError(f"{fn.type_name}: cropping does not support {', '.join(sorted(legacy))}; write them as lists")
    kernel = np.array(given["kernel_size"], ndmin=1)
    extent = (kernel - 1) * np.array(given.get("dilation", 1), ndmin=1) + 1
    return (
        given.get("axis", 1),
        np.array(given.get("stride", 1), ndmin=1),
        extent,
        np.array(given.get("pad", 0), ndmin=1),
    )


def crop_params(fn: Function) -> tuple[Any, Any]:
    """(axis, offset) of a Crop."""
    given = fn.params.get("crop_param", fn.params)
    return given.get("axis", 2), np.array(given.get("offset", 0), ndmin=1)


def coord_map(fn: Function) -> Map:
    """The map of one layer.

    Raises:
        UndefinedMapException: it has none.
    """
    if fn.type_name in PASS_THROUGH_LAYERS:
        return IDENTITY
    if fn.type_name in ("Convolution", "Pooling", "Im2col"):
        axis, stride, extent, pad = conv_params(fn)
        return axis, 1 / stride, (pad - (extent - 1) / 2) / stride
    if fn.type_name == "Deconvolution":
        axis, stride, extent, pad = conv_params(fn)
        return axis, stride, (extent - 1) / 2 - pad
    if fn.type_name == "Crop":
        axis, offset = crop_params(fn)
        return axis - 1, 1, -offset  # counted as the convolutions do: from the axis before the first that is cropped
    raise UndefinedMapException(f"a {fn.type_name} layer has no map of coordinates")


def compose(base_map: Map, next_map: Map) -> Map:
    """First the second map, then the first one.

    Raises:
        AxisMismatchException: they are about different axes.
    """
    (axis, scale, shift), (other, scale2, shift2) = base_map, next_map
    if axis is not None and other is not None and axis != other:
        raise AxisMismatchException(f"a map from axis {axis} on meets one from axis {other} on")
    return (other if axis is None else axis), scale * scale2, scale * shift2 + shift


def inverse(coord_map: Map) -> Map:
    """The map the other way round."""
    axis, scale, shift = coord_map
    return axis, 1 / scale, -shift / scale


def _below(top: Top) -> dict[Top, Map]:
    """Every top that can be reached from ``top`` downwards, with the map to it; nearest first."""
    found = {top: IDENTITY}
    open_ = deque([top])
    while open_:
        current = open_.popleft()
        # The second bottom of a Crop gives a size, no pixels.
        bottoms = current.fn.inputs[:1] if current.fn.type_name == "Crop" else current.fn.inputs
        try:
            step = coord_map(current.fn) if bottoms else IDENTITY
        except UndefinedMapException:
            continue
        for bottom in bottoms:
            if bottom not in found:
                found[bottom] = compose(found[current], step)
                open_.append(bottom)
    return found


def coord_map_from_to(top_from: Top, top_to: Top) -> Map:
    """The map from one top to another, through the nearest top that both come from.

    Raises:
        NotConnectedError: there is none.
    """
    ours = _below(top_from)
    for top, theirs in _below(top_to).items():
        if top in ours:
            return compose(theirs, inverse(ours[top]))
    raise NotConnectedError("Could not compute map between tops; are they connected by spatial layers?")


def crop(top_from: Top, top_to: Top) -> Any:
    """A Crop layer that brings ``top_from`` to the frame of ``top_to``.

    Raises:
        CropError: the two differ in scale, or the offset is negative or no whole number. NotConnectedError.
    """
    axis, scale, shift = coord_map_from_to(top_from, top_to)
    scale, shift = np.atleast_1d(scale), np.atleast_1d(shift)
    if not (scale == 1).all():
        raise CropError(f"scale mismatch on crop (scale = {scale})")
    if not (shift <= 0).all():
        raise CropError(f"cannot crop negative offset (offset = {-shift})")
    if not (np.round(shift) == shift).all():
        raise CropError(f"cannot crop noninteger offset (offset = {-shift})")
    offset = [int(n) for n in -np.round(shift)]
    return L.Crop(top_from, top_to, crop_param={"axis": (1 if axis is None else axis) + 1, "offset": offset})
