"""Products with bias and ReLU through cuBLASLt, on a stand-in; its descriptors also with the real library."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fakelibs import Cublas
from fakelt import CublasLt

from layers_cuda import lazy, lt
from layers_cuda.device import Cuda
from layers_cuda.prepare import prepare
from netrun.errors import DeviceError, UsageError
from netrun.kernels import OPS
from netrun.program import Call, Origin, Program, Recorder
from netrun.types import Numerics, Spec, Tensor

Make = Callable[..., Cuda]


def run(device: Cuda, given: list[Any], kinds: str = "ffff", **attrs: Any) -> Any:
    """gemm of NumPy arrays (None for no addend) of element types f, d or h: what it makes; y's shape comes last."""
    names = {"f": "float32", "d": "float64", "h": "float16"}
    shapes = [None if v is None else np.shape(v) if i < 3 else v for i, v in enumerate(given)]
    specs = [None if s is None else Spec(s, names[k]) for s, k in zip(shapes, kinds, strict=True)]
    arrays: list[Any] = []
    for value, spec in zip(given, specs, strict=True):
        array = None if spec is None else device.array(device.allocate(spec.nbytes), 0, spec)
        if array is not None:
            values = np.full(spec.shape, np.nan) if value is given[3] else value  # type: ignore[union-attr]
            device.write(array, np.asarray(values, spec.dtype))  # type: ignore[union-attr]
        arrays.append(array)
    attrs = {"ta": False, "tb": False, **attrs}
    call = Call(OPS["gemm"], tuple(None if s is None else Tensor("t", s) for s in specs), attrs, Origin("ip"))
    step = device.capture([device.bind(call, arrays, device.allocate(device.workspace(call)))])
    step()
    device.write(arrays[3], np.full(specs[3].shape, np.nan, specs[3].dtype))  # type: ignore[union-attr]
    step()
    return device.read(arrays[3])


