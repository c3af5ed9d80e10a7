"""Reads IDX files, the format of MNIST and its relatives: plain or compressed with gzip."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import DataError

Bytes = npt.NDArray[np.uint8]

IMAGES, LABELS = 2051, 2049  # the magic numbers: unsigned bytes with 3 axes, and with 1


def find_idx(folder: Path, name: str) -> Path:
    """The file ``name`` or ``name.gz`` in a folder; a dot before "idx" instead of a dash is fine too.

    Raises:
        DataError: none of them is there.
    """
    for stem in (name, name.replace("-idx", ".idx")):
        for path in (folder / stem, folder / f"{stem}.gz"):
            if path.is_file():
                return path
    raise DataError(f"{folder} holds neither {name} nor {name}.gz")


def read_idx(path: Path, magic: int) -> Bytes:
    """The values of an IDX file: N x H x W for IMAGES, N for LABELS.

    Raises:
        DataError: it cannot be read, begins with another magic number, or is shorter or longer than its header says.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    axes = magic & 0xFF
    header = 4 + 4 * axes
    got = int.from_bytes(content[:4], "big")
    if len(content) < 4 or got != magic:
        kind = {IMAGES: "images", LABELS: "labels"}[magic]
        raise DataError(f"{path} is no IDX file of {kind}: it begins with {got}, wanted {magic}")
    if len(content) < header:
        raise DataError(f"{path} is truncated: {len(content)} bytes, and the header alone has {header}")
    shape = struct.unpack_from(f">{axes}I", content, 4)
    wanted = header + math.prod(shape)
    if len(content) != wanted:
        problem = "truncated" if len(content) < wanted else "longer than it should be"
        size = "x".join(map(str, shape))
        raise DataError(f"{path} is {problem}: {len(content)} bytes, and {size} values need {wanted}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def read_pair(folder: Path, images: str, labels: str, classes: int) -> tuple[Bytes, Bytes]:
    """Images N x H x W and labels N of one set.

    Raises:
        DataError: as read_idx, or their numbers differ, or a label is not below ``classes``.
    """
    image_path, label_path = find_idx(folder, images), find_idx(folder, labels)
    pixels, targets = read_idx(image_path, IMAGES), read_idx(label_path, LABELS)
    if len(pixels) != len(targets):
        raise DataError(f"{image_path} has {len(pixels)} images, but {label_path} has {len(targets)} labels")
    if not len(pixels):
        raise DataError(f"{image_path} holds no images")
    if int(targets.max()) >= classes:
        at = int(np.argmax(targets >= classes))
        raise DataError(f"{label_path}: label {at} is {int(targets[at])}, wanted 0 to {classes - 1}")
    return pixels, targets
