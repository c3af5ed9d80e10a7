"""Sums over the rows of a matrix through oneDNN, and what stays with NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from netrun.cpu import dnnl
from netrun.cpu.fast import Fast
from netrun.cpu.onednn_reduce import LONGEST
from netrun.cpu.recipe import Recipe
from netrun.kernels import OPS
from netrun.program import Call
from netrun.types import Spec, Tensor

pytestmark = pytest.mark.skipif(dnnl.library() is None, reason=f"no oneDNN here: {dnnl.reason()}")


def called(x: tuple[int, ...], y: tuple[int, ...], axes: tuple[int, ...], dtype: str = "float32", **more: Any) -> Call:
    attrs = {"expr": "a", "how": "sum", "axes": axes, **more}
    xs = tuple(Tensor(n, Spec(x, dtype)) for n in ("a", "b")[: 1 + ("b" in attrs["expr"])])
    return Call(OPS["reduce"], (xs, Tensor("y", Spec(y, dtype))), attrs, "")


def recipe_of(call: Call) -> Recipe | None:
    recipes = Fast().recipes
    assert recipes is not None
    return recipes.of(call)


@pytest.mark.parametrize(
    ("x", "y", "axes"),
    [
        ((64, 10), (10,), (0,)),
        ((64, 500), (500,), (0,)),
        ((3, 5, 7), (7,), (0, 1)),
        ((3, 5, 7), (1, 1, 7), (1, 0)),
        ((6, 4, 5), (4, 5), (0,)),
        ((2, 2), (2,), (0,)),
        ((300, 1031), (1031,), (0,)),
        ((LONGEST, 33), (33,), (0,)),
    ],
)
def test_sums(x: tuple[int, ...], y: tuple[int, ...], axes: tuple[int, ...]) -> None:
    device, call = Fast(), called(x, y, axes)
    recipe = recipe_of(call)
    assert recipe is not None
    assert recipe.alone == (np.prod(x) < 65536)
    given = np.random.default_rng(3).standard_normal(x).astype(np.float32)
    made = np.full(y, np.nan, np.float32)
    device.bind(call, [(given,), made], device.allocate(device.workspace(call)))()
    np.testing.assert_allclose(made, given.sum(axis=axes, dtype=np.float64).reshape(y), 1e-5, 1e-5 * len(given) ** 0.5)


def test_infinite_and_missing_values_stay_in_their_column() -> None:
    device, call = Fast(), called((40, 20), (20,), (0,))
    given, made = np.ones((40, 20), np.float32), np.zeros(20, np.float32)
    given[7, 3], given[8, 5] = np.inf, np.nan
    device.bind(call, [(given,), made], device.allocate(device.workspace(call)))()
    assert made[3] == np.inf
    assert np.isnan(made[5])
    assert (np.delete(made, [3, 5]) == 40).all()


@pytest.mark.parametrize(
    "call",
    [
        called((8, 5), (8,), (1,)),
        called((8, 5), (), (0, 1)),
        called((8, 5, 3), (5,), (0, 2)),
        called((1, 5), (5,), (0,)),
        called((8, 1), (1,), (0,)),
        called((LONGEST + 1, 5), (5,), (0,)),
        called((8, 5), (5,), (0,), "float64"),
        called((8, 5), (5,), (0,), how="max"),
        called((8, 5), (5,), (0,), expr="a * a"),
        called((8, 5), (5,), (0,), expr="a * b"),
        called((8, 5), (8, 5), ()),
    ],
)
def test_the_rest_stays_with_numpy(call: Call) -> None:
    assert recipe_of(call) is None
