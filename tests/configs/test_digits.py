"""The databases of configs/digits hold the images they are said to hold."""

from __future__ import annotations

import hashlib
from pathlib import Path

import lmdb
import pytest

from netrun.config import schema

DIGITS = Path(__file__).resolve().parents[2] / "configs" / "digits"
TRAIN, TEST = "digits_train_lmdb", "digits_test_lmdb"


def records(name: str) -> list[tuple[bytes, schema.Datum]]:
    with lmdb.open(str(DIGITS / name), readonly=True, lock=False) as env, env.begin() as transaction:
        return [(key, schema.Datum.FromString(value)) for key, value in transaction.cursor()]


def histogram(name: str) -> list[int]:
    labels = [datum.label for _, datum in records(name)]
    return [labels.count(digit) for digit in range(10)]


@pytest.mark.parametrize(("name", "count"), [(TRAIN, 1437), (TEST, 360)])
def test_records(name: str, count: int) -> None:
    found = records(name)
    assert [key for key, _ in found] == [f"{i:08d}".encode() for i in range(count)]
    assert {(d.channels, d.height, d.width, len(d.data), d.encoded) for _, d in found} == {(1, 8, 8, 64, False)}
    assert {value for _, datum in found for value in datum.data} == set(range(17))
    assert all(not datum.float_data for _, datum in found)


def test_labels() -> None:
    train, test = histogram(TRAIN), histogram(TEST)
    assert train == [147, 147, 138, 150, 137, 153, 141, 139, 146, 139]
    # the counts of the 1,797 digits as UCI states them for its test part
    assert [a + b for a, b in zip(train, test, strict=True)] == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_no_test_image_is_trained_on() -> None:
    train, test = ({datum.data for _, datum in records(name)} for name in (TRAIN, TEST))
    assert (len(train), len(test), len(train & test)) == (1437, 360, 0)


@pytest.mark.parametrize(
    ("name", "size", "digest"),
    [
        (TRAIN, 147456, "402136e4dfc19a62000ca09ae0f5ad729e4d4abc5e4bd43f0743ccbabf5f6b0e"),
        (TEST, 49152, "f471afc05ea92124903ca292181ef2425e278969f82d177f73e3e5410a190697"),
    ],
)
def test_files_are_the_ones_the_tool_writes(name: str, size: int, digest: str) -> None:
    """Small, and as tools/make_digits.py printed it; no lock file is shipped."""
    data = (DIGITS / name / "data.mdb").read_bytes()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (size, digest)


def test_images_are_scikit_learns() -> None:
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn carries the originals; not installed")
    digits = datasets.load_digits()
    pairs = zip(digits.images, digits.target, strict=True)
    originals = {image.astype("uint8").tobytes(): int(label) for image, label in pairs}
    ours = {datum.data: datum.label for name in (TRAIN, TEST) for _, datum in records(name)}
    assert ours == originals
