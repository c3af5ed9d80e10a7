"""LevelDB: read without writing into its folder, by several at once, and written whole."""

from __future__ import annotations

import gc
import os
import tempfile
from pathlib import Path

import pytest

from netrun.data import write
from netrun.data.database import open_database
from netrun.data.leveldb import LevelDb
from netrun.data.write import key_of, write_leveldb, write_lmdb
from netrun.errors import DataError

plyvel = pytest.importorskip("plyvel", reason="LevelDB needs plyvel, which is not installed")
GOLDEN = Path(__file__).parents[1] / "golden" / "data" / "leveldb_images"


def some(count: int, size: int = 5) -> list[tuple[bytes, bytes]]:
    return [(key_of(i), bytes([i % 256]) * size) for i in range(count)]


def all_of(path: Path) -> list[tuple[bytes, bytes]]:
    database = LevelDb(str(path))
    try:
        return [database.read(i) for i in range(database.count)]
    finally:
        database.close()


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.fixture(autouse=True)
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_reading_leaves_the_folder_as_it_is(temporary: Path) -> None:
    before = contents(GOLDEN)
    first, second = LevelDb(str(GOLDEN)), LevelDb(str(GOLDEN))
    assert first.count == second.count == 5
    assert first.read(2)[0] == b"00000002_img two.png"
    assert len(list(temporary.iterdir())) == 1
    first.close()
    first.close()
    assert second.read(2)[0] == b"00000002_img two.png"
    second.close()
    assert contents(GOLDEN) == before
    assert not list(temporary.iterdir())


def test_a_database_that_another_process_holds_and_may_not_be_written(tmp_path: Path) -> None:
    holder = plyvel.DB(str(tmp_path / "db"), create_if_missing=True)
    for key, value in some(300):
        holder.put(key, value)  # all of it is still in the log
    try:
        assert all_of(tmp_path / "db") == some(300)
        for file in (tmp_path / "db").iterdir():
            file.chmod(0o444)
        (tmp_path / "db").chmod(0o555)
        assert all_of(tmp_path / "db") == some(300)
    finally:
        (tmp_path / "db").chmod(0o755)
        holder.close()


def test_a_forgotten_reader_goes_away(temporary: Path) -> None:
    reader = LevelDb(str(GOLDEN))
    assert list(temporary.iterdir())
    del reader
    gc.collect()
    assert not list(temporary.iterdir())


def test_a_damaged_one_is_refused(tmp_path: Path, temporary: Path) -> None:
    write_leveldb(tmp_path / "db", some(1000, 100))
    (table,) = (tmp_path / "db").glob("*.ldb")
    table.write_bytes(table.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"source \S*db is damaged: IO error"):
        all_of(tmp_path / "db")
    write_leveldb(tmp_path / "db", some(1000, 100))
    (table,) = (tmp_path / "db").glob("*.ldb")
    content = bytearray(table.read_bytes())
    content[200] ^= 1
    table.write_bytes(content)
    with pytest.raises(DataError, match=r"source \S*db is damaged: Corruption: .*checksum"):
        all_of(tmp_path / "db")
    next((tmp_path / "db").glob("MANIFEST*")).unlink()
    with pytest.raises(DataError, match=r"source \S*db cannot be opened as a LevelDB"):
        all_of(tmp_path / "db")
    assert not list(temporary.iterdir())


def test_what_is_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "_CHUNK", 100)
    told: list[int] = []
    assert write_leveldb(tmp_path / "db", reversed(some(250)), told.append) == 250
    assert told == [100, 200, 250]
    assert all_of(tmp_path / "db") == some(250)
    assert open_database(str(tmp_path / "db")).count == 250
    assert [p.name for p in tmp_path.iterdir()] == ["db"]
    assert not {"LOCK", "LOG"} & set(os.listdir(tmp_path / "db"))


def test_one_is_replaced_by_a_new_one_and_nothing_else_is(tmp_path: Path) -> None:
    write_leveldb(tmp_path / "db", some(9))
    write_leveldb(tmp_path / "db", some(3))
    assert all_of(tmp_path / "db") == some(3)
    assert [p.name for p in tmp_path.iterdir()] == ["db"]
    write_lmdb(tmp_path / "lmdb", some(3))
    with pytest.raises(DataError, match="lmdb is there and is no LevelDB"):
        write_leveldb(tmp_path / "lmdb", some(1))
    with pytest.raises(DataError, match="db is there and is no LMDB"):
        write_lmdb(tmp_path / "db", some(1))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([(b"a", b"1"), (b"a", b"2")], "two records for .* have the key b'a'"),
        ([(b"b", b"1"), (b"a", b"2"), (b"a", b"3")], "two records for .* have the key b'a'"),
        ([(b"", b"1")], "empty key"),
        ([], "no records"),
    ],
)
@pytest.mark.parametrize("chunk", [1, 1000])
def test_what_cannot_be_written_leaves_nothing(
    pairs: list[tuple[bytes, bytes]], message: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "_CHUNK", chunk)
    with pytest.raises(DataError, match=message):
        write_leveldb(tmp_path / "db", pairs)
    assert not list(tmp_path.iterdir())
