"""transform_param against the formula, element by element."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from netrun.config import schema
from netrun.data.datum import RecordError
from netrun.data.order import random_words
from netrun.data.transform import Transform

SHAPE = (3, 7, 6)


def param(text: str) -> schema.TransformationParameter:
    return text_format.Parse(text, schema.TransformationParameter())


def slowly(
    values: Any, p: schema.TransformationParameter, mean: Any, y: int, x: int, shape: tuple[int, ...], flip: bool
) -> Any:
    """The definition: one element at a time."""
    channels, height, width = shape
    out = np.empty(shape, np.float32)
    for c in range(channels):
        for h in range(height):
            for w in range(width):
                m = np.float32(0)
                if mean is not None:
                    m = mean[c, y + h, x + w]
                elif p.mean_value:
                    m = np.float32(p.mean_value[c if len(p.mean_value) > 1 else 0])
                column = width - 1 - w if flip else w
                out[c, h, column] = (np.float32(values[c, y + h, x + w]) - m) * np.float32(p.scale)
    return out


@pytest.mark.parametrize("phase", [schema.TRAIN, schema.TEST])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("crop", [0, 4])
@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("mean", ["", "mean_value: 10.5", "mean_value: 1 mean_value: 2.25 mean_value: 3", "file"])
def test_follows_the_formula(phase: int, kind: Any, crop: int, mirror: bool, mean: str) -> None:
    rng = np.random.default_rng(1)
    whole = rng.random(SHAPE, np.float32) * 255 if mean == "file" else None
    p = param(f"scale: 0.25 crop_size: {crop} mirror: {str(mirror).lower()} {mean if mean != 'file' else ''}")
    transform = Transform(p, phase, SHAPE, whole)
    values = rng.integers(0, 256, (8, *SHAPE)).astype(kind)
    words = random_words(0, 8, seed=3, stream=5)
    at_once = np.full((8, *transform.shape), np.nan, np.float32)
    transform.batch(values, words, at_once)
    one_by_one = np.full_like(at_once, np.nan)
    seen = set()
    for i in range(8):
        transform.one(values[i], words[i], one_by_one[i])
        y, x = (3 // 2, 2 // 2) if crop else (0, 0)
        if crop and phase == schema.TRAIN:
            y, x = int(words[i, 0]) % 4, int(words[i, 1]) % 3
        flip = mirror and bool(int(words[i, 2]) & 1)
        seen.add((y, x, flip))
        np.testing.assert_array_equal(at_once[i], slowly(values[i], p, whole, y, x, transform.shape, flip))
    np.testing.assert_array_equal(one_by_one, at_once)
    assert transform.random == (mirror or (crop > 0 and phase == schema.TRAIN))
    assert (len(seen) > 1) == transform.random


def test_crops_and_mirrors_are_spread_evenly() -> None:
    words = random_words(0, 12000, seed=1, stream=2)
    counts = np.bincount((words[:, 0] % np.uint64(4)).astype(int) * 2 + (words[:, 2] & np.uint64(1)).astype(int))
    assert counts.min() > 1500 * 0.9
    assert counts.max() < 1500 * 1.1


def test_random_words_belong_to_the_record_not_to_the_batch() -> None:
    whole = random_words(0, 100, seed=7, stream=9)
    np.testing.assert_array_equal(random_words(37, 5, seed=7, stream=9), whole[37:42])
    assert len(np.unique(whole)) == whole.size
    for seed, stream in ((8, 9), (7, 10), (-1, 9)):
        assert not np.array_equal(random_words(0, 100, seed=seed, stream=stream), whole)


@pytest.mark.parametrize(
    ("text", "mean", "reason"),
    [
        ("mean_value: 1 mean_value: 2", None, "2 times.*3 channels"),
        ("crop_size: 7", None, "7x6, too small for crop_size 7"),
        ("", np.zeros((3, 7, 7), np.float32), "mean_file is 3x7x7, and the record is 3x7x6"),
    ],
)
def test_what_does_not_fit_the_first_record_is_refused(text: str, mean: Any, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        Transform(param(text), schema.TEST, SHAPE, mean)


def test_records_of_other_sizes_fit_only_a_crop() -> None:
    free = Transform(param("crop_size: 4"), schema.TEST, SHAPE, None)
    free.check((3, 4, 900))
    with pytest.raises(RecordError, match="too small"):
        free.check((3, 3, 900))
    with pytest.raises(RecordError, match="1 channels"):
        free.check((1, 7, 6))
    with pytest.raises(RecordError, match="without crop_size all must be alike"):
        Transform(param(""), schema.TEST, SHAPE, None).check((3, 7, 7))
    with pytest.raises(RecordError, match="mean_file has the size of the first"):
        Transform(param("crop_size: 4"), schema.TEST, SHAPE, np.zeros(SHAPE, np.float32)).check((3, 7, 7))
