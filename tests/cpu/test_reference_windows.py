"""Convolution and pooling of the reference device: against loops over single numbers, by hand, and adjointness."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from cases import KernelCase
from cases.reference import K, inner, normal, rows, run

from netrun.types import Window


def inputs_of(
    window: Window, at: Sequence[int], size: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(kernel index, input position) of every element of the window at one output position that lies inside."""
    for tap in itertools.product(*map(range, window.kernel)):
        rows_ = zip(at, window.stride, window.pad, tap, window.dilation, strict=True)
        position = tuple(o * s - p + i * d for o, s, p, i, d in rows_)
        if all(0 <= p < n for p, n in zip(position, size, strict=True)):
            yield tap, position


# -------------------------------------------------------------------------------------------------------- against loops
@pytest.mark.parametrize("case", rows("conv"), ids=str)
def test_conv_by_loops(case: KernelCase) -> None:
    (x, w, b, y), attrs = run(case)
    groups, per_group = attrs["groups"], w.shape[0] // attrs["groups"]
    for at in np.ndindex(*y.shape[2:]):
        met = list(inputs_of(attrs["window"], at, x.shape[2:]))
        for n, k in itertools.product(range(min(2, len(y))), range(w.shape[0])):
            first = k // per_group * (x.shape[1] // groups)
            total = 0.0 if b is None else b[k]
            for c in range(w.shape[1]):
                total += sum(w[(k, c, *tap)] * x[(n, first + c, *position)] for tap, position in met)
            assert y[(n, k, *at)] == pytest.approx(total, abs=1e-12)


@pytest.mark.parametrize("case", rows("im2col"), ids=str)
def test_im2col_by_loops(case: KernelCase) -> None:
    (x, y), attrs = run(case)
    window = attrs["window"]
    columns = y.reshape(*x.shape[:2], *window.kernel, *y.shape[2:])
    wanted = np.zeros_like(columns)
    for at in np.ndindex(*y.shape[2:]):
        for tap, position in inputs_of(window, at, x.shape[2:]):
            wanted[(slice(None), slice(None), *tap, *at)] = x[(slice(None), slice(None), *position)]
    np.testing.assert_array_equal(columns, wanted)


@pytest.mark.parametrize("case", rows("pool_max"), ids=str)
def test_pool_max_by_loops(case: KernelCase) -> None:
    (x, y, index), attrs = run(case)
    size = x.shape[2:]
    for n, c, *at in np.ndindex(*y.shape):
        best, winner = None, -1
        for _, position in inputs_of(attrs["window"], at, size):
            value = x[(n, c, *position)]
            if best is None or value > best:
                best, winner = value, int(np.ravel_multi_index(position, size)) if size else 0
        assert y[(n, c, *at)] == (np.finfo("float64").min if best is None else best)
        assert index[(n, c, *at)] == winner


@pytest.mark.parametrize("case", rows("pool_avg"), ids=str)
def test_pool_avg_by_loops(case: KernelCase) -> None:
    (x, y), attrs = run(case)
    window, size = attrs["window"], x.shape[2:]
    for n, c, *at in np.ndindex(*y.shape):
        inside = [position for _, position in inputs_of(window, at, size)]
        padded = 0
        for tap in itertools.product(*map(range, window.kernel)):
            starts = [o * s - p for o, s, p in zip(at, window.stride, window.pad, strict=True)]
            meets = [a + i * d for a, i, d in zip(starts, tap, window.dilation, strict=True)]
            padded += all(m < e + q for m, e, q in zip(meets, size, window.pad_end, strict=True))
        divisor = {"padded": max(1, padded), "inside": len(inside), "kernel": math.prod(window.kernel)}[attrs["count"]]
        wanted = sum(x[(n, c, *position)] for position in inside) / divisor if divisor else 0.0
        assert y[(n, c, *at)] == pytest.approx(wanted, abs=1e-14)


