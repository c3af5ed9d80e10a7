"""Matrix products through oneDNN: which way those of some sizes go, and that every way gives the product."""

from __future__ import annotations

import numpy as np
import pytest

from netrun.cpu import dnnl, onednn_products
from netrun.cpu.fast import Fast
from netrun.cpu.onednn_products import FEW, LANES, LARGE, SOME
from netrun.kernels import OPS
from netrun.program import Call, Origin, Program, Recorder
from netrun.session import Session
from netrun.types import Spec, Tensor

LIBRARY = dnnl.library()
needs_library = pytest.mark.skipif(LIBRARY is None, reason=f"no oneDNN here: {dnnl.reason()}")


def dense(rows: int, inputs: int, outputs: int, turned: bool = True, bias: bool = True, relu: bool = True) -> Call:
    """The one call that a fully connected layer with a ReLU becomes, whose result has been looked at."""
    k = Recorder()
    x, b = Tensor("x", Spec((rows, inputs)), "feed"), Tensor("b", Spec((outputs,)), "learned")
    w = Tensor("w", Spec((outputs, inputs) if turned else (inputs, outputs)), "learned")
    y, z = k.new("y", Spec((rows, outputs)), "data"), k.new("z", Spec((rows, outputs)), "data")
    k.gemm(x, w, b if bias else None, y, ta=False, tb=turned)
    if relu:
        k.pointwise([y], z, expr="relu(a, 0.0)")
    result = z if relu else y
    session = Session(Program(tuple(k.calls), {"x": x}, frozenset({result})), Fast())
    (call,) = session.program.calls
    assert call.op.name == "gemm"
    values = {t: np.random.default_rng(1).standard_normal(t.shape).astype("float32") for t in (x, w, b)}
    for t, value in values.items():
        if bias or t is not b:
            session.write(t, value)
    session.run()
    product = values[x] @ (values[w].T if turned else values[w])
    product = product + values[b] if bias else product
    wanted = np.maximum(product, 0) if relu else product
    np.testing.assert_allclose(session.read(result), wanted, 1e-4, 1e-4 * max(1, inputs / 600))
    return call


@needs_library
@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("rows", [1, FEW, FEW + 1])
def test_products_of_few_rows(rows: int, turned: bool) -> None:
    """They are inner products for the library, with bias and ReLU, from either order of the weights."""
    call = dense(rows, 600, 301, turned)
    assert LIBRARY is not None
    assert (onednn_products._few_rows(LIBRARY, call) is not None) == (rows <= FEW)


def measured() -> bool:
    """Whether the library multiplies here as it did where the sizes were found."""
    assert LIBRARY is not None
    a, b, y = (LIBRARY.strided(s, (s[1], 1)) for s in ((2000, 2000), (2000, LANES), (2000, LANES)))
    pd = LIBRARY.describe("matmul", a, b, None, y, LIBRARY.attributes())
    return LIBRARY.implementation(pd).startswith(onednn_products.VECTORS)


@needs_library
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs", "taken"),
    [
        (16, 2000, 1000, True), (32, 2000, 1000, True), (SOME, 2000, 1000, True), (16, 2048, 1000, True),
        (8, 2000, 1000, False), (17, 2000, 1000, False), (40, 2000, 1000, False), (SOME + LANES, 2000, 1000, False),
        (16, 1000, LARGE // 1000 - 1, False), (16, 1024, 2000, False),
    ],
)  # fmt: skip
def test_large_weights_that_lie_transposed_come_first(rows: int, inputs: int, outputs: int, taken: bool) -> None:
    """Whole vectors of rows, weights that pay, and rows of them that do not fall on one another in the cache."""
    call = dense(rows, inputs, outputs)
    assert LIBRARY is not None
    assert (onednn_products._turned(LIBRARY, call) is not None) == (taken and measured())


@needs_library
@pytest.mark.parametrize(("bias", "relu"), [(True, False), (False, True), (False, False)])
def test_bias_and_relu_after_a_turned_product(bias: bool, relu: bool) -> None:
    call = dense(16, 2000, 1000, bias=bias, relu=relu)
    assert LIBRARY is not None
    assert (onednn_products._turned(LIBRARY, call) is not None) == measured()
    straight = dense(16, 2000, 1000, turned=False, bias=bias, relu=relu)
    assert onednn_products._turned(LIBRARY, straight) is None


@needs_library
@pytest.mark.parametrize("precision", ["FP32", "BF16"])
@pytest.mark.parametrize(
    ("rows", "columns", "depth", "wanted"),
    [(2500, 3300, 16, True), (2500, 3300, 257, False), (2048, 4000, 16, False), (2500, 3000, 16, False)],
)
def test_large_results_of_little_depth(rows: int, columns: int, depth: int, wanted: bool, precision: str) -> None:
    """They are written band by band, the last band being shorter."""
    assert LIBRARY is not None
    if precision == "BF16" and not LIBRARY.multiplies_halves:
        pytest.skip("this processor does not multiply bfloat16")
    layout = "plain" if precision == "FP32" else "plain/bf16"
    a, b = (Tensor(n, Spec((depth, k), layout=layout), "data") for n, k in (("a", rows), ("b", columns)))
    y = Tensor("y", Spec((rows, columns)), "data")
    call = Call(OPS["gemm"], (a, b, None, y), {"ta": True, "tb": False}, Origin("fc"))
    found = onednn_products._in_bands(LIBRARY, call)
    assert (found is not None) == wanted
    if found is None:
        return
    generator = np.random.default_rng(2)
    factors = [generator.standard_normal(t.shape).astype("float32") for t in (a, b)]
    stored = factors
    if precision == "BF16":
        stored = [(f.view(np.uint32) >> 16).astype(np.uint16) for f in factors]
        factors = [(s.astype(np.uint32) << 16).view(np.float32) for s in stored]
    home = np.full(y.shape, np.nan, np.float32)
    found.bind({"a": (stored[0],), "b": (stored[1],), "y": (home,)}, np.empty(found.scratch + 64, np.uint8))()
    np.testing.assert_allclose(home, factors[0].T @ factors[1], 1e-4, 1e-4)
