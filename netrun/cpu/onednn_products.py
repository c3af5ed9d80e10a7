"""Matrix products through the library. Operands lie plain; a transposed one is described by its strides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..program import Call
from ..types import PLAIN, Tensor
from . import dnnl
from .dnnl import Handle, Library, Unsupported
from .layouts import full, is_half, of, strides
from .onednn_pointwise import rectified
from .onednn_spatial import quick
from .recipe import Operand, Recipe

FEW, MANY = 3, 128 * 1024
"""Rows up to which a product is a walk through its second factor, and elements of that from which the walk across its
rows pays too. The library's inner product then reads it as fast as memory gives it, 1.3 to 2.4 times as fast as its
matrix product does (25 instead of 14 GB/s on one core for the 151 MB of AlexNet's fc6)."""

LANES, SOME, LARGE = 16, 64, 2_000_000
"""A product of whole LANES up to SOME rows with a transposed matrix of LARGE elements is made transposed: see _turned.

Measured on one and on two cores, the library's own product by this one: 1.1 to 1.6 at 16 rows, 1.1 to 1.35 at 32, 1.0
to 1.3 at 48 and 64. What lies between, 17 or 40 rows, leaves lanes of the vectors empty and loses; so do more rows and
smaller matrices, and fewer rows gain little.
"""

ALIKE, COPIED = 4096, 8192
"""Bytes between rows of weights that put all of them in the same few places of the first cache if they are a multiple
of ALIKE: as a first factor such weights are slow (0.6 to 0.9 times). The library copies float32 from COPIED on.
"""

BAND, SHALLOW, HUGE = 2048, 256, 8_000_000
"""Rows at a time of a product whose depth is SHALLOW at most and whose result has HUGE elements: see _in_bands.

Measured, float32 and BF16, the whole by bands: results of 4096 x 25088 at a depth of 8 to 16: 1.2 to 1.7, 64 to 256:
1.2 to 1.8; 4096 x 9216: 1.2 to 1.7; 4096 x 4096: 1.1 to 1.5. Bands of 1,024 are as good, of 256 not.
"""

VECTORS = "brg:avx512_core"
"""What the names of the implementations begin with for which that was measured."""

CONVERSION, START = 25, 500_000
"""What a 16-bit copy of a factor costs, for each of its numbers and for being a call at all, counted in
multiplications of a product that uses it. Measured on one core: 0.22 to 0.3 ns a number in memory (half of that in the
cache), while each multiplication saves 0.010 of 0.020 ns; on two cores all are half of that. Fewer than LANES rows gain
as three times as many do, up to LANES: their time is the reading of the other factor.
"""

DEEP = 12
"""Depth from which a product in 16 bits is faster: below it the writing of the result is all that counts. Measured for
gradients of weights: 0.9 to 1.1 times as fast up to a depth of 5, 1.0 to 1.05 at 8, 1.05 to 1.25 at 12, 1.3 at 16."""


def _depth(call: Call) -> int:
    args: Any = call.args
    depth: int = args[0].shape[-2 if call.attrs["ta"] else -1]
    return depth


def halvable(call: Call) -> bool:
    """Whether a product would be faster in 16 bits if copies of its factors cost nothing."""
    return call.writes()[0].shape[-2] > FEW and _depth(call) >= DEEP


def halving_pays(call: Call, users: Sequence[int]) -> bool:
    """Whether a halvable product is faster in 16 bits with the copies of its factors, by sizes alone.

    Args:
        call: of kernel gemm, in float32.
        users: for each of the two factors, the products that share the copy; 0: it costs nothing.
    """
    args: Any = call.args
    a, b, _, y = args
    rows = y.shape[-2]
    saved: int = y.spec.count // rows * max(rows, min(3 * rows, LANES)) * _depth(call)
    cost: float = sum((START + CONVERSION * t.spec.count) / n for t, n in zip((a, b), users, strict=True) if n)
    return saved > cost


def gemm(lib: Library, call: Call) -> Recipe:
    """Kernels.gemm, with ``then`` applied to the result."""
    args: Any = call.args
    a, b, c, y = args
    ranks = {len(a.shape), len(b.shape), len(y.shape)}
    if any(t.dtype != "float32" or full(t.spec.layout) != PLAIN or 0 in t.shape for t in (a, b, y)) or len(ranks) != 1:
        raise Unsupported("gemm")
    if isinstance(c, Tensor) and (
        c.spec.count != y.shape[-1] or c.dtype != "float32" or (len(c.shape) > 1 and c.shape[-1] == 1)
    ):
        raise Unsupported("addend")
    return _few_rows(lib, call) or _turned(lib, call) or _in_bands(lib, call) or _matmul(lib, call)


def _matmul(lib: Library, call: Call) -> Recipe:
    """The library's product as it is."""
    args: Any = call.args
    a, b, c, y = args
    left, right, home = _operand(lib, a, call.attrs["ta"]), _operand(lib, b, call.attrs["tb"]), of(lib, y.spec)
    operands = {dnnl.SRC: Operand(left, ("a", 0)), dnnl.WEIGHTS: Operand(right, ("b", 0)),
                dnnl.DST: Operand(home, ("y", 0))}  # fmt: skip
    bias = None
    if isinstance(c, Tensor):
        wide = (1,) * (len(y.shape) - 1) + (y.shape[-1],)
        bias = lib.strided(wide, strides(wide))
        operands[dnnl.BIAS] = Operand(bias, ("c", 0))
    pd = lib.describe("matmul", left, right, bias, home, lib.attributes(rectified(call.attrs.get("then"))))
    r = Recipe(lib)
    r.run(quick(lib, pd), operands)
    return r


def _few_rows(lib: Library, call: Call) -> Recipe | None:
    """The product as an inner product, where there are few rows; None where that is no gain."""
    args: Any = call.args
    a, b, c, y = args
    turned = call.attrs["tb"]
    halves = is_half(a.spec.layout) or is_half(b.spec.layout)
    if len(y.shape) != 2 or y.shape[0] > FEW or call.attrs["ta"] or halves or not (turned or b.spec.count >= MANY):
        return None
    (rows, inputs), outputs = a.shape, y.shape[1]
    source, home = lib.strided((rows, inputs), (inputs, 1)), lib.strided((rows, outputs), (outputs, 1))
    weights = lib.strided((outputs, inputs), (inputs, 1) if turned else (1, outputs))
    operands = {dnnl.SRC: Operand(source, ("a", 0)), dnnl.WEIGHTS: Operand(weights, ("b", 0)),
                dnnl.DST: Operand(home, ("y", 0))}  # fmt: skip
    bias = None
    if c is not None:
        bias = lib.strided((outputs,), (1,))
        operands[dnnl.BIAS] = Operand(bias, ("c", 0))
    post = lib.attributes(rectified(call.attrs.get("then")))
    try:
        pd = quick(lib, lib.describe("inner_product_forward", dnnl.INFERENCE, source, weights, bias, home, post))
    except Unsupported:
        return None
    r = Recipe(lib)
    r.run(pd, operands)
    return r


def _turned(lib: Library, call: Call) -> Recipe | None:
    """y' = b a' into scratch and then turned round, where b lies transposed and is large; None where that is no gain.

    The library copies a transposed second factor into rows block by block, which is most of the work where there are
    few rows to multiply it with. As the first factor it serves as it lies, and what is turned instead is small.
    """
    args: Any = call.args
    a, b, c, y = args
    if len(y.shape) != 2 or call.attrs["ta"] or not call.attrs["tb"]:
        return None
    rows, outputs = y.shape
    if rows % LANES or rows > SOME or b.spec.count < LARGE or _alike(b):
        return None
    weights, source = _operand(lib, b, False), _operand(lib, a, True)
    home, bias = of(lib, y.spec), lib.strided((1, outputs), (outputs, 1))
    post = rectified(call.attrs.get("then"))
    made = lib.strided((outputs, rows), (rows, 1))
    try:
        pd = lib.describe("matmul", weights, source, None, made, lib.attributes(post if c is None else ()))
        add = quick(lib, lib.describe("binary", dnnl.ADD, home, bias, home, lib.attributes(post)))
    except Unsupported:
        return None
    if not lib.implementation(pd).startswith(VECTORS):
        return None
    r = Recipe(lib)
    product, result = r.area(made), Operand(home, ("y", 0))
    r.run(pd, {dnnl.SRC: Operand(weights, ("b", 0)), dnnl.WEIGHTS: Operand(source, ("a", 0)), dnnl.DST: product})
    r.reorder(Operand(lib.strided((rows, outputs), (1, rows)), product.place), result)
    if c is not None:
        r.run(add, {dnnl.SRC: result, dnnl.SRC_1: Operand(bias, ("c", 0)), dnnl.DST: result})
    return r


def _in_bands(lib: Library, call: Call) -> Recipe | None:
    """A large result of little depth, the gradient of a fully connected layer's weights, some rows after others; None
    where that is no gain.

    It is a matter of writing. Left to itself, the library walks down all rows with a few columns at a time and comes
    to a new page of memory with every row.
    """
    args: Any = call.args
    a, b, c, y = args
    if len(y.shape) != 2 or not call.attrs["ta"] or call.attrs["tb"] or c is not None or call.attrs.get("then"):
        return None
    rows, columns = y.shape
    depth = _depth(call)
    if depth > SHALLOW or y.spec.count < HUGE or rows <= BAND or is_half(y.spec.layout):
        return None
    r = Recipe(lib)
    right, each = _operand(lib, b, False), 2 if is_half(a.spec.layout) else 4
    kind = dnnl.BF16 if is_half(a.spec.layout) else dnnl.F32
    for start in range(0, rows, BAND):
        size = min(BAND, rows - start)
        left, home = lib.strided((size, depth), (1, rows), kind), lib.strided((size, columns), (columns, 1))
        try:
            pd = quick(lib, lib.describe("matmul", left, right, None, home, lib.attributes()))
        except Unsupported:
            return None
        r.run(pd, {dnnl.SRC: Operand(left, ("a", 0), start * each), dnnl.WEIGHTS: Operand(right, ("b", 0)),
                   dnnl.DST: Operand(home, ("y", 0), start * columns * 4)})  # fmt: skip
    return r


def _alike(t: Tensor) -> bool:
    """Whether the rows of a matrix are slow to walk across."""
    half = is_half(t.spec.layout)
    step = t.shape[-1] * (2 if half else 4)
    return step % ALIKE == 0 and (half or step < COPIED)


def _operand(lib: Library, t: Tensor, turned: bool) -> Handle:
    shape, steps = list(t.shape), list(strides(t.shape))
    if turned:
        shape[-2:], steps[-2:] = shape[:-3:-1], steps[:-3:-1]
    return lib.strided(shape, steps, dnnl.BF16 if is_half(t.spec.layout) else dnnl.F32)
