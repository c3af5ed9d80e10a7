"""Every own kernel, executed on the CPU, against the reference: in order, and with what CUDA leaves open at random."""

from __future__ import annotations

import importlib
from typing import Any

import cpukernels
import numpy as np
import pytest
import shim
from cases import KernelCase, compare, flat, poisoned, run_case
from shim import BODIES, CASES, ELSEWHERE, FAMILIES, Device

from layers_cuda import geometry, source
from layers_cuda.expressions import NAMED
from layers_cuda.update import together
from netrun.cpu.evaluate import run_rule
from netrun.cpu.reference import Reference
from netrun.errors import DataError
from netrun.expression import FUNCTIONS, Rule, rule
from netrun.kernels import IN_PLACE, OPS
from netrun.program import Call
from netrun.types import Spec, Tensor, Window

pytestmark = pytest.mark.skipif(cpukernels.COMPILER is None, reason="no g++: the shim compiles the kernels with it")

DTYPES = ("float32", "float64")
SEEDS = (None, 1)


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
        got = run_case(Device(), case, dtype)
    compare(case, dtype, got, run_case(Reference(), case, dtype))
    if seed is not None:  # deterministic: the order of threads and blocks shows in no bit
        for name, arrays in run_case(Device(), case, dtype).items():
            assert [a.tobytes() for a in arrays] == [a.tobytes() for a in got[name]], name


@pytest.mark.parametrize("case", [c for c in CASES if c.op in ("copy", "pointwise", "update")], ids=str)
def test_arrays_off_the_alignment(case: KernelCase) -> None:
    compare(case, "float32", run_case(Device(shift=4), case, "float32"), run_case(Reference(), case, "float32"))


