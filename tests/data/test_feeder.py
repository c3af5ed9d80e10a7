"""Feeders of Data layers: order, shuffling, resuming, shapes, and messages."""

from __future__ import annotations

import gc
import io
import logging
import random
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netrun.config import schema
from netrun.data.datum import pack
from netrun.data.feeder import Cursor
from netrun.data.lmdb_file import LmdbFile
from netrun.data.open import data_shapes, open_feeder
from netrun.data.write import key_of, write_lmdb
from netrun.errors import ConfigError, DataError, UsageError, Where

GOLDEN = Path(__file__).parents[1] / "golden"
MakeDb = Callable[..., Path]
MakeLayer = Callable[..., schema.LayerParameter]
TRAIN, TEST = schema.TRAIN, schema.TEST


def labels_of(layer: schema.LayerParameter, batches: int, **options: Any) -> list[int]:
    feeder = open_feeder(layer, TRAIN, **options)
    try:
        return [int(v) for _ in range(batches) for v in feeder.next()[1]]
    finally:
        feeder.close()


def test_runs_on_across_the_end_without_a_gap(make_db: MakeDb, make_layer: MakeLayer) -> None:
    layer = make_layer(make_db(7), 3)
    assert labels_of(layer, 8) == [i % 7 for i in range(24)]
    assert labels_of(layer, 8, threads=0) == [i % 7 for i in range(24)]


def test_a_batch_may_be_larger_than_the_source(make_db: MakeDb, make_layer: MakeLayer) -> None:
    assert labels_of(make_layer(make_db(2), 7), 2) == [0, 1] * 7


def test_records_come_in_the_order_of_the_bytes_of_their_keys(tmp_path: Path, make_layer: MakeLayer) -> None:
    write_lmdb(tmp_path / "db", [(str(i).encode(), pack((1, 1, 1), b"x", i)) for i in range(12)])
    assert labels_of(make_layer(tmp_path / "db", 12), 1) == [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]


