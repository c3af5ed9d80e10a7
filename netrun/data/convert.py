"""Image lists into databases, record by record as Caffe's convert_imageset writes them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ..errors import DataError, UsageError
from .datum import RecordError, pack, size_text
from .image_list import ImageList, read_image_list
from .images import decode, encode, kind_of, read_file
from .order import Order
from .prefetch import Decoders
from .resize import resize
from .transform import Shape3
from .write import WRITERS

CHUNK = 64
"""Images that are decoded together: enough for all cores, few enough for the memory."""

_SAME_KIND = {"jpeg": "jpg", "tiff": "tif"}


@dataclass
class Conversion:
    """How a list becomes a database.

    Attributes:
        backend: "lmdb" or "leveldb".
        root: put in front of every name in the list, as it is; a slash is added if it is a folder.
        size: height and width that every image is resized to; None keeps them.
        gray: one channel instead of three.
        encoded: the records hold image files instead of pixels; those that need no change go in byte for byte.
        encode_type: kind of these files ("jpg", "png"); each file's own if empty. Implies ``encoded``.
        shuffle, seed: a random order of the list, which follows from the seed.
        check_size: refuse images whose size differs from the first one's.
        skip_bad: leave out images that cannot be read, and count them, instead of stopping.
    """

    backend: str = "lmdb"
    root: str = ""
    size: tuple[int, int] | None = None
    gray: bool = False
    encoded: bool = False
    encode_type: str = ""
    shuffle: bool = False
    seed: int = 0
    check_size: bool = False
    skip_bad: bool = False
    skipped: list[str] = field(default_factory=list)
    """What was left out: a line each, after convert()."""

    def convert(self, source: str, target: str, progress: Callable[[int, int], None] | None = None) -> int:
        """Writes the images of the list ``source`` into the database ``target``; returns the number of records.

        Keys are the place in the (shuffled) list, eight digits, then "_" and the name. ``progress`` is called with
        records written and lines in the list.

        Raises:
            DataError: the list, an image or a label cannot be used (named with its line), or see write_lmdb.
            UsageError: no such backend or encode_type, or an extra is not installed.
        """
        if self.backend not in WRITERS:
            raise UsageError(f'there is no backend "{self.backend}"; it is {" or ".join(WRITERS)}')
        if self.encode_type and self.encode_type.lower() not in ("jpg", "jpeg", "png"):
            raise UsageError(f'images cannot be encoded as "{self.encode_type}"; jpg and png can')
        self.skipped.clear()
        if self.root and not self.root.endswith(("/", os.sep)) and os.path.isdir(self.root):
            self.root += "/"
        listed = read_image_list(source, root=self.root)
        _check_labels(listed)
        count = len(listed.names)
        order = Order(count, seed=self.seed, stream="convert", shuffle=self.shuffle).records(0, count)
        told = (lambda done: progress(done, count)) if progress else None
        return WRITERS[self.backend](target, self._records(listed, order), told)

    def _records(self, listed: ImageList, order: Sequence[int]) -> Iterator[tuple[bytes, bytes]]:
        decoders = Decoders()
        first: tuple[str, Shape3] | None = None
        try:
            for start in range(0, len(order), CHUNK):
                numbers = order[start : start + CHUNK]
                made = self._chunk(decoders, listed, numbers)
                for place, number in enumerate(numbers, start):
                    found = made[number]
                    if isinstance(found, RecordError):
                        self._skip(f"{listed.place(number)} cannot be used: {found}")
                        continue
                    record, shape = found
                    first = first or (listed.place(number), shape)
                    if self.check_size and shape != first[1]:
                        sizes = f"is {size_text(shape)}, and {first[0]} is {size_text(first[1])}"
                        raise DataError(f"{listed.place(number)} {sizes}")
                    yield b"%08d_" % place + os.fsencode(listed.names[number]), record
        finally:
            decoders.close()

    def _skip(self, what: str) -> None:
        if not self.skip_bad:
            raise DataError(what, None, ["--skip-bad leaves out images that cannot be read"])
        self.skipped.append(what)

    def _chunk(
        self, decoders: Decoders, listed: ImageList, numbers: Sequence[int]
    ) -> dict[int, tuple[bytes, Shape3] | RecordError]:
        """By number: a record and the shape of its image, or what is wrong with it."""
        found: dict[int, tuple[bytes, Shape3] | RecordError] = {}

        def work(i: int) -> None:
            number = numbers[i]
            try:
                found[number] = self._record(listed.names[number], int(listed.labels[number, 0]))
            except RecordError as error:
                found[number] = error

        decoders.each(work, len(numbers))
        return found

    def _record(self, name: str, label: int) -> tuple[bytes, Shape3]:
        """The bytes of a Datum, and the shape of its image.

        Raises:
            RecordError: the image cannot be used.
        """
        content = read_file(self.root + name)
        planes = decode(content, "gray" if self.gray else "colour")
        if self.size:
            planes = resize(planes, *self.size)
        shape = (planes.shape[0], planes.shape[1], planes.shape[2])
        if not (self.encoded or self.encode_type):
            return pack(shape, planes.tobytes(), label, encoded=False), shape
        own = kind_of(name)
        kind = self.encode_type.lower() or own
        if not kind:
            raise RecordError("its name has no ending that tells its kind; --encode-type jpg or png says one")
        # Caffe would put the file of a colour image in, even if gray is asked for.
        if self.size or self.gray or _SAME_KIND.get(kind, kind) != _SAME_KIND.get(own, own):
            content = encode(planes, kind)
        return pack(None, content, label, encoded=True), shape


def _check_labels(listed: ImageList) -> None:
    if listed.labels.shape[1] > 1:
        raise DataError(
            f"{listed.source} has {listed.labels.shape[1]} labels a line, and a record of a database holds one",
            None,
            ["ImageData reads such a list directly; HDF5Data reads rows with any number of labels"],
        )
    for number, label in enumerate(listed.labels[:, 0].tolist()):
        if label != int(label) or abs(label) >= 1 << 31:
            raise DataError(f"{listed.place(number)} has label {label:g}, and a record holds whole numbers")
