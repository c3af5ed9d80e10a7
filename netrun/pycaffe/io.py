"""Images and arrays in and out, as ``caffe.io``. Images are H W C, float, colours in the order R, G, B."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..blob import ShapeMismatchError
from ..config import schema
from ..data.datum import RecordError
from ..data.images import read_image
from ..errors import DataError, nearest
from ..images import resize_floats
from ..names import UnknownBlobError
from .errors import MissingImageError
from .proto import caffe_pb2

Array = npt.NDArray[Any]
AnyProto = Any
"""A BlobProto or a Datum."""


# ----------------------------------------------------------------------------------------------------- messages, arrays
def blobproto_to_array(blob: AnyProto, return_diff: bool = False) -> Array:
    """The values of a BlobProto (or its gradient), in its shape: of four axes if it is an old one.

    Raises:
        ShapeMismatchError: the number of values is another.
    """
    values = np.array(blob.diff if return_diff else blob.data)
    if values.size == 0:
        values = np.array(blob.double_diff if return_diff else blob.double_data)
    old = any(blob.HasField(name) for name in ("num", "channels", "height", "width"))
    shape = (blob.num, blob.channels, blob.height, blob.width) if old else tuple(blob.shape.dim)
    try:
        return values.reshape(shape)
    except ValueError:
        raise ShapeMismatchError(f"a BlobProto of the shape {shape} holds {values.size} values") from None


def array_to_blobproto(arr: npt.ArrayLike, diff: npt.ArrayLike | None = None) -> schema.BlobProto:
    """A BlobProto with the values of an array, and its gradient."""
    array = np.asarray(arr)
    blob = schema.BlobProto()
    blob.shape.dim.extend(array.shape)
    blob.data.extend(array.astype(float).flat)
    if diff is not None:
        blob.diff.extend(np.asarray(diff).astype(float).flat)
    return blob


def arraylist_to_blobprotovector_str(arraylist: Sequence[npt.ArrayLike]) -> bytes:
    """Arrays as the bytes of a BlobProtoVector."""
    vector = schema.BlobProtoVector()
    vector.blobs.extend(array_to_blobproto(array) for array in arraylist)
    return vector.SerializeToString()


arraylist_to_blobprotovecor_str = arraylist_to_blobprotovector_str
"""As pycaffe spells it."""


def blobprotovector_str_to_arraylist(text: bytes) -> list[Array]:
    """The arrays in the bytes of a BlobProtoVector."""
    return [blobproto_to_array(blob) for blob in schema.BlobProtoVector.FromString(text).blobs]


def array_to_datum(arr: npt.ArrayLike, label: int | None = None) -> schema.Datum:
    """A Datum with the values C H W of an array: bytes of a uint8 array, else floats.

    Raises:
        ShapeMismatchError: the array has not three axes.
    """
    array = np.asarray(arr)
    if array.ndim != 3:
        raise ShapeMismatchError(f"Incorrect array shape: a Datum has the axes C H W, the array has {array.shape}")
    datum = schema.Datum(channels=array.shape[0], height=array.shape[1], width=array.shape[2])
    if array.dtype == np.uint8:
        datum.data = array.tobytes()
    else:
        datum.float_data.extend(array.astype(float).flat)
    if label is not None:
        datum.label = label
    return datum


def datum_to_array(datum: schema.Datum) -> Array:
    """The values C H W of a Datum that is not an encoded image (its label is ``datum.label``).

    Raises:
        ShapeMismatchError: the number of values does not fit its sizes.
    """
    shape = datum.channels, datum.height, datum.width
    values: Array = np.frombuffer(datum.data, np.uint8) if datum.data else np.array(datum.float_data, float)
    try:
        return values.reshape(shape)
    except ValueError:
        raise ShapeMismatchError(f"a Datum of C H W = {shape} holds {values.size} values") from None


# --------------------------------------------------------------------------------------------------------------- images
def load_image(filename: str | os.PathLike[str], color: bool = True) -> Array:
    """An image file as floats in [0, 1], H W 3 (R, G, B), or H W 1 with color=False.

    Raises:
        MissingImageError: there is no such file. DataError: it is no image.
    """
    name = os.fspath(filename)
    if not os.path.isfile(name):
        raise MissingImageError(f"there is no file {name}")
    try:
        planes = read_image(name, "colour" if color else "gray")
    except RecordError as error:
        raise DataError(f"{name}: {error}") from None
    image: Array = np.ascontiguousarray(planes[::-1].transpose(1, 2, 0)).astype(np.float32)
    image /= 255
    return image


def resize_image(im: Array, new_dims: Sequence[int] | Array, interp_order: int = 1) -> Array:
    """An image H W C in another size (height, width), float32.

    With 1 or 3 channels pixels are areas, and the border goes on outside; with any other number the corners stay where
    they are, as in pycaffe.

    Args:
        interp_order: 0 takes the nearest pixel, anything else is bilinear.

    Raises:
        ShapeMismatchError: it is no image, or no size.
    """
    image, wanted = np.asarray(im), np.asarray(new_dims)
    if image.ndim != 3 or not image.size:
        raise ShapeMismatchError(f"resize_image wants an image H W C, got an array of the shape {image.shape}")
    if wanted.shape != (2,) or wanted.dtype.kind not in "iuf" or (wanted < 1).any():
        raise ShapeMismatchError(f"resize_image wants a new height and width, got {new_dims}")
    height, width = (int(n) for n in wanted)
    if image.shape[:2] == (height, width):
        return image.astype(np.float32)
    planes = image.transpose(2, 0, 1)
    if interp_order == 0:
        rows = ((np.arange(height) + 0.5) * planes.shape[1] / height).astype(int)
        columns = ((np.arange(width) + 0.5) * planes.shape[2] / width).astype(int)
        found = planes[:, rows[:, np.newaxis], columns]
    elif len(planes) in (1, 3):
        found = resize_floats(planes, height, width)
    else:
        found = _zoomed(_zoomed(planes, 1, height), 2, width)
    return np.ascontiguousarray(found.transpose(1, 2, 0)).astype(np.float32)


def _zoomed(planes: Array, axis: int, size: int) -> Array:
    """Another length of one axis, linear between the pixels; the first and the last stay what they are."""
    old = planes.shape[axis]
    place = np.arange(size) * ((old - 1) / max(size - 1, 1))
    first = np.minimum(place.astype(int), max(old - 2, 0))
    part = (place - first).reshape((-1, 1) if axis == 1 else (1, -1))
    zoomed: Array = planes.take(first, axis) * (1 - part) + planes.take(np.minimum(first + 1, old - 1), axis) * part
    return zoomed


def oversample(images: Sequence[Array], crop_dims: Sequence[int] | Array) -> Array:
    """Ten crops of every image H W C: the four corners and the centre, then the same mirrored.

    Args:
        crop_dims: height and width of a crop.

    Returns:
        10 N, height, width, C.
    """
    if not len(images):
        raise ShapeMismatchError("oversample wants one image at least")
    height, width = (int(n) for n in crop_dims)
    rows, columns, channels = np.asarray(images[0]).shape
    if height > rows or width > columns:
        raise ShapeMismatchError(f"crops of {height} x {width} do not fit into images of {rows} x {columns}")
    corners = [(y, x) for y in (0, rows - height) for x in (0, columns - width)]
    corners.append((int(rows / 2 - height / 2), int(columns / 2 - width / 2)))
    crops = np.empty((10 * len(images), height, width, channels), np.float32)
    for i, image in enumerate(images):
        for j, (y, x) in enumerate(corners):
            crops[10 * i + j] = np.asarray(image)[y : y + height, x : x + width]
        crops[10 * i + 5 : 10 * i + 10] = crops[10 * i : 10 * i + 5, :, ::-1]
    return crops


class Transformer:
    """Prepares images for a net, and makes pictures of its inputs again.

    What was set is done in this order: resize to the input's size, transpose, swap channels, raw_scale, subtract the
    mean, input_scale.

    Args:
        inputs: shape of every input, by name: ``{"data": net.blobs["data"].data.shape}``.
    """

    def __init__(self, inputs: Mapping[str, Sequence[int]]) -> None:
        self.inputs = dict(inputs)
        self.transpose: dict[str, Sequence[int]] = {}
        self.channel_swap: dict[str, Sequence[int]] = {}
        self.raw_scale: dict[str, float] = {}
        self.mean: dict[str, Array] = {}
        self.input_scale: dict[str, float] = {}

    def _known(self, in_: str) -> Sequence[int]:
        if in_ not in self.inputs:
            listed = ", ".join(self.inputs)
            raise UnknownBlobError(f"{in_} is not one of the net inputs: {listed}{nearest(in_, self.inputs)}")
        return self.inputs[in_]

    def preprocess(self, in_: str, data: npt.ArrayLike) -> Array:
        """An image H W C as the net's input ``in_`` wants it: float32 C H W."""
        size = tuple(self._known(in_)[2:])
        values = np.asarray(data).astype(np.float32, copy=False)
        if values.shape[:2] != size:
            values = resize_image(values, size)
        if in_ in self.transpose:
            values = values.transpose(self.transpose[in_])
        if in_ in self.channel_swap:
            values = values[list(self.channel_swap[in_])]
        if in_ in self.raw_scale:
            values = values * np.float32(self.raw_scale[in_])
        if in_ in self.mean:
            values = values - self.mean[in_]
        if in_ in self.input_scale:
            values = values * np.float32(self.input_scale[in_])
        return values

    def deprocess(self, in_: str, data: npt.ArrayLike) -> Array:
        """What ``preprocess`` made, as an image again (only its size stays)."""
        self._known(in_)
        values = np.array(data).squeeze()
        if in_ in self.input_scale:
            values = values / self.input_scale[in_]
        if in_ in self.mean:
            values = values + self.mean[in_]
        if in_ in self.raw_scale:
            values = values / self.raw_scale[in_]
        if in_ in self.channel_swap:
            values = values[list(np.argsort(self.channel_swap[in_]))]
        if in_ in self.transpose:
            values = values.transpose(np.argsort(self.transpose[in_]))
        return values

    def set_transpose(self, in_: str, order: Sequence[int]) -> None:
        """The order of the axes; (2, 0, 1) makes C H W of H W C."""
        if len(order) != len(self._known(in_)) - 1:
            raise ShapeMismatchError("Transpose order needs to have the same number of dimensions as the input.")
        self.transpose[in_] = order

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """The order of the channels; (2, 1, 0) makes B, G, R of R, G, B. Say it after the transpose."""
        if len(order) != self._known(in_)[1]:
            raise ShapeMismatchError("Channel swap needs to have the same number of dimensions as the input channels.")
        self.channel_swap[in_] = order

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """A factor before the mean is subtracted: 255 for images in [0, 1] and a mean in [0, 255]."""
        self._known(in_)
        self.raw_scale[in_] = scale

    def set_input_scale(self, in_: str, scale: float) -> None:
        """A factor after the mean is subtracted."""
        self._known(in_)
        self.input_scale[in_] = scale

    def set_mean(self, in_: str, mean: npt.ArrayLike) -> None:
        """What is subtracted: a number a channel, or C H W (scaled to the size of the input).

        Raises:
            ShapeMismatchError: its channels are not those of the input, or it has other axes.
        """
        shape = tuple(self._known(in_))
        values = np.asarray(mean)
        if values.ndim == 1:
            if len(values) != shape[1]:
                raise ShapeMismatchError(f"Mean channels incompatible with input: {len(values)} and {shape[1]}.")
            values = values[:, np.newaxis, np.newaxis]
        else:
            if values.ndim == 2:
                values = values[np.newaxis]
            if values.ndim != 3 or values.shape[0] not in (1, shape[1]):
                raise ShapeMismatchError(f"Mean shape invalid: {np.shape(mean)} for an input of {shape[1:]}")
            if values.shape[1:] != shape[2:]:
                values = resize_floats(values, shape[2], shape[3])
        self.mean[in_] = values.astype(np.float32)


__all__ = [
    "Transformer",
    "array_to_blobproto",
    "array_to_datum",
    "arraylist_to_blobprotovecor_str",
    "arraylist_to_blobprotovector_str",
    "blobproto_to_array",
    "blobprotovector_str_to_arraylist",
    "caffe_pb2",
    "datum_to_array",
    "load_image",
    "oversample",
    "resize_image",
]
