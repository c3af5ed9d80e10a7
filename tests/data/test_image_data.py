"""ImageData: order, sizes, labels, random decisions, messages. (Recorded batches are replayed in test_golden.py.)"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from netrun.config import schema
from netrun.data.feeder import Cursor
from netrun.data.image_data import ImageFeeder
from netrun.data.images import encode
from netrun.data.open import data_shapes, open_feeder
from netrun.errors import ConfigError, DataError, Where

pytest.importorskip("PIL", reason="image files need Pillow, which is not installed")
TRAIN, TEST = schema.TRAIN, schema.TEST
COUNT = 11


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eleven images of 6x8, number i all of level i and with the label i; one of 5x4; a list of the eleven."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "at").mkdir()
    for i in range(COUNT):
        (tmp_path / "at" / f"{i}.png").write_bytes(encode(np.full((3, 6, 8), i, np.uint8), "png"))
    (tmp_path / "at" / "small.png").write_bytes(encode(np.full((3, 5, 4), 99, np.uint8), "png"))
    (tmp_path / "list.txt").write_text("".join(f"{i}.png {i}\n" for i in range(COUNT)))
    return tmp_path


def layer(batch: int = 3, image: str = "", transform: str = "", source: str = "list.txt", tops: int = 2) -> Any:
    text = f"""name: "input" type: "ImageData" top: "data" {'top: "label"' if tops > 1 else ""}
        image_data_param {{ source: "{source}" root_folder: "at/" batch_size: {batch} {image} }}
        transform_param {{ {transform} }}"""
    return text_format.Parse(text, schema.LayerParameter())


def batches(made: Any, count: int, phase: int = TRAIN, **options: Any) -> list[list[Any]]:
    feeder = open_feeder(made, phase, **options)
    try:
        return [list(feeder.next()) for _ in range(count)]
    finally:
        feeder.close()


def labels_of(made: Any, count: int, **options: Any) -> list[int]:
    return [int(v) for _, labels in batches(made, count, **options) for v in labels]


@pytest.mark.parametrize("threads", [None, 0])
@pytest.mark.usefixtures("images")
def test_images_come_in_the_order_of_the_list_round_and_round(threads: int | None) -> None:
    found = batches(layer(4), 6, threads=threads)
    assert [int(v) for _, labels in found for v in labels] == [i % COUNT for i in range(24)]
    for data, labels in found:
        np.testing.assert_array_equal(data, np.broadcast_to(labels[:, None, None, None], (4, 3, 6, 8)))


@pytest.mark.usefixtures("images")
def test_shuffling_is_a_new_permutation_every_epoch() -> None:
    made = layer(COUNT, "shuffle: true")
    seen = labels_of(made, 4)
    epochs = [seen[i : i + COUNT] for i in range(0, len(seen), COUNT)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert labels_of(made, 4, seed=1) != seen
    assert labels_of(made, 4, threads=0) == seen


@pytest.mark.usefixtures("images")
def test_rand_skip_starts_somewhere() -> None:
    starts = {labels_of(layer(1, "rand_skip: 5"), 1, seed=seed)[0] for seed in range(20)}
    assert starts == set(range(5))


@pytest.mark.usefixtures("images")
def test_resuming_is_exact() -> None:
    made = layer(4, "shuffle: true rand_skip: 3", "crop_size: 4 mirror: true mean_value: 2 scale: 0.5")
    straight = batches(made, 9, seed=3)
    feeder = open_feeder(made, TRAIN, seed=3)
    for _ in range(4):
        feeder.next()
    cursor = feeder.state()
    feeder.close()
    assert cursor == Cursor(16, 16)
    feeder = open_feeder(made, TRAIN, seed=3, threads=0)
    feeder.restore(cursor)
    for batch in straight[4:]:
        for got, wanted in zip(feeder.next(), batch, strict=True):
            np.testing.assert_array_equal(got, wanted)
    feeder.close()


def test_crops_and_mirrors_are_random_in_train_and_the_middle_in_test(images: Path) -> None:
    ramp = np.arange(48, dtype=np.uint8).reshape(1, 6, 8)
    (images / "at" / "0.png").write_bytes(encode(ramp, "png"))
    (images / "one.txt").write_text("0.png 0\n")
    made = layer(30, "is_color: false", "crop_size: 3 mirror: true", "one.txt")
    found = batches(made, 1)[0][0]
    corners = {(int(image[0, 0].min()), bool(image[0, 0, 0] > image[0, 0, 2])) for image in found}
    assert {value // 8 for value, _ in corners} == {0, 1, 2, 3}
    assert {value % 8 for value, _ in corners} == {0, 1, 2, 3, 4, 5}
    assert {flipped for _, flipped in corners} == {False, True}
    middle = batches(layer(1, "is_color: false", "crop_size: 3", "one.txt"), 1, TEST)[0][0]
    np.testing.assert_array_equal(middle[0], ramp[:, 1:4, 2:5])


def test_images_of_several_sizes(images: Path) -> None:
    (images / "list.txt").write_text("0.png 0\nsmall.png 1\n3.png 2\n")
    assert [b[0].shape for b in batches(layer(1), 4)] == [(1, 3, 6, 8), (1, 3, 5, 4), (1, 3, 6, 8), (1, 3, 6, 8)]
    assert batches(layer(3, "new_height: 3 new_width: 9"), 1)[0][0].shape == (3, 3, 3, 9)
    assert batches(layer(3, "", "crop_size: 4"), 1)[0][0][:, 0, 0, 0].tolist() == [0, 99, 3]
    feeder = open_feeder(layer(3), TRAIN)
    with pytest.raises(DataError, match=r"line 2 of list.txt \(small.png\) cannot be used: it is 3x5x4, and the first"):
        feeder.next()
    feeder.close()


def test_several_labels_a_line_are_a_matrix(images: Path) -> None:
    (images / "list.txt").write_text("0.png 0 0.5 -3\n1.png 1 1.5 7\n")
    assert data_shapes(layer(2), TRAIN) == [(2, 3, 6, 8), (2, 3)]
    assert batches(layer(3), 1)[0][1].tolist() == [[0, 0.5, -3], [1, 1.5, 7], [0, 0.5, -3]]
    (images / "list.txt").write_text("0.png 0.25\n1.png -1.5\n")
    found = batches(layer(2), 1)[0][1]
    assert found.dtype == np.float32
    assert found.tolist() == [0.25, -1.5]


@pytest.mark.usefixtures("images")
def test_shapes_need_no_list_where_a_size_is_said() -> None:
    assert data_shapes(layer(2, source="absent", transform="crop_size: 5"), TEST) == [(2, 3, 5, 5), (2,)]
    assert data_shapes(layer(2, "new_height: 4 new_width: 6", source="absent", tops=1), TEST) == [(2, 3, 4, 6)]
    gray = layer(2, "new_height: 4 new_width: 6 is_color: false", source="absent")
    assert data_shapes(gray, TEST)[0] == (2, 1, 4, 6)
    with pytest.raises(DataError, match=r"input \(ImageData\): source absent cannot be read"):
        data_shapes(layer(2, source="absent"), TEST)


def test_names_are_found_beside_the_prototxt(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (images / "elsewhere").mkdir()
    monkeypatch.chdir(images / "elsewhere")
    assert labels_of(layer(3), 1, folder=str(images)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (layer(source=""), "needs a source"),
        (layer(0), "batch_size of 1 or more"),
        (layer(image="new_height: 5"), "new_height and new_width, or neither"),
        (layer(transform='mean_file: "m" mean_value: 1'), "both mean_file and mean_value"),
    ],
)
def test_wrong_parameters_are_refused(made: Any, message: str) -> None:
    for opener in (data_shapes, open_feeder):
        with pytest.raises(ConfigError, match=rf"^net:2:1: input \(ImageData\): .*{message}"):
            opener(made, TRAIN, where=Where("net", 2, 1))


def test_what_is_wrong_with_an_image_names_its_line(images: Path) -> None:
    (images / "at" / "4.png").write_bytes(b"no image")
    feeder = open_feeder(layer(3), TRAIN, where=Where("net", 2, 1))
    feeder.next()
    with pytest.raises(DataError, match=r"^net:2:1: input \(ImageData\): line 5 of list.txt \(4.png\) cannot be used"):
        feeder.next()
    feeder.close()
    (images / "list.txt").write_text("absent.png 0\n")
    with pytest.raises(DataError, match=r"line 1 of list.txt \(absent.png\) .* there is no file at/absent.png"):
        open_feeder(layer(3), TRAIN)
    made = layer(3)
    made.image_data_param.root_folder = "at"
    with pytest.raises(DataError, match=r'no file atabsent.png; root_folder "at" .* should end in a slash'):
        open_feeder(made, TRAIN)


@pytest.mark.usefixtures("images")
def test_labels_beyond_the_classes_are_refused() -> None:
    feeder = open_feeder(layer(3), TRAIN, classes={"label": 5})
    feeder.next()
    with pytest.raises(DataError, match=r'line 6 of list.txt \(5.png\) has label 5, and top "label" must be 0 to 4'):
        feeder.next()
    feeder.close()


@pytest.mark.usefixtures("images")
def test_a_feeder_tells_names_shapes_and_records() -> None:
    feeder = open_feeder(layer(2, tops=1), TRAIN)
    assert isinstance(feeder, ImageFeeder)
    assert (feeder.names, feeder.shapes, feeder.records) == (("data",), ((2, 3, 6, 8),), COUNT)
    assert len(feeder.next()) == 1
    assert feeder.state() == Cursor(2, 0)
    feeder.close()
