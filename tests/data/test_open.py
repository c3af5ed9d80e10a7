"""Opening a data layer: shapes without the data, paths, backends, and what is refused."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from netrun.config import schema
from netrun.data.open import data_shapes, open_feeder
from netrun.errors import ConfigError, DataError, UsageError, Where

GOLDEN = Path(__file__).parents[1] / "golden"
MakeDb = Callable[..., Path]
MakeLayer = Callable[..., schema.LayerParameter]
LabelsOf = Callable[..., list[int]]
TRAIN, TEST = schema.TRAIN, schema.TEST


def test_wrong_settings_are_config_errors(make_db: MakeDb, make_layer: MakeLayer) -> None:
    db = make_db()
    where = Where("net.prototxt", 2, 1)
    for layer, message in [
        (make_layer("", 3), "needs a source"),
        (make_layer(db, 0), "batch_size of 1 or more"),
        (make_layer(db, 3, transform='mean_value: 1 mean_file: "m"'), "both mean_file and mean_value"),
        (make_layer(db, 3, transform="force_color: true force_gray: true"), "both force_color and force_gray"),
        (make_layer(db, 3, data="record_shape { dim: 3 }"), "three positive numbers"),
        (
            make_layer(db, 3, data="record_shape { dim: 3 dim: 4 dim: 5 }"),
            "record_shape is 3x4x5.*first record is 1x4x5",
        ),
    ]:
        with pytest.raises(ConfigError, match=rf"^net.prototxt:2:1: input \(Data\): .*{message}"):
            open_feeder(layer, TRAIN, where=where)
    layer = make_layer(db, 3)
    layer.top.append("third")
    with pytest.raises(ConfigError, match="it has 3 tops"):
        open_feeder(layer, TRAIN)
    layer.type = "Dta"
    with pytest.raises(ConfigError, match='"Dta" is no type of data layer; did you mean "Data"'):
        open_feeder(layer, TRAIN)


def test_what_is_no_database_gets_one_message(tmp_path: Path, make_layer: MakeLayer) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "data.mdb").write_text("hello" * 2000)
    (tmp_path / "nothing").mkdir()
    for name, message in [
        ("absent/mnist_train_lmdb", "is not there\n    netrun data mnist makes it"),
        ("nothing", "neither data.mdb"),
        ("text", "no LMDB"),
    ]:
        layer = make_layer(tmp_path / name, 3)
        for call in (open_feeder, data_shapes):
            with pytest.raises(DataError) as caught:
                call(layer, TRAIN)
            assert message in str(caught.value)
            assert str(caught.value).startswith("input (Data): source ")


def test_a_bad_mean_file_is_named(tmp_path: Path, make_db: MakeDb, make_layer: MakeLayer) -> None:
    db = make_db()
    (tmp_path / "garbage").write_bytes(b"\xff" * 40)
    (tmp_path / "short").write_bytes(
        schema.BlobProto(channels=1, height=4, width=5, num=1, data=[1]).SerializeToString()
    )
    other = schema.BlobProto(data=[0.0] * 4)
    other.shape.dim.extend([1, 2, 2])
    (tmp_path / "other").write_bytes(other.SerializeToString())
    for name, message in [
        ("absent", "cannot be read"),
        ("garbage", "no BlobProto"),
        ("short", "1 values for a shape of 1x4x5"),
        ("other", "mean_file is 1x2x2, and the record is 1x4x5"),
    ]:
        with pytest.raises(DataError, match=message):
            open_feeder(make_layer(db, 3, transform=f'mean_file: "{tmp_path / name}"'), TRAIN)


@pytest.mark.parametrize(
    ("data", "transform", "shape"),
    [
        ("record_shape { dim: 1 dim: 28 dim: 27 }", "", (1, 28, 27)),
        ("record_shape { dim: 4 dim: 28 dim: 27 }", "crop_size: 20", (4, 20, 20)),
        ("", "crop_size: 227", (3, 227, 227)),
        ("", "crop_size: 227 force_gray: true", (1, 227, 227)),
        ("", "crop_size: 227 mean_value: 1 mean_value: 2 mean_value: 3 mean_value: 4", (4, 227, 227)),
        ("", "crop_size: 227 mean_value: 1", (3, 227, 227)),
    ],
)
def test_shapes_without_the_data(data: str, transform: str, shape: tuple[int, ...], make_layer: MakeLayer) -> None:
    layer = make_layer("not/there", 6, data, transform)
    assert data_shapes(layer, TRAIN) == [(6, *shape), (6,)]
    assert data_shapes(make_layer("not/there", 6, data, transform, label=False), TRAIN) == [(6, *shape)]


def test_shapes_without_anything_say_what_to_do(make_layer: MakeLayer) -> None:
    with pytest.raises(DataError, match=r"source not/there is not there\n.*record_shape \{ dim: 3 dim: 32 dim: 32 \}"):
        data_shapes(make_layer("not/there", 6), TRAIN)
    with pytest.raises(ConfigError, match="crop_size 30 does not fit record_shape 1x28x28"):
        data_shapes(make_layer("x", 6, "record_shape { dim: 1 dim: 28 dim: 28 }", "crop_size: 30"), TRAIN)


def test_a_source_beside_the_prototxt_is_found(
    make_db: MakeDb, make_layer: MakeLayer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels_of: LabelsOf
) -> None:
    make_db(name="beside")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    layer = make_layer("beside", 3)
    assert data_shapes(layer, TRAIN, folder=str(tmp_path))[0] == (3, 1, 4, 5)
    assert labels_of(layer, 1, folder=str(tmp_path)) == [0, 1, 2]


def test_an_lmdb_is_read_although_the_backend_says_leveldb(
    make_db: MakeDb, make_layer: MakeLayer, caplog: pytest.LogCaptureFixture, labels_of: LabelsOf
) -> None:
    layer = make_layer(make_db(), 3)
    layer.data_param.ClearField("backend")
    with caplog.at_level(logging.WARNING, "netrun.data"):
        assert labels_of(layer, 1) == labels_of(layer, 1) == [0, 1, 2]
    assert [r.getMessage().split(" is an ")[1] for r in caplog.records] == ["LMDB: reading it as such, not as LEVELDB"]


def test_a_leveldb_without_plyvel_names_the_extra(
    tmp_path: Path, make_layer: MakeLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plyvel", None)
    shutil.copytree(GOLDEN / "data" / "leveldb_images", tmp_path / "db")
    layer = make_layer(tmp_path / "db", 3)
    layer.data_param.backend = schema.DataParameter.LEVELDB
    with pytest.raises(UsageError, match=r"plyvel: pip install 'netrun-trainer\[leveldb\]'"):
        open_feeder(layer, TRAIN)


def test_a_leveldb_may_be_read_by_both_phases_and_shuffled(tmp_path: Path, make_layer: MakeLayer) -> None:
    pytest.importorskip("plyvel", reason="reading LevelDB needs plyvel, which is not installed")
    shutil.copytree(GOLDEN / "data" / "leveldb_images", tmp_path / "db")
    layer = make_layer(tmp_path / "db", 3, data="shuffle: true")
    layer.data_param.backend = schema.DataParameter.LEVELDB
    feeders = [open_feeder(layer, TRAIN), open_feeder(layer, TEST)]
    count = feeders[0].records
    seen = [int(v) for _ in range(count) for v in feeders[0].next()[1]]
    feeders[1].next()
    assert len({tuple(sorted(seen[i * count : (i + 1) * count])) for i in range(3)}) == 1
    for feeder in feeders:
        feeder.close()
    (tmp_path / "db" / "CURRENT").write_text("MANIFEST-999999\n")
    with pytest.raises(DataError, match="cannot be opened as a LevelDB"):
        open_feeder(layer, TRAIN)
