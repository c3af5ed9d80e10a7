"""update_turned: updates of filters whose gradient, or a copy of which, has the channels last.

The kernel is this device's own: ``renewing.py`` puts it into programs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from netrun.expression import Rule
from netrun.kernels import Argument, Op
from netrun.program import Call

from .expressions import cuda_rule
from .geometry import real_defines
from .launch import BLOCK, CTYPES, Kernel, Launch, Step, nothing
from .update import CHUNK, constant

if TYPE_CHECKING:
    from .device import Cuda

UPDATE_TURNED = Op(
    "update_turned",
    (Argument("xs", "r", True, False), Argument("vs", "rw", True, False), Argument("forms", "w", True, False)),
    ("rule", "turned"),
)
"""``update`` of variables K C S, all other inputs one number. Input ``turned`` lies K S C (-1: none does), and so do
the forms, the last variables of the rule, which are only written: one or none."""

PLACES = 1024
"""Spatial elements of a filter at most: a chunk has some channels, whole."""


def fits(shape: Sequence[int]) -> bool:
    """Whether filters of that shape are for the kernel."""
    return len(shape) > 2 and 0 not in shape and math.prod(shape[2:]) <= PLACES


def together(device: Cuda, rule: Rule, turned: int, tensors: Sequence[Sequence[Sequence[Any]]]) -> Step:
    """One launch for many calls of one rule, each (xs, vs, forms), with the same element types."""
    rows: list[list[int]] = []
    chunks: list[tuple[int, int]] = []
    for xs, vs, forms in tensors:
        shape = vs[0].shape
        channels, places = shape[1], math.prod(shape[2:])
        parts = -(-channels // (CHUNK // places))
        step = -(-channels // parts)
        for k in range(shape[0]):
            chunks += [(len(rows), (k * channels + c) * places) for c in range(0, channels, step)]
        rows.append([*(a.data.ptr for a in (*vs, *xs, *forms)), channels, places, step])
    if not chunks:
        return nothing
    xs, vs, forms = tensors[0]
    types = [CTYPES[a.dtype.name] for a in (*vs, *xs, *forms)]
    names = [*rule.variables[: len(vs)], *rule.inputs, *rule.variables[len(vs) :]]
    listed = [f"X({n}, {t}, {slot})" for slot, (n, t) in enumerate(zip(names, types, strict=True))]
    given, made = listed[len(vs) : len(vs) + len(xs)], listed[len(vs) + len(xs) :]
    written = dict(zip(rule.variables, [*types[: len(vs)], *types[len(vs) + len(xs) :]], strict=True))
    kernel = Kernel("update_turned", "update_turned", (
        *real_defines("float32", 0, *(a.dtype.name for a in (*vs, *xs, *forms))),
        ("VARIABLES(X)", " ".join(listed[: len(vs)])),
        ("NUMBERS(X)", " ".join(x for i, x in enumerate(given) if i != turned)),
        ("TURNED_IN(X)", given[turned] if turned >= 0 else ""),
        ("TURNED_OUT(X)", " ".join(made)),
        ("BODY", cuda_rule(rule, written)),
        ("SLOTS", str(len(rows[0]))),
        ("MOST", str(CHUNK)),
    ))  # fmt: skip
    tables = [constant(device, np.array(values, np.int64)) for values in (rows, chunks)]
    arrays = [a for parts_of in tensors for arrays in parts_of for a in arrays]
    return Launch.of((tables, arrays), device.launcher.step(kernel, len(chunks), BLOCK, tables))


def _update_turned(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    return together(device, call.attrs["rule"], call.attrs["turned"], [args])


BODIES: Mapping[str, Callable[[Cuda, Call, Sequence[Any], Any], Step]] = {"update_turned": _update_turned}
"""Beside those of the vocabulary."""

__all__ = ["BODIES", "UPDATE_TURNED", "fits", "together"]
