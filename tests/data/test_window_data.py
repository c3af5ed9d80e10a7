"""WindowData: the window file, crops worked out by hand, sampling, mean and mirror, messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from netrun.config import schema
from netrun.data.datum import RecordError
from netrun.data.feeder import Cursor
from netrun.data.images import encode
from netrun.data.open import data_shapes, open_feeder
from netrun.data.resize import resize
from netrun.data.window_data import Crop, place
from netrun.data.window_file import read_window_file
from netrun.errors import ConfigError, DataError, Where

pytest.importorskip("PIL", reason="image files need Pillow, which is not installed")
TRAIN, TEST = schema.TRAIN, schema.TEST

WINDOWS = """# 0
first.png
3
12
12
4
2 0.9 0 0 5 5
7 0.5 6 6 11 11
3 0.49999 2 3 7 8
1 0.1 4 4 9 9
# 1
second.png
3
8
20
1
5 1 10 1 15 6
"""

FIRST = np.arange(144, dtype=np.uint8).reshape(1, 12, 12) + np.array([0, 1, 2], np.uint8).reshape(3, 1, 1)
SECOND = 255 - np.arange(160, dtype=np.uint8).reshape(1, 8, 20).repeat(3, 0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "at").mkdir()
    (tmp_path / "at" / "first.png").write_bytes(encode(FIRST, "png"))
    (tmp_path / "at" / "second.png").write_bytes(encode(SECOND, "png"))
    (tmp_path / "windows.txt").write_text(WINDOWS)
    return tmp_path


def layer(batch: int = 8, window: str = "", transform: str = "crop_size: 6", tops: int = 2) -> Any:
    text = f"""name: "input" type: "WindowData" top: "data" {'top: "label"' if tops > 1 else ""}
        window_data_param {{ source: "windows.txt" root_folder: "at/" batch_size: {batch} {window} }}
        transform_param {{ {transform} }}"""
    return text_format.Parse(text, schema.LayerParameter())


def batches(made: Any, count: int = 1, phase: int = TRAIN, **options: Any) -> list[list[Any]]:
    feeder = open_feeder(made, phase, **options)
    try:
        return [list(feeder.next()) for _ in range(count)]
    finally:
        feeder.close()


# -- the file ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
def test_windows_are_sorted_by_their_overlap() -> None:
    found = read_window_file("windows.txt", "", 0.5, 0.3)
    assert found.images == ["first.png", "second.png"]
    # image, class, x1, y1, x2, y2, line
    assert found.objects.rows.tolist() == [[0, 2, 0, 0, 5, 5, 7], [0, 7, 6, 6, 11, 11, 8], [1, 5, 10, 1, 15, 6, 17]]
    assert found.background.rows.tolist() == [[0, 0, 4, 4, 9, 9, 10]]  # 0.49999 is neither
    assert len(read_window_file("windows.txt", "", 0.95, 0.95).background) == 4


@pytest.mark.usefixtures("folder")
def test_a_threshold_that_a_window_meets_exactly() -> None:
    Path("windows.txt").write_text("# 0\na\n3\n9 9\n1\n1 0.7 0 0 1 1\n")  # as float32, 0.7 is 0.69999999
    assert len(read_window_file("windows.txt", "", float(np.float32(0.7)), 0.1).objects) == 1
    assert len(read_window_file("windows.txt", "", 0.9, float(np.float32(0.7))).background) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "windows.txt lists no images"),
        ("first.png\n3\n", 'line 1 of windows.txt: wanted "# 0".*got "first.png"'),
        ("# 1\nfirst.png\n", 'line 1 of windows.txt: wanted "# 0"'),
        ("# 0\n", "ends after line 1; wanted the name of an image"),
        ("# 0\na.png\n3\nx\n", "line 4 of windows.txt: wanted channels, height, width"),
        ("# 0\na.png\n3\n4\n", "ends after line 4; wanted channels"),
        ("# 0\na.png\n3\n4\n4\n2\n1 1 0 0 1 1\n", "ends after line 7; wanted 1 more windows"),
        ("# 0\na.png\n3\n4\n4\n1\n1 1 0 0 1\n", "line 7 of windows.txt: wanted class overlap"),
        ("# 0\na.png\n3\n4\n4\n1\n1 1 0 0 1.5 1\n", "line 7 of windows.txt: wanted class overlap"),
        ("# 0\na.png\n3\n4\n4\n1\n1 nan 0 0 1 1\n", "line 7 of windows.txt: wanted class overlap"),
        ("# 0\na.png\n3\n4\n4\n1\n1 1 0 0 inf 1\n", "line 7 of windows.txt: wanted class overlap"),
        ("# 0\na.png\n3\n4\n4\n1\n0 0.8 0 0 1 1\n", "line 7 of windows.txt: .*overlap 0.8 shows an object.*class is 0"),
        ("# 0\na.png\n3\n4\n4\n99999999999\n1 1 0 0 1 1\n", "ends after line 7"),
    ],
)
def test_wrong_window_files_are_refused(text: str, message: str, folder: Path) -> None:
    (folder / "windows.txt").write_text(text)
    with pytest.raises(DataError, match=rf"input \(WindowData\): .*{message}"):
        open_feeder(layer(), TRAIN)


# -- crops, by hand ----------------------------------------------------------------------------------------------------


def test_without_surroundings_the_window_fills_the_square() -> None:
    assert place((2, 3, 7, 4), (12, 12), 10, 0, False, True) == Crop(2, 3, 7, 4, 10, 10, 0, 0)


def test_square_takes_the_longer_side() -> None:
    # 6 wide, 4 high around (5, 5): half sides of 3; rounding outwards makes 2 .. 8
    assert place((2, 3, 7, 6), (20, 20), 10, 0, True, False) == Crop(2, 2, 8, 8, 10, 10, 0, 0)


@pytest.mark.parametrize(
    ("box", "side", "context", "flip", "wanted"),
    [
        # around (3, 3), half side 3 * 10/6 = 5: -2 .. 8, 11 pixels of which 2 are missing; 9 become 8.2, 2 become 1.8
        ((0, 0, 5, 5), 10, 2, False, Crop(0, 0, 8, 8, 8, 8, 2, 2)),
        ((0, 0, 5, 5), 10, 2, True, Crop(0, 0, 8, 8, 8, 8, 0, 2)),
        # around (9, 9): 4 .. 14, of which 3 are missing at the end; 8 become 7.3, 3 become 2.7
        ((6, 6, 11, 11), 10, 2, False, Crop(4, 4, 11, 11, 7, 7, 0, 0)),
        ((6, 6, 11, 11), 10, 2, True, Crop(4, 4, 11, 11, 7, 7, 3, 0)),
        # around (0.5, 0.5), half side 0.5 * 6/2: -1 .. 2; 1 missing becomes 1.5 -> 2, 3 become 4.5 -> 5, and 4 fit
        ((0, 0, 0, 0), 6, 2, False, Crop(0, 0, 2, 2, 4, 4, 2, 2)),
    ],
)
def test_surroundings_off_the_image_stay_empty(
    box: tuple[int, int, int, int], side: int, context: int, flip: bool, wanted: Crop
) -> None:
    assert place(box, (12, 12), side, context, False, flip) == wanted


@pytest.mark.parametrize("context", [0, 1])
def test_windows_that_show_nothing_of_the_image_are_refused(context: int) -> None:
    with pytest.raises(RecordError, match="the first has to be the upper left one"):
        place((5, 5, 4, 6), (12, 12), 6, context, False, False)
    with pytest.raises(RecordError, match="30 30 and 35 35"):
        place((30, 30, 35, 35), (12, 12), 6, context, False, False)
    with pytest.raises(RecordError, match="12x12"):
        place((-30, 0, -20, 5), (12, 12), 6, context, False, False)


# -- batches -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
def test_background_comes_first_then_objects() -> None:
    data, labels = batches(layer(8, "fg_fraction: 0.4 bg_threshold: 0.3"))[0]
    assert labels[:5].tolist() == [0] * 5  # 8 * 0.4 = 3.2 objects
    assert set(labels[5:].tolist()) <= {2, 5, 7}
    for image in data[:5]:
        np.testing.assert_array_equal(image, FIRST[:, 4:10, 4:10])
    where = {2: FIRST[:, :6, :6], 7: FIRST[:, 6:, 6:], 5: SECOND[:, 1:7, 10:16]}
    for image, label in zip(data[5:], labels[5:], strict=True):
        np.testing.assert_array_equal(image, where[int(label)])


@pytest.mark.usefixtures("folder")
def test_all_windows_are_drawn_and_the_same_ones_again() -> None:
    made = layer(40, "fg_fraction: 1 cache_images: true", "crop_size: 6 mirror: true")
    found = batches(made, 2, seed=1)
    counts = [int((found[0][1] == label).sum()) for label in (2, 5, 7)]
    assert sum(counts) == 40
    assert min(counts) > 4
    for other in (
        batches(made, 2, seed=1, threads=0),
        batches(layer(40, "fg_fraction: 1", "crop_size: 6 mirror: true"), 2, seed=1),
    ):
        np.testing.assert_array_equal(found[1][0], other[1][0])
    assert found[0][0].tobytes() != found[1][0].tobytes()
    assert found[0][1].tobytes() != batches(made, 1, seed=2)[0][1].tobytes()


@pytest.mark.usefixtures("folder")
def test_mirrors_in_both_phases() -> None:
    for phase in (TRAIN, TEST):
        data, _ = batches(layer(30, "fg_fraction: 0 bg_threshold: 0.3", "crop_size: 6 mirror: true"), 1, phase)[0]
        plain = FIRST[:, 4:10, 4:10]
        kinds = {image.tobytes() for image in data}
        assert kinds == {plain.astype(np.float32).tobytes(), plain[:, :, ::-1].astype(np.float32).tobytes()}


@pytest.mark.usefixtures("folder")
def test_mean_values_and_scale_leave_the_empty_part_at_zero() -> None:
    window = "fg_fraction: 0.5 context_pad: 2 fg_threshold: 0.9 bg_threshold: 0.5"
    Path("windows.txt").write_text("# 0\nfirst.png\n3 12 12 2\n2 1 0 0 5 5\n1 0 0 0 5 5\n")
    made = layer(2, window, "crop_size: 10 mean_value: 1 mean_value: 2 mean_value: 3 scale: 0.5")
    data, labels = batches(made)[0]
    assert labels.tolist() == [0, 2]
    wanted = np.zeros((3, 10, 10), np.float32)
    wanted[:, 2:, 2:] = (resize(FIRST[:, :9, :9], 8, 8) - np.array([1, 2, 3]).reshape(3, 1, 1)) * 0.5
    for image in data:
        np.testing.assert_array_equal(image, wanted)
    mirrored = layer(40, window, "crop_size: 10 mirror: true mean_value: 4")
    found = {image.tobytes() for image in batches(mirrored)[0][0]}
    right = np.zeros((3, 10, 10), np.float32)
    right[:, 2:, :8] = resize(FIRST[:, :9, :9], 8, 8)[:, :, ::-1] - np.float32(4)
    assert len(found) == 2
    assert right.tobytes() in found


@pytest.mark.usefixtures("folder")
def test_the_scale_of_the_windows_goes_before_that_of_the_transform() -> None:
    plain = batches(layer())[0][0]
    for window, transform in (("scale: 0.5", ""), ("scale: 0.5", "scale: 3"), ("", "scale: 0.5")):
        made = layer(window=window, transform=f"crop_size: 6 {transform}")
        np.testing.assert_array_equal(batches(made)[0][0], plain * 0.5)


def test_a_mean_file_is_cut_out_of_its_middle(folder: Path) -> None:
    mean = np.random.default_rng(1).random((3, 11, 9), np.float32) * 100
    blob = schema.BlobProto(num=1, channels=3, height=11, width=9)
    blob.data.extend(mean.reshape(-1).tolist())
    (folder / "mean.binaryproto").write_bytes(blob.SerializeToString())
    (folder / "windows.txt").write_text("# 0\nfirst.png\n3 12 12 1\n1 0 0 0 5 5\n")
    made = layer(1, "fg_fraction: 0", 'crop_size: 6 mean_file: "mean.binaryproto"')
    np.testing.assert_array_equal(batches(made)[0][0][0], FIRST[:, :6, :6] - mean[:, 2:8, 1:7])
    with_pad = layer(1, "fg_fraction: 0 context_pad: 1", 'crop_size: 6 mean_file: "mean.binaryproto"')
    data = batches(with_pad)[0][0][0]
    crop = place((0, 0, 5, 5), (12, 12), 6, 1, False, False)
    assert (crop.left, crop.top) == (1, 1)
    part = resize(FIRST[:, : crop.y2 + 1, : crop.x2 + 1], crop.height, crop.width)
    np.testing.assert_array_equal(data[:, 1:, 1:], part - mean[:, 3:8, 2:7])
    assert not data[:, 0].any()
    with pytest.raises(ConfigError, match="mean_file is 3x11x9, and has to be 3x10x10 or larger"):
        open_feeder(layer(1, "", 'crop_size: 10 mean_file: "mean.binaryproto"'), TRAIN)


@pytest.mark.usefixtures("folder")
def test_resuming_is_exact() -> None:
    made = layer(5, "", "crop_size: 6 mirror: true")
    straight = batches(made, 6)
    feeder = open_feeder(made, TRAIN)
    for _ in range(2):
        feeder.next()
    assert feeder.state() == Cursor(10, 10)
    cursor = feeder.state()
    feeder.close()
    feeder = open_feeder(made, TRAIN)
    feeder.restore(cursor)
    for batch in straight[2:]:
        np.testing.assert_array_equal(feeder.next()[0], batch[0])
    feeder.close()


# -- messages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (layer(transform=""), "needs a crop_size"),
        (layer(0), "batch_size of 1 or more"),
        (layer(tops=1), "has 1 tops, and makes two"),
        (layer(window='crop_mode: "circle"'), 'crop_mode "circle" is not known; it is warp or square'),
        (layer(window="context_pad: 3"), "context_pad 3 on both sides leaves nothing of crop_size 6"),
        (layer(window="fg_fraction: 1.5"), "fg_fraction is 1.5"),
        (text_format.Merge("window_data_param { source: '' }", layer()), "needs a source"),
    ],
)
def test_wrong_parameters_are_refused(made: Any, message: str) -> None:
    for opener in (data_shapes, open_feeder):
        with pytest.raises(ConfigError, match=rf"^net:2:1: input \(WindowData\): .*{message}"):
            opener(made, TRAIN, where=Where("net", 2, 1))


def test_shapes_need_no_file() -> None:
    assert data_shapes(layer(7), TEST) == [(7, 3, 6, 6), (7,)]


def test_what_is_wrong_with_a_window_names_its_line(folder: Path) -> None:
    def refused(message: str, made: Any, **options: Any) -> None:
        with pytest.raises(DataError, match=rf"input \(WindowData\): .*{message}"):
            batches(made, **options)

    refused("no window of windows.txt has an overlap below 0.01, and a batch needs 6", layer(8, "bg_threshold: 0.01"))
    refused("no window of windows.txt has an overlap of 1.5 or more", layer(8, "fg_threshold: 1.5"))
    refused("line 17 of windows.txt has class 5, .* 0 to 3", layer(1, "fg_fraction: 1 fg_threshold: 1"),
            classes={"label": 4})  # fmt: skip
    (folder / "windows.txt").write_text("# 0\nfirst.png\n3 12 12 1\n1 0 0 0 12 5\n")
    refused(r"window on line 4 of windows.txt \(first.png\) cannot be used: its corners 0 0 and 12 5 are not both in",
            layer(1, "fg_fraction: 0"))  # fmt: skip
    (folder / "windows.txt").write_text("# 0\nabsent.png\n3 12 12 1\n1 0 0 0 12 5\n")
    refused(r"line 4 of windows.txt \(absent.png\) cannot be used: .*No such file", layer(1, "fg_fraction: 0"))
    (folder / "windows.txt").unlink()
    refused("source windows.txt cannot be read: No such file", layer(1))
