"""The data sets that ``netrun data`` makes into databases: MNIST and CIFAR-10."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from .cifar import read_cifar10
from .datum import pack
from .download import Progress, content_digest, download
from .idx import read_pair
from .stats import write_mean
from .write import key_of, write_lmdb

Bytes = npt.NDArray[np.uint8]

MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "http://yann.lecun.com/exdb/mnist/",
)
MNIST_FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""SHA-256 of the files as they are after unpacking: the mirrors do not all compress them alike."""

CIFAR10_MIRRORS = ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",)
CIFAR10_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"


def make_mnist(
    target: Path,
    source: Path | None = None,
    *,
    progress: Progress | None = None,
    mirrors: tuple[str, ...] = MNIST_MIRRORS,
) -> list[Path]:
    """Writes ``mnist_train_lmdb`` and ``mnist_test_lmdb`` into the folder ``target``: raw 1x28x28 records.

    They stand in the order of the files. ``source`` is a folder with the four IDX files, plain or .gz (any set in this
    form with 10 classes will do); without it they are downloaded into ``target/download`` and their checksums held
    against those of MNIST.

    Raises:
        DataError: a file is missing, cannot be fetched, truncated, or not what its name says.
    """
    if source is None:
        source = target / "download"
        for name, sha256 in MNIST_FILES.items():
            urls = [f"{mirror}{name}.gz" for mirror in mirrors]
            download(urls, source / f"{name}.gz", sha256, digest=content_digest, progress=progress)
    _need(source)
    made = []
    for part, prefix in (("train", "train"), ("test", "t10k")):
        pixels, labels = read_pair(source, f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte", 10)
        made.append(_write(target / f"mnist_{part}_lmdb", pixels[:, np.newaxis], labels, progress))
    return made


def make_cifar10(
    target: Path,
    source: Path | None = None,
    *,
    seed: int = 1,
    progress: Progress | None = None,
    mirrors: tuple[str, ...] = CIFAR10_MIRRORS,
) -> list[Path]:
    """Writes ``cifar10_train_lmdb``, ``cifar10_test_lmdb`` and ``mean.binaryproto`` into the folder ``target``.

    ``source`` is the binary archive, the one for Python, or one of JPEG or PNG files (train/CLASS/*.jpg), or a folder
    with the content of one; without it the binary archive is downloaded into ``target/download``.

    The records are raw 3x32x32 with the planes in the order R, G, B, whatever the source: it is the order of the
    original files and of the databases Caffe's converter makes from them. (Images that netrun decodes itself while
    training are B, G, R.) The training records are shuffled by ``seed``, the test records are in file order.

    Raises:
        DataError: the source is missing, cannot be fetched, truncated, or not CIFAR-10.
        UsageError: the images are files and Pillow is not installed.
    """
    if source is None:
        source = download(mirrors, target / "download" / "cifar-10-binary.tar.gz", CIFAR10_SHA256, progress=progress)
    _need(source)
    read = (lambda count: progress("cifar10", count, 60000)) if progress else None
    (train, train_labels), (test, test_labels) = read_cifar10(source, read)
    # Philox words and a sort: the same order with every version of NumPy.
    order = np.argsort(np.random.Philox(key=seed & 0xFFFFFFFFFFFFFFFF).random_raw(len(train)), kind="stable")
    made = [
        _write(target / "cifar10_train_lmdb", train[order], train_labels[order], progress),
        _write(target / "cifar10_test_lmdb", test, test_labels, progress),
    ]
    mean = target / "mean.binaryproto"
    write_mean(str(made[0]), str(mean), progress=(lambda n, of: progress(mean.name, n, of)) if progress else None)
    return [*made, mean]


def _need(source: Path) -> None:
    if not source.exists():
        raise DataError(f"{source} is not there")


def _write(path: Path, pixels: Bytes, labels: Bytes, progress: Progress | None) -> Path:
    """One database of raw records: pixels N C H W, labels N."""

    def records() -> Iterator[tuple[bytes, bytes]]:
        channels, height, width = pixels.shape[1:]
        for i, (image, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
            yield key_of(i), pack((channels, height, width), image.tobytes(), label)

    write_lmdb(path, records(), (lambda n: progress(path.name, n, len(pixels))) if progress else None)
    return path
