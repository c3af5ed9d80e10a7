"""Reads CIFAR-10 in the three forms people have it: binary, pickled for Python, and as JPEG or PNG files.

Each may be a tar archive or a folder. All give the same: pixels N x 3 x 32 x 32 in the order R, G, B, and labels.
"""

from __future__ import annotations

import io
import lzma
import pickle
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from .datum import RecordError
from .images import decode

Bytes = npt.NDArray[np.uint8]
Split = tuple[Bytes, Bytes]

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHAPE = (3, 32, 32)

_PIXELS = 3 * 32 * 32
_BATCH = re.compile(r"(?:^|/)(data_batch_[1-5]|test_batch)(\.bin)?$")
_IMAGE = re.compile(r"(?:^|/)(train|test)/([^/]+)/[^/]+\.(?:jpe?g|png)$", re.IGNORECASE)
_ARCHIVE = re.compile(r"\.(tar|tgz|tar\.(gz|bz2|xz))$")


def read_cifar10(source: Path, progress: Callable[[int], None] | None = None) -> tuple[Split, Split]:
    """Pixels and labels of the training and of the test set.

    ``source`` is an archive, a folder with its content, or a folder with the archive. ``progress`` is called with the
    number of images read so far.

    Raises:
        DataError: nothing of the kind is there, a part is missing, truncated, or holds something else.
        UsageError: the images are files and Pillow is not installed.
    """
    parts: dict[str, list[Split]] = {"train": [], "test": []}
    batches, count = set(), 0
    for name, content in _members(source):
        if batch := _BATCH.search(name):
            batches.add(batch[1])
            found = _from_binary(name, content) if batch[2] else _from_pickle(name, content)
            parts["test" if batch[1] == "test_batch" else "train"].append(found)
        elif image := _IMAGE.search(name):
            found = _from_image(name, image[2], content)
            parts[image[1].lower()].append(found)
        else:
            continue
        count += len(found[1])
        if progress:
            progress(count)
    if batches:
        wanted = {*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"}
        if batches != wanted:
            raise DataError(f"{source} lacks {', '.join(sorted(wanted - batches))}")
    for split, found_parts in parts.items():
        if not found_parts:
            raise DataError(
                f"{source} holds no {split} images of CIFAR-10",
                notes=["wanted data_batch_1..5 and test_batch (.bin or pickled), or train/CLASS/*.jpg and test/..."],
            )
    train, test = (
        (np.concatenate([p for p, _ in found]), np.concatenate([labels for _, labels in found]))
        for found in (parts["train"], parts["test"])
    )
    return train, test


def _members(source: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of the files of CIFAR-10 in an archive or below a folder, which may hold the archive instead."""
    try:
        if source.is_dir():
            files = sorted(path for path in source.rglob("*") if path.is_file())
            wanted = [path for path in files if _is_wanted(path.relative_to(source).as_posix())]
            for path in wanted:
                yield path.relative_to(source).as_posix(), path.read_bytes()
            archives = [path for path in files if _ARCHIVE.search(path.name) and "cifar" in path.name.lower()]
            if wanted or not archives:
                return
            source = archives[0]
        with tarfile.open(source) as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isfile() and _is_wanted(member.name) else None
                if stream:
                    yield member.name, stream.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{source} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _is_wanted(name: str) -> bool:
    return bool(_BATCH.search(name) or _IMAGE.search(name))


def _from_binary(name: str, content: bytes) -> Split:
    if not content or len(content) % (1 + _PIXELS):
        raise DataError(f"{name} has {len(content)} bytes, wanted a multiple of {1 + _PIXELS} (label and pixels)")
    rows = np.frombuffer(content, np.uint8).reshape(-1, 1 + _PIXELS)
    return rows[:, 1:].reshape(-1, *SHAPE), _checked(name, rows[:, 0])


def _from_pickle(name: str, content: bytes) -> Split:
    try:
        batch = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        pixels = batch[b"data"] if b"data" in batch else batch["data"]
        labels = batch[b"labels"] if b"labels" in batch else batch["labels"]
        targets = np.asarray(labels, np.int64)
        fits = isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.shape == (len(targets), _PIXELS)
    except Exception as error:  # a damaged or hostile pickle can make the unpickler raise anything
        raise DataError(f"{name} is no batch of CIFAR-10 for Python: {error}") from None
    if not fits or targets.ndim != 1 or not len(targets):
        raise DataError(f"{name} is no batch of CIFAR-10: wanted data N x {_PIXELS} of bytes, and N labels")
    return pixels.reshape(-1, *SHAPE), _checked(name, targets)


def _from_image(name: str, folder: str, content: bytes) -> Split:
    if folder not in NAMES:
        raise DataError(f"{name}: {folder} is no class of CIFAR-10 ({', '.join(NAMES)})")
    try:
        pixels = decode(content, "colour")[::-1]
    except RecordError as error:
        raise DataError(f"{name} cannot be used: {error}") from None
    if pixels.shape != SHAPE:
        raise DataError(f"{name} has {pixels.shape[1]}x{pixels.shape[2]} pixels, wanted 32x32")
    return pixels[np.newaxis], np.array([NAMES.index(folder)], np.uint8)


def _checked(name: str, labels: npt.NDArray[Any]) -> Bytes:
    if labels.min() < 0 or labels.max() >= len(NAMES):
        at = int(np.argmax((labels < 0) | (labels >= len(NAMES))))
        raise DataError(f"{name}: label {at} is {int(labels[at])}, wanted 0 to {len(NAMES) - 1}")
    return labels.astype(np.uint8)


def _latin1(text: str, _: str) -> bytes:
    """How Python 3 writes bytes into a pickle that Python 2 can read."""
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    """Knows how arrays of numbers are stored, and nothing else: a pickle can otherwise run any program."""

    _NEEDED = {  # noqa: RUF012 - a constant of this module
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _latin1,
        # Under their old and new module names; NumPy itself tells where they are in this version.
        **{(f"numpy.{core}.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0] for core in ("core", "_core")},
    }

    def find_class(self, module: str, name: str) -> Any:
        """The few things an array needs. Raises UnpicklingError for any other name."""
        if (module, name) in self._NEEDED:
            return self._NEEDED[module, name]
        raise pickle.UnpicklingError(f"it wants {module}.{name}, which no data set needs")
