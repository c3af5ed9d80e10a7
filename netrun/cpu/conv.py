"""Convolution as matrix products: im2col, one BLAS call for a chunk of images, and back.

Images are taken in chunks of B that give BLAS up to 3072 columns. Within a chunk the image number is the
fastest axis (C S B), so that copies move runs of ``width * B`` elements and small maps (8x8, 13x13) still fill a
matrix. A chunk of one is the image where it lies: nothing is transposed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..types import Shape, Window
from .memory import Array, Part, carve, carved_bytes, chain

COLUMNS = 3072
"""Columns of a matrix that BLAS is given at once, about: more are hardly faster and need more memory."""

Step = Callable[[], Any]


class Geometry:
    """Sizes of one convolution and the buffers of a chunk. x: n c size, w: k c/groups kernel, y: n k out."""

    def __init__(self, x: Shape, w: Shape, y: Shape, dtype: Any, window: Window, groups: int) -> None:
        self.n, self.c, self.size = x[0], x[1], x[2:]
        self.k, self.out, self.window, self.groups, self.dtype = y[1], y[2:], window, groups, np.dtype(dtype)
        self.depth = math.prod(w[1:])
        self.positions = math.prod(self.out)
        zipped = zip(window.stride, self.out, window.extent, strict=True)
        self.padded = tuple(s * (o - 1) + e for s, o, e in zipped)
        self.plain = all(k == s == 1 for k, s in zip(window.kernel, window.stride, strict=True)) and not any(window.pad)
        """1x1 with stride 1: the columns are the image."""
        self.exact = self.padded == self.size and not any(window.pad)
        """Neither padding nor unused input."""
        self.chunk = max(1, min(self.n, self._columns() // max(1, self.positions)))
        self.chunks = [(a, min(self.n, a + self.chunk)) for a in range(0, self.n, self.chunk)]

    def _columns(self) -> int:
        if self.plain and self.positions >= 256:
            return 1  # the image as it lies is wide enough, and nothing needs to be copied
        small = self.depth * self.k < 4096 * self.groups  # then BLAS is best with fewer, and the cache with less
        return COLUMNS // 3 if small else COLUMNS

    def parts(self, image: bool, columns: bool, maps: bool) -> list[Part]:
        """Scratch arrays of one chunk: the (padded) image, its columns, the maps of y."""
        b = self.chunk
        sizes = (
            self.c * math.prod(self.padded) * b if image and not (b == 1 and self.exact) else 0,
            self.c * math.prod(self.window.kernel) * self.positions * b if columns and not self.plain else 0,
            self.k * self.positions * b if maps and b > 1 else 0,
        )
        return [((size,), self.dtype) for size in sizes]

    def image(self, memory: Array, b: int) -> Array:
        """The image buffer as C padded B."""
        return memory[: self.c * math.prod(self.padded) * b].reshape(self.c, *self.padded, b)

    def columns(self, memory: Array, b: int) -> Array:
        """The column buffer as groups, c/groups * kernel, columns."""
        wide = self.positions * b
        return memory[: self.groups * self.depth * wide].reshape(self.groups, self.depth, wide)

    def maps(self, memory: Array, b: int) -> Array:
        """The buffer of y as K out B."""
        return memory[: self.k * self.positions * b].reshape(self.k, *self.out, b)

    def grouped(self, maps: Array) -> Array:
        """Maps K out B as groups, k/groups, columns."""
        return maps.reshape(self.groups, self.k // self.groups, -1)

    def weights(self, w: Array) -> Array:
        """w as groups, k/groups, c/groups * kernel."""
        return w.reshape(self.groups, self.k // self.groups, self.depth)

    def kept(self, x: Array, image: Array) -> tuple[Array, Array]:
        """The part of x (n C size) that windows meet, as C S n, and where it lies in the image buffer."""
        inner: list[slice] = []
        outer: list[slice] = []
        for size, padded, pad in zip(self.size, self.padded, self.window.pad, strict=True):
            count = max(0, min(size, padded - pad))
            inner.append(slice(0, count))
            outer.append(slice(pad, pad + count))
        return last(x[_inside(2, inner)]), image[_inside(1, outer)]

    def windows(self, image: Array) -> Array:
        """An image buffer seen as C kernel out B, without a copy."""
        window, strides = self.window, image.strides[1:-1]
        taps = tuple(d * s for d, s in zip(window.dilation, strides, strict=True))
        moves = tuple(t * s for t, s in zip(window.stride, strides, strict=True))
        shape = (self.c, *window.kernel, *self.out, image.shape[-1])
        return as_strided(image, shape, (image.strides[0], *taps, *moves, image.strides[-1]))


def _inside(before: int, box: Sequence[Any]) -> Any:
    """An index: all of the first axes, then ``box``."""
    return (slice(None),) * before + tuple(box)


def last(x: Array) -> Array:
    """n C S seen as C S n."""
    return np.moveaxis(x, 0, -1)


def _multiply(a: Array, b: Array, out: Array) -> Step:
    if a.shape[-1] == 1:  # depthwise: NumPy hands no outer product to BLAS
        return partial(np.multiply, a, b, out)
    if len(a) == 1:  # np.dot has less overhead than np.matmul
        return partial(np.dot, a[0], b[0], out[0])
    return partial(np.matmul, a, b, out)


def _load(g: Geometry, x: Array, image_memory: Array, column_memory: Array, fresh: bool) -> tuple[list[Step], Array]:
    """Steps that bring a chunk of x into columns, and the columns."""
    b, steps = len(x), list[Step]()
    if b == 1 and g.exact:
        image = last(x)
    else:
        image = g.image(image_memory, b)
        if fresh and not g.exact:
            steps.append(partial(image.fill, 0))
        source, home = g.kept(x, image)
        steps.append(partial(np.copyto, home, source))
    if g.plain:
        return steps, image.reshape(g.groups, g.depth, -1)
    columns = g.columns(column_memory, b)
    windows = g.windows(image)
    steps.append(partial(np.copyto, columns.reshape(windows.shape), windows))
    return steps, columns


def _fetch(g: Geometry, dy: Array, memory: Array) -> tuple[list[Step], Array]:
    """Steps that bring a chunk of dy into maps, and the maps as groups, k/groups, columns."""
    if len(dy) == 1:
        return [], g.grouped(last(dy))
    maps = g.maps(memory, len(dy))
    return [partial(np.copyto, maps, last(dy))], g.grouped(maps)


def _fresh(g: Geometry, a: int, b: int) -> bool:
    """Whether the image buffer has another shape than for the chunk before, so that its border is undefined."""
    return a == 0 or b - a != g.chunk


# ---------------------------------------------------------------------------------------------------------- the kernels
def conv(x: Array, w: Array, b: Array | None, y: Array, scratch: Any, *, window: Window, groups: int) -> Step:
    """Kernels.conv, bound."""
    g = Geometry(x.shape, w.shape, y.shape, y.dtype, window, groups)
    image, columns, maps = carve(scratch, g.parts(True, True, True))
    steps: list[Step] = []
    bias = None if b is None else b.reshape(1, g.k, *(1,) * window.rank)
    for start, end in g.chunks:
        load, matrix = _load(g, x[start:end], image, columns, _fresh(g, start, end))
        home = y[start:end]
        alone = end - start == 1
        made = last(home) if alone else g.maps(maps, end - start)
        steps += [*load, _multiply(g.weights(w), matrix, g.grouped(made))]
        if bias is not None:
            steps.append(partial(np.add, np.moveaxis(made, -1, 0), bias, home))
        elif not alone:
            steps.append(partial(np.copyto, home, np.moveaxis(made, -1, 0)))
    return chain(steps)


def conv_grad_x(w: Array, dy: Array, dx: Array, scratch: Any, *, window: Window, groups: int) -> Step:
    """Kernels.conv_grad_x, bound."""
    g = Geometry(dx.shape, w.shape, dy.shape, dx.dtype, window, groups)
    images, columns, maps = carve(scratch, g.parts(True, True, True))
    steps: list[Step] = []
    turned = g.weights(w).transpose(0, 2, 1)
    for start, end in g.chunks:
        b = end - start
        fetch, dmaps = _fetch(g, dy[start:end], maps)
        direct = b == 1 and g.exact
        image = last(dx[start:end]) if direct else g.image(images, b)
        steps += fetch
        if g.plain:
            steps.append(_multiply(turned, dmaps, image.reshape(g.groups, g.depth, -1)))
        else:
            matrix = g.columns(columns, b)
            steps += [_multiply(turned, dmaps, matrix), partial(image.fill, 0)]
            steps += _spread(g, matrix.reshape(g.c, *window.kernel, *g.out, b), image)
        if not direct:
            home, source = g.kept(dx[start:end], image)
            if home.size != dx[start:end].size:
                steps.append(partial(dx[start:end].fill, 0))
            steps.append(partial(np.copyto, home, source))
    return chain(steps)


def _spread(g: Geometry, columns: Array, image: Array) -> list[Step]:
    """Add every tap's columns (C kernel out B) onto the image they came from."""
    steps: list[Step] = []
    window = g.window
    for tap in product(*map(range, window.kernel)):
        rows = zip(tap, window.dilation, window.stride, g.out, strict=True)
        box = [slice(i * d, i * d + s * (o - 1) + 1, s) for i, d, s, o in rows]
        part = image[_inside(1, box)]
        steps.append(partial(np.add, part, columns[_inside(1, tap)], part))
    return steps


