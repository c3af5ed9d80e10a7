"""First values of parameters against draws recorded from Caffe, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netrun.config import schema, text
from netrun.errors import ConfigError
from netrun.fillers import FILLERS, fans, fill

ROWS = json.loads((Path(__file__).parent / "golden" / "fillers.json").read_text())


def filler(content: str) -> schema.FillerParameter:
    return text.parse(content, schema.FillerParameter)[0]


def draw(content: str, shape: Any, seed: int = 1, dtype: str = "float32") -> Any:
    return fill(filler(content), tuple(shape), np.random.default_rng(seed), dtype)


def test_every_filler_is_recorded() -> None:
    assert {row["filler"] for row in ROWS} == set(FILLERS) - {"orthogonal"}  # Caffe has no such filler


@pytest.mark.parametrize("row", ROWS, ids=lambda r: f"{r['text'] or 'default'} {r['shape']}")
def test_like_caffe(row: dict[str, Any]) -> None:
    values = draw(row["text"], row["shape"])
    assert values.shape == tuple(row["shape"])
    assert values.dtype == np.float32
    assert fans(values.shape) == (row["fan_in"], row["fan_out"])
    if "exact" in row:
        np.testing.assert_allclose(values.reshape(-1), row["exact"], 1e-6, 1e-7)
        return
    assert abs(values.mean(dtype=np.float64) - row["mean"]) <= 5 * row["std"] * (2 / values.size) ** 0.5
    few = "sparse" in row["text"]  # 9,000 of its numbers are not 0
    assert values.std(dtype=np.float64) == pytest.approx(row["std"], rel=0.05 if few else 0.02)
    assert (values == 0).mean() == pytest.approx(row["zero_fraction"], abs=0.005)
    for name, wanted in row["quantiles"].items():
        q = float(name)
        if wanted != 0:  # among the zeros of a sparse filler there is no such place
            assert abs((values <= wanted).mean() - q) <= 5 * (2 * q * (1 - q) / values.size) ** 0.5, name
    if "row_sum_min" in row:
        np.testing.assert_allclose(values.reshape(len(values), -1).sum(axis=1), 1, 1e-5)


def test_same_seed_same_numbers_in_both_element_types() -> None:
    single, double = (draw('type: "xavier"', (5, 7), dtype=dtype) for dtype in ("float32", "float64"))
    np.testing.assert_array_equal(single, double)
    assert double.dtype == np.float64
    assert (draw('type: "xavier"', (5, 7), seed=2) != single).all()


@pytest.mark.parametrize("name", FILLERS)
def test_small_shapes(name: str) -> None:
    shapes = [(1, 1, 1, 1), (2, 3, 4, 4)] if name == "bilinear" else [(), (1,), (3,), (2, 3)]
    for shape in shapes:
        assert np.isfinite(draw(f'type: "{name}"', shape)).all(), shape


@pytest.mark.parametrize(
    ("content", "shape", "words"),
    [
        ('type: "xaver"', (2, 3), ["xaver", 'did you mean "xavier"', "msra"]),
        ('type: "bilinear"', (2, 3, 3), ["bilinear", "4 axes", "2 3 3"]),
        ('type: "bilinear"', (2, 3, 3, 4), ["square", "2 3 3 4"]),
        ('type: "gaussian" sparse: 9', (4, 3), ["sparse", "9", "0 to 4"]),
        ('type: "xavier" sparse: 2', (4, 3), ["sparse", "gaussian"]),
        ('type: "uniform" min: 2 max: 1', (4,), ["min 2", "max 1"]),
        ('type: "gaussian" std: -1', (4,), ["std", "-1"]),
    ],
)
def test_refused(content: str, shape: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        draw(content, shape)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("shape", [(6, 3, 3, 3), (40, 5), (7, 7), (9,)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    drawn = fill(schema.FillerParameter(type="orthogonal", std=0.5), shape, np.random.default_rng(3), "float64")
    matrix = drawn.reshape(shape[0], -1) / 0.5
    product = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(product, np.eye(len(product)), atol=1e-6)
