"""Lists of images: what separates name and labels, how many labels there are, and wrong lines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from netrun.data.image_list import ImageList, read_image_list
from netrun.errors import DataError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b 2.png", "c"):
        (tmp_path / name).touch()
    return tmp_path


def listed(folder: Path, text: str | bytes, root: str = "") -> ImageList:
    (folder / "list.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    os.utime(folder / "list.txt", ns=(0, len(text)))
    return read_image_list("list.txt", root=root)


def test_the_last_space_separates(folder: Path) -> None:
    found = listed(folder, "a.png 3\nb 2.png 1\r\n\n  \nsome 7 thing 12  \nc\t5\nx.png -1\n")
    assert found.names == ["a.png", "b 2.png", "some 7 thing", "c", "x.png"]
    assert found.labels.tolist() == [[3], [1], [12], [5], [-1]]
    assert found.lines == [1, 2, 5, 6, 7]
    assert found.place(2) == "line 5 of list.txt (some 7 thing)"


def test_labels_keep_their_fraction(folder: Path) -> None:
    assert listed(folder, "a.png 0.25\na.png 1e-3\n").labels.tolist() == [[0.25], [0.001]]


def test_which_file_is_there_says_how_many_labels_a_line_has(folder: Path) -> None:
    several = listed(folder, "a.png 1 0.5 -2\nnew.png 4 5 6\n")
    assert several.names == ["a.png", "new.png"]
    assert several.labels.tolist() == [[1, 0.5, -2], [4, 5, 6]]
    (folder / "a.png 1").touch()  # now the first line has another meaning
    assert listed(folder, "a.png 1 3\n").names == ["a.png 1"]
    assert listed(folder, "absent.png 1 3\n").names == ["absent.png 1"]  # as Caffe reads it
    assert listed(folder, "b 2.png 1 3\n").names == ["b 2.png"]


def test_the_root_is_known_when_files_are_looked_for(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "d.png").touch()
    assert listed(folder, "d.png 1 2\n", root="sub/").labels.tolist() == [[1, 2]]
    assert listed(folder, "d.png 1 2 \n", root="").names == ["d.png 1"]


def test_names_need_not_be_utf8(folder: Path) -> None:
    found = listed(folder, b"caf\xe9.png 1\n")
    assert os.fsencode(found.names[0]) == b"caf\xe9.png"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "list.txt lists no images"),
        ("\n \n", "list.txt lists no images"),
        ("a.png 1\nb.png\n", r'line 2 of list.txt: wanted a file name, a space and a label, got "b.png"'),
        ("a.png one\n", r'line 1 of list.txt: .*got "a.png one"'),
        ("a.png nan\n", "line 1"),
        ("a.png 1_0\n", "line 1"),
        ("a.png 1 2\na.png 3 x\n", "line 2 of list.txt: .*2 labels, as on the first line"),
        ("a.png 1 2\na.png 3\n", "line 2 of list.txt: .*2 labels, as on the first line"),
        ("5\n", "line 1"),
    ],
)
def test_wrong_lists_are_refused(text: str, message: str, folder: Path) -> None:
    with pytest.raises(DataError, match=message):
        listed(folder, text)


def test_a_list_that_is_not_there() -> None:
    with pytest.raises(DataError, match=r"source nowhere/list.txt cannot be read: No such file"):
        read_image_list("nowhere/list.txt")


def test_a_list_that_changes_is_read_again(folder: Path) -> None:
    assert listed(folder, "a.png 1\n") is listed(folder, "a.png 1\n")
    assert listed(folder, "a.png 1\nc 2\n").names == ["a.png", "c"]
