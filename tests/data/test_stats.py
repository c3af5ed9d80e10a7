"""The mean image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from netrun.config import schema
from netrun.data.datum import pack
from netrun.data.stats import compute_mean, read_mean, write_mean
from netrun.data.write import key_of, write_lmdb
from netrun.errors import DataError

GOLDEN = Path(__file__).parents[1] / "golden"


def test_the_mean_is_the_one_caffe_computes(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    target = tmp_path / "mean.binaryproto"
    blob = write_mean(str(GOLDEN / "data/lmdb_raw"), str(target), progress=lambda *at: told.append(at))
    wanted = schema.BlobProto.FromString((GOLDEN / "data/mean.binaryproto").read_bytes())
    assert (blob.num, blob.channels, blob.height, blob.width) == (1, 3, 10, 12)
    np.testing.assert_allclose(blob.data, wanted.data, rtol=1e-6)
    np.testing.assert_array_equal(read_mean(str(target)), np.array(blob.data, np.float32).reshape(3, 10, 12))
    assert told == [(7, 7)]


def test_encoded_and_float_records_have_means_too() -> None:
    pytest.importorskip("PIL", reason="decoding needs Pillow")
    with np.load(GOLDEN / "data_layers" / "png.npz") as recorded:
        images = np.concatenate([recorded[f"batch{i}_data"] for i in range(3)])[:7]
    png = compute_mean("data/lmdb_png", folder=str(GOLDEN))
    np.testing.assert_allclose(png.data, images.mean(axis=0).reshape(-1), rtol=1e-6)
    floats = compute_mean("data/lmdb_float", folder=str(GOLDEN))
    assert abs(np.array(floats.data)).max() < 2


def test_a_mean_file_may_state_its_shape_either_way(tmp_path: Path) -> None:
    new = schema.BlobProto(double_data=[1.0, 2.0])
    new.shape.dim.extend([1, 1, 2])
    old = schema.BlobProto(num=1, channels=1, height=1, width=2, data=[1.0, 2.0])
    for blob in (new, old):
        (tmp_path / "m").write_bytes(blob.SerializeToString())
        assert read_mean("m", str(tmp_path)).tolist() == [[[1.0, 2.0]]]


def test_records_of_several_sizes_have_no_mean(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "db", [(key_of(i), pack((1, 1, i + 1), b"x" * (i + 1), 0)) for i in range(2)])
    with pytest.raises(DataError, match=r'"00000001" of .*it is 1x1x2, and the first record is 1x1x1'):
        compute_mean(str(tmp_path / "db"))
    with pytest.raises(DataError, match="cannot be written"):
        write_mean(str(GOLDEN / "data/lmdb_raw"), str(tmp_path / "no" / "mean"))
