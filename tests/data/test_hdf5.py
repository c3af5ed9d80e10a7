"""HDF5Data: rows across files, shuffling, resuming, memory, messages. (Recorded batches: test_golden.py.)"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from netrun.config import schema
from netrun.data.feeder import Cursor
from netrun.data.hdf5 import Hdf5Batches
from netrun.data.open import data_shapes, open_feeder
from netrun.data.settings import Settings
from netrun.errors import ConfigError, DataError, Where

h5py = pytest.importorskip("h5py", reason="HDF5Data needs h5py, which is not installed")
TRAIN = schema.TRAIN
COUNTS = (4, 0, 7, 2)
ROWS = sum(COUNTS)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four files: row n of all has the label n and data n, n + 0.5."""
    monkeypatch.chdir(tmp_path)
    start = 0
    for i, count in enumerate(COUNTS):
        numbers = np.arange(start, start + count)
        write(tmp_path / f"{i}.h5", label=numbers.astype("i4"), data=np.stack([numbers, numbers + 0.5], 1))
        start += count
    (tmp_path / "list.txt").write_text("0.h5\n1.h5\n\n2.h5\n 3.h5 \n")
    return tmp_path


def write(path: Path, **datasets: Any) -> None:
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name] = values


def layer(batch: int = 3, more: str = "", source: str = "list.txt", tops: str = 'top: "data" top: "label"') -> Any:
    text = f"""name: "input" type: "HDF5Data" {tops}
        hdf5_data_param {{ source: "{source}" batch_size: {batch} {more} }}"""
    return text_format.Parse(text, schema.LayerParameter())


def labels_of(made: Any, batches: int, **options: Any) -> list[int]:
    feeder = open_feeder(made, TRAIN, **options)
    try:
        found = []
        for _ in range(batches):
            data, labels = feeder.next()
            np.testing.assert_array_equal(data, np.stack([labels, labels + 0.5], 1))
            found += labels.astype(int).tolist()
        return found
    finally:
        feeder.close()


@pytest.mark.parametrize("threads", [None, 0])
@pytest.mark.parametrize("batch", [1, 3, 5, 40])
@pytest.mark.usefixtures("files")
def test_rows_run_on_across_files_and_the_end(batch: int, threads: int | None) -> None:
    assert labels_of(layer(batch), 8, threads=threads) == [i % ROWS for i in range(8 * batch)]


@pytest.mark.usefixtures("files")
def test_shuffling_takes_files_and_their_rows_in_a_new_order_every_epoch() -> None:
    made = layer(ROWS, "shuffle: true")
    seen = labels_of(made, 6)
    epochs = [tuple(seen[i : i + ROWS]) for i in range(0, len(seen), ROWS)]
    assert all(sorted(epoch) == list(range(ROWS)) for epoch in epochs)
    assert len(set(epochs)) == 6
    own = [i for i, count in enumerate(COUNTS) for _ in range(count)]
    for epoch in epochs:  # the rows of a file stay together: only one has to be in memory
        of_files = [own[row] for row in epoch]
        assert sum(a != b for a, b in itertools.pairwise(of_files)) == 2
    assert len({tuple(dict.fromkeys(own[row] for row in epoch)) for epoch in epochs}) > 1
    assert labels_of(layer(5, "shuffle: true"), 15) == seen[:75]
    assert labels_of(made, 6, seed=1) != seen


@pytest.mark.parametrize("shuffle", ["true", "false"])
@pytest.mark.usefixtures("files")
def test_resuming_is_exact(shuffle: str) -> None:
    made = layer(4, f"shuffle: {shuffle}")
    straight = labels_of(made, 20)
    feeder = open_feeder(made, TRAIN)
    for _ in range(7):
        feeder.next()
    cursor = feeder.state()
    feeder.close()
    assert cursor == Cursor(28, 0)
    feeder = open_feeder(made, TRAIN)
    feeder.restore(cursor)
    assert [int(v) for _ in range(13) for v in feeder.next()[1]] == straight[28:]
    with pytest.raises(DataError, match="position -4"):
        feeder.restore(Cursor(-4, 0))
    feeder.close()


