"""Every own kernel, executed on the CPU, against the reference: in order, and with what CUDA leaves open at random."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import fakecupy
import numpy as np
import pytest
import shim
from cases import KernelCase, compare, flat, poisoned, run_case
from cases.kernels import KERNELS
from shim import Bare, KernelError, TrespassError

from layers_cuda import geometry, plain, source
from layers_cuda.expressions import NAMED
from layers_cuda.launch import Kernel, defines
from layers_cuda.update import together
from netrun.cpu.evaluate import run_rule
from netrun.cpu.reference import Reference
from netrun.errors import DataError
from netrun.expression import FUNCTIONS, Rule, rule
from netrun.kernels import IN_PLACE, OPS
from netrun.program import Call
from netrun.types import Spec, Tensor

pytestmark = pytest.mark.skipif(fakecupy.COMPILER is None, reason="no g++: the shim compiles the kernels with it")

FAMILIES = ("pointwise", "reduce", "update", "pool", "norm", "loss", "shape", "random", "metric", "im2col")
BODIES: dict[str, Callable[..., Any]] = {"gemm": plain.gemm}
WORKSPACE: dict[str, Callable[..., int]] = {}
for _name in FAMILIES:
    _family = importlib.import_module(f"layers_cuda.{_name}")
    BODIES.update(_family.BODIES)
    WORKSPACE.update(_family.WORKSPACE)

ELSEWHERE = {"conv", "conv_grad_x", "conv_grad_w", "host"}
"""What NVIDIA's libraries and the host do."""
CASES = [case for case in KERNELS if case.op not in ELSEWHERE]
DTYPES = ("float32", "float64")
SEEDS = (None, 1)


class Device(Bare):
    """The own kernels, gemm's among them."""

    def bind(self, call: Call, args: Any, scratch: Any) -> Any:
        return BODIES[call.op.name](self, call, args, scratch)

    def workspace(self, call: Call) -> int:
        return WORKSPACE.get(call.op.name, lambda device, call: 0)(self, call)


@pytest.fixture(scope="module", autouse=True)
def _ready() -> None:
    """Compile what the table needs, with every core."""
    collector = Device(collect=True)
    for case in CASES:
        for dtype in DTYPES:
            run_case(collector, case, dtype)
    shim.compile_all(collector.kernels)


def test_every_kernel_is_here_or_elsewhere() -> None:
    assert set(BODIES) | ELSEWHERE >= set(OPS)


def test_every_function_has_its_cuda() -> None:
    text = (source.FOLDER / "functions.cuh").read_text()
    assert [name for name in sorted(NAMED) if f" f_{name}(" not in text] == []


