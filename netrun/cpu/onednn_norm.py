"""LRN and batch normalisation through the library."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from ctypes import c_float
from functools import partial
from typing import Any

import numpy as np

from ..program import Call
from ..types import Spec
from . import dnnl
from .dnnl import Handle, Library, Unsupported
from .layouts import describe, of
from .memory import chain
from .onednn_spatial import quick, tensors
from .recipe import Operand, Recipe


# ----------------------------------------------------------------------------------------------------------------- LRN
def _lrn(lib: Library, x: Spec, attrs: Mapping[str, Any], prop: int = dnnl.TRAINING) -> Handle:
    if attrs["size"] < 2:  # version 3.2 crashes while it compiles that, channels last
        raise Unsupported("a channel alone")
    md = of(lib, x)
    numbers = attrs["size"], float(attrs["alpha"]), float(attrs["beta"]), float(attrs["k"])
    return quick(lib, lib.describe("lrn_forward", prop, dnnl.LRN_ACROSS, md, md, *numbers, lib.attributes()))


def lrn_work(lib: Library, x: Spec, attrs: Mapping[str, Any]) -> int:
    """Bytes the library keeps of an LRN for its backward."""
    return lib.nbytes(lib.query(_lrn(lib, x, attrs), dnnl.WORKSPACE))


def lrn(lib: Library, call: Call) -> Recipe:
    """Kernels.lrn, where ``scale`` is the library's own memory, or nobody reads it (work:0)."""
    x, y, scale = tensors(call)
    if not scale.spec.layout.startswith("work:") or x.spec.layout != y.spec.layout:
        raise Unsupported("somebody reads the scale")
    unread = scale.spec.layout == "work:0"
    pd = _lrn(lib, x.spec, call.attrs, dnnl.INFERENCE if unread else dnnl.TRAINING)
    md = of(lib, x.spec)
    operands = {dnnl.SRC: Operand(md, ("x", 0)), dnnl.DST: Operand(md, ("y", 0))}
    if not unread:
        operands[dnnl.WORKSPACE] = Operand(lib.query(pd, dnnl.WORKSPACE), ("scale", 0))
    r = Recipe(lib)
    r.run(pd, operands)
    return r


def lrn_grad(lib: Library, call: Call) -> Recipe:
    """Kernels.lrn_grad from the library's own memory."""
    x, _, scale, dy, dx = tensors(call)
    if not scale.spec.layout.startswith("work:") or {x.spec.layout} != {dy.spec.layout, dx.spec.layout}:
        raise Unsupported("a plain scale")
    hint, md, a = _lrn(lib, x.spec, call.attrs), of(lib, x.spec), call.attrs
    if a["size"] > 5 and x.shape[1] % 16:  # version 3.2 forgets neighbours of the last channels, channels last
        raise Unsupported("channels that fill no vector")
    kept = lib.query(hint, dnnl.WORKSPACE)
    if lib.nbytes(kept) != int(scale.spec.layout[5:]):
        raise Unsupported("another forward")
    numbers = a["size"], float(a["alpha"]), float(a["beta"]), float(a["k"])
    pd = quick(lib, lib.describe("lrn_backward", dnnl.LRN_ACROSS, md, md, md, *numbers, hint, lib.attributes()))
    r = Recipe(lib)
    r.run(pd, {dnnl.SRC: Operand(md, ("x", 0)), dnnl.DIFF_DST: Operand(md, ("dy", 0)),
               dnnl.DIFF_SRC: Operand(md, ("dx", 0)), dnnl.WORKSPACE: Operand(kept, ("scale", 0))})  # fmt: skip
    return r


# ------------------------------------------------------------------------------------------------------- normalisation
def _per_channel(x: Spec, axes: tuple[int, ...]) -> None:
    if len(x.shape) not in (3, 4, 5) or set(axes) != set(range(len(x.shape))) - {1}:
        raise Unsupported("axes")


def normalize(lib: Library, call: Call) -> Recipe:
    """Kernels.normalize over all axes but the channels."""
    x, y, *_ = tensors(call)
    _per_channel(x.spec, call.attrs["axes"])
    if x.spec.layout != y.spec.layout:
        raise Unsupported("two layouts")
    md, vector = of(lib, x.spec), lib.strided((x.shape[1],), (1,))
    pd = lib.describe("batch_normalization_forward", dnnl.TRAINING, md, md, float(call.attrs["eps"]), 0,
                      lib.attributes())  # fmt: skip
    r = Recipe(lib)
    moments = {dnnl.MEAN: Operand(vector, ("mean", 0)), dnnl.VARIANCE: Operand(vector, ("var", 0))}
    r.run(quick(lib, pd), {dnnl.SRC: Operand(md, ("x", 0)), dnnl.DST: Operand(md, ("y", 0)), **moments})
    return r


