"""Convolutions of 3x3 and 5x5 with stride 1 by Winograd's filtering: transforms in NumPy, products by the library.

The wheel's library has the direct convolution alone, which already runs at the arithmetic peak. Here images are taken
in chunks whose transformed values stay in the cache: the library copies a chunk from its home layout into channels last
with a border of zeros, NumPy transforms it on all cores, the library multiplies (one product a point of the tile, all
in one call), NumPy transforms back, and the library copies home. ``winograd_cost`` says when that is faster.

BF16: the transforms compute in float32, what is multiplied is rounded to 16 bits, sums are in float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..program import Call
from ..types import PLAIN, Tensor
from . import dnnl
from .dnnl import Handle, Library, Unsupported
from .layouts import format_of, is_half, strides
from .onednn_pointwise import rectified
from .recipe import Operand, Recipe
from .winograd import Tile, mirrored, tile, transposed
from .winograd_cost import Sizes, chosen, inside
from .winograd_steps import Maps, Sums, Work, carved, chunk_of, chunks, cube, from_tiles, taps_md, to_points, to_tiles

PACKED = "points"
"""What the end of the name of a layout of transformed weights begins with."""


def _geometry(call: Call, x: Tensor, w: Tensor, y: Tensor) -> Sizes:
    window = call.attrs["window"]
    if window.rank != 2 or call.attrs["groups"] != 1 or 0 in (*x.shape, *w.shape, *y.shape):
        raise Unsupported("not for Winograd")
    if {x.dtype, w.dtype, y.dtype} != {"float32"} or set(window.stride) | set(window.dilation) != {1}:
        raise Unsupported("not for Winograd")
    r = window.kernel[0]
    pads = (*window.pad, *window.pad_end)
    reach = [size + a + b - r + 1 for size, a, b in zip(x.shape[2:], window.pad, window.pad_end, strict=True)]
    if window.kernel not in ((3, 3), (5, 5)) or min(pads) < 0 or max(pads) >= r or tuple(reach) != y.shape[2:]:
        raise Unsupported("not for Winograd")
    half = is_half(x.spec.layout) or is_half(y.spec.layout)
    share = inside(x.shape[2:], y.shape[2:], window)
    return Sizes(x.shape[0], x.shape[1], y.shape[1], (y.shape[2], y.shape[3]), half, r, share)


def packed_weights(lib: Library, call: Call) -> str | None:
    """The layout of weights that a forward convolution reads as they are, if it goes this way; else None."""
    args: Any = call.args
    x, w, *_, y = args
    try:
        s = _geometry(call, x, w, y)
        t = chosen(s, ready=True)
        rectifiers(call)
    except Unsupported:
        return None
    size = t.side**2 * s.c * s.k * (2 if s.half else 4)
    return f"work:{size}:{PACKED}{t.m}x{t.r}{'h' if s.half else ''}"


def packed_tile(layout: str) -> tuple[Tile, bool] | None:
    """Tile and whether numbers take 16 bits, of weights in a layout that packed_weights named."""
    kind = layout.split(":")[-1]
    if not kind.startswith(PACKED):
        return None
    m, _, r = kind.removeprefix(PACKED).rstrip("h").partition("x")
    return tile(int(m), int(r)), kind.endswith("h")


def rectifiers(call: Call) -> list[tuple[Any, ...]]:
    """What is done to the result of a forward convolution, as eltwise operations of the library.

    Raises:
        Unsupported: something else is, too.
    """
    if call.op.name == "conv_then" and call.args[3]:
        raise Unsupported("other operands")
    return rectified(call.attrs.get("then"))


def pack(lib: Library, call: Call) -> Recipe:
    """Kernels.copy of plain weights into the form of ``packed_weights``."""
    w, packed = call.tensors()
    found = packed_tile(packed.spec.layout)
    if found is None or w.spec.layout != PLAIN:
        raise Unsupported("no weights")
    t, half = found
    k, c = w.shape[:2]
    r = Recipe(lib)
    work = Work(r)
    home = Operand(cube(lib, t.side**2, k, c, half=half), ("y", 0))
    taps = r.area(taps_md(lib, k, c, t.r))
    r.reorder(Operand(lib.strided(w.shape, strides(w.shape)), ("x", 0)), taps)
    full = r.area(cube(lib, t.side**2, k, c)) if half else home
    to_points(work, t.weights, taps, full, k * c)
    if half:
        r.reorder(full, home)
    return work.close()


def _filter(
    lib: Library, t: Tile, source: Maps, given: str, result: Maps, made: str, w: Tensor, half: bool,
    bias: bool = False, then: Sequence[tuple[Any, ...]] = (), turned: bool = False,
) -> Recipe:  # fmt: skip
    """The recipe of a filter: forward, or with ``turned`` weights the gradient of the input."""
    r = Recipe(lib)
    work = Work(r)
    points, c, k, tiles = t.side**2, source.channels, result.channels, source.down * source.across
    ready = packed_tile(w.spec.layout)
    chunk = chunk_of(source.images, points * tiles * (4 * (c + k) + (2 * c if half else 0)))
    source.chunk = result.chunk = chunk

    def values(images: int) -> list[Handle]:
        found = [cube(lib, points, images * tiles, c), cube(lib, points, images * tiles, k)]
        return [*found, cube(lib, points, images * tiles, c, half=True)] if half else found

    inner, outer = (k, c) if turned else (c, k)
    early = [] if ready else [taps_md(lib, outer, inner, t.r)]
    if half and not ready:
        early.append(cube(lib, points, outer, inner))
    late, first = carved(r, values(chunk), early)
    factor = Operand(cube(lib, points, outer, inner, half=half), ("w", 0))
    if not ready:
        factor = r.area(factor.md)
        taps = first[0]
        own = lib.strided(w.shape, strides(w.shape)) if w.spec.layout == PLAIN else format_of(lib, w.spec.layout)[0]
        r.reorder(Operand(own, ("w", 0)), taps)
        to_points(work, mirrored(t.weights) if turned else t.weights, taps, first[1] if half else factor, outer * inner)
        if half:
            r.reorder(first[1], factor)
    steps = (outer * inner, inner, 1) if turned else (outer * inner, 1, inner)
    kind = dnnl.BF16 if half else dnnl.F32
    factor = Operand(lib.strided((points, c, k), steps, kind), factor.place)
    border, area = source.area(r), result.area(r)
    source.clear(r, border)
    relu = len(then) == 1 and then[0][1] == dnnl.RELU and then[0][2] == 0
    for start, images in chunks(source.images, chunk):
        mds = values(images)
        tiles_in, products, *narrow = [Operand(md, o.place) for md, o in zip(mds, late, strict=True)]
        r.reorder(source.home(given, start, images), source.inside(border, images))
        to_tiles(work, source, border, t.data, images, tiles_in)
        if half:
            r.reorder(tiles_in, narrow[0])
        left = narrow[0] if half else tiles_in
        _multiply(r, left, factor, products)
        from_tiles(work, result, products, t.result, images, area, bias, relu)
        if then and not relu:
            _rectify(r, area, then)
        r.reorder(result.inside(area, images), result.home(made, start, images))
    return work.close()


def _multiply(r: Recipe, left: Operand, right: Operand, out: Operand, more: bool = False) -> None:
    attributes = r.lib.attributes([("sum", 1.0)] if more else [])
    pd = r.lib.describe("matmul", left.md, right.md, None, out.md, attributes)
    if "ref" in r.lib.implementation(pd):
        raise Unsupported("product")
    r.run(pd, {dnnl.SRC: left, dnnl.WEIGHTS: right, dnnl.DST: out})


def _rectify(r: Recipe, area: Operand, then: Sequence[tuple[Any, ...]]) -> None:
    (_, algorithm, alpha, beta), *rest = then
    pd = r.lib.describe("eltwise_forward", dnnl.INFERENCE, algorithm, area.md, area.md, alpha, beta,
                        r.lib.attributes(rest))  # fmt: skip
    r.run(pd, {dnnl.SRC: area, dnnl.DST: area})


def forward(lib: Library, call: Call) -> Recipe:
    """Kernels.conv, and onednn.CONV_THEN with eltwise operations alone.

    Raises:
        Unsupported: the direct convolution is faster, or this is none of these.
    """
    args: Any = call.args
    x, w, b, *_, y = args
    then = rectifiers(call)
    s = _geometry(call, x, w, y)
    ready = packed_tile(w.spec.layout)
    t = ready[0] if ready else chosen(s)
    tiles = s.tiles(t.m)
    source = Maps(lib, x.spec, t.m, t.side, call.attrs["window"].pad, tiles)
    result = Maps(lib, y.spec, t.m, t.m, (0, 0), tiles)
    return _filter(lib, t, source, "x", result, "y", w, s.half, b is not None, then)


def grad_x(lib: Library, call: Call) -> Recipe:
    """Kernels.conv_grad_x.

    Raises:
        Unsupported: as forward.
    """
    w, dy, dx = call.tensors()
    s = _geometry(call, dx, w, dy)
    s = Sizes(s.n, s.k, s.c, (dx.shape[2], dx.shape[3]), s.half, s.r, s.inside)
    t = chosen(s)
    tiles = s.tiles(t.m)
    source = Maps(lib, dy.spec, t.m, t.side, [s.r - 1 - p for p in call.attrs["window"].pad], tiles)
    result = Maps(lib, dx.spec, t.m, t.m, (0, 0), tiles)
    return _filter(lib, t, source, "dy", result, "dx", w, s.half, turned=True)


def grad_w(lib: Library, call: Call) -> Recipe:
    """Kernels.conv_grad_w, and onednn.GRAD_WB.

    Raises:
        Unsupported: as forward.
    """
    x, dy, dw, *more = call.tensors()
    s = _geometry(call, x, dw, dy)
    t = chosen(s)
    half, points, m = s.half, t.side**2, t.m
    tiles = s.tiles(m)
    source = Maps(lib, x.spec, m, t.side, call.attrs["window"].pad, tiles)
    seed = Maps(lib, dy.spec, m, m, (0, 0), tiles)
    each = math.prod(tiles)
    source.chunk = seed.chunk = chunk = chunk_of(s.n, points * each * (s.c + s.k) * (6 if half else 4))
    r = Recipe(lib)
    work = Work(r)
    sums = Sums(r, s.k) if more else None

    def values(images: int) -> list[Handle]:
        found = [cube(lib, points, images * each, n) for n in (s.c, s.k)]
        return [*found, *(cube(lib, points, images * each, n, half=True) for n in (s.c, s.k))] if half else found

    late, last = carved(r, values(chunk), [taps_md(lib, s.k, s.c, s.r)])
    total = r.area(cube(lib, points, s.k, s.c))
    inside, outside = source.area(r), seed.area(r)
    source.clear(r, inside)
    seed.clear(r, outside)
    kind = dnnl.BF16 if half else dnnl.F32
    for start, images in chunks(s.n, chunk):
        found = [Operand(md, o.place) for md, o in zip(values(images), late, strict=True)]
        r.reorder(source.home("x", start, images), source.inside(inside, images))
        r.reorder(seed.home("dy", start, images), seed.inside(outside, images))
        to_tiles(work, source, inside, t.data, images, found[0])
        to_tiles(work, seed, outside, transposed(t.result), images, found[1], sums)
        if half:
            r.reorder(found[0], found[2])
            r.reorder(found[1], found[3])
        right, left = found[-2:]
        rows = images * each
        turned = Operand(lib.strided((points, s.k, rows), (rows * s.k, 1, s.k), kind), left.place)
        _multiply(r, turned, right, total, start > 0)
    to_points(work, transposed(t.weights), total, last[0], s.k * s.c)
    own = lib.strided(dw.shape, strides(dw.shape)) if dw.spec.layout == PLAIN else format_of(lib, dw.spec.layout)[0]
    r.reorder(last[0], Operand(own, ("dw", 0)))
    if sums is not None:
        sums.close()
    return work.close()
