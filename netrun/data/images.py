"""Decodes JPEG, PNG and other image files into planes, through Pillow (extra ``images``), and encodes JPEG and PNG.

The levels are those of OpenCV, with which the images of Caffe's nets were read: its weights of red, green and blue
where colour becomes gray (other ones for PNG), the upper 8 bits of 16, no alpha, and the orientation a camera noted in
the file, all of that only where colour or gray is asked for.
"""

from __future__ import annotations

import contextlib
import io
import os
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..errors import missing_extra
from .datum import Record, RecordError

Colour = Literal["as stored", "colour", "gray"]
Bytes = npt.NDArray[np.uint8]

JPEG_QUALITY = 95

_FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP")  # those with pixels; Pillow would run programs for others
_MODES = {"RGB": "RGB", "RGBA": "RGBA", "L": "L", "1": "L", "LA": "RGBA", "PA": "RGBA"}
_GRAY_MODES = ("1", "L", "LA")
_ORIENTATION = 274  # the EXIF tag
_GRAY_WEIGHTS = {"PNG": (9797, 19234, 3737, 15)}
"""Of red, green and blue, and the bits to shift off; what is cut off is not rounded."""


def decode(file: bytes, colour: Colour = "as stored") -> Bytes:
    """The pixels of an image file, C H W uint8: one gray plane, or B, G, R (and A if the file has it).

    ``colour`` "as stored" keeps gray gray; "colour" always gives three planes, "gray" one, both upright: they follow
    the orientation in the EXIF data of a JPEG or PNG file.

    Raises:
        RecordError: the file is no image, is damaged, or has 16 bits a value and colour is "as stored".
        UsageError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError:
        raise missing_extra("decoding images", "pillow", "images") from None
    try:
        with Image.open(io.BytesIO(file), formats=_FORMATS) as image:
            if colour == "as stored":
                return _as_stored(image)
            turn = _orientation(image)
            if colour == "gray":
                image.draft("L", None)  # JPEG: takes the luminance as it is stored, as OpenCV does
            planes = _forced(image, colour)
            return _upright(planes, turn)
    except RecordError:
        raise
    except Exception as error:  # a hostile file can make Pillow's readers raise nearly anything
        raise RecordError(f"its image cannot be decoded: {_reason(error)}") from None


def read_image(path: str, colour: Colour = "colour") -> Bytes:
    """The pixels of the image file ``path``; see decode.

    Raises:
        RecordError: also if the file cannot be read.
    """
    return decode(read_file(path), colour)


def read_file(path: str) -> bytes:
    """The bytes of a file.

    Raises:
        RecordError: it cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise RecordError(f"it cannot be read: {getattr(error, 'strerror', None) or error}") from None


def encode(planes: Bytes, kind: str) -> bytes:
    """An image file with the pixels C H W (one gray plane, or B, G, R); ``kind`` is "jpg", "jpeg" or "png", or another
    ending that Pillow knows. JPEG has quality 95.

    Raises:
        RecordError: Pillow cannot write that kind.
        UsageError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError:
        raise missing_extra("encoding images", "pillow", "images") from None
    pixels = planes[0] if len(planes) == 1 else planes[::-1].transpose(1, 2, 0)
    out = io.BytesIO()
    name = {"jpg": "JPEG", "tif": "TIFF"}.get(kind.lower(), kind.upper())
    options: dict[str, Any] = {"quality": JPEG_QUALITY, "subsampling": "4:2:0"} if name in ("JPEG", "JPG") else {}
    try:
        Image.fromarray(np.ascontiguousarray(pixels)).save(out, name, **options)
    except (KeyError, OSError, ValueError):
        raise RecordError(f'images cannot be written as "{kind}"; jpg and png can') from None
    return out.getvalue()


def pixels_of(record: Record, colour: Colour = "as stored") -> Bytes | npt.NDArray[np.float32]:
    """The values of a record, C H W: those it holds, or those of the image file in it.

    Raises:
        RecordError, UsageError: as decode, or the record's size does not agree with its values.
    """
    return decode(record.data, colour) if record.encoded else record.values()


def kind_of(path: str) -> str:
    """The ending of a file name in lower case, without the dot."""
    return os.path.splitext(path)[1][1:].lower()


# ------------------------------------------------------------------------------------------------------------- helpers
def _planes(pixels: npt.NDArray[Any]) -> Bytes:
    if pixels.ndim == 2:
        return pixels[np.newaxis]
    planes: Bytes = pixels.transpose(2, 0, 1)
    return planes[[2, 1, 0, 3]] if len(planes) == 4 else planes[::-1]


def _as_stored(image: Any) -> Bytes:
    if image.mode.startswith(("I", "F")):
        raise RecordError(f"its image has more than 8 bits a value (mode {image.mode})")
    mode = _MODES.get(image.mode, "RGB")
    return _planes(np.asarray(image if image.mode == mode else image.convert(mode)))


def _forced(image: Any, colour: Colour) -> Bytes:
    """Three planes or one, of whatever the file holds."""
    if image.mode.startswith("I"):
        gray = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)[np.newaxis]
        return gray if colour == "gray" else np.repeat(gray, 3, axis=0)
    if image.mode == "F":
        raise RecordError("its image holds floating point numbers")
    if colour == "colour":
        return _planes(np.asarray(image if image.mode == "RGB" else image.convert("RGB")))
    if image.mode in _GRAY_MODES:
        pixels = np.asarray(image if image.mode == "L" else image.convert("L"))
        return _planes(pixels)
    pixels = np.asarray(image if image.mode == "RGB" else image.convert("RGB")).astype(np.int32)
    red, green, blue, bits = _GRAY_WEIGHTS.get(image.format, (4899, 9617, 1868, 14))
    half = 0 if image.format in _GRAY_WEIGHTS else 1 << bits - 1
    gray = (pixels[..., 0] * red + pixels[..., 1] * green + pixels[..., 2] * blue + half) >> bits
    return _planes(gray.astype(np.uint8))


def _orientation(image: Any) -> int:
    """1 to 8, as EXIF counts them; 1 is upright. OpenCV looks for it in JPEG and PNG files alone."""
    if image.format not in ("JPEG", "MPO", "PNG"):
        return 1
    with contextlib.suppress(Exception):  # damaged EXIF data says nothing about the pixels
        found = image.getexif().get(_ORIENTATION, 1)
        return found if isinstance(found, int) and 1 <= found <= 8 else 1
    return 1


def _upright(planes: Bytes, orientation: int) -> Bytes:
    if orientation >= 5:
        planes = planes.transpose(0, 2, 1)
    if orientation in (2, 3, 6, 7):
        planes = planes[:, :, ::-1]
    if orientation in (3, 4, 7, 8):
        planes = planes[:, ::-1]
    return planes


def _reason(error: Exception) -> str:
    text = str(error).split("<_io.BytesIO")[0].strip()
    return text or type(error).__name__