def normalize_grad(lib: Library, call: Call) -> Recipe:
    """Kernels.normalize_grad over all axes but the channels.

    The library wants the input; with mean 0 and variance 1 the output y serves as one, and what is missing then, the
    factor 1 / sqrt(var + eps), is handed over as the scale.
    """
    y, _, dy, dx = tensors(call)
    _per_channel(y.spec, call.attrs["axes"])
    if {y.spec.layout} != {dy.spec.layout, dx.spec.layout}:
        raise Unsupported("two layouts")
    md, vector = of(lib, y.spec), lib.strided((y.shape[1],), (1,))
    flags = dnnl.USE_SCALE
    hint = lib.describe("batch_normalization_forward", dnnl.TRAINING, md, md, 0.0, flags, lib.attributes())
    pd = quick(lib, lib.describe("batch_normalization_backward", dnnl.BACKWARD, md, md, md, 0.0, flags, hint,
                                 lib.attributes()))  # fmt: skip
    r = Recipe(lib)
    zero, one, factor, unused = (r.area(vector) for _ in range(4))
    count, eps = y.shape[1], np.float32(call.attrs["eps"])

    def prelude(address: Callable[[Operand], int], arrays: Mapping[str, Any]) -> Callable[[], Any]:
        zeros, ones, factors = (floats(address(o), count) for o in (zero, one, factor))
        given = arrays["var"][0].reshape(-1)
        return chain([partial(zeros.fill, 0), partial(ones.fill, 1), partial(np.add, given, eps, factors),
                      partial(np.sqrt, factors, factors), partial(np.reciprocal, factors, factors)])  # fmt: skip

    r.host(prelude)
    r.run(pd, {dnnl.SRC: Operand(md, ("y", 0)), dnnl.MEAN: zero, dnnl.VARIANCE: one, dnnl.SCALE: factor,
               dnnl.DIFF_DST: Operand(md, ("dy", 0)), dnnl.DIFF_SRC: Operand(md, ("dx", 0)),
               dnnl.DIFF_SCALE: unused})  # fmt: skip
    return r


def floats(address: int, count: int) -> Any:
    """The float32 numbers at an address, seen as an array."""
    return np.ctypeslib.as_array((c_float * count).from_address(address))


# ---------------------------------------------------------------------------------------------------------------- fused
def _batch_norm(lib: Library, md: Handle, eps: float, relu: bool) -> Handle:
    flags = dnnl.USE_SCALE | dnnl.USE_SHIFT | (dnnl.FUSE_RELU if relu else 0)
    pd = lib.describe("batch_normalization_forward", dnnl.TRAINING, md, md, float(eps), flags, lib.attributes())
    return quick(lib, pd)


def mask_bytes(lib: Library, x: Spec, layouts: Sequence[str]) -> int:
    """Bytes of the mask of batch_norm's ReLU in the layout that needs most; 0 where it has none at all."""
    found = [0]
    for layout in layouts:
        try:
            md = describe(lib, x.shape, layout)
            found.append(lib.nbytes(lib.query(_batch_norm(lib, md, 1e-5, True), dnnl.WORKSPACE)))
        except Unsupported:
            continue
    return max(found)


def batch_norm(lib: Library, call: Call) -> Recipe:
    """onednn.BATCH_NORM."""
    x, _, _, y, _, _, mask = _checked(call)
    if x.spec.layout != y.spec.layout:
        raise Unsupported("two layouts")
    md, vector, relu = of(lib, x.spec), lib.strided((x.shape[1],), (1,)), call.attrs["relu"]
    pd = _batch_norm(lib, md, call.attrs["eps"], relu)
    r = Recipe(lib)
    operands = {dnnl.SRC: Operand(md, ("x", 0)), dnnl.DST: Operand(md, ("y", 0)),
                dnnl.SCALE: Operand(vector, ("scale", 0)), dnnl.SHIFT: Operand(vector, ("shift", 0)),
                dnnl.MEAN: Operand(vector, ("mean", 0)), dnnl.VARIANCE: Operand(vector, ("var", 0))}  # fmt: skip
    if relu:
        kept = lib.query(pd, dnnl.WORKSPACE)
        room = int(mask.spec.layout[5:])
        if room and room < lib.nbytes(kept):
            raise Unsupported("mask")
        operands[dnnl.WORKSPACE] = Operand(kept, ("mask", 0)) if room else r.area(kept)
    r.run(pd, operands)
    return r


def batch_norm_grad(lib: Library, call: Call) -> Recipe:
    """onednn.BATCH_NORM_GRAD."""
    x, _, _, _, mask, dy, dx, *_ = _checked(call)
    if {x.spec.layout} != {dy.spec.layout, dx.spec.layout}:
        raise Unsupported("two layouts")
    md, vector, relu = of(lib, x.spec), lib.strided((x.shape[1],), (1,)), call.attrs["relu"]
    flags = dnnl.USE_SCALE | dnnl.USE_SHIFT | (dnnl.FUSE_RELU if relu else 0)
    eps = float(call.attrs["eps"])
    hint = _batch_norm(lib, md, eps, relu)
    pd = quick(lib, lib.describe("batch_normalization_backward", dnnl.BACKWARD, md, md, md, eps, flags, hint,
                                 lib.attributes()))  # fmt: skip
    r = Recipe(lib)
    operands = {dnnl.SRC: Operand(md, ("x", 0)), dnnl.DIFF_DST: Operand(md, ("dy", 0)),
                dnnl.DIFF_SRC: Operand(md, ("dx", 0))}  # fmt: skip
    for number, name in ((dnnl.MEAN, "mean"), (dnnl.VARIANCE, "var"), (dnnl.SCALE, "scale"),
                         (dnnl.DIFF_SCALE, "dscale"), (dnnl.DIFF_SHIFT, "dshift")):  # fmt: skip
        operands[number] = Operand(vector, (name, 0))
    if relu:
        kept = lib.query(hint, dnnl.WORKSPACE)
        if int(mask.spec.layout[5:]) < lib.nbytes(kept):
            raise Unsupported("mask")
        operands[dnnl.WORKSPACE] = Operand(kept, ("mask", 0))
    r.run(pd, operands)
    return r


def _checked(call: Call) -> list[Any]:
    found = tensors(call)
    _per_channel(found[0].spec, call.attrs["axes"])
    return found
