"""Writing databases: what is written is read again, and a half one is never left."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from netrun.config import schema
from netrun.data import write
from netrun.data.lmdb_file import LmdbFile
from netrun.data.write import key_of, write_lmdb
from netrun.errors import DataError


def records(path: Path) -> list[tuple[bytes, bytes]]:
    database = LmdbFile(str(path))
    try:
        return [database.read(i) for i in range(database.count)]
    finally:
        database.close()


def some(count: int, size: int = 5) -> list[tuple[bytes, bytes]]:
    return [(key_of(i), bytes([i % 256]) * size) for i in range(count)]


def test_messages_and_bytes_in_any_order(tmp_path: Path) -> None:
    datum = schema.Datum(channels=1, height=1, width=2, data=b"ab", label=4)
    count = write_lmdb(tmp_path / "deep" / "db", [(b"b", datum), (b"a", b"raw"), (b"c", datum)])
    assert count == 3
    assert records(tmp_path / "deep" / "db") == [
        (b"a", b"raw"),
        (b"b", datum.SerializeToString()),
        (b"c", datum.SerializeToString()),
    ]
    assert [p.name for p in (tmp_path / "deep").rglob("*")] == ["db", "data.mdb"]


def test_it_grows_as_needed_and_tells_its_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "_FIRST_MAP", 1 << 16)
    told: list[int] = []
    pairs = some(2500, 900)
    write_lmdb(tmp_path / "db", iter(pairs), told.append)
    assert told == [1000, 2000, 2500]
    assert records(tmp_path / "db") == pairs


def test_a_database_is_replaced_and_its_readers_go_on(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "db", some(3))
    old = LmdbFile(str(tmp_path / "db"))
    write_lmdb(tmp_path / "db", some(9))
    assert len(records(tmp_path / "db")) == 9
    assert old.read(2) == some(3)[2]
    old.close()
    assert [p.name for p in tmp_path.iterdir()] == ["db"]


def test_other_folders_and_files_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for name in ("notes", "file"):
        with pytest.raises(DataError, match=f"{name} is there and is no LMDB"):
            write_lmdb(tmp_path / name, some(1))
    assert (tmp_path / "notes" / "mine.txt").read_text() == (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([(b"a", b"1"), (b"a", b"2")], "two records for .* have the key b'a'"),
        ([(b"", b"1")], "0 bytes: LMDB takes 1 to"),
        ([(b"k" * 600, b"1")], "600 bytes: LMDB takes 1 to"),
        ([], "no records"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(pairs: list[tuple[bytes, bytes]], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        write_lmdb(tmp_path / "db", pairs)
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_source_leaves_the_old_database(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "db", some(3))

    def broken() -> Iterator[tuple[bytes, bytes]]:
        yield from some(1500)
        raise DataError("the source broke")

    with pytest.raises(DataError, match="the source broke"):
        write_lmdb(tmp_path / "db", broken())
    assert records(tmp_path / "db") == some(3)
    assert [p.name for p in tmp_path.iterdir()] == ["db"]


def test_a_kill_leaves_no_half_database(tmp_path: Path) -> None:
    program = f"""
import itertools
from netrun.data.write import key_of, write_lmdb
endless = ((key_of(i), b"x" * 500) for i in itertools.count())
write_lmdb({str(tmp_path / "db")!r}, endless, lambda n: print(n, flush=True))
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1000\n"
        time.sleep(0.01)
        process.kill()
    assert not (tmp_path / "db").exists()
    write_lmdb(tmp_path / "db", some(3))
    assert records(tmp_path / "db") == some(3)


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="file/db cannot be written"):
        write_lmdb(tmp_path / "file" / "db", some(1))