@pytest.mark.parametrize("case", rows("pool_random"), ids=str)
def test_pool_random_by_loops(case: KernelCase) -> None:
    (x, noise, y, index), attrs = run(case)
    size = x.shape[2:]
    for n, c, *at in np.ndindex(*y.shape):
        inside = [position for _, position in inputs_of(attrs["window"], at, size)]
        values = [x[(n, c, *position)] for position in inside]
        running, chosen = 0.0, len(inside) - 1
        for i, value in enumerate(values):
            running += value
            if running > noise[(n, c, *at)] * sum(values):
                chosen = i
                break
        assert y[(n, c, *at)] == (values[chosen] if inside else 0)
        flat = int(np.ravel_multi_index(inside[chosen], size)) if inside and size else len(inside) - 1
        assert index[(n, c, *at)] == flat


# ---------------------------------------------------------------------------------------------------------- adjointness
@pytest.mark.parametrize("case", rows("conv"), ids=str)
def test_conv_adjoints(case: KernelCase) -> None:
    (x, w, _, _), attrs = run(case)
    y = K.temp("y", case.build("float64")[0][3].shape, "float64")
    K.conv(x, w, None, y, **attrs)
    dy = normal(np.random.default_rng(2), *y.shape)
    dx, dw = np.full_like(x, np.nan), np.full_like(w, np.nan)
    K.conv_grad_x(w, dy, dx, **attrs)
    K.conv_grad_w(x, dy, dw, **attrs)
    assert inner(y, dy) == pytest.approx(inner(x, dx), rel=1e-12, abs=1e-12)
    assert inner(y, dy) == pytest.approx(inner(w, dw), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("case", rows("pool_max", "pool_random"), ids=str)
def test_pool_max_adjoint(case: KernelCase) -> None:
    """The outputs are the inputs at the indices, and the gradients come back to them."""
    args, attrs = run(case)
    x, y, index = args[0], args[-2], args[-1]
    dy, dx = normal(np.random.default_rng(2), *y.shape), np.full(x.shape, np.nan)
    K.pool_max_grad(index, dy, dx, **attrs)
    hit = index >= 0
    assert inner(np.where(np.isinf(y), -1, y)[hit], dy[hit]) == pytest.approx(
        inner(np.where(np.isinf(x), -1, x), dx), rel=1e-12, abs=1e-12
    )


# ------------------------------------------------------------------------------------------------------- worked by hand
def test_caffe_average_of_a_padded_window() -> None:
    """3x3 by 2 with padding 1 on 4x4: the last window is cut at 5 = 4 + 1, so its divisor is 2 rows of 3."""
    x, y = np.ones((1, 1, 4, 4)), np.empty((1, 1, 3, 3))
    K.pool_avg(x, y, window=Window((3, 3), (2, 2), (1, 1)), count="padded")
    np.testing.assert_allclose(y[0, 0], np.outer([2, 3, 1], [2, 3, 1]) / np.outer([3, 3, 2], [3, 3, 2]))


def test_the_first_maximum_wins() -> None:
    x, y, index = (
        np.array([[[[1.0, 3, 3], [3, 0, 1], [2, 3, 1]]]]),
        np.empty((1, 1, 2, 2)),
        np.empty((1, 1, 2, 2), "int32"),
    )
    K.pool_max(x, y, index, window=Window((2, 2)))
    assert y.reshape(-1).tolist() == [3, 3, 3, 3]
    assert index.reshape(-1).tolist() == [1, 1, 3, 7]


def test_nan_comes_through_the_maximum() -> None:
    for place in range(4):
        x = np.ones((1, 1, 2, 2))
        x.reshape(-1)[place] = np.nan
        y, index = np.empty((1, 1, 1, 1)), np.empty((1, 1, 1, 1), "int32")
        K.pool_max(x, y, index, window=Window((2, 2)))
        assert np.isnan(y).all()
        assert 0 <= index.item() < 4
