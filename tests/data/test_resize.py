"""Resizing, against numbers that OpenCV 4.6 gave for the same pixels."""

from __future__ import annotations

import numpy as np
import pytest

from netrun.data.resize import Bytes, resize

RECORDED = [
    ((5, 7), [[94, 176, 203, 145], [172, 44, 93, 160], [86, 136, 132, 179]]),
    ((4, 6), [[108, 179, 170], [122, 83, 154]]),  # half of both: the mean of 2x2
    (
        (3, 4),
        [
            [0, 89, 231, 246, 242, 236, 233],
            [46, 92, 168, 165, 159, 201, 227],
            [114, 98, 72, 45, 34, 147, 218],
            [169, 143, 103, 60, 35, 134, 195],
            [205, 174, 123, 71, 36, 124, 180],
        ],
    ),
    ((6, 5), [[114, 99, 74, 47, 20, 130, 212, 180, 161], [67, 93, 135, 176, 217, 116, 42, 78, 100]]),
    ((1, 3), [[0, 99, 249, 245, 243], [0, 99, 249, 245, 243]]),
]


def pattern(height: int, width: int) -> Bytes:
    y, x = np.mgrid[:height, :width]
    return ((y * 37 + x * 91) ** 2 % 251).astype(np.uint8)[np.newaxis]


@pytest.mark.parametrize(("size", "wanted"), RECORDED, ids=str)
def test_levels_are_those_of_opencv(size: tuple[int, int], wanted: list[list[int]]) -> None:
    got = resize(pattern(*size), len(wanted), len(wanted[0]))
    assert got.dtype == np.uint8
    assert got[0].tolist() == wanted


def test_planes_do_not_mix_and_may_be_strided() -> None:
    planes = np.concatenate([pattern(5, 7), 255 - pattern(5, 7), pattern(5, 7)[:, ::-1]])
    whole = resize(planes.transpose(1, 2, 0).copy().transpose(2, 0, 1)[::-1], 4, 9)
    for got, plane in zip(whole, planes[::-1], strict=True):
        np.testing.assert_array_equal(got, resize(plane[np.newaxis], 4, 9)[0])


@pytest.mark.parametrize("level", [0, 1, 254, 255])
def test_one_level_stays_that_level(level: int) -> None:
    for size in ((1, 1), (2, 2), (3, 11), (40, 40)):
        assert set(resize(np.full((3, 7, 9), level, np.uint8), *size).ravel().tolist()) == {level}


def test_the_same_size_is_the_same_image() -> None:
    image = pattern(4, 4)
    assert resize(image, 4, 4) is image
