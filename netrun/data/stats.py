"""The mean image: reading a mean file, and making one from a database."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..config import schema
from ..config.files import replacing
from ..config.paths import resolve
from ..errors import DataError
from .database import open_database
from .datum import RecordError, parse, size_text
from .feeder import Floats
from .images import pixels_of
from .lmdb_file import show_key


def read_mean(name: str, folder: str = "") -> Floats:
    """The mean image of a ``.binaryproto`` file (a BlobProto): C H W float32.

    Raises:
        DataError: the file is missing, no BlobProto, or its values do not agree with its shape.
    """
    try:
        with open(resolve(name, folder), "rb") as file:
            content = file.read()
    except OSError as error:
        raise DataError(
            f"mean_file {name} cannot be read: {error.strerror}",
            notes=[f"netrun data mean SOURCE {name} makes it from a database"],
        ) from None
    blob = schema.BlobProto()
    try:
        blob.ParseFromString(content)
    except Exception:  # protobuf's DecodeError, which has another class in each of its implementations
        raise DataError(f"mean_file {name} is no BlobProto ({len(content)} bytes)") from None
    shape = tuple(blob.shape.dim) if blob.HasField("shape") else (blob.num, blob.channels, blob.height, blob.width)
    while len(shape) > 3 and shape[0] == 1:
        shape = shape[1:]
    values = np.array(blob.data or blob.double_data, np.float32)
    if len(shape) != 3 or min(shape) < 1 or int(np.prod(shape)) != values.size:
        text = "x".join(map(str, shape)) or "nothing"
        raise DataError(f"mean_file {name} holds {values.size} values for a shape of {text}; it needs C H W")
    return values.reshape(shape)


def compute_mean(
    source: str, *, folder: str = "", progress: Callable[[int, int], None] | None = None
) -> schema.BlobProto:
    """The mean over all records of a database, element by element: 1 C H W, as ``netrun data mean`` writes it.

    Encoded records are decoded as they are stored. ``progress`` is called with records done and records in all.

    Raises:
        DataError: the database cannot be read, a record is damaged, or the records have different sizes.
    """
    database = open_database(source, folder=folder)
    try:
        total: np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None = None
        for number in range(database.count):
            key, value = database.read(number)
            try:
                pixels = pixels_of(parse(value))
                if total is None:
                    total = np.zeros(pixels.shape, np.float64)
                if pixels.shape != total.shape:
                    got, first = size_text(pixels.shape), size_text(total.shape)
                    raise RecordError(f"it is {got}, and the first record is {first}: a mean needs equal sizes")
            except RecordError as error:
                raise DataError(f'record "{show_key(key)}" of {source} cannot be used: {error}') from None
            total += pixels
            if progress and (number % 1000 == 999 or number + 1 == database.count):
                progress(number + 1, database.count)
        if total is None:
            raise DataError(f"source {source} is empty")
        blob = schema.BlobProto(num=1, channels=total.shape[0], height=total.shape[1], width=total.shape[2])
        blob.data.extend((total / database.count).astype(np.float32).reshape(-1).tolist())
        return blob
    finally:
        database.close()


def write_mean(
    source: str, target: str, *, folder: str = "", progress: Callable[[int, int], None] | None = None
) -> schema.BlobProto:
    """Computes the mean of ``source`` and writes it to the file ``target``, whole or not at all. See compute_mean.

    Raises:
        DataError: as compute_mean, or ``target`` cannot be written.
    """
    blob = compute_mean(source, folder=folder, progress=progress)
    try:
        with replacing(target) as file:
            file.write(blob.SerializeToString())
    except OSError as error:
        raise DataError(f"mean file {target} cannot be written: {error.strerror}") from None
    return blob
