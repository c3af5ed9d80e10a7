"""Records of a database: of several kinds and sizes, and refused by name where they cannot be used."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netrun.config import schema
from netrun.data.datum import pack
from netrun.data.lmdb_file import LmdbFile
from netrun.data.open import data_shapes, open_feeder
from netrun.data.write import key_of, write_lmdb
from netrun.errors import DataError, Where

GOLDEN = Path(__file__).parents[1] / "golden"
MakeDb = Callable[..., Path]
MakeLayer = Callable[..., schema.LayerParameter]
LabelsOf = Callable[..., list[int]]
TRAIN, TEST = schema.TRAIN, schema.TEST


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


def test_a_label_out_of_range_names_record_label_and_range(
    make_db: MakeDb, make_layer: MakeLayer, labels_of: LabelsOf
) -> None:
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
def test_a_bad_record_is_named(
    reason: str, at: int, tmp_path: Path, make_layer: MakeLayer, labels_of: LabelsOf
) -> None:
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
def test_damaged_records_raise_data_errors_only(
    seed: int, name: str, tmp_path: Path, make_layer: MakeLayer, labels_of: LabelsOf
) -> None:
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
