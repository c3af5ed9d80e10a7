"""Names of memory layouts on the CPU (Spec.layout), and what the library calls them.

plain       C order: N C S
last        channels last: N S C
c8, c16     N C/8 S 8: blocks of channels innermost, the last block filled up with zeros
last/bf16, c16/bf16: the same, each number stored as a bfloat16 (the upper half of a float32)
work:BYTES  memory only the library can read: what a forward kernel keeps for its backward
work:BYTES:NUMBER  weights in the form a primitive wants: entry NUMBER of the library's formats
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..types import PLAIN, Shape, Spec
from . import dnnl
from .dnnl import Handle, Library

CHANNELS_LAST = "last"
HALF = "/bf16"
"""How the name of a layout of 16-bit numbers ends."""


def nbytes(spec: Spec) -> int:
    """Bytes an array takes in its layout."""
    if spec.layout.startswith("work:"):
        return int(spec.layout.split(":")[1])
    each = 2 if is_half(spec.layout) else spec.nbytes // max(1, spec.count)
    return each * math.prod(padded(spec.shape, spec.layout))


def is_half(layout: str) -> bool:
    """Whether numbers are stored in 16 bits."""
    return layout.endswith(HALF)


def full(layout: str) -> str:
    """The same order of 32-bit numbers."""
    return layout.removesuffix(HALF)


def padded(shape: Shape, layout: str) -> Shape:
    """The shape with its channels filled up to whole blocks."""
    size = block(layout)
    return shape if size == 1 else (shape[0], -(-shape[1] // size) * size, *shape[2:])


def block(layout: str) -> int:
    """Channels of an inner block; 1 where there are no blocks."""
    layout = full(layout)
    return int(layout[1:]) if layout[0] == "c" and layout[1:].isdigit() else 1


def work(size: int) -> str:
    """The layout of ``size`` bytes that only the library can read."""
    return f"work:{size}"


def packed(lib: Library, md: Handle, shape: Sequence[int]) -> str:
    """The layout of weights in that description."""
    same = (i for i, (known, _) in enumerate(lib.formats) if lib.same(known, md))
    number = next(same, len(lib.formats))
    if number == len(lib.formats):
        lib.formats.append((md, tuple(shape)))
    return f"work:{lib.nbytes(md)}:{number}"


def format_of(lib: Library, layout: str) -> tuple[Handle, tuple[int, ...]]:
    """Description and lengths behind a layout that ``packed`` named."""
    return lib.formats[int(layout.split(":")[2])]


def strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Steps of C order, in elements."""
    found = [1]
    for n in reversed(shape[1:]):
        found.append(found[-1] * n)
    return tuple(reversed(found))


def describe(lib: Library, shape: Sequence[int], layout: str = PLAIN, dtype: str = "float32") -> Handle:
    """The library's description of an array of that shape and layout.

    Raises:
        Unsupported: there is no such layout for so many axes.
    """
    shape = tuple(shape) or (1,)
    kind = dnnl.BF16 if is_half(layout) else dnnl.TYPES[dtype]
    layout = full(layout)
    if layout == PLAIN:
        return lib.strided(shape, strides(shape), kind)
    table: Any = dnnl.LAST if layout == CHANNELS_LAST else dnnl.BLOCKED.get(block(layout), {})
    if len(shape) not in table:
        raise dnnl.Unsupported(f"{layout} of {len(shape)} axes")
    return lib.tagged(shape, table[len(shape)], kind)


def of(lib: Library, spec: Spec) -> Handle:
    """The description of an array with that spec."""
    return describe(lib, spec.shape, spec.layout, spec.dtype)


class Laid:
    """An array in a layout that only the library reads, for who looks at its values: see ``Fast.read`` and ``write``.

    Args:
        memory: its bytes.
        spec: how it lies.
        shape: as what the values are seen; the spec's shape, or the same number of values along other axes.
    """

    def __init__(self, memory: Any, spec: Spec, shape: Shape) -> None:
        self.memory, self.spec, self.shape = memory, spec, shape


def preferred_block(lib: Library) -> int:
    """Channels of a block in the layout the library itself picks for an ordinary convolution here; 1: none."""
    x = lib.tagged((1, 64, 14, 14), dnnl.ANY)
    w = lib.tagged((64, 64, 3, 3), dnnl.ANY)
    one, zero = dnnl.dims((1, 1)), dnnl.dims((0, 0))
    attributes = lib.attributes()
    pd = lib.describe("convolution_forward", dnnl.TRAINING, dnnl.DIRECT, x, w, None, x, one, zero, one, one, attributes)
    _, sizes, axes = lib.format(lib.query(pd, dnnl.DST), 4)
    return sizes[0] if axes == (1,) and sizes[0] in dnnl.BLOCKED else 1
