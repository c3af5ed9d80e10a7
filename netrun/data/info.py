"""What is in a database: how many records, of which sizes and kinds, with which labels."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass, field

from ..errors import DataError
from .database import open_database
from .datum import Record, RecordError, parse, size_text
from .lmdb_file import LmdbFile, show_key

SAMPLE = 10_000
"""Records that are looked at: evenly spread over the database."""


@dataclass
class Info:
    """Facts about a database.

    Attributes:
        kind: "LMDB" or "LevelDB".
        records: how many there are.
        sampled: how many of them were looked at.
        shapes: of these, by C x H x W.
        kinds: of these: "8-bit", "float", or the format of the image file in them.
        labels: of these, by label.
        bytes: of these, of all values.
        first, last: the first and the last key.
    """

    source: str
    kind: str
    records: int
    sampled: int = 0
    shapes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    labels: Counter[int] = field(default_factory=Counter)
    bytes: int = 0
    first: str = ""
    last: str = ""


def look_into(source: str, sample: int = SAMPLE) -> Info:
    """Looks at up to ``sample`` records of a database, evenly spread from the first to the last.

    Raises:
        DataError: it cannot be read, or one of these records is damaged.
        UsageError: an extra is needed and not installed.
    """
    database = open_database(source)
    try:
        info = Info(source, "LMDB" if isinstance(database, LmdbFile) else "LevelDB", database.count)
        info.sampled = min(sample, database.count)
        info.first, info.last = (show_key(database.read(n)[0]) for n in (0, database.count - 1))
        for i in range(info.sampled):
            key, value = database.read(i * database.count // info.sampled)
            try:
                record = parse(value)
                kind, shape = _kind(record)
            except RecordError as error:
                raise DataError(f'record "{show_key(key)}" of {source} cannot be used: {error}') from None
            info.kinds[kind] += 1
            info.shapes[size_text(shape)] += 1
            info.labels[record.label] += 1
            info.bytes += len(value)
        return info
    finally:
        database.close()


def _kind(record: Record) -> tuple[str, tuple[int, ...]]:
    if not record.encoded:
        values = record.values()
        return ("8-bit" if record.data else "float"), values.shape
    try:
        from PIL import Image
    except ImportError:
        return "image file", record.shape
    try:
        with Image.open(io.BytesIO(record.data)) as image:  # the head alone; nothing is decoded
            return str(image.format), (len(image.getbands()), image.height, image.width)
    except Exception as error:
        raise RecordError(f"its image cannot be recognised: {type(error).__name__}") from None


__all__ = ["SAMPLE", "Info", "look_into"]
