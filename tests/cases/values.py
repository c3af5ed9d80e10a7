"""Test values: away from kinks where gradients are checked, full of ties where order matters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Rng = np.random.Generator
Made = tuple[tuple[Any, ...], dict[str, Any]]
"""What a row makes: arguments and attributes."""


def normal(rng: Rng, dtype: str, *shape: int) -> Any:
    """Standard normal."""
    return rng.standard_normal(shape).astype(dtype)


def away(rng: Rng, dtype: str, *shape: int) -> Any:
    """At least 0.1 from zero, where most kinks are."""
    x = rng.standard_normal(shape)
    return (np.sign(x) * (0.1 + np.abs(x))).astype(dtype)


def positive(rng: Rng, dtype: str, *shape: int) -> Any:
    """Between 0.2 and 2.2."""
    return (0.2 + rng.random(shape) * 2).astype(dtype)


def distinct(rng: Rng, dtype: str, *shape: int) -> Any:
    """No two closer than 0.03: a small step changes no maximum."""
    count = math.prod(shape)
    return ((rng.permutation(count) - count / 2) * 0.03 + 0.011).reshape(shape).astype(dtype)


def coarse(rng: Rng, dtype: str, *shape: int) -> Any:
    """Quarters between -1 and 1: many ties, exact sums."""
    return (rng.integers(-4, 5, shape) / 4).astype(dtype)


def labels(rng: Rng, classes: int, *shape: int) -> Any:
    """Whole numbers from 0 on, below ``classes``."""
    return rng.integers(0, classes, shape)
