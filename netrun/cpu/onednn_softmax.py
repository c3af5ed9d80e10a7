"""Softmax and its loss through the library, where the classes are the innermost axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from ctypes import c_uint8
from typing import Any

import numpy as np

from ..program import Call
from ..types import PLAIN, Spec
from . import dnnl
from . import softmax as plain
from .dnnl import Handle, Library, Unsupported
from .memory import Array
from .onednn_spatial import quick, tensors
from .recipe import Operand, Recipe


def _described(lib: Library, specs: Sequence[Spec], axis: int) -> tuple[Handle, Handle]:
    """Arrays of one shape as rows of classes, and the forward primitive."""
    shape = specs[0].shape
    if any(s.dtype != "float32" or s.layout != PLAIN or s.shape != shape for s in specs):
        raise Unsupported("type or layout")
    if math.prod(shape[axis + 1 :]) != 1 or 0 in shape:
        raise Unsupported("axis")
    md = lib.strided((math.prod(shape[:axis]), shape[axis]), (shape[axis], 1))
    pd = lib.describe("softmax_forward", dnnl.INFERENCE, dnnl.SOFTMAX, md, md, 1, lib.attributes())
    return md, quick(lib, pd)


def _forward(lib: Library, x: Spec, y: Spec, axis: int, names: tuple[str, str]) -> Recipe:
    md, pd = _described(lib, (x, y), axis)
    r = Recipe(lib)
    r.run(pd, {dnnl.SRC: Operand(md, (names[0], 0)), dnnl.DST: Operand(md, (names[1], 0))})
    r.host(lambda _, arrays: _mended(arrays[names[1]][0].reshape(-1, y.shape[axis])))
    return r


def _mended(rows: Array) -> Callable[[], Any]:
    """The library leaves 0 beside a NaN or an infinity; as defined a row with one of them is all NaN.

    The maximum of all results tells: it takes a twentieth of the time, and a net that diverges shows it.
    """
    flat = rows.reshape(-1)

    def step() -> None:
        if np.isnan(np.maximum.reduce(flat)):
            rows[np.isnan(np.maximum.reduce(rows, 1))] = np.nan

    return step


def softmax(lib: Library, call: Call) -> Recipe:
    """Kernels.softmax."""
    x, y = tensors(call)
    return _forward(lib, x.spec, y.spec, call.attrs["axis"], ("x", "y"))


def softmax_grad(lib: Library, call: Call) -> Recipe:
    """Kernels.softmax_grad."""
    md, hint = _described(lib, [t.spec for t in tensors(call)], call.attrs["axis"])
    pd = lib.describe("softmax_backward", dnnl.SOFTMAX, md, md, md, 1, hint, lib.attributes())
    r = Recipe(lib)
    places = {dnnl.DST: "y", dnnl.DIFF_DST: "dy", dnnl.DIFF_SRC: "dx"}
    r.run(quick(lib, pd), {number: Operand(md, (name, 0)) for number, name in places.items()})
    return r


def softmax_nll(lib: Library, call: Call) -> Recipe:
    """Kernels.softmax_nll: the library's softmax, and NumPy picks the labels."""
    x, _, prob, _, _ = tensors(call)
    r = _forward(lib, x.spec, prob.spec, call.attrs["axis"], ("x", "prob"))
    size = plain.workspace(call)
    room = r.area(lib.strided((size,), (1,), dnnl.U8))

    def picking(address: Callable[[Operand], int], arrays: Mapping[str, Any]) -> Callable[[], Any]:
        scratch = np.ctypeslib.as_array((c_uint8 * size).from_address(address(room)))
        prob, label, loss, norm = (arrays[name][0] for name in ("prob", "label", "loss", "norm"))
        return plain.nll(prob, label, loss, norm, scratch, **call.attrs)

    r.host(picking)
    return r