def test_shuffling_is_a_new_permutation_every_epoch(make_db: MakeDb, make_layer: MakeLayer) -> None:
    layer = make_layer(make_db(50), 8, data="shuffle: true")
    seen = labels_of(layer, 25)
    epochs = [seen[i : i + 50] for i in range(0, 200, 50)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert seen == labels_of(layer, 25)
    assert seen == labels_of(layer, 25, threads=0)
    assert seen != labels_of(layer, 25, seed=1)
    assert seen != labels_of(layer, 25, stream="other")


def test_rand_skip_starts_somewhere_and_keeps_the_order(make_db: MakeDb, make_layer: MakeLayer) -> None:
    layer = make_layer(make_db(20), 5, data="rand_skip: 15")
    starts = set()
    for seed in range(12):
        seen = labels_of(layer, 4, seed=seed)
        assert seen == [(seen[0] + i) % 20 for i in range(20)]
        starts.add(seen[0])
    assert len(starts) > 3
    assert max(starts) < 15


@pytest.mark.parametrize("threads", [None, 0])
@pytest.mark.parametrize("phase", [TRAIN, TEST])
def test_resuming_is_exact(threads: int | None, phase: int, make_db: MakeDb, make_layer: MakeLayer) -> None:
    layer = make_layer(
        make_db(23, (3, 9, 8)), 5, data="shuffle: true rand_skip: 9", transform="crop_size: 4 mirror: true scale: 0.5"
    )
    straight = open_feeder(layer, phase, seed=5)
    wanted = [straight.next() for _ in range(20)]
    assert straight.state() == Cursor(100, 100)
    straight.close()

    first = open_feeder(layer, phase, seed=5, threads=threads)
    for batch in wanted[:7]:
        np.testing.assert_array_equal(first.next()[0], batch[0])
    cursor = first.state()
    assert cursor == Cursor(35, 35)  # what was read ahead does not count
    first.close()

    second = open_feeder(layer, phase, seed=5, threads=threads)
    second.next()
    second.restore(cursor)
    assert second.state() == cursor
    for batch in wanted[7:]:
        for got, expected in zip(second.next(), batch, strict=True):
            np.testing.assert_array_equal(got, expected)
    second.restore(Cursor())
    np.testing.assert_array_equal(second.next()[0], wanted[0][0])
    with pytest.raises(DataError, match="position -1"):
        second.restore(Cursor(-1, 0))
    second.close()
    assert len({batch[0].tobytes() for batch in wanted}) == 20


def test_what_comes_does_not_depend_on_the_size_of_the_batch(make_db: MakeDb, make_layer: MakeLayer) -> None:
    db, both = make_db(11, (1, 6, 6)), []
    for size, count in ((2, 12), (8, 3)):
        layer = make_layer(db, size, data="shuffle: true", transform="crop_size: 3 mirror: true")
        feeder = open_feeder(layer, TRAIN, seed=2)
        both.append(np.concatenate([feeder.next()[0] for _ in range(count)]))
        feeder.close()
    np.testing.assert_array_equal(both[0], both[1])


def test_without_random_decisions_no_draws_are_counted(make_db: MakeDb, make_layer: MakeLayer) -> None:
    feeder = open_feeder(make_layer(make_db(), 3), TRAIN)
    feeder.next()
    assert feeder.state() == Cursor(3, 0)
    feeder.close()


def test_batches_belong_to_the_caller(make_db: MakeDb, make_layer: MakeLayer) -> None:
    feeder = open_feeder(make_layer(make_db(3), 3), TEST)
    first = feeder.next()
    first[0][...] = -1
    assert feeder.next()[0].min() >= 0
    feeder.close()


@pytest.mark.parametrize("batches", [0, 1])
@pytest.mark.parametrize("threads", [None, 0])
def test_a_closed_feeder_says_so(batches: int, threads: int | None, make_db: MakeDb, make_layer: MakeLayer) -> None:
    feeder = open_feeder(make_layer(make_db(), 3), TRAIN, threads=threads)
    for _ in range(batches):
        feeder.next()
    feeder.close()
    feeder.close()
    with pytest.raises(DataError, match="was closed"):
        feeder.next()


def test_a_forgotten_feeder_goes_away(make_db: MakeDb, make_layer: MakeLayer) -> None:
    feeder = open_feeder(make_layer(make_db(), 3), TRAIN)
    feeder.next()
    del feeder
    gc.collect()
    time.sleep(0.05)  # the fixture checks that its thread has ended


def test_both_phases_read_one_folder(make_db: MakeDb, make_layer: MakeLayer) -> None:
    layer = make_layer(make_db(), 3)
    feeders = [open_feeder(layer, phase) for phase in (TRAIN, TEST, TEST)]
    assert len({feeder.next()[0].tobytes() for feeder in feeders}) == 1
    for feeder in feeders:
        assert feeder.records == 7
        feeder.close()


# -- records that are not all alike ------------------------------------------------------------------------------------


def encoded(pixels: Any, kind: str) -> schema.Datum:
    image = pytest.importorskip("PIL.Image", reason="encoding test images needs Pillow")
    out = io.BytesIO()
    image.fromarray(pixels).save(out, kind)
    return schema.Datum(data=out.getvalue(), encoded=True, label=1)


def test_raw_float_and_encoded_records_may_be_mixed(tmp_path: Path, make_layer: MakeLayer) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (5, 4, 3), dtype=np.uint8)  # H W RGB
    planes = pixels.transpose(2, 0, 1)[::-1]
    records = [
        schema.Datum(channels=3, height=5, width=4, data=planes.tobytes(), label=1),
        schema.Datum(channels=3, height=5, width=4, float_data=planes.reshape(-1).tolist(), label=1),
        encoded(pixels, "PNG"),
        encoded(pixels, "BMP"),
    ]
    write_lmdb(tmp_path / "db", [(key_of(i), record) for i, record in enumerate(records)])
    feeder = open_feeder(make_layer(tmp_path / "db", 4, transform="mean_value: 5"), TEST)
    data, labels = feeder.next()
    for row in data:
        np.testing.assert_array_equal(row, planes.astype(np.float32) - 5)
    assert labels.tolist() == [1] * 4
    feeder.close()


def test_decoding_in_parallel_keeps_order_and_random_decisions(tmp_path: Path, make_layer: MakeLayer) -> None:
    rng = np.random.default_rng(1)
    records = [(key_of(i), encoded(rng.integers(0, 256, (8, 9, 3), dtype=np.uint8), "PNG")) for i in range(11)]
    write_lmdb(tmp_path / "db", records)
    layer = make_layer(tmp_path / "db", 16, transform="crop_size: 5 mirror: true")
    runs = []
    for threads in (None, 0, 1):
        feeder = open_feeder(layer, TRAIN, threads=threads)
        runs.append([feeder.next()[0] for _ in range(3)])
        feeder.close()
    np.testing.assert_array_equal(runs[0], runs[1])
    np.testing.assert_array_equal(runs[0], runs[2])


def test_records_of_several_sizes_need_a_crop(tmp_path: Path, make_layer: MakeLayer) -> None:
    sizes = [(6, 7), (9, 8), (5, 5)]
    records = [(key_of(i), pack((1, *s), bytes([i]) * (s[0] * s[1]), i)) for i, s in enumerate(sizes)]
    write_lmdb(tmp_path / "db", records)
    feeder = open_feeder(make_layer(tmp_path / "db", 3, transform="crop_size: 5"), TRAIN)
    data, _ = feeder.next()
    assert data[:, 0, 0, 0].tolist() == [0, 1, 2]
    feeder.close()
    feeder = open_feeder(make_layer(tmp_path / "db", 3), TRAIN)
    with pytest.raises(DataError, match=r'"00000001" of .*1x9x8, and the first record is 1x6x7.*crop_size'):
        feeder.next()
    feeder.close()


