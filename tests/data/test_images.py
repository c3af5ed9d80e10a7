"""Image files to planes and back: orientation, colours, gray levels, damage."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netrun.data.datum import RecordError
from netrun.data.images import Bytes, decode, encode, kind_of, read_image

Image = pytest.importorskip("PIL.Image", reason="image files need Pillow, which is not installed")

COLOURS = np.random.default_rng(4).integers(0, 256, (5, 7, 3), dtype=np.uint8)  # H W RGB
PLANES = COLOURS.transpose(2, 0, 1)[::-1]  # B G R


def file_of(image: Any, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def held(orientation: int, kind: str) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    return file_of(Image.fromarray(COLOURS), kind, exif=exif, **({"quality": 100} if kind == "JPEG" else {}))


UPRIGHT = {
    1: lambda p: p,
    2: lambda p: p[:, :, ::-1],
    3: lambda p: np.rot90(p, 2, (1, 2)),
    4: lambda p: p[:, ::-1],
    5: lambda p: p.transpose(0, 2, 1),
    6: lambda p: np.rot90(p, -1, (1, 2)),
    7: lambda p: np.rot90(p, 2, (1, 2)).transpose(0, 2, 1),
    8: lambda p: np.rot90(p, 1, (1, 2)),
    9: lambda p: p,  # no such orientation
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_forced_colours_are_upright_and_stored_ones_are_not_turned(orientation: int) -> None:
    file = held(orientation, "PNG")
    np.testing.assert_array_equal(decode(file, "colour"), UPRIGHT[orientation](PLANES))
    np.testing.assert_array_equal(decode(file), PLANES)
    jpeg = held(orientation, "JPEG")
    np.testing.assert_array_equal(decode(jpeg, "colour"), UPRIGHT[orientation](decode(jpeg)))
    assert decode(jpeg, "gray").shape == (1, *decode(jpeg, "colour").shape[1:])


def test_damaged_exif_data_is_passed_over() -> None:
    file = file_of(Image.fromarray(COLOURS), "JPEG", exif=b"Exif\0\0nonsense")
    assert decode(file, "colour").shape == (3, 5, 7)


def test_gray_has_the_weights_of_opencv() -> None:
    red, green, blue = (COLOURS[..., i].astype(int) for i in range(3))
    rounded = (red * 4899 + green * 9617 + blue * 1868 + 8192) >> 14
    np.testing.assert_array_equal(decode(file_of(Image.fromarray(COLOURS), "BMP"), "gray")[0], rounded)
    cut_off = (red * 9797 + green * 19234 + blue * 3737) >> 15
    np.testing.assert_array_equal(decode(file_of(Image.fromarray(COLOURS), "PNG"), "gray")[0], cut_off)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_every_kind_of_png_becomes_colour_and_gray(mode: str) -> None:
    image = Image.fromarray(COLOURS).convert(mode)
    file = file_of(image, "PNG")
    wanted = np.asarray(image.convert("RGB")).transpose(2, 0, 1)[::-1]
    np.testing.assert_array_equal(decode(file, "colour"), wanted)
    gray = decode(file, "gray")
    assert gray.shape == (1, 5, 7)
    if mode in ("1", "L", "LA"):
        np.testing.assert_array_equal(gray[0], wanted[0])


def test_of_sixteen_bits_the_upper_ones_are_taken_where_colour_is_forced() -> None:
    values = np.array([[0, 255, 256], [65535, 32768, 511]], np.uint16)
    file = file_of(Image.fromarray(values), "PNG")
    assert decode(file, "gray").tolist() == [[[0, 0, 1], [255, 128, 1]]]
    assert decode(file, "colour").tolist() == decode(file, "gray").tolist() * 3
    with pytest.raises(RecordError, match="more than 8 bits"):
        decode(file)


@pytest.mark.parametrize("planes", [PLANES, PLANES[:1]], ids=["colour", "gray"])
def test_png_keeps_every_level_and_jpeg_nearly(planes: Bytes) -> None:
    np.testing.assert_array_equal(decode(encode(planes, "png")), planes)
    smooth = np.repeat(np.repeat(planes[:, :2, :2], 16, axis=1), 16, axis=2)
    near = decode(encode(smooth, "jpg"))
    assert near.shape == smooth.shape
    assert np.abs(near.astype(int) - smooth).mean() < 4
    assert encode(smooth, "jpeg") == encode(smooth, "jpg")
    with pytest.raises(RecordError, match='"xyz"; jpg and png can'):
        encode(planes, "xyz")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot be read: No such file"):
        read_image(str(tmp_path / "absent.png"))
    with pytest.raises(RecordError, match="cannot be read"):
        read_image("zero\0byte.png")
    (tmp_path / "cut.png").write_bytes(file_of(Image.fromarray(COLOURS), "PNG")[:60])
    with pytest.raises(RecordError, match="cannot be decoded"):
        read_image(str(tmp_path / "cut.png"))
    assert (kind_of("a/b.c/photo.JPeG"), kind_of("photo")) == ("jpeg", "")
