"""Builds the two databases of configs/digits from the copy of the digits that scikit-learn carries.

    python tools/make_digits.py [--out configs/digits]

The databases are part of the project; this file says how they came to be, and makes them again byte for byte (with
the same version of LMDB). It needs scikit-learn, which nothing else in the project uses.

Split: the 1,797 images are permuted once (``RandomState(SEED)``); the first 1,437 are for training, the last 360 for
testing. Records keep that order under the keys 00000000, 00000001, ...; each is a Caffe Datum of 1x8x8 bytes with
values 0 to 16 and the digit as its label.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from netrun.config import schema
from netrun.errors import NetrunError, UsageError

SEED = 0
TRAIN_COUNT = 1437
MAP_SIZE = 1 << 20  # bytes; a reader maps as much, and the larger database fills a quarter of it
DEFAULT_OUT = Path(__file__).resolve().parents[1] / "configs" / "digits"


def load_digits() -> tuple[np.ndarray[Any, np.dtype[np.uint8]], list[int]]:
    """The images (1797, 8, 8) with values 0 to 16, and their labels, in scikit-learn's order.

    Raises:
        UsageError: scikit-learn is not installed, or its data are not the ones this split was made for.
    """
    try:
        datasets = importlib.import_module("sklearn.datasets")
    except ImportError:
        raise UsageError("making the digits needs scikit-learn: pip install scikit-learn") from None
    digits = datasets.load_digits()
    images = np.asarray(digits.images)
    if images.shape != (1797, 8, 8) or images.min() != 0 or images.max() != 16:
        raise UsageError(
            f"scikit-learn's digits changed: got shape {images.shape}, values {images.min()} to {images.max()};"
            " wanted (1797, 8, 8), 0 to 16"
        )
    return images.astype(np.uint8), [int(label) for label in digits.target]


def write_database(folder: Path, records: Sequence[tuple[np.ndarray[Any, np.dtype[np.uint8]], int]]) -> str:
    """Write ``folder/data.mdb`` with one Datum a record, replacing what was there; returns its SHA-256.

    The file is LMDB's compacted copy: no free pages, and nothing in it depends on when or where it was made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        filled, compact = Path(scratch, "filled"), Path(scratch, "compact")
        compact.mkdir()
        with lmdb.open(str(filled), map_size=MAP_SIZE) as env:
            with env.begin(write=True) as transaction:
                for number, (image, label) in enumerate(records):
                    height, width = image.shape
                    datum = schema.Datum(channels=1, height=height, width=width, data=image.tobytes(), label=label)
                    key = f"{number:08d}".encode()
                    transaction.put(key, datum.SerializeToString(deterministic=True), append=True)
            env.copy(str(compact), compact=True)
        target = (compact / "data.mdb").replace(folder / "data.mdb")
    target.chmod(0o644)  # LMDB makes its copies readable to their owner alone
    return hashlib.sha256(target.read_bytes()).hexdigest()


def main(argv: Sequence[str] | None = None) -> int:
    """Write both databases and print their sizes and checksums; the exit code is that of the error tree."""
    parser = argparse.ArgumentParser(description="Build the databases of configs/digits from scikit-learn's copy.")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, metavar="DIR", help="default: configs/digits")
    out: Path = parser.parse_args(argv).out
    try:
        images, labels = load_digits()
        order = np.random.RandomState(SEED).permutation(len(labels))
        for name, part in (("digits_train_lmdb", order[:TRAIN_COUNT]), ("digits_test_lmdb", order[TRAIN_COUNT:])):
            digest = write_database(out / name, [(images[i], labels[i]) for i in part])
            print(f"{out / name}: {len(part)} records, data.mdb sha256 {digest}")
    except NetrunError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
