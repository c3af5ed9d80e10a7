"""Image lists into databases: the records of Caffe's convert_imageset, its options, and looking into the result."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netrun.config import schema
from netrun.data import convert
from netrun.data.convert import Conversion
from netrun.data.database import open_database
from netrun.data.datum import parse
from netrun.data.images import decode, encode
from netrun.data.info import look_into
from netrun.data.write import key_of, write_lmdb
from netrun.errors import DataError, UsageError

Image = pytest.importorskip("PIL.Image", reason="image files need Pillow, which is not installed")
GOLDEN = Path(__file__).parents[1] / "golden" / "data"


def records(path: Path) -> list[tuple[bytes, bytes]]:
    database = open_database(str(path))
    try:
        return [database.read(i) for i in range(database.count)]
    finally:
        database.close()


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images a.png, b.jpg and gray.bmp of 4x6 and large.png of 8x8 in the folder at/, and a list of the first three."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "at").mkdir()
    rng = np.random.default_rng(2)
    for name, shape in (("a.png", (3, 4, 6)), ("b.jpg", (3, 4, 6)), ("gray.bmp", (1, 4, 6)), ("large.png", (3, 8, 8))):
        pixels = rng.integers(0, 256, shape, dtype=np.uint8)
        (tmp_path / "at" / name).write_bytes(encode(pixels, name.partition(".")[2]))
    (tmp_path / "list.txt").write_text("a.png 3\nb.jpg -1\ngray.bmp 70000\n")
    return tmp_path


def converted(images: Path, text: str = "", **options: Any) -> list[tuple[bytes, schema.Datum]]:
    if text:
        (images / "list.txt").write_text(text)
    Conversion(root="at", **options).convert("list.txt", "db")
    return [(key, schema.Datum.FromString(value)) for key, value in records(images / "db")]


@pytest.mark.parametrize(("backend", "size"), [("lmdb", (5, 7)), ("leveldb", (8, 6))])
def test_records_are_byte_for_byte_those_of_caffe(backend: str, size: tuple[int, int], tmp_path: Path) -> None:
    if backend == "leveldb":
        pytest.importorskip("plyvel", reason="LevelDB needs plyvel, which is not installed")
    told: list[tuple[int, int]] = []
    conversion = Conversion(backend=backend, root=str(GOLDEN / "images") + "/", size=size)
    done = conversion.convert(str(GOLDEN / "images.txt"), str(tmp_path / "db"), lambda n, of: told.append((n, of)))
    assert done == 5
    assert told[-1] == (5, 5)
    assert records(tmp_path / "db") == records(GOLDEN / f"{backend}_images")


def test_pixels_and_labels(images: Path) -> None:
    found = converted(images)
    assert [key for key, _ in found] == [b"00000000_a.png", b"00000001_b.jpg", b"00000002_gray.bmp"]
    assert [datum.label for _, datum in found] == [3, -1, 70000]
    for (_, datum), name in zip(found, ("a.png", "b.jpg", "gray.bmp"), strict=True):
        wanted = decode((images / "at" / name).read_bytes(), "colour")
        assert (datum.channels, datum.height, datum.width) == wanted.shape
        assert datum.data == wanted.tobytes()
        assert datum.HasField("encoded")
        assert not datum.encoded


def test_gray(images: Path) -> None:
    for _, datum in converted(images, gray=True, size=(2, 3)):
        assert (datum.channels, datum.height, datum.width, len(datum.data)) == (1, 2, 3, 6)


def test_encoded_files_go_in_byte_for_byte_unless_something_changes(images: Path) -> None:
    for (_, datum), name in zip(converted(images, encoded=True), ("a.png", "b.jpg", "gray.bmp"), strict=True):
        assert datum.encoded
        assert datum.data == (images / "at" / name).read_bytes()
        assert not datum.HasField("channels")
    kinds = [Image.open(io.BytesIO(d.data)).format for _, d in converted(images, encode_type="png")]
    assert kinds == ["PNG"] * 3
    same = converted(images, encode_type="jpeg")[1][1]
    assert same.data == (images / "at" / "b.jpg").read_bytes()
    resized = converted(images, encoded=True, size=(2, 3))
    assert decode(resized[0][1].data).shape == (3, 2, 3)
    gray = converted(images, encoded=True, gray=True)
    assert [decode(datum.data).shape for _, datum in gray] == [(1, 4, 6)] * 3


def test_shuffling_follows_from_the_seed_and_keys_keep_its_order(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "CHUNK", 4)
    text = "".join(f"a.png {i}\n" for i in range(30))
    plain, first = converted(images, text), converted(images, text, shuffle=True)
    labels = [datum.label for _, datum in first]
    assert sorted(labels) == list(range(30)) != labels
    assert [key for key, _ in first] == [key for key, _ in plain]
    assert [datum.label for _, datum in converted(images, shuffle=True)] == labels
    assert [datum.label for _, datum in converted(images, shuffle=True, seed=1)] != labels


def test_check_size(images: Path) -> None:
    text = "a.png 1\nlarge.png 2\n"
    assert len(converted(images, text)) == 2
    with pytest.raises(DataError, match=r"line 2 of list.txt \(large.png\) is 3x8x8, and line 1 .* is 3x4x6"):
        converted(images, check_size=True)
    assert len(converted(images, check_size=True, size=(3, 3))) == 2


def test_bad_images_stop_it_or_are_left_out(images: Path) -> None:
    (images / "at" / "bad.png").write_bytes(b"no image")
    text = "bad.png 0\na.png 1\nabsent.png 2\nb.jpg 3\n"
    with pytest.raises(DataError, match=r"line 1 of list.txt \(bad.png\) cannot be used: .*\n +--skip-bad"):
        converted(images, text)
    assert not (images / "db").exists()
    conversion = Conversion(root="at", skip_bad=True)
    assert conversion.convert("list.txt", "db") == 2
    assert [key for key, _ in records(images / "db")] == [b"00000001_a.png", b"00000003_b.jpg"]
    assert [line.split(" cannot")[0] for line in conversion.skipped] == [
        "line 1 of list.txt (bad.png)",
        "line 3 of list.txt (absent.png)",
    ]


@pytest.mark.parametrize(
    ("text", "options", "error", "message"),
    [
        ("a.png 1 2\n", {}, DataError, "2 labels a line, and a record of a database holds one"),
        ("a.png 0.5\n", {}, DataError, r"line 1 of list.txt \(a.png\) has label 0.5, .* whole numbers"),
        ("a.png 4294967296\n", {}, DataError, "whole numbers"),
        ("a.png 1\n", {"encode_type": "gif"}, UsageError, 'encoded as "gif"; jpg and png can'),
        ("a.png 1\n", {"backend": "sql"}, UsageError, 'no backend "sql"; it is lmdb or leveldb'),
        ("plain 1\n", {"encoded": True}, DataError, "no ending that tells its kind"),
    ],
)
def test_what_cannot_be_converted(
    text: str, options: dict[str, Any], error: type[Exception], message: str, images: Path
) -> None:
    (images / "at" / "plain").write_bytes((images / "at" / "a.png").read_bytes())
    with pytest.raises(error, match=message):
        converted(images, text, **options)
    assert not (images / "db").exists()


def test_looking_into_a_database(images: Path) -> None:
    converted(images, "a.png 1\na.png 1\nlarge.png 2\n", encoded=True)
    found = look_into("db")
    assert (found.kind, found.records, found.sampled) == ("LMDB", 3, 3)
    assert found.labels == {1: 2, 2: 1}
    assert found.shapes == {"3x4x6": 2, "3x8x8": 1}
    assert found.kinds == {"PNG": 3}
    assert (found.first, found.last) == ("00000000_a.png", "00000002_large.png")


def test_a_sample_is_spread_evenly(tmp_path: Path) -> None:
    floats = schema.Datum(channels=1, height=1, width=2, float_data=[1, 2])
    pairs = []
    for i in range(100):
        floats.label = i
        pairs.append((key_of(i), floats.SerializeToString()))
    write_lmdb(tmp_path / "db", pairs)
    found = look_into(str(tmp_path / "db"), sample=10)
    assert sorted(found.labels) == list(range(0, 100, 10))
    assert found.kinds == {"float": 10}
    write_lmdb(tmp_path / "db", [(key_of(0), b"\x08\x01")])
    with pytest.raises(DataError, match=r'record "00000000" of .*db cannot be used'):
        look_into(str(tmp_path / "db"))


def test_golden_databases_say_what_they_hold() -> None:
    assert look_into(str(GOLDEN / "lmdb_jpeg")).kinds.keys() == {"JPEG"}
    assert look_into(str(GOLDEN / "lmdb_float")).kinds.keys() == {"float"}
    raw = look_into(str(GOLDEN / "lmdb_raw"))
    assert sum(raw.labels.values()) == raw.records == 7
    assert parse(records(GOLDEN / "lmdb_raw")[0][1]).label in raw.labels
