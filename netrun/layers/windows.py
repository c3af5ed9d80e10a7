"""Sliding windows as the prototxt says them: one reader for Convolution, Deconvolution, Im2col and Pooling."""

from __future__ import annotations

from typing import Any

from ..types import Shape, Window
from .base import Layer


def read_window(layer: Layer, rank: int, *, dilated: bool = True) -> Window:
    """The window of a layer over ``rank`` spatial axes, from kernel_size, stride, pad, pad_end and dilation.

    Each is given once for all axes or once an axis (Pooling: once, and once an axis as kernel, step and padding); with
    two axes also as _h and _w.

    Raises:
        ShapeError: a size is missing, given twice or in the wrong number, or is 0 where it cannot be.
    """
    kernel = _any_axes(layer, rank, "kernel", "kernel_size", "kernel_h", "kernel_w", None)
    stride = _any_axes(layer, rank, "step", "stride", "stride_h", "stride_w", 1)
    pad = _any_axes(layer, rank, "padding", "pad", "pad_h", "pad_w", 0)
    dilation = _per_axis(layer, rank, "dilation", "", "", 1) if dilated else (1,) * rank
    pad_end: Shape = ()
    if dilated:
        pad, pad_end = _ends(layer, rank, pad, tuple(d * (k - 1) for k, d in zip(kernel, dilation, strict=True)))
    for field, values in (("kernel_size", kernel), ("stride", stride), ("dilation", dilation)):
        if any(v < 1 for v in values):
            layer.fail(f"{field} is {size_text(values)}, and has to be at least 1", at=field)
    return Window(kernel, stride, pad, dilation, pad_end)


def _any_axes(
    layer: Layer, rank: int, own: str, field: str, rows: str, columns: str, default: int | None
) -> Shape:  # fmt: skip
    """Sizes in the words for any number of axes, where a type has such a word and says it, else in Caffe's."""
    if own not in layer.p.DESCRIPTOR.fields_by_name or not given(layer.p, own):
        return _per_axis(layer, rank, field, rows, columns, default)
    for other in (field, rows, columns):
        if layer.has(other):
            layer.fail(f"has both {own} and {other}", at=other, hint=f"write {own} alone, once for each spatial axis")
    return _per_axis(layer, rank, own, "", "", default)


def _ends(layer: Layer, rank: int, pad: Shape, reach: Shape) -> tuple[Shape, Shape]:
    """Padding in front and behind, from pad_end and causal; ``reach``: how far back a window sees."""
    if not layer.p.causal:
        return pad, _per_axis(layer, rank, "pad_end", "", "", 0) if given(layer.p, "pad_end") else ()
    if rank == 0:
        layer.fail("causal is for a bottom with a time axis behind the channels", at="causal", bottom=0)
    if given(layer.p, "pad_end"):
        layer.fail("has both causal and pad_end", at="pad_end", hint="causal decides where the zeros lie")
    if pad[0] and (rank == 1 or len(given(layer.p, "pad")) != 1):
        layer.fail(f"has both causal and pad {pad[0]} for its time axis", at="pad", hint="leave pad out for that axis")
    return (reach[0], *pad[1:]), (0, *pad[1:])


def _per_axis(layer: Layer, rank: int, field: str, rows: str, columns: str, default: int | None) -> Shape:
    values = given(layer.p, field)
    pair = [name for name in (rows, columns) if name and layer.has(name)]
    if pair:
        return _pair(layer, rank, field, rows, columns, default, pair)
    if not values and default is None:
        if rank == 0:
            return ()
        hint = f"write {field}: 3, say" + (f", or {rows} and {columns}" if rank == 2 else "")
        layer.fail(f"has no {field}", hint=hint)
    if not values:
        return (default or 0,) * rank
    if len(values) not in (1, rank):
        layer.fail(
            f"{field} is given {len(values)} times, the bottom has {rank} spatial axes",
            at=field,
            bottom=0,
            hint="give it once, or once for each spatial axis",
        )
    return values * rank if len(values) == 1 else values


def _pair(layer: Layer, rank: int, field: str, rows: str, columns: str, default: int | None, pair: list[str]) -> Shape:
    """The values of kernel_h and kernel_w and their like."""
    if given(layer.p, field):
        layer.fail(f"has both {field} and {pair[0]}", at=pair[0], hint=f"write {field}, or {rows} and {columns}")
    if rank != 2:
        what = f"{pair[0]} is for 2 spatial axes, the bottom has {rank}"
        layer.fail(what, at=pair[0], bottom=0, hint=f"give {field} once for each spatial axis")
    # Caffe takes pad_h alone from a convolution, where pad_w is 0 then, but not from a pooling.
    if len(pair) == 1 and (default != 0 or layer.param == "pooling_param"):
        missing = columns if pair[0] == rows else rows
        layer.fail(f"has {pair[0]} but no {missing}", at=pair[0])
    return int(getattr(layer.p, rows)), int(getattr(layer.p, columns))


def given(message: Any, field: str) -> Shape:
    """The values of a number field, repeated or not: none, one or several."""
    value = getattr(message, field)
    if isinstance(value, int):
        return (value,) if message.HasField(field) else ()
    return tuple(int(v) for v in value)


def size_text(values: Shape) -> str:
    """Sizes of several axes as a person writes them: 3x5, or 3 for a single axis."""
    return "x".join(map(str, values))


def needs_text(least: Shape) -> str:
    """The line that says how large the spatial axes have to be: needs H, W >= 11, or more pad."""
    axes = {1: ["L"], 2: ["H", "W"], 3: ["D", "H", "W"]}.get(len(least), [f"axis {i + 2}" for i in range(len(least))])
    least = tuple(max(n, 1) for n in least)
    if len(set(least)) == 1:
        return f"needs {', '.join(axes)} >= {least[0]}, or more pad"
    return f"needs {', '.join(f'{axis} >= {n}' for axis, n in zip(axes, least, strict=True))}, or more pad"


def pooled(window: Window, size: Shape, *, ceil: bool) -> Shape:
    """Output size of pooling, Caffe's rule: (size + 2 pad - kernel) / stride, rounded up or down, + 1.

    If there is any padding, a last window that would start in it, behind the input, is left out.
    """
    out = []
    for n, kernel, stride, pad in zip(size, window.kernel, window.stride, window.pad, strict=True):
        room = n + 2 * pad - kernel
        count = (-(-room // stride) if ceil else room // stride) + 1
        if any(window.pad) and (count - 1) * stride >= n + pad:
            count -= 1
        out.append(count)
    return tuple(out)
