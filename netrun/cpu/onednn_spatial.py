"""Pooling, concat and copies between layouts through the library."""

from __future__ import annotations

import math
from typing import Any

from ..program import Call
from ..types import PLAIN, Spec, Tensor, Window
from . import dnnl
from .dnnl import Handle, Library, Unsupported
from .layouts import format_of, of, strides
from .recipe import Operand, Recipe


def tensors(call: Call) -> list[Tensor]:
    """The arguments of a call that has no tuples and no None.

    Raises:
        Unsupported: an element type is not float32, or there is nothing in an array.
    """
    found = call.tensors()
    for t in found:
        if 0 in t.shape or (t.dtype != "float32" and not t.spec.layout.startswith("work:")):
            raise Unsupported("type or size")
    return found


def quick(lib: Library, pd: Handle) -> Handle:
    """The description, unless only the library's own reference would run.

    Raises:
        Unsupported: so it is.
    """
    if "ref" in lib.implementation(pd):
        raise Unsupported("only a reference")
    return pd


# ------------------------------------------------------------------------------------------------------------- pooling
def _geometry(x: Spec, y: Spec, window: Window) -> tuple[Any, ...]:
    """Stride, kernel, dilation and pads, so that the library makes as many windows as y has."""
    if window.rank not in (1, 2, 3) or any(d != 1 for d in window.dilation):
        raise Unsupported("window")
    after = []
    rows = zip(x.shape[2:], y.shape[2:], window.kernel, window.stride, window.pad, strict=True)
    for size, out, kernel, stride, pad in rows:
        end = (out - 1) * stride + kernel - size - pad
        if pad >= kernel or end >= kernel:
            raise Unsupported("a window that meets no input")
        after.append(max(0, end))
    zero = (0,) * window.rank
    return tuple(dnnl.dims(v) for v in (window.stride, window.kernel, zero, window.pad, after))


def _average(x: Spec, y: Spec, window: Window, count: str) -> int:
    """The library's way of counting that divides as the kernel does."""
    if count == "kernel":
        return dnnl.POOL_PADDED
    if count == "inside" or not any((*window.pad, *window.pad_end)):
        return dnnl.POOL_INSIDE
    rows = zip(x.shape[2:], y.shape[2:], window.kernel, window.stride, window.pad, window.pad_end, strict=True)
    if all((o - 1) * s + k - p <= n + e for n, o, k, s, p, e in rows):
        return dnnl.POOL_PADDED
    raise Unsupported("divisor")


def _pool(lib: Library, x: Spec, y: Spec, window: Window, algorithm: int, prop: int = dnnl.TRAINING) -> Handle:
    sizes = _geometry(x, y, window)
    pd = lib.describe("pooling_forward", prop, algorithm, of(lib, x), of(lib, y), *sizes, lib.attributes())
    return quick(lib, pd)


def _pool_grad(lib: Library, x: Spec, y: Spec, window: Window, algorithm: int) -> tuple[Handle, Handle]:
    hint = _pool(lib, x, y, window, algorithm)
    sizes = _geometry(x, y, window)
    pd = lib.describe("pooling_backward", algorithm, of(lib, x), of(lib, y), *sizes, hint, lib.attributes())
    return quick(lib, pd), hint


def pool_max_work(lib: Library, x: Spec, y: Spec, window: Window) -> int:
    """Bytes the library keeps of a maximum pooling for its backward."""
    return lib.nbytes(lib.query(_pool(lib, x, y, window, dnnl.POOL_MAX), dnnl.WORKSPACE))


def pool_max(lib: Library, call: Call) -> Recipe:
    """Kernels.pool_max, where ``index`` is the library's own memory, or nobody reads it (work:0)."""
    x, y, index = tensors(call)
    if not index.spec.layout.startswith("work:"):
        raise Unsupported("somebody reads the index")
    unread = index.spec.layout == "work:0"
    pd = _pool(lib, x.spec, y.spec, call.attrs["window"], dnnl.POOL_MAX, dnnl.INFERENCE if unread else dnnl.TRAINING)
    r = Recipe(lib)
    operands = {dnnl.SRC: Operand(of(lib, x.spec), ("x", 0)), dnnl.DST: Operand(of(lib, y.spec), ("y", 0))}
    if not unread:
        operands[dnnl.WORKSPACE] = Operand(lib.query(pd, dnnl.WORKSPACE), ("index", 0))
    r.run(pd, operands)
    return r


