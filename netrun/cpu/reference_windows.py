"""The kernels of device "reference" that look through windows: convolutions, columns, pooling. One tap at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ..kernels import Kernels
from ..types import Shape, Window
from .windows import divisors, plane, taps

Array = npt.NDArray[Any]


class Windows(Kernels):
    """Convolution, im2col, pooling, and their adjoints."""

    # ----------------------------------------------------------------------------------------------- convolutions
    def conv(self, x: Array, w: Array, b: Array | None, y: Array, *, window: Window, groups: int) -> None:
        y[...] = 0 if b is None else b.reshape(1, -1, *(1,) * window.rank)
        for xg, wg, yg in _groups(groups, x, w, y):
            for tap in taps(window, x.shape[2:], y.shape[2:]):
                yg[tap.outputs] += np.einsum("nc...,kc->nk...", xg[tap.inputs], wg[tap.weight])

    def conv_grad_x(self, w: Array, dy: Array, dx: Array, *, window: Window, groups: int) -> None:
        dx[...] = 0
        for dxg, wg, dyg in _groups(groups, dx, w, dy):
            for tap in taps(window, dx.shape[2:], dy.shape[2:]):
                dxg[tap.inputs] += np.einsum("nk...,kc->nc...", dyg[tap.outputs], wg[tap.weight])

    def conv_grad_w(self, x: Array, dy: Array, dw: Array, *, window: Window, groups: int) -> None:
        dw[...] = 0  # taps that meet no input get no gradient
        for xg, dwg, dyg in _groups(groups, x, dw, dy):
            for tap in taps(window, x.shape[2:], dy.shape[2:]):
                met, served = xg[tap.inputs], dyg[tap.outputs]
                flat = (*met.shape[:2], -1), (*served.shape[:2], -1)
                dwg[tap.weight] = np.einsum("ncs,nks->kc", met.reshape(flat[0]), served.reshape(flat[1]))

    def im2col(self, x: Array, y: Array, *, window: Window) -> None:
        y[...] = 0
        columns, out = _columns(x, y, window)
        for tap in taps(window, x.shape[2:], out):
            columns[tap.column] = x[tap.inputs]

    def col2im(self, y: Array, x: Array, *, window: Window) -> None:
        x[...] = 0
        columns, out = _columns(x, y, window)
        for tap in taps(window, x.shape[2:], out):
            x[tap.inputs] += columns[tap.column]

    # ---------------------------------------------------------------------------------------------------- pooling
    def pool_max(self, x: Array, y: Array, index: Array, *, window: Window) -> None:
        y[...] = np.finfo(y.dtype).min
        index[...] = -1
        numbers = plane(x.shape[2:])
        for tap in taps(window, x.shape[2:], y.shape[2:]):
            new, best, at = x[tap.inputs], y[tap.outputs], index[tap.outputs]
            fresh = at < 0
            at[...] = np.where(fresh | (new > best), numbers[tap.inputs], at)
            best[...] = np.where(fresh, new, np.maximum(best, new))  # NaN comes through

    def pool_max_grad(self, index: Array, dy: Array, dx: Array, *, window: Window) -> None:
        dx[...] = 0
        planes = dx.shape[0] * dx.shape[1]
        flat, at = dx.reshape(planes, -1), index.reshape(planes, -1)
        row = np.broadcast_to(np.arange(planes)[:, None], at.shape)
        np.add.at(flat, (row[at >= 0], at[at >= 0]), dy.reshape(planes, -1)[at >= 0])

    def pool_avg(self, x: Array, y: Array, *, window: Window, count: str) -> None:
        y[...] = 0
        for tap in taps(window, x.shape[2:], y.shape[2:]):
            y[tap.outputs] += x[tap.inputs]
        y /= np.maximum(divisors(window, x.shape[2:], y.shape[2:], count), 1).astype(y.dtype)

    def pool_avg_grad(self, dy: Array, dx: Array, *, window: Window, count: str) -> None:
        dx[...] = 0
        share = dy / np.maximum(divisors(window, dx.shape[2:], dy.shape[2:], count), 1).astype(dy.dtype)
        for tap in taps(window, dx.shape[2:], dy.shape[2:]):
            dx[tap.inputs] += share[tap.outputs]

    def pool_random(self, x: Array, noise: Array, y: Array, index: Array, *, window: Window) -> None:
        every = list(taps(window, x.shape[2:], y.shape[2:]))
        total, running = np.zeros_like(y), np.zeros_like(y)
        for tap in every:
            total[tap.outputs] += x[tap.inputs]
        threshold, taken = noise * total, np.zeros(y.shape, bool)
        numbers = plane(x.shape[2:])
        y[...] = 0
        index[...] = -1
        for tap in every:
            box = tap.outputs
            running[box] += x[tap.inputs]
            y[box] = np.where(taken[box], y[box], x[tap.inputs])
            index[box] = np.where(taken[box], index[box], numbers[tap.inputs])
            taken[box] |= running[box] > threshold[box]


def _groups(groups: int, x: Array, w: Array, y: Array) -> Iterator[tuple[Array, Array, Array]]:
    """Views of each group's input channels, filters and output channels."""
    c, k = x.shape[1] // groups, y.shape[1] // groups
    for g in range(groups):
        yield x[:, g * c : (g + 1) * c], w[g * k : (g + 1) * k], y[:, g * k : (g + 1) * k]


def _columns(x: Array, y: Array, window: Window) -> tuple[Array, Shape]:
    """The column matrix as N C kernel S', and S'."""
    out = y.shape[2:]
    return y.reshape(*x.shape[:2], *window.kernel, *out), out