@pytest.mark.parametrize("seed", SEEDS, ids=["in order", "shuffled"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernels_equal_the_reference(case: KernelCase, dtype: str, seed: int | None) -> None:
    sizes = [a.size for given in case.build(dtype)[0] for a in flat(given) if isinstance(a, np.ndarray)]
    if seed is not None and max(sizes, default=0) > 20_000:
        pytest.skip("a large row; it runs in order")
    with shim.shuffled(seed):
        compare(case, dtype, run_case(Device(), case, dtype), run_case(Reference(), case, dtype))


@pytest.mark.parametrize("case", [c for c in CASES if c.op in ("copy", "pointwise", "update")], ids=str)
def test_arrays_off_the_alignment(case: KernelCase) -> None:
    compare(case, "float32", run_case(Device(shift=4), case, "float32"), run_case(Reference(), case, "float32"))


@pytest.mark.parametrize("op", ["reduce", "normalize", "normalize_grad"])
def test_a_reduction_shared_by_blocks(op: str) -> None:
    """Few results of many elements: partial results of several blocks, merged in order."""
    rng = np.random.default_rng(3)
    for shape, axes in (((3, 2, 5000), (0, 2)), ((4000, 3), (0,)), ((2, 3, 60, 2, 90), (0, 2, 4)), ((9001,), (0,))):
        kept = tuple(1 if i in axes else n for i, n in enumerate(shape))
        x, out, few = rng.standard_normal(shape) + 3, Spec(shape, "float64"), Spec(kept, "float64")
        given: tuple[Any, ...]
        given, attrs = ((x,), few), {"expr": "a * a", "how": "sum", "axes": axes}
        if op != "reduce":
            given, attrs = (x, out, few, few), {"axes": axes, "eps": 1e-3}
        if op == "normalize_grad":
            given = (x, np.full(kept, 1.5), rng.standard_normal(shape), out)
        case = KernelCase(op, f"{shape} over {axes}", lambda r, t, g=given, a=attrs: (g, a))  # type: ignore[misc]
        device = Device(processors=100)
        with shim.shuffled(5):
            compare(case, "float64", run_case(device, case, "float64"), run_case(Reference(), case, "float64"))
        assert any(k.name.endswith("_partial") for k in device.kernels)


def _tensors(argument: Any) -> Any:
    if isinstance(argument, tuple):
        return tuple(_tensors(a) for a in argument)
    return None if argument is None else Tensor("t", Spec(argument.shape, argument.dtype.name))


@pytest.mark.parametrize("case", [c for c in CASES if c.op in IN_PLACE], ids=str)
def test_an_output_may_lie_over_an_input(case: KernelCase) -> None:
    wanted = run_case(Reference(), case, "float32")
    names = [a.name for a in case.signature.arguments]
    over, out = (names.index(name) for name in IN_PLACE[case.op])
    for i in range(len(tuple(flat(case.build("float32")[0][over])))):
        given, attrs = case.build("float32")
        shared = list(flat(given[over]))[i]
        if (shared.shape, shared.dtype.name) != (given[out].shape, given[out].dtype):
            continue
        device = Device()

        def home(value: Any, device: Device = device) -> Any:
            if isinstance(value, tuple):
                return tuple(home(v) for v in value)
            values = poisoned(value) if isinstance(value, Spec) else value
            spec = Spec(values.shape, values.dtype.name)
            array = device.array(device.allocate(spec.nbytes), 0, spec)
            device.write(array, values)
            return array

        args = [home(a) for a in given]
        args[out] = list(flat(args[over]))[i]
        call = Call(case.signature, tuple(_tensors(a) for a in args), dict(attrs), "case")
        with shim.shuffled(2):
            device.bind(call, args, device.allocate(device.workspace(call)))()
        rtol, atol = case.tolerance("float32")
        np.testing.assert_allclose(device.read(args[out]), wanted[names[out]][0], rtol, atol * 10, equal_nan=False)


@pytest.mark.parametrize("op", sorted({case.op for case in CASES}))
def test_positions_beyond_32_bits(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels that tensors of more than 2^30 elements get, on the first row of each."""
    for module in [geometry, *(importlib.import_module(f"layers_cuda.{name}") for name in FAMILIES)]:
        if hasattr(module, "index_of"):
            monkeypatch.setattr(module, "index_of", lambda count: "int64")
    case = next(case for case in CASES if case.op == op)
    device = Device()
    compare(case, "float32", run_case(device, case, "float32"), run_case(Reference(), case, "float32"))
    assert all(dict(k.defines).get("INDEX") == "long long" for k in device.kernels)


# ----------------------------------------------------------------------------------------------------- the functions
@pytest.mark.parametrize("dtype", DTYPES)
def test_functions_at_every_corner(dtype: str) -> None:
    """All functions of expressions in one kernel: NaN, infinities, both zeros, ends of the range."""
    corners = [
        np.nan,
        np.inf,
        -np.inf,
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        -0.5,
        2.5,
        -2.5,
        1e-20,
        1e20,
        -1e20,
        30.0,
        -30.0,
        3e38,
    ]
    a, b = (m.reshape(-1).astype(dtype) for m in np.meshgrid(corners, corners))
    texts = [f"{name}({', '.join('ab'[:n] if n < 3 else 'aba')})" for name, n in FUNCTIONS.items()]
    texts += ["a^2", "a^3", "a^0.5", "a^-1", "a^-0.5", "relu(a, 0)", "a * 1e400", "-a - -2"]
    names = [f"v{i}" for i in range(len(texts))]
    rules = Rule(("a", "b"), tuple(names), tuple(zip(names, texts, strict=True)))
    outs = tuple(np.zeros_like(a) for _ in names)
    case = KernelCase("update", "corners", lambda r, t: (((a, b), outs), {"rule": rules}))
    got, wanted = (run_case(d, case, dtype)["vs"] for d in (Device(), Reference()))
    for text, ours, theirs in zip(texts, got, wanted, strict=True):
        # sine and cosine of huge numbers differ in the last digits of their argument
        near = np.abs(a) < 1e4 if text[:3] in ("sin", "cos") else np.ones(a.shape, bool)
        np.testing.assert_allclose(ours[near], theirs[near], 2e-6 if dtype == "float32" else 1e-13, err_msg=text)


# ---------------------------------------------------------------------------------------------------------- labels
@pytest.mark.parametrize("op", ["softmax_nll", "gather", "scatter_add"])
def test_values_out_of_range_are_reported(op: str) -> None:
    """The text is the host devices' own."""
    one, bad = Spec((), "float32"), np.array([[0, 7, 1], [2, 9, 0]], "int32")
    x = np.ones((6, 4), "float32")
    given: Any = {
        "softmax_nll": ((x, bad.reshape(6), Spec((6, 4)), one, one), {"axis": 1, "ignore": None, "normalize": "valid"}),
        "gather": ((x, bad, Spec((2, 3, 4))), {}),
        "scatter_add": ((bad, np.ones((2, 3, 4), "float32"), Spec((6, 4))), {}),
    }[op]
    case = KernelCase(op, "out of range", lambda r, t: given)
    device = Device()
    with pytest.raises(DataError) as wanted:
        run_case(Reference(), case, "float32")
    with pytest.raises(DataError) as found:
        run_case(device, case, "float32")
    assert str(found.value) == str(wanted.value)
    device.synchronize()  # reported once


# ----------------------------------------------------------------------------------------------------- many parameters
@pytest.mark.parametrize("dtype", DTYPES)
def test_many_parameters_in_one_launch(dtype: str) -> None:
    rules = rule(["g", "lr"], ["w", "h"], "g = g + 0.1 * w; lr = 2 * lr; h = 0.9 * h + lr * g; w = w - h")
    rng, device = np.random.default_rng(0), Device()

    def home(*shape: int) -> Any:
        spec = Spec(shape, dtype)
        array = device.array(device.allocate(spec.nbytes), 0, spec)
        device.write(array, rng.standard_normal(shape))
        return array

    rate = home()
    tensors = [((home(*s), rate), (home(*s), home(*s))) for s in ((3, 5), (4099,), (1,), (8192,))]
    wanted = [([device.read(x) for x in xs], [device.read(v) for v in vs]) for xs, vs in tensors]
    step = together(device, rules, tensors)  # type: ignore[arg-type]
    assert step is not None
    step()
    for (xs, vs), (_, got) in zip(wanted, tensors, strict=True):
        run_rule(rules, xs, vs)
        for a, b in zip(vs, got, strict=True):
            np.testing.assert_allclose(b, a, 1e-6 if dtype == "float32" else 1e-13, 1e-7)


def test_parameters_that_do_not_fit_together() -> None:
    device = Device()
    arrays = [device.array(device.allocate(4 * n), 0, Spec((n,))) for n in (3, 1, 3, 3, 1)]
    rules = rule(["g"], ["w"], "w = g")
    assert together(device, rules, [((arrays[1],), (arrays[0],)), ((arrays[4],), (arrays[2],))]) is None  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------- the shim has teeth
def planted(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    """Put a mistake into the text of the kernels."""
    real = source.source_of

    def changed(file: str, given: Any = ()) -> str:
        text = real(file, given)
        assert old in text
        return text.replace(old, new, 1)

    monkeypatch.setattr(shim, "source_of", changed)


def row_named(op: str, note: str) -> KernelCase:
    return next(c for c in CASES if (c.op, c.note) == (op, note))


def _long(op: str) -> KernelCase:
    """A case in which every barrier of the kernel's file has work to do."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return rng.standard_normal(shape).astype("float32")

    one = Spec((), "float32")
    given: Any = {
        "softmax": lambda: ((normal(3, 5000), Spec((3, 5000))), {"axis": 1}),
        "topk": lambda: ((normal(2, 2100), Spec((2, 3)), Spec((2, 3), "int32")), {"axis": 1}),
        "softmax_nll": lambda: (
            (normal(700, 5), rng.integers(0, 5, 700), Spec((700, 5)), one, one),
            {"axis": 1, "ignore": 2, "normalize": "valid"},
        ),
        "transpose": lambda: ((normal(300, 300), Spec((300, 300))), {"axes": (1, 0)}),
        "scatter_add": lambda: ((rng.integers(0, 40, 900), normal(900, 3), Spec((40, 3))), {}),
        "gemm": lambda: ((normal(70, 50), normal(50, 30), None, Spec((70, 30))), {"ta": False, "tb": False}),
    }[op]()
    return KernelCase(op, "large", lambda r, t: given, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op", ["softmax", "topk", "softmax_nll", "transpose", "scatter_add", "gemm"])
def test_a_missing_barrier_is_caught(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take out each __syncthreads() in turn: in some order of the warps the result is another one."""
    case, device = _long(op), Device(processors=1)
    wanted = run_case(Reference(), case, "float32")
    compare(case, "float32", run_case(device, case, "float32"), wanted)
    kernels, real = list(device.kernels), source.source_of

    def without(which: int) -> Callable[..., str]:
        def changed(file: str, given: Any = ()) -> str:
            parts = real(file, given).split("__syncthreads();")
            return "__syncthreads();".join(parts[: which + 1]) + ";" + "__syncthreads();".join(parts[which + 1 :])

        return changed

    count = min(real(k.file, k.defines).count("__syncthreads();") for k in kernels)
    assert count > 1
    for which in range(2 if op == "scatter_add" else 0, count):  # it includes across_lanes and does not call it
        monkeypatch.setattr(shim, "source_of", without(which))
        for seed in range(12):
            try:
                with shim.shuffled(seed):
                    compare(case, "float32", run_case(Device(processors=1), case, "float32"), wanted)
            except AssertionError:
                break
        else:
            pytest.fail(f"nothing noticed that barrier {which} of {count} is missing")
    monkeypatch.undo()
    for seed in range(3):
        with shim.shuffled(seed):
            compare(case, "float32", run_case(Device(processors=1), case, "float32"), wanted)


def test_a_write_outside_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, "i < (count)", "i <= (count)")
    with pytest.raises(TrespassError, match="pool_max wrote behind"):
        run_case(Device(), row_named("pool_max", "1x1"), "float32")


def test_a_barrier_that_not_all_reach_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, "  R highest = -infinity();", "  if (!mine) return;\n  R highest = -infinity();")
    with pytest.raises(KernelError, match="had left the kernel"):
        run_case(Device(), row_named("softmax", "rows"), "float32")


def test_an_output_not_written_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, "i < (count)", "i + 1 < (count)")
    case = row_named("pool_max", "1x1")
    with pytest.raises(AssertionError):
        compare(case, "float32", run_case(Device(), case, "float32"), run_case(Reference(), case, "float32"))


def test_the_shims_own_defines() -> None:
    """A kernel is one of its file's, and every file exports at least one."""
    assert defines(V=4) == (("V", "4"),)
    assert all(source.kernels_of(file) for file in source.files())
    assert Kernel("copy", "copy").name in source.kernels_of("copy")