def test_an_alpha_channel_and_gray_are_kept_as_stored(tmp_path: Path, make_layer: MakeLayer) -> None:
    rng = np.random.default_rng(1)
    for planes, wanted, forced in ((4, 4, 3), (1, 1, 3)):
        shape = (5, 6, planes) if planes > 1 else (5, 6)
        db = tmp_path / f"db{planes}"
        write_lmdb(db, [(key_of(0), encoded(rng.integers(0, 256, shape, dtype=np.uint8), "PNG"))])
        assert data_shapes(make_layer(db, 2), TEST) == [(2, wanted, 5, 6), (2,)]
        assert data_shapes(make_layer(db, 2, transform="force_color: true"), TEST)[0] == (2, forced, 5, 6)
        assert data_shapes(make_layer(db, 2, data="force_encoded_color: true"), TEST)[0] == (2, forced, 5, 6)
        assert data_shapes(make_layer(db, 2, transform="force_gray: true"), TEST)[0] == (2, 1, 5, 6)


# -- messages ----------------------------------------------------------------------------------------------------------


def test_a_label_out_of_range_names_record_label_and_range(make_db: MakeDb, make_layer: MakeLayer) -> None:
    db = make_db(7, label=lambda i: 9 if i == 5 else i)
    feeder = open_feeder(make_layer(db, 3), TRAIN, classes={"label": 7}, where=Where("net.prototxt", 4, 1))
    feeder.next()
    message = rf'^net.prototxt:4:1: input \(Data\): record "00000005" of {db} has label 9, .*"label" must be 0 to 6'
    with pytest.raises(DataError, match=message):
        feeder.next()
    feeder.close()
    negative = make_db(2, name="negative", label=lambda i: -i)
    feeder = open_feeder(make_layer(negative, 2), TRAIN, classes={"label": 7})
    with pytest.raises(DataError, match="has label -1"):
        feeder.next()
    feeder.close()
    assert labels_of(make_layer(negative, 2), 1) == [0, -1]  # nobody said how many classes there are


BAD = {
    "it is empty": b"",
    "it is cut off": pack((1, 4, 5), bytes(20), 1)[:-9],
    "19 bytes of pixels, but 1x4x5 needs 20": pack((1, 4, 5), bytes(19), 1),
    "its size is 1x-4x5": pack((1, -4, 5), bytes(20), 1),
    "2 channels, and the first record has 1": pack((2, 2, 5), bytes(20), 1),
    "cannot be decoded": schema.Datum(data=b"no image", encoded=True).SerializeToString(),
}


@pytest.mark.parametrize(("reason", "at"), [(r, at) for r in BAD for at in (0, 4) if at or "first record" not in r])
def test_a_bad_record_is_named(reason: str, at: int, tmp_path: Path, make_layer: MakeLayer) -> None:
    good = pack((1, 4, 5), bytes(20), 1)
    write_lmdb(tmp_path / "db", [(key_of(i), BAD[reason] if i == at else good) for i in range(6)])
    with pytest.raises(DataError) as caught:
        labels_of(make_layer(tmp_path / "db", 2), 3, where=Where("net.prototxt", 7, 3))
    text = str(caught.value)
    assert text.startswith(
        f'net.prototxt:7:3: input (Data): record "{key_of(at).decode()}" of {tmp_path / "db"} cannot'
    )
    assert reason in text
    assert text.count("input (Data)") == 1


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["lmdb_raw", "lmdb_float", "lmdb_jpeg", "lmdb_png"])
def test_damaged_records_raise_data_errors_only(seed: int, name: str, tmp_path: Path, make_layer: MakeLayer) -> None:
    draw = random.Random(seed)
    source = LmdbFile(str(GOLDEN / "data" / name))
    good = [source.read(i) for i in range(source.count)]
    source.close()
    refused = 0
    for _ in range(12):
        bad = []
        for key, value in good:
            changed = bytearray(value)
            for _ in range(draw.choice([0, 1, 5])):
                changed[draw.choice([draw.randrange(len(changed)), draw.randrange(12)])] = draw.randrange(256)
            if draw.random() < 0.1:
                del changed[draw.randrange(len(changed)) :]
            bad.append((key, bytes(changed)))
        write_lmdb(tmp_path / "db", bad)
        try:
            labels_of(make_layer(tmp_path / "db", 7, transform="crop_size: 2 mirror: true"), 2, threads=1)
        except DataError as error:
            refused += "record" in str(error)
    assert refused > 3


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


# -- shapes without data, paths, backends ------------------------------------------------------------------------------


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
    make_db: MakeDb, make_layer: MakeLayer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_db(name="beside")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    layer = make_layer("beside", 3)
    assert data_shapes(layer, TRAIN, folder=str(tmp_path))[0] == (3, 1, 4, 5)
    assert labels_of(layer, 1, folder=str(tmp_path)) == [0, 1, 2]


def test_an_lmdb_is_read_although_the_backend_says_leveldb(
    make_db: MakeDb, make_layer: MakeLayer, caplog: pytest.LogCaptureFixture
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
