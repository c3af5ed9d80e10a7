"""The reader of LMDB files against the LMDB library, and against damaged files."""

from __future__ import annotations

import random
from pathlib import Path

import lmdb
import pytest

from netrun.data.lmdb_file import LmdbFile, show_key
from netrun.errors import DataError

GOLDEN = Path(__file__).parents[1] / "golden"
STORED = sorted(str(p.parent.relative_to(GOLDEN)) for p in GOLDEN.rglob("data.mdb"))


def by_library(folder: Path) -> list[tuple[bytes, bytes]]:
    with (
        lmdb.open(str(folder), readonly=True, lock=False) as environment,
        environment.begin() as transaction,
        transaction.cursor() as cursor,
    ):
        return [(bytes(key), bytes(value)) for key, value in cursor]


def by_us(folder: Path) -> list[tuple[bytes, bytes]]:
    database = LmdbFile(str(folder))
    try:
        return [database.read(i) for i in range(database.count)]
    finally:
        database.close()


@pytest.mark.parametrize("name", STORED)
def test_reads_the_databases_caffe_wrote(name: str) -> None:
    assert by_us(GOLDEN / name) == by_library(GOLDEN / name)


@pytest.mark.parametrize("seed", range(4))
def test_reads_what_the_library_writes_after_many_changes(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    environment = lmdb.open(str(tmp_path), map_size=1 << 26, lock=False)
    keys: list[bytes] = []
    for _ in range(12):
        with environment.begin(write=True) as transaction:
            for _ in range(draw.choice([1, 60, 300])):
                if keys and draw.random() < 0.3:
                    transaction.delete(keys.pop(draw.randrange(len(keys))))
                else:
                    keys.append(draw.randbytes(draw.choice([1, 8, 40, 500])))
                    transaction.put(keys[-1], draw.randbytes(draw.choice([0, 1, 100, 2000, 2100, 5000, 30000])))
    environment.close()
    expected = by_library(tmp_path)
    assert by_us(tmp_path) == expected

    database = LmdbFile(str(tmp_path / "data.mdb"))
    order = list(range(database.count))
    draw.shuffle(order)
    assert [database.read(i) for i in order] == [expected[i] for i in order]
    database.close()


def test_one_folder_may_be_open_many_times() -> None:
    first, second = (LmdbFile(str(GOLDEN / "data/lmdb_raw")) for _ in range(2))
    assert first.read(3) == second.read(3)
    first.close()
    first.close()
    assert second.read(6)[0] == b"00000006"
    second.close()


def read_all(folder: Path) -> str:
    """Reads every record; the message of the error, or an empty string."""
    try:
        by_us(folder)
    except DataError as error:
        return str(error)
    return ""


def damaged(tmp_path: Path, content: bytes) -> str:
    (tmp_path / "data.mdb").write_bytes(content)
    return read_all(tmp_path)


def test_garbage_and_empty_files_get_one_message(tmp_path: Path) -> None:
    assert "0 bytes" in damaged(tmp_path, b"")
    assert "truncated" in damaged(tmp_path, b"abc")
    assert "no LMDB" in damaged(tmp_path, bytes(range(256)) * 100)
    (tmp_path / "data.mdb").unlink()
    lmdb.open(str(tmp_path), lock=False).close()
    assert "no records" in read_all(tmp_path)


def test_duplicate_sorted_trees_are_refused(tmp_path: Path) -> None:
    content = bytearray((GOLDEN / "data/lmdb_raw/data.mdb").read_bytes())
    for page in (0, 1):
        flags = page * 4096 + 16 + 24 + 48 + 4
        content[flags] |= 4
    assert "several values per key" in damaged(tmp_path, bytes(content))


@pytest.mark.parametrize("name", ["e2e/train", "data/lmdb_raw"])
def test_every_truncation_is_noticed_when_opening(name: str, tmp_path: Path) -> None:
    content = (GOLDEN / name / "data.mdb").read_bytes()
    for size in range(0, len(content), 997):
        (tmp_path / "data.mdb").write_bytes(content[:size])
        with pytest.raises(DataError, match=r"truncated|empty"):
            LmdbFile(str(tmp_path))


def test_a_short_file_whose_missing_pages_are_unused_is_fine(tmp_path: Path) -> None:
    content = bytearray((GOLDEN / "data/lmdb_raw/data.mdb").read_bytes())
    for page in (0, 1):
        content[page * 4096 + 16 + 120] += 2  # the number of the last page that is said to be in use
    (tmp_path / "data.mdb").write_bytes(content)
    assert by_us(tmp_path) == by_library(GOLDEN / "data/lmdb_raw")


@pytest.mark.parametrize("seed", range(6))
def test_damaged_files_raise_data_errors_only(seed: int, tmp_path: Path) -> None:
    # The LMDB library itself dies of a signal on many of these.
    draw = random.Random(seed)
    content = (GOLDEN / draw.choice(["e2e/train", "data/lmdb_jpeg"]) / "data.mdb").read_bytes()
    refused = 0
    for _ in range(60):
        bad = bytearray(content)
        for _ in range(draw.choice([1, 4, 40])):
            at = draw.randrange(len(bad))
            if draw.random() < 0.7:  # headers of pages rather than pixels
                at = at // 4096 * 4096 + draw.randrange(160)
            bad[min(at, len(bad) - 1)] = draw.choice([0, 1, 255, draw.randrange(256)])
        message = damaged(tmp_path, bytes(bad))
        refused += bool(message)
        assert not message or message.startswith("source ")
    assert refused > 10


def test_a_wrong_number_of_records_is_noticed(tmp_path: Path) -> None:
    content = bytearray((GOLDEN / "e2e/train/data.mdb").read_bytes())
    for change in (-1, 1):
        bad = bytearray(content)
        for page in (0, 1):
            entries = page * 4096 + 16 + 24 + 48 + 32
            bad[entries] = (bad[entries] + change) % 256
        assert "more or fewer" in damaged(tmp_path, bytes(bad))


def test_keys_are_shown_readably() -> None:
    assert show_key(b"00000012_cat.jpg") == "00000012_cat.jpg"
    assert show_key(b"a\x00\xff") == "a\\x00\\xff"
    assert show_key(b"k" * 500).endswith("k...")
