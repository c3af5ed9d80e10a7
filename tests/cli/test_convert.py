"""``netrun data convert`` and ``netrun data info``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from netrun.data.database import open_database

pytest.importorskip("PIL", reason="image files need Pillow, which is not installed")
GOLDEN = Path(__file__).parents[1] / "golden" / "data"
LIST, ROOT = str(GOLDEN / "images.txt"), str(GOLDEN / "images")
Run = Callable[..., Any]


def test_a_list_becomes_a_database(run: Run, folder: Path) -> None:
    result = run("data", "convert", "--root", ROOT, LIST, "out/db", "--resize", "5x7")
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines() == ["5 images", "out/db"]
    made, wanted = open_database("out/db"), open_database(str(GOLDEN / "lmdb_images"))
    assert [made.read(i) for i in range(5)] == [wanted.read(i) for i in range(5)]
    made.close()
    wanted.close()
    assert sorted(p.name for p in folder.iterdir()) == ["net.prototxt", "out", "solver.prototxt"]


def test_flags_in_caffes_spelling(run: Run) -> None:
    flags = ("-gray", "--encoded=0", "-backend=lmdb")
    assert run("data", "convert", *flags[:1], flags[2], "-encode_type", "png", "-check_size", "-root", ROOT, LIST, "db",
               "-resize=4x4", "-shuffle", "-seed", "3").code == 0  # fmt: skip
    found = json.loads(run("data", "info", "db", "--json").out)
    assert found["kinds"] == {"PNG": 5}
    assert found["shapes"] == {"1x4x4": 5}
    assert found["labels"] == {"1": 1, "3": 1, "4": 1, "5": 1, "8": 1}


def test_bad_images(run: Run, folder: Path) -> None:
    (folder / "list.txt").write_text("img_0.png 1\nabsent.png 2\n")
    refused = run("data", "convert", "--root", ROOT, "list.txt", "db")
    assert refused.code == 3
    assert refused.err.startswith("line 2 of list.txt (absent.png) cannot be used: it cannot be read: No such file")
    assert "--skip-bad" in refused.err
    assert not (folder / "db").exists()
    skipping = run("data", "convert", "--root", ROOT, "list.txt", "db", "--skip-bad")
    assert skipping.out.splitlines()[0] == "1 images, 1 left out"
    assert "left out: line 2 of list.txt" in skipping.err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("convert", "x"), "netrun data convert wants the list of images and the database to write"),
        (("convert", "x", "y", "--to", "z"), "wants the list of images"),
        (("convert", LIST, "y", "--resize", "5"), "--resize wants HEIGHTxWIDTH in pixels, got 5"),
        (("convert", LIST, "y", "--resize", "0x5"), "--resize wants HEIGHTxWIDTH"),
        (("convert", LIST, "y", "--encode-type", "gif"), "jpg and png can"),
        (("convert", LIST, "y", "--backend", "sql"), "backend"),
        (("info",), "netrun data info wants the database to look at"),
        (("mean", "a", "b", "--gray"), "netrun data mean: --gray belongs to netrun data convert"),
        (("mnist", "--backend", "leveldb"), "netrun data mnist: --backend belongs to netrun data convert"),
        (("convert", LIST, "y", "--json"), "--json belongs to netrun data info"),
        (("info", "a", "--resize", "5x5"), "--resize belongs to netrun data convert"),
    ],
)
def test_wrong_arguments(argv: tuple[str, ...], message: str, run: Run) -> None:
    result = run("data", *argv)
    assert result.code == 2
    assert message in result.err
    assert "Traceback" not in result.err


def test_info_for_people(run: Run) -> None:
    lines = run("data", "info", str(GOLDEN / "lmdb_images")).out.splitlines()
    assert lines[0].endswith("lmdb_images: LMDB, 5 records")
    assert lines[1] == 'keys    "00000000_img_0.png" to "00000004_img_4.png"'
    assert lines[2:5] == ["size    3x5x7", "values  8-bit, 117 bytes a record", "labels  5 from 1 to 8:"]
    assert lines[5:] == ["        1  1", "        3  1", "        4  1", "        5  1", "        8  1"]


def test_info_lists_the_most_frequent_of_many_labels(run: Run, folder: Path) -> None:
    names = [*range(50), *[7] * 5]
    (folder / "list.txt").write_text("".join(f"img_{i % 2}.png {label}\n" for i, label in enumerate(names)))
    assert run("data", "convert", "--root", ROOT, "list.txt", "db").code == 0
    lines = run("data", "info", "db").out.splitlines()
    assert lines[4] == "labels  50 from 0 to 49, the most frequent ones:"
    assert lines[5].split() == ["7", "6"]
    assert len(lines) == 25


def test_info_of_what_is_no_database(run: Run) -> None:
    result = run("data", "info", "nowhere")
    assert (result.code, result.err.splitlines()[0]) == (3, "source nowhere is not there")
