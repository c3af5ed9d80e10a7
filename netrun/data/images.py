"""Decodes JPEG, PNG and other image files into planes, through Pillow (extra ``images``)."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
import numpy.typing as npt

from netrun.data.datum import Record, RecordError
from netrun.errors import missing_extra

Colour = Literal["as stored", "colour", "gray"]

_FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP")  # those with pixels; Pillow would run programs for others
_MODES = {"RGB": "RGB", "RGBA": "RGBA", "L": "L", "1": "L", "LA": "RGBA", "PA": "RGBA"}


def decode(file: bytes, colour: Colour = "as stored") -> npt.NDArray[np.uint8]:
    """The pixels of an image file, C H W uint8: one gray plane, or B, G, R (and A if the file has it).

    ``colour`` "as stored" keeps gray gray; "colour" always gives three planes, "gray" one.

    Raises:
        RecordError: the file is no image, is damaged, or has 16 bits a value.
        UsageError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError:
        raise missing_extra("decoding the images of a database", "pillow", "images") from None
    try:
        with Image.open(io.BytesIO(file), formats=_FORMATS) as image:
            if image.mode.startswith(("I", "F")):
                raise RecordError(f"its image has more than 8 bits a value (mode {image.mode})")
            if colour == "gray":
                image.draft("L", None)  # JPEG: takes the luminance as it is stored, as OpenCV does
                pixels = np.asarray(image if image.mode == "L" else image.convert("RGB").convert("L"))
            else:
                mode = "RGB" if colour == "colour" else _MODES.get(image.mode, "RGB")
                pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    except RecordError:
        raise
    except Exception as error:  # a hostile file can make Pillow's readers raise nearly anything
        raise RecordError(f"its image cannot be decoded: {_reason(error)}") from None
    if pixels.ndim == 2:
        return pixels[np.newaxis]
    planes: npt.NDArray[np.uint8] = pixels.transpose(2, 0, 1)
    return planes[[2, 1, 0, 3]] if len(planes) == 4 else planes[::-1]


def pixels_of(record: Record, colour: Colour = "as stored") -> npt.NDArray[np.uint8] | npt.NDArray[np.float32]:
    """The values of a record, C H W: those it holds, or those of the image file in it.

    Raises:
        RecordError, UsageError: as decode, or the record's size does not agree with its values.
    """
    return decode(record.data, colour) if record.encoded else record.values()


def _reason(error: Exception) -> str:
    text = str(error).split("<_io.BytesIO")[0].strip()
    return text or type(error).__name__