def more() -> list[KernelCase]:
    """Rows that only the ways of this device ask for: many parts, odd widths, other types, tiles that are not full."""
    rng = np.random.default_rng(2)

    def ints(dtype: str, *shape: int) -> Any:
        return rng.integers(0, 100, shape).astype(dtype)

    parts = tuple(ints("float32", 3, 1 + i % 3, 5) for i in range(40))
    whole = Spec((3, sum(p.shape[1] for p in parts), 5))
    tall, few = ints("float32", 9000, 8), Spec((1, 8))  # whole numbers: their sums are exact
    box, window = (1, 0, 2, 1), Window((2,) * 4, stride=(2, 1, 2, 1), pad=(1, 0, 0, 1))
    rows: list[tuple[str, str, Any, dict[str, Any]]] = [
        ("concat", "40 parts", (parts, whole), {"axis": 1}),
        ("concat", "an empty part", ((parts[0], ints("float32", 3, 0, 5), parts[1]), Spec((3, 3, 5))), {"axis": 1}),
        ("split", "40 parts", (ints("float32", *whole.shape), tuple(Spec(p.shape) for p in parts)), {"axis": 1}),
        ("concat", "whole words", ((ints("uint8", 2, 64), ints("uint8", 2, 32)), Spec((2, 96), "uint8")), {"axis": 1}),
        ("split", "bytes", (ints("uint8", 2, 9), (Spec((2, 4), "uint8"), Spec((2, 5), "uint8"))), {"axis": 1}),
        ("slice", "whole words", (ints("int64", 4, 8, 6), Spec((2, 8, 4), "int64")), {"begin": (1, 0, 2)}),
        ("slice", "four axes", (ints("float32", 3, 2, 7, 5), Spec((2, 2, 3, 4))), {"begin": box}),
        ("place", "four axes", (ints("uint8", 2, 2, 3, 4), Spec((3, 2, 7, 5), "uint8")), {"begin": box}),
        ("place", "nothing", (ints("float32", 0, 3), Spec((2, 3))), {"begin": (1, 0)}),
        ("transpose", "tiles", (ints("float32", 2, 70, 45), Spec((2, 45, 70))), {"axes": (0, 2, 1)}),
        ("transpose", "heads", (ints("float64", 2, 5, 3, 8), Spec((2, 3, 5, 8), "float64")), {"axes": (0, 2, 1, 3)}),
        ("transpose", "reversed", (ints("uint8", 3, 4, 5, 6), Spec((6, 5, 4, 3), "uint8")), {"axes": (3, 2, 1, 0)}),
        ("gather", "integers", (ints("int32", 5, 3), ints("uint8", 4) % 5, Spec((4, 3), "int32")), {}),
        ("scatter_add", "no entries", (ints("int32", 0), ints("float32", 0, 3), Spec((5, 3))), {}),
        ("scatter_add", "many entries", (ints("int64", 600) % 7, ints("float32", 600, 2), Spec((7, 2))), {}),
        ("normalize", "by many blocks", (tall, Spec(tall.shape), few, few), {"axes": (0,), "eps": 1e-3}),
        ("normalize_grad", "by many blocks",
         (tall % 3 - 1, np.full((1, 8), 1.5, "float32"), tall / 64, Spec(tall.shape)), {"axes": (0,), "eps": 1e-3}),
        ("topk", "long rows", (ints("float32", 3, 2500), Spec((3, 4)), Spec((3, 4), "int32")), {"axis": 1}),
        ("softmax", "many classes of pixels", (ints("float32", 2, 70, 3) / 9, Spec((2, 70, 3))), {"axis": 1}),
        ("softmax", "minus infinity", (np.array([[-np.inf, 2, -np.inf]], "float32"), Spec((1, 3))), {"axis": 1}),
        ("pool_avg", "four spatial axes", (ints("float32", 1, 2, 4, 3, 5, 4), Spec((1, 2, 3, 2, 2, 5))),
         {"window": window, "count": "padded"}),
        ("pool_avg", "a whole image", (ints("float32", 1, 2, 40, 70), Spec((1, 2, 1, 1))),
         {"window": Window((40, 70)), "count": "inside"}),
        ("pool_avg_grad", "a whole image", (ints("float32", 1, 2, 1, 1), Spec((1, 2, 40, 70))),
         {"window": Window((40, 70)), "count": "inside"}),
        ("pool_max", "a whole image", (ints("float32", 1, 2, 40, 70), Spec((1, 2, 1, 1)), Spec((1, 2, 1, 1), "int32")),
         {"window": Window((40, 70))}),
        ("pool_max", "four spatial axes", (ints("float32", 1, 2, 4, 3, 5, 4), Spec((1, 2, 3, 2, 2, 5)),
         Spec((1, 2, 3, 2, 2, 5), "int32")), {"window": window}),
        ("reduce", "a byte mask", ((ints("uint8", 9, 30), ints("float32", 9, 1)), Spec((9,))),
         {"expr": "a * b", "how": "sum", "axes": (-1,)}),
        ("reduce", "maximum with NaN", ((np.array([[1, np.nan, 3], [1, 2, 3]], "float64"),), Spec((2,), "float64")),
         {"expr": "a", "how": "max", "axes": (1,)}),
        ("lrn", "more than a run of channels", (ints("float32", 1, 70, 2) / 50, *(Spec((1, 70, 2)),) * 2),
         {"size": 5, "alpha": 0.1, "beta": 0.6, "k": 2.0}),
    ]  # fmt: skip
    return [KernelCase(op, note, lambda r, t, g=g, a=a: (g, a)) for op, note, g, a in rows]  # type: ignore[misc]


@pytest.mark.parametrize("case", more(), ids=str)
def test_ways_of_this_device(case: KernelCase) -> None:
    wanted = run_case(Reference(), case, "float32")
    for seed in SEEDS:
        with shim.shuffled(seed):
            got = run_case(Device(), case, "float32")
        for name, arrays in got.items():
            for ours, theirs in zip(arrays, wanted[name], strict=True):
                np.testing.assert_allclose(ours, theirs, 1e-5, 1e-6, err_msg=str(case))


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
        call = Call(case.signature, tuple(_tensors(a) for a in args), dict(attrs))
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
@pytest.mark.parametrize("op", ["softmax_nll", "gather", "scatter_add", "update_rows"])
def test_values_out_of_range_are_reported(op: str) -> None:
    """The text is the host devices' own."""
    one, bad = Spec((), "float32"), np.array([[0, 7, 1], [2, 9, 0]], "int32")
    x = np.ones((6, 4), "float32")
    given: Any = {
        "softmax_nll": ((x, bad.reshape(6), Spec((6, 4)), one, one), {"axis": 1, "ignore": None, "normalize": "valid"}),
        "gather": ((x, bad, Spec((2, 3, 4))), {}),
        "update_rows": (
            (bad.reshape(6), (x,), (np.ones((6, 4), "float32"),)),
            {"rule": rule(["g"], ["w"], "w = w - g")},
        ),
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
