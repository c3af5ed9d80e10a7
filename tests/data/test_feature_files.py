"""Values of blobs into files and databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netrun.config import schema
from netrun.data.database import open_database
from netrun.data.feature_files import write_features
from netrun.errors import DataError

BATCHES = [
    {
        "fc/1": np.arange(6, dtype=np.float32).reshape(2, 3) + i,
        "file": np.full((2, 2, 1, 4), i, np.float32),
        "loss": np.float32(i),
    }
    for i in range(3)
]
WANTED = {
    "fc/1": np.concatenate([b["fc/1"] for b in BATCHES]),
    "file": np.concatenate([b["file"] for b in BATCHES]),
    "loss": np.array([0, 1, 2], np.float32),
}


def same(found: dict[str, Any]) -> None:
    assert set(found) == set(WANTED)
    for name, values in WANTED.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)


def test_npz(tmp_path: Path) -> None:
    assert write_features(tmp_path / "deep" / "all.npz", BATCHES) == [tmp_path / "deep" / "all.npz"]
    with np.load(tmp_path / "deep" / "all.npz") as stored:
        same(dict(stored))
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["all.npz"]


def test_hdf5(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="this needs h5py, which is not installed")
    write_features(tmp_path / "all.h5", BATCHES)
    with h5py.File(tmp_path / "all.h5") as stored:
        same({name: stored[name][...] for name in WANTED})
    assert [p.name for p in tmp_path.iterdir()] == ["all.h5"]


def test_npy(tmp_path: Path) -> None:
    made = write_features(tmp_path / "all", BATCHES)
    assert [p.name for p in made] == ["fc_1.npy", "file.npy", "loss.npy"]
    same(dict(zip(WANTED, map(np.load, made), strict=True)))
    write_features(tmp_path / "all", BATCHES[:1])
    assert len(np.load(made[0])) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["all"]


@pytest.mark.parametrize("backend", ["lmdb", "leveldb"])
def test_databases_of_float_records(backend: str, tmp_path: Path) -> None:
    if backend == "leveldb":
        pytest.importorskip("plyvel", reason="LevelDB needs plyvel, which is not installed")
    made = write_features(tmp_path / "db", BATCHES, backend)
    assert [p.relative_to(tmp_path).as_posix() for p in made] == ["db/fc_1", "db/file", "db/loss"]
    for path, values, shape in zip(made, WANTED.values(), [(3, 1, 1), (2, 1, 4), (1, 1, 1)], strict=True):
        database = open_database(str(path))
        assert database.count == len(values)
        for i, row in enumerate(values):
            key, value = database.read(i)
            datum = schema.Datum.FromString(value)
            assert key == b"%010d" % i
            assert (datum.channels, datum.height, datum.width) == shape
            assert list(datum.float_data) == row.reshape(-1).tolist()
            assert not datum.HasField("label")
        database.close()
    (single,) = write_features(tmp_path / "one", [{"x": np.zeros((2, 1, 2, 3, 4))}], backend)
    database = open_database(str(single))
    datum = schema.Datum.FromString(database.read(1)[1])
    database.close()
    assert (single, datum.channels, datum.height, datum.width) == (tmp_path / "one", 1, 2, 12)


def test_what_fails_leaves_the_old_file(tmp_path: Path) -> None:
    def broken() -> Iterator[dict[str, Any]]:
        yield {"x": np.zeros((2, 3))}
        raise DataError("the source broke")

    (tmp_path / "x.npz").write_bytes(b"old")
    with pytest.raises(DataError, match="the source broke"):
        write_features(tmp_path / "x.npz", broken())
    with pytest.raises(DataError, match='rows of blob "x" have changed'):
        write_features(tmp_path / "x.npz", [{"x": np.zeros((2, 3))}, {"x": np.zeros((2, 4))}])
    with pytest.raises(DataError, match="no batches"):
        write_features(tmp_path / "x.npz", [])
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("x.npz", b"old")]
    with pytest.raises(DataError, match="y cannot be written"):
        write_features(tmp_path / "x.npz" / "y", BATCHES)