def test_one_file_is_in_memory_and_is_read_once(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = Hdf5Batches(Settings(layer(2), TRAIN))
    opened: list[str] = []
    whole = batches._open

    def counted(file: str) -> Any:
        assert batches._loaded == (-1, [])  # the one before has gone
        opened.append(Path(file).name)
        return whole(file)

    monkeypatch.setattr(batches, "_open", counted)
    for i in range(13):
        batches.make(2 * i, 0)
    assert opened == ["0.h5", "2.h5", "3.h5"] * 2
    (files / "list.txt").write_text("2.h5\n")
    single = Hdf5Batches(Settings(layer(2), TRAIN))
    for i in range(20):
        single.make(2 * i, 0)
    assert single._loaded[0] == 0


def test_any_numbers_become_floats(files: Path) -> None:
    write(files / "kinds.h5", a=np.array([1, 2], "u1"), b=np.array([[1.5], [2.5]], "f8"), c=np.array([True, False]),
          d=np.array([1, 2], "f2"), e=np.array([[-1, 2], [3, 4]], ">i8"))  # fmt: skip
    (files / "list.txt").write_text("kinds.h5\n")
    made = layer(2, tops=" ".join(f'top: "{n}"' for n in "abcde"))
    assert data_shapes(made, TRAIN) == [(2,), (2, 1), (2,), (2,), (2, 2)]
    feeder = open_feeder(made, TRAIN)
    found = feeder.next()
    feeder.close()
    assert {values.dtype for values in found} == {np.dtype(np.float32)}
    assert [v.tolist() for v in found] == [[1, 2], [[1.5], [2.5]], [1, 0], [1, 2], [[-1, 2], [3, 4]]]


def test_files_are_found_beside_the_prototxt_or_the_list(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (files / "lists").mkdir()
    (files / "lists" / "own.h5").write_bytes((files / "0.h5").read_bytes())
    (files / "lists" / "list.txt").write_text("0.h5\nown.h5\n")
    (files / "elsewhere").mkdir()
    monkeypatch.chdir(files / "elsewhere")
    assert labels_of(layer(8, source="lists/list.txt"), 1, folder=str(files)) == [0, 1, 2, 3] * 2


@pytest.mark.usefixtures("files")
def test_labels_beyond_the_classes_name_row_and_file() -> None:
    feeder = open_feeder(layer(3), TRAIN, classes={"label": 8})
    for _ in range(2):
        feeder.next()
    with pytest.raises(DataError, match=r'row 4 of 2.h5: "label" is 8, and has to be 0 to 7'):
        feeder.next()
    feeder.close()
    feeder = open_feeder(layer(ROWS, "shuffle: true"), TRAIN, classes={"label": 12})
    with pytest.raises(DataError, match=r'row 1 of 3.h5: "label" is 12'):
        feeder.next()
    feeder.close()


def test_nan_is_no_class(files: Path) -> None:
    write(files / "0.h5", data=np.zeros((4, 2)), label=np.array([0, np.nan, 1, 2]))
    feeder = open_feeder(layer(3), TRAIN, classes={"label": 8})
    with pytest.raises(DataError, match=r'row 1 of 0.h5: "label" is nan'):
        feeder.next()
    feeder.close()


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (layer(source=""), "needs a source"),
        (layer(0), "batch_size of 1 or more"),
        (text_format.Parse("transform_param { scale: 2 }", layer()), "does not transform its data"),
    ],
)
def test_wrong_parameters_are_refused(made: Any, message: str) -> None:
    for opener in (data_shapes, open_feeder):
        with pytest.raises(ConfigError, match=rf"^net:2:1: input \(HDF5Data\): .*{message}"):
            opener(made, TRAIN, where=Where("net", 2, 1))


def test_wrong_files_are_refused(files: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(DataError, match=rf"^net:2:1: input \(HDF5Data\): .*{message}"):
            open_feeder(layer(), TRAIN, where=Where("net", 2, 1))

    rows = np.zeros((4, 2))
    write(files / "0.h5", data=rows)
    refused(r'0.h5: no dataset "label" \(its datasets: data\)')
    write(files / "0.h5", data=rows, label=np.zeros(3))
    refused("0.h5: the datasets differ in their number of rows: data 4, label 3")
    write(files / "0.h5", data=np.zeros((4, 3)), label=np.zeros(4))
    refused(r'2.h5: rows of "data" have the shape 2, those of 0.h5 3|1.h5: rows of "data" have the shape 2, .* 3')
    write(files / "0.h5", data=np.array([b"a", b"b"]), label=np.zeros(2))
    refused('0.h5: dataset "data" holds .S1')
    write(files / "0.h5", data=3.0, label=np.zeros(2))
    refused('0.h5: dataset "data" holds float64 of shape one number')
    with h5py.File(files / "0.h5", "w") as file:
        file.create_group("data")
    refused('0.h5: no dataset "data"')
    (files / "0.h5").write_bytes(b"no HDF5")
    refused("0.h5 is no readable HDF5 file")
    (files / "list.txt").write_text("absent.h5\n")
    refused("absent.h5, which list.txt lists, is not there")
    (files / "list.txt").write_text("\n")
    refused("source list.txt lists no files")
    (files / "list.txt").write_text("1.h5\n")
    refused("the files of list.txt hold no rows")
    (files / "list.txt").write_bytes(b"\xff\xfe")
    refused("source list.txt cannot be read as a list of files: it is not text")
    (files / "list.txt").unlink()
    refused("source list.txt cannot be read as a list of files: No such file")


def test_a_file_that_changes_while_it_is_used(files: Path) -> None:
    feeder = open_feeder(layer(4), TRAIN, threads=0)
    feeder.next()
    write(files / "2.h5", data=np.zeros((7, 5)), label=np.zeros(7))
    with pytest.raises(DataError, match=r'2.h5 has changed while it was used: "data" is now 7x5'):
        feeder.next()
    (files / "2.h5").unlink()
    with pytest.raises(DataError, match=r"2.h5, which list.txt lists, is not there"):
        feeder.next()
    feeder.close()