def conv_grad_w(x: Array, dy: Array, dw: Array, scratch: Any, *, window: Window, groups: int) -> Step:
    """Kernels.conv_grad_w, bound. The gradient is summed transposed, the way BLAS is faster."""
    g = Geometry(x.shape, dw.shape, dy.shape, dw.dtype, window, groups)
    image, columns, maps, total, more = carve(scratch, [*g.parts(True, True, True), *_sums(g)])
    steps: list[Step] = [] if g.n else [partial(total.fill, 0)]
    for start, end in g.chunks:
        load, matrix = _load(g, x[start:end], image, columns, _fresh(g, start, end))
        fetch, dmaps = _fetch(g, dy[start:end], maps)
        steps += [*load, *fetch, _multiply(matrix, dmaps.transpose(0, 2, 1), more if start else total)]
        if start:
            steps.append(partial(np.add, total, more, total))
    steps.append(partial(np.copyto, g.weights(dw), total.transpose(0, 2, 1)))
    return chain(steps)


def _sums(g: Geometry) -> list[Part]:
    part: Part = ((g.groups, g.depth, g.k // g.groups), g.dtype)
    return [part, part]


# ------------------------------------------------------------------------------------------------------------- scratch
def conv_bytes(op: str, args: Sequence[Any], window: Window, groups: int) -> int:
    """Scratch bytes of one of the three kernels; ``args`` have a shape and a dtype."""
    if op == "conv":
        x, w, _, y = args
    elif op == "conv_grad_x":
        w, y, x = args
    else:
        x, y, w = args
    g = Geometry(x.shape, w.shape, y.shape, y.dtype, window, groups)
    return carved_bytes(g.parts(True, True, True) + (_sums(g) if op == "conv_grad_w" else []))
