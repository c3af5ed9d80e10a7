"""Rows for the kernels with windows, and for those over channels: convolution, columns, pooling, LRN."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cases import row
from cases.values import Made, Rng, coarse, distinct, normal, positive
from netrun.types import Spec, Window


# -------------------------------------------------------------------------------------------------------- convolution
def conv(
    size: tuple[int, ...], window: Window, n: int = 2, c: int = 3, k: int = 4, groups: int = 1, op: str = "conv",
    bias: bool = True,
) -> Any:  # fmt: skip
    """Arguments of conv, conv_grad_x or conv_grad_w of one geometry."""

    def make(rng: Rng, dtype: str) -> Made:
        x, w = (n, c, *size), (k, c // groups, *window.kernel)
        y = (n, k, *window.output(size))
        attrs = {"window": window, "groups": groups}
        if op == "conv":
            added = normal(rng, dtype, k) if bias else None
            return (normal(rng, dtype, *x), normal(rng, dtype, *w), added, Spec(y, dtype)), attrs
        if op == "conv_grad_x":
            return (normal(rng, dtype, *w), normal(rng, dtype, *y), Spec(x, dtype)), attrs
        return (normal(rng, dtype, *x), normal(rng, dtype, *y), Spec(w, dtype)), attrs

    return make


_GEOMETRIES: list[tuple[str, tuple[int, ...], Window, dict[str, Any]]] = [
    ("3x3", (5, 6), Window((3, 3)), {}),
    ("batch of one, padded", (5, 4), Window((3, 3), pad=(1, 1)), {"n": 1}),
    ("strided, input not used up", (8, 7), Window((3, 2), stride=(2, 3)), {}),
    ("stride beyond the kernel", (9, 9), Window((2, 1), stride=(4, 3)), {}),
    ("dilated", (9, 8), Window((3, 3), pad=(2, 1), dilation=(2, 3)), {}),
    ("asymmetric padding", (5, 5), Window((3, 3), stride=(2, 2), pad=(0, 1), pad_end=(2, 1)), {}),
    ("padding as wide as the kernel", (3, 3), Window((2, 2), pad=(2, 2)), {}),
    ("kernel over the whole input", (4, 3), Window((4, 3)), {}),
    ("groups", (5, 5), Window((3, 3), pad=(1, 1)), {"c": 4, "k": 6, "groups": 2}),
    ("depthwise", (6, 5), Window((3, 3), stride=(2, 1), pad=(1, 1)), {"c": 4, "k": 8, "groups": 4}),
    ("1x1", (4, 5), Window((1, 1)), {}),
    ("1x1 groups, batch of one", (4, 5), Window((1, 1)), {"n": 1, "c": 4, "groups": 2}),
    ("1x1 strided and padded", (4, 5), Window((1, 1), stride=(2, 2), pad=(1, 0)), {}),
    ("one spatial axis", (9,), Window((4,), stride=(2,), pad=(1,)), {}),
    ("three spatial axes", (4, 5, 3), Window((2, 3, 2), stride=(1, 2, 1), pad=(1, 0, 1)), {"c": 2, "k": 3}),
    ("no spatial axes", (), Window(()), {}),
    ("no spatial axes, groups", (), Window(()), {"c": 4, "k": 6, "groups": 2}),
    ("many images", (6, 6), Window((3, 3)), {"n": 33, "c": 2, "k": 2}),
]  # fmt: skip
for _note, _size, _window, _more in _GEOMETRIES:
    row("conv", _note, conv(_size, _window, **_more), ["x", "w", "b"])
    row("conv_grad_x", _note, conv(_size, _window, op="conv_grad_x", **_more), ["w", "dy"])
    row("conv_grad_w", _note, conv(_size, _window, op="conv_grad_w", **_more))
row("conv", "no bias", conv((5, 5), Window((3, 3)), bias=False), ["x", "w"])
row("conv", "1x1, no bias", conv((5, 5), Window((1, 1)), bias=False), ["x", "w"])


def columns(op: str, size: tuple[int, ...], window: Window) -> Any:
    def make(rng: Rng, dtype: str) -> Made:
        x, y = (2, 3, *size), (2, 3 * math.prod(window.kernel), *window.output(size))
        ends = (x, y) if op == "im2col" else (y, x)
        return (normal(rng, dtype, *ends[0]), Spec(ends[1], dtype)), {"window": window}

    return make


for _note, _size, _window, _more in _GEOMETRIES[:7] + _GEOMETRIES[10:11] + _GEOMETRIES[13:16]:
    row("im2col", _note, columns("im2col", _size, _window), ["x"])
    row("col2im", _note, columns("col2im", _size, _window), ["y"])


# ------------------------------------------------------------------------------------------------------------ pooling
def pooled(size: Sequence[int], window: Window) -> tuple[int, ...]:
    """Caffe's output size, rounded up; without its last correction, so that windows outside occur."""
    rows = zip(size, window.kernel, window.stride, window.pad, window.pad_end, strict=True)
    return tuple(-(-(n + p + q - k) // s) + 1 for n, k, s, p, q in rows)


_POOLS: list[tuple[str, tuple[int, ...], Window]] = [
    ("2x2 by 2", (6, 8), Window((2, 2), stride=(2, 2))),
    ("2x2 by 2, rounded up", (5, 7), Window((2, 2), stride=(2, 2))),
    ("3x3 by 2, overlapping", (7, 7), Window((3, 3), stride=(2, 2))),
    ("3x3 by 2, rounded up", (8, 6), Window((3, 3), stride=(2, 2))),
    ("padded", (5, 5), Window((3, 3), stride=(2, 2), pad=(1, 1))),
    ("every position", (4, 5), Window((3, 3), pad=(1, 1))),
    ("stride beyond the kernel", (7, 7), Window((2, 2), stride=(3, 3))),
    ("the last window wholly outside", (4, 7), Window((1, 2), stride=(4, 4))),
    ("windows in the padding alone", (3, 3), Window((2, 2), stride=(2, 2), pad=(2, 2))),
    ("asymmetric padding", (6, 5), Window((3, 2), stride=(2, 2), pad=(0, 1), pad_end=(1, 0))),
    ("kernel beyond the input", (3, 3), Window((4, 4), stride=(2, 2))),
    ("global", (4, 3), Window((4, 3))),
    ("dilated", (8, 9), Window((2, 3), stride=(2, 1), dilation=(3, 2))),
    ("1x1", (3, 4), Window((1, 1))),
    ("one spatial axis", (9,), Window((3,), stride=(2,))),
    ("three spatial axes", (4, 5, 4), Window((2, 2, 3), stride=(2, 2, 1))),
    ("no spatial axes", (), Window(())),
]


def pool(op: str, size: tuple[int, ...], window: Window, values: Any = coarse, n: int = 2, count: str = "") -> Any:
    def make(rng: Rng, dtype: str) -> Made:
        x, y = (n, 3, *size), (n, 3, *pooled(size, window))
        attrs: dict[str, Any] = {"window": window} | ({"count": count} if count else {})
        if op == "pool_max":
            return (values(rng, dtype, *x), Spec(y, dtype), Spec(y, "int32")), attrs
        if op == "pool_max_grad":
            index = rng.integers(-1, math.prod(size), y).astype("int32")
            return (winners(index, size, window), normal(rng, dtype, *y), Spec(x, dtype)), attrs
        if op == "pool_random":
            given = np.abs(values(rng, dtype, *x)), (rng.integers(0, 64, y) / 64).astype(dtype)
            return (*given, Spec(y, dtype), Spec(y, "int32")), attrs
        ends = (y, x) if op == "pool_avg_grad" else (x, y)
        return (normal(rng, dtype, *ends[0]), Spec(ends[1], dtype)), attrs

    return make


def winners(index: Any, size: tuple[int, ...], window: Window) -> Any:
    """Arbitrary indices, moved into the window they belong to; -1 where it is wholly outside."""
    for at in np.ndindex(*index.shape[2:]):
        inside = []
        for i, o in enumerate(at):
            start = o * window.stride[i] - window.pad[i]
            meets = range(start, start + window.extent[i], window.dilation[i])
            inside.append([p for p in meets if 0 <= p < size[i]])
        box = (slice(None), slice(None), *at)
        if not all(inside):
            index[box] = -1
            continue
        flat = 0
        for i, positions in enumerate(inside):
            flat = flat * size[i] + np.array(positions)[(index[box] + i) % len(positions)]
        index[box] = flat
    return index


for _note, _size, _window in _POOLS:
    row("pool_max", _note, pool("pool_max", _size, _window))
    row("pool_max_grad", _note, pool("pool_max_grad", _size, _window))
    row("pool_random", _note, pool("pool_random", _size, _window))
    for _count in ("padded", "inside", "kernel"):
        row("pool_avg", f"{_note}, {_count}", pool("pool_avg", _size, _window, count=_count), ["x"])
        row("pool_avg_grad", f"{_note}, {_count}", pool("pool_avg_grad", _size, _window, count=_count))
    if "outside" not in _note and "alone" not in _note:
        row("pool_max", f"{_note}, no ties", pool("pool_max", _size, _window, distinct), ["x"])
_WINDOW = Window((2, 2), stride=(2, 2))
row("pool_max", "batch of one, all negative", pool("pool_max", (4, 4), _WINDOW, lambda *a: -positive(*a), n=1))
row(
    "pool_max", "nothing but minus infinity", pool("pool_max", (4, 4), _WINDOW, lambda r, t, *s: np.full(s, -np.inf, t))
)
row("pool_random", "no threshold near a running sum", pool("pool_random", (6, 6), _WINDOW, positive), ["x"])
row("pool_random", "windows of zeros", pool("pool_random", (5, 4), _WINDOW, lambda r, t, *s: np.zeros(s, t)))


# ------------------------------------------------------------------------------------------------------ normalisation
def lrn(size: int, *shape: int, op: str = "lrn", beta: float = 0.75) -> Any:
    def make(rng: Rng, dtype: str) -> Made:
        attrs = {"size": size, "alpha": 0.5, "beta": beta, "k": 1.5}
        x, out = normal(rng, dtype, *shape), Spec(shape, dtype)
        if op == "lrn":
            return (x, out, out), attrs
        scale = positive(rng, dtype, *shape)
        return (x, x * scale ** dtype_of(dtype)(-beta), scale, normal(rng, dtype, *shape), out), attrs

    return make


def dtype_of(name: str) -> Any:
    return np.dtype(name).type


for _size_, _shape in (
    (5, (2, 7, 3, 4)),
    (3, (1, 2, 2, 2)),
    (1, (2, 3, 4)),
    (9, (2, 4, 3)),
    (3, (3, 5)),
    (4, (2, 6, 3)),
):
    row("lrn", f"{_size_} of {_shape[1]} channels", lrn(_size_, *_shape), ["x"])
    row("lrn_grad", f"{_size_} of {_shape[1]} channels", lrn(_size_, *_shape, op="lrn_grad"))
row("lrn", "beta 0.5", lrn(3, 2, 4, 3, beta=0.5), ["x"])
row("lrn_grad", "beta 1", lrn(3, 2, 4, 3, op="lrn_grad", beta=1.0))
