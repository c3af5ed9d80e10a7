"""Every kernel's bind function and scratch size, gathered from the families."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

_FAMILIES = (
    "conv",
    "dense",
    "pointwise",
    "reduce",
    "update",
    "pool",
    "norm",
    "loss",
    "shape",
    "random",
    "metric",
    "im2col",
)

BODIES: dict[str, Callable[..., Any]] = {}
WORKSPACE: dict[str, Callable[..., int]] = {}
for _name in _FAMILIES:
    if importlib.util.find_spec(f"layers_cuda.{_name}") is None:
        continue
    _m = importlib.import_module(f"layers_cuda.{_name}")
    BODIES.update(_m.BODIES)
    WORKSPACE.update(getattr(_m, "WORKSPACE", {}))
