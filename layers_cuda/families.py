"""Every kernel's bind function and scratch size, gathered from the families."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from . import (
    attention,
    conv,
    ctc,
    dense,
    host,
    im2col,
    loss,
    metric,
    norm,
    pointwise,
    pool,
    random,
    reduce,
    sequence,
    shape,
    update,
)

_FAMILIES: tuple[Any, ...] = (
    attention, conv, ctc, dense, host, im2col, loss, metric, norm, pointwise, pool, random, reduce, sequence, shape,
    update,
)  # fmt: skip

BODIES: Mapping[str, Callable[..., Any]] = {name: body for m in _FAMILIES for name, body in m.BODIES.items()}
"""Kernel name -> function of (device, call, arrays, scratch) that gives back the step."""

WORKSPACE: Mapping[str, Callable[..., int]] = {name: size for m in _FAMILIES for name, size in m.WORKSPACE.items()}
"""Kernel name -> function of (device, call): scratch bytes."""