def pool_max_grad(lib: Library, call: Call) -> Recipe:
    """Kernels.pool_max_grad from the library's own memory."""
    index, dy, dx = tensors(call)
    if not index.spec.layout.startswith("work:"):
        raise Unsupported("a plain index")
    pd, hint = _pool_grad(lib, dx.spec, dy.spec, call.attrs["window"], dnnl.POOL_MAX)
    r = Recipe(lib)
    kept = lib.query(hint, dnnl.WORKSPACE)
    if lib.nbytes(kept) != int(index.spec.layout[5:]):
        raise Unsupported("another forward")
    r.run(pd, {dnnl.DIFF_DST: Operand(of(lib, dy.spec), ("dy", 0)), dnnl.DIFF_SRC: Operand(of(lib, dx.spec), ("dx", 0)),
               dnnl.WORKSPACE: Operand(kept, ("index", 0))})  # fmt: skip
    return r


def pool_avg(lib: Library, call: Call) -> Recipe:
    """Kernels.pool_avg."""
    x, y = tensors(call)
    algorithm = _average(x.spec, y.spec, call.attrs["window"], call.attrs["count"])
    pd = _pool(lib, x.spec, y.spec, call.attrs["window"], algorithm)
    r = Recipe(lib)
    r.run(pd, {dnnl.SRC: Operand(of(lib, x.spec), ("x", 0)), dnnl.DST: Operand(of(lib, y.spec), ("y", 0))})
    return r


def pool_avg_grad(lib: Library, call: Call) -> Recipe:
    """Kernels.pool_avg_grad."""
    dy, dx = tensors(call)
    algorithm = _average(dx.spec, dy.spec, call.attrs["window"], call.attrs["count"])
    pd, _ = _pool_grad(lib, dx.spec, dy.spec, call.attrs["window"], algorithm)
    r = Recipe(lib)
    r.run(
        pd, {dnnl.DIFF_DST: Operand(of(lib, dy.spec), ("dy", 0)), dnnl.DIFF_SRC: Operand(of(lib, dx.spec), ("dx", 0))}
    )
    return r


# --------------------------------------------------------------------------------------------------------------- moves
def copy(lib: Library, call: Call) -> Recipe:
    """Kernels.copy between layouts, or within one that is not plain."""
    x, y = tensors(call)
    if x.shape != y.shape or x.spec.layout == y.spec.layout == PLAIN:
        raise Unsupported("NumPy's is the same")
    r = Recipe(lib)
    if y.spec.layout.startswith("work:"):
        md, shape = format_of(lib, y.spec.layout)
        r.reorder(Operand(lib.strided(shape, strides(shape)), ("x", 0)), Operand(md, ("y", 0)))
        return r
    r.reorder(Operand(of(lib, x.spec), ("x", 0)), Operand(of(lib, y.spec), ("y", 0)))
    return r


def concat(lib: Library, call: Call) -> Recipe:
    """Kernels.concat along the channels of arrays that are not plain."""
    *xs, y = tensors(call)
    if call.attrs["axis"] != 1 or y.spec.layout == PLAIN or any(x.spec.layout != y.spec.layout for x in xs):
        raise Unsupported("axis or layout")
    mds, home = [of(lib, x.spec) for x in xs], of(lib, y.spec)
    pd = quick(lib, lib.describe("concat", home, len(xs), 1, mds, lib.attributes()))
    r = Recipe(lib)
    operands = {dnnl.MANY + i: Operand(md, ("xs", i)) for i, md in enumerate(mds)}
    r.run(pd, {**operands, dnnl.DST: Operand(home, ("y", 0))})
    return r


def slice_(lib: Library, call: Call) -> Recipe:
    """Kernels.slice of arrays that are not plain."""
    x, y = tensors(call)
    if y.spec.layout == PLAIN or x.spec.layout != y.spec.layout:
        raise Unsupported("layout")
    if math.prod(call.attrs["begin"][:1] + call.attrs["begin"][2:]):
        raise Unsupported("begin")
    r = Recipe(lib)
    part = lib.part(of(lib, x.spec), y.shape, call.attrs["begin"])
    r.reorder(Operand(part, ("x", 0)), Operand(of(lib, y.spec), ("y", 0)))
    return r