def normal(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype("float32")


def never(*_: int) -> bool:
    return True


@pytest.mark.parametrize("refuses", [None, never], ids=["fused", "refused"])
@pytest.mark.parametrize("ta", [False, True])
@pytest.mark.parametrize("tb", [False, True])
@pytest.mark.parametrize(("bias", "relu"), [(True, False), (True, True), (False, True)])
def test_bias_and_relu(bias: bool, relu: bool, ta: bool, tb: bool, refuses: Any, make_device: Make) -> None:
    library, plain = CublasLt(refuses), Cublas()
    device = make_device(cublasLt=library, cublas=plain)
    a, b, c = normal(*((4, 3) if ta else (3, 4))), normal(*((5, 4) if tb else (4, 5))), normal(5)
    wanted = (a.T if ta else a) @ (b.T if tb else b) + (c if bias else 0)
    more = {"relu": True} if relu else {}
    found = run(device, [a, b, c if bias else None, (3, 5)], ta=ta, tb=tb, **more)
    np.testing.assert_allclose(found, np.maximum(wanted, 0) if relu else wanted, 1e-5, 1e-6)
    assert (library.calls, plain.calls) == ((2, 0) if refuses is None else (0, 2))  # run, then captured
    assert library.epilogues == ([4 * bias | 2 * relu] * 2 if refuses is None else [])


@pytest.mark.parametrize(
    ("a", "c", "y"),
    [((2, 3, 4), (5,), (2, 3, 5)), ((3, 4), (1, 5), (3, 5)), ((1, 4), (5,), (1, 5)), ((2, 3, 4), (1, 1, 5), (2, 3, 5))],
)
def test_more_rows_of_one_product(a: Any, c: Any, y: Any, make_device: Make) -> None:
    library = CublasLt()
    left, right, bias = normal(*a), normal(4, 5), normal(*c)
    found = run(make_device(cublasLt=library), [left, right, bias, y])
    np.testing.assert_allclose(found, left @ right + bias, 1e-5, 1e-6)
    assert library.calls == 2


@pytest.mark.parametrize(
    ("a", "b", "c", "y"),
    [
        ((3, 4), (4, 5), (3, 1), (3, 5)),
        ((3, 4), (4, 5), (3, 5), (3, 5)),
        ((3, 4), (4, 5), (1,), (3, 5)),
        ((3, 4), (4, 5), (), (3, 5)),
        ((2, 3, 4), (2, 4, 5), (5,), (2, 3, 5)),
        ((3, 0), (0, 5), (5,), (3, 5)),
    ],
    ids=["a column", "a matrix", "one number", "a scalar", "a batch", "nothing to sum"],
)
def test_what_is_no_epilogue(a: Any, b: Any, c: Any, y: Any, make_device: Make) -> None:
    library = CublasLt()
    left, right, more = normal(*a), normal(*b), normal(*c)
    found = run(make_device(cublasLt=library), [left, right, more, y], relu=True)
    np.testing.assert_allclose(found, np.maximum(left @ right + more, 0), 1e-5, 1e-6)
    assert not library.calls


@pytest.mark.parametrize(("kinds", "calls"), [("ffff", 2), ("hhff", 2), ("hhhh", 2), ("hhfh", 2), ("dddd", 0)])
def test_element_types(kinds: str, calls: int, make_device: Make) -> None:
    """A float32 bias of a 16-bit result is rounded first, which is no larger error than that of the result."""
    library = CublasLt()
    a, b, c = normal(3, 4), normal(4, 5), normal(5)
    found = run(make_device(cublasLt=library), [a, b, c, (3, 5)], kinds)
    np.testing.assert_allclose(
        found.astype("float32"), a @ b + c, *((1e-5, 1e-5) if "h" not in kinds else (4e-3, 8e-3))
    )
    assert library.calls == calls


@pytest.mark.parametrize(("name", "compute"), [("FP32", 68), ("TF32", 77), ("BF16", 75), ("FP16", 74)])
def test_precision(name: str, compute: int, make_device: Make) -> None:
    library = CublasLt()
    run(make_device(cublasLt=library), [normal(3, 4), normal(4, 5), normal(5), (3, 5)], precision=name)
    assert library.computes == [compute, compute]


def test_heuristics_are_asked_once_and_descriptors_given_back(make_device: Make) -> None:
    library = CublasLt()
    device = make_device(cublasLt=library)
    for _ in range(3):
        run(device, [normal(3, 4), normal(4, 5), normal(5), (3, 5)])
    run(device, [normal(6, 4), normal(4, 5), normal(5), (6, 5)])
    assert (library.asked, library.calls) == (2, 8)
    device.lt = None
    assert not [made for made in library.made.values() if made["what"] == "preference"]


def test_without_the_library(make_device: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(CublasLt):
        def cublasLtCreate(self, out: int) -> int:
            return 1

    given = [normal(3, 4), normal(4, 5), normal(5), (3, 5)]
    wanted = given[0] @ given[1] + given[2]
    np.testing.assert_allclose(run(make_device(cublasLt=Broken()), given), wanted, 1e-5, 1e-6)
    library = CublasLt()
    monkeypatch.setenv("NETRUN_CUDA_GEMM", "blas")
    np.testing.assert_allclose(run(make_device(cublasLt=library), given), wanted, 1e-5, 1e-6)
    assert not library.calls
    monkeypatch.setenv("NETRUN_CUDA_GEMM", "cublas")
    with pytest.raises(UsageError, match=r'NETRUN_CUDA_GEMM in the environment is "cublas".*\(known: lt, blas\)'):
        make_device()


def test_an_error_names_the_product(make_device: Make) -> None:
    class Failing(CublasLt):
        def cublasLtMatmul(self, *args: Any) -> int:
            return 13

    with pytest.raises(DeviceError, match=r"cublasLtMatmul Product\(m=3, n=5, k=4.*status 13 \(failed\)") as found:
        run(make_device(cublasLt=Failing()), [normal(3, 4), normal(4, 5), normal(5), (3, 5)])
    assert "NETRUN_CUDA_GEMM=blas" in str(found.value)


def test_a_relu_moves_into_the_product_before_it() -> None:
    k = Recorder()
    x, w, b = Tensor("x", Spec((3, 4))), Tensor("w", Spec((5, 4)), "learned"), Tensor("b", Spec((5,)), "learned")
    y, z = Tensor("y", Spec((3, 5))), Tensor("z", Spec((3, 5)))
    k.gemm(x, w, b, y, ta=False, tb=True)
    k.pointwise([y], z, expr="relu(a, 0)")
    made = prepare(Program(tuple(k.calls), {}, frozenset([z])))
    assert [str(call) for call in made.calls] == ["z <- gemm x w b | ta=False tb=True relu=True"]
    narrow = prepare(Program(tuple(k.calls), {}, frozenset([z]), numerics=Numerics("BF16")))
    (product,) = (call for call in narrow.calls if call.op.name == "gemm")
    assert product.attrs["relu"]


# ----------------------------------------------------------------------------------------------------- the real library
@pytest.fixture(scope="module")
def real() -> Any:
    try:
        return lt.declare(lazy.library("cublasLt"))
    except DeviceError as error:
        pytest.skip(f"no cuBLASLt: {error.problems[0].what}")


def read(library: Any, what: str, handle: lt.Handle, attribute: int, kind: Any) -> int:
    """An attribute as the library gives it back."""
    function = getattr(library, f"cublasLt{what}GetAttribute")
    function.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    value, written = kind(), ctypes.c_size_t()
    size = ctypes.sizeof(value)
    assert function(handle.pointer, attribute, ctypes.addressof(value), size, ctypes.addressof(written)) == 0
    assert written.value == size
    return int(value.value or 0)


def test_the_real_descriptors_take_what_is_set(real: Any) -> None:
    """Every attribute with the size that is set, read back; the layout's members in the order of its arguments."""
    matmul = lt.Handle(real, "cublasLtMatmulDesc", 77, 0)
    matmul.set(lt.EPILOGUE, ctypes.c_uint32(6)).set(lt.TRANS_A, ctypes.c_int32(1)).set(lt.TRANS_B, ctypes.c_int32(0))
    matmul.set(lt.BIAS_POINTER, ctypes.c_void_p(0x700))
    kinds = {0: ctypes.c_int32, 1: ctypes.c_int32, lt.TRANS_A: ctypes.c_int32, lt.TRANS_B: ctypes.c_int32,
             lt.EPILOGUE: ctypes.c_uint32, lt.BIAS_POINTER: ctypes.c_void_p}  # fmt: skip
    assert [read(real, "MatmulDesc", matmul, i, kind) for i, kind in kinds.items()] == [77, 0, 1, 0, 6, 0x700]
    layout = lt.Handle(real, "cublasLtMatrixLayout", 14, 7, 5, 8)
    sizes = {0: ctypes.c_uint32, 2: ctypes.c_uint64, 3: ctypes.c_uint64, 4: ctypes.c_int64}
    assert [read(real, "MatrixLayout", layout, i, kind) for i, kind in sizes.items()] == [14, 7, 5, 8]
    wish = lt.Handle(real, "cublasLtMatmulPreference")
    wish.set(lt.MAX_WORKSPACE, ctypes.c_uint64(1 << 20)).set(lt.REDUCTIONS, ctypes.c_uint32(2))
    for i in range(4):
        wish.set(lt.ALIGNMENT_A + i, ctypes.c_uint32(16 << i))
    wishes = {1: ctypes.c_uint64, 3: ctypes.c_uint32, **dict.fromkeys(range(5, 9), ctypes.c_uint32)}
    assert [read(real, "MatmulPreference", wish, i, kind) for i, kind in wishes.items()] == [
        1 << 20,
        2,
        16,
        32,
        64,
        128,
    ]


def test_the_real_library_refuses_a_wrong_size(real: Any) -> None:
    with pytest.raises(DeviceError, match="MatmulDescSetAttribute 7: cuBLAS status 7"):
        lt.Handle(real, "cublasLtMatmulDesc", 68, 0).set(lt.EPILOGUE, ctypes.c_uint64(4))
    assert ctypes.sizeof(lt.Heuristic) == 96
    assert lt.Heuristic.workspace.offset == 64
    assert lt.Heuristic.state.offset == 72
