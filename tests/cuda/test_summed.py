"""A pointwise kernel that sums what it makes: values and sums equal NumPy's, of parts of larger tensors too; and which
calls of a program become one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from test_adding import INCEPTION, solver, trained

from layers_cuda.device import Cuda
from layers_cuda.geometry import Cut
from layers_cuda.summed import SUMMED, summed
from netrun.compiler.plan import plan
from netrun.kernels import OPS
from netrun.program import Call, Origin, Program, Recorder
from netrun.types import Spec, Tensor

Make = Callable[..., Cuda]
RELU = "a * where(b > 0, 1, 0) + c"


def placed(device: Cuda, values: Any, dtype: str, shift: int = 0) -> Any:
    spec = Spec(np.shape(values), dtype)
    array = device.array(device.allocate(spec.nbytes + 64), shift, spec)
    device.write(array, values)
    return array


def run(device: Cuda, xs: list[Any], y: Any, total: Any, axes: tuple[int, ...], cut: Cut | None = None) -> None:
    def tensor(name: str, array: Any) -> Tensor:
        return Tensor(name, Spec(tuple(array.shape), array.dtype.name))

    attrs = {"expr": RELU, "axes": axes} | ({} if cut is None else {"cut": cut})
    given = tuple(tensor(f"x{i}", x) for i, x in enumerate(xs))
    call = Call(SUMMED, (given, tensor("y", y), tensor("total", total)), attrs, Origin("l").backward)
    scratch = device.allocate(max(device.workspace(call), 1))
    device.bind(call, [tuple(xs), y, total], scratch)()


@pytest.mark.parametrize("shuffle", ["", "3"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("shape", "axes", "shift"),
    [((7, 5, 8), (0, 1), 0), ((900, 8), (0,), 0), ((30, 40, 3), (0, 1), 0), ((3, 6, 500), (0, 2), 0),
     ((2, 64, 2, 9), (0, 2, 3), 0), ((5000, 4), (0,), 0), ((900, 8), (0,), 4), ((4, 128, 1, 1), (0, 2, 3), 0),
     ((1, 3, 7, 7), (0, 2, 3), 0), ((2000, 1, 20), (0, 1), 0)],
)  # fmt: skip
def test_values_and_sums(
    shape: tuple[int, ...], axes: tuple[int, ...], shift: int, dtype: str, shuffle: str, device: Cuda,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """By one thread or four results at a time, by one block or many, over what is read."""
    if shuffle:
        monkeypatch.setenv("CUDA_CPU_SHUFFLE", shuffle)
    rng = np.random.default_rng(1)
    kept = tuple(1 if i in axes else n for i, n in enumerate(shape))
    values = [rng.standard_normal(s) for s in (shape, shape, kept)]
    arrays = [placed(device, v, dtype, shift) for v in values]
    a, b, c = (device.read(x).astype("float64") for x in arrays)
    exact = a * (b > 0) + c
    total = placed(device, np.full(int(np.prod(kept)), np.nan), "float32")
    y = arrays[0]  # over what it reads, as the planner has it
    run(device, arrays, y, total, axes)
    near = 1e-6 if dtype == "float32" else 1e-2
    np.testing.assert_allclose(device.read(y), exact, near, near)
    bound = 1e-5 * np.abs(exact).sum(axes).max()
    np.testing.assert_allclose(device.read(total), exact.sum(axes).reshape(-1), 0, bound)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("whole", "axis", "begin", "size", "axes"),
    [((3, 4, 5, 40), 3, 16, 8, (0, 1, 2)), ((3, 4, 5, 40), 3, 3, 7, (0, 1, 2)), ((3, 20, 6, 7), 1, 4, 9, (0, 2, 3)),
     ((1, 20, 6, 7), 1, 4, 9, (0, 2, 3)), ((300, 40), 1, 4, 12, (0,))],
)  # fmt: skip
def test_parts_of_larger_tensors(
    whole: tuple[int, ...], axis: int, begin: int, size: int, axes: tuple[int, ...], dtype: str, device: Cuda
) -> None:
    """A gradient and an activation that are parts of the tensors of a concat, and a vector that is not."""
    rng = np.random.default_rng(1)
    shape = tuple(size if i == axis else n for i, n in enumerate(whole))
    kept = tuple(1 if i in axes else n for i, n in enumerate(shape))
    arrays = [placed(device, rng.standard_normal(s), dtype) for s in (whole, whole, kept)]
    a, b, c = (device.read(x).astype("float64") for x in arrays)
    part = tuple(slice(begin, begin + size) if i == axis else slice(None) for i in range(len(whole)))
    exact = a[part] * (b[part] > 0) + c
    y, total = placed(device, np.zeros(shape), dtype), placed(device, np.zeros(size), "float32")
    run(device, arrays, y, total, axes, Cut(shape, axis, (begin, begin, -1, -1)))
    near = 1e-6 if dtype == "float32" else 1e-2
    np.testing.assert_allclose(device.read(y), exact, near, near)
    np.testing.assert_allclose(device.read(total), exact.sum(axes), 0, 1e-5 * np.abs(exact).sum(axes).max())


@pytest.mark.parametrize("precision", ["FP32", "TF32", "BF16"])
def test_a_bias_behind_a_relu_costs_no_pass(precision: str, make_device: Make) -> None:
    """Five convolutions with a ReLU each: no reduction of what has four axes is left."""
    calls, losses, _ = trained(solver(INCEPTION, precision), make_device())
    assert sum(c.op is SUMMED for c in calls) == 5
    assert not [c for c in calls if c.op.name == "reduce" and len(c.reads()[0].shape) == 4]
    assert losses == pytest.approx(trained(solver(INCEPTION), "cpu")[1], rel=0.05, abs=1e-3)


def gradient(expr: str = "a", how: str = "sum", dtype: str = "float32") -> tuple[Recorder, Tensor, Tensor]:
    k = Recorder()
    a, b = Tensor("a", Spec((6, 4), dtype)), Tensor("b", Spec((6, 4), dtype))
    d, total = Tensor("d", Spec((6, 4), dtype)), Tensor("total", Spec((4,), dtype))
    k.pointwise([a, b], d, expr="a * b")
    k.reduce([d], total, expr=expr, how=how, axes=(0,))
    return k, d, total


def test_only_plain_sums_are_taken() -> None:
    for more, taken in (
        ({}, True), ({"expr": "a * 2"}, False), ({"how": "max"}, False), ({"dtype": "float64"}, False),
    ):  # fmt: skip
        k, d, total = gradient(**more)  # type: ignore[arg-type]
        made = summed(Program(tuple(k.calls), keeps=frozenset([d, total])))
        assert (len(made.calls) == 1) is taken, more


def test_a_net_that_is_looked_into_stays() -> None:
    k, d, total = gradient()
    program = Program(tuple(k.calls), keeps=frozenset([d, total]), visible=frozenset([d]))
    assert summed(program) is program


def test_it_lies_over_what_it_reads() -> None:
    """As pointwise does: no memory is taken that the pointwise call would not have taken."""
    k, d, total = gradient()
    a = k.calls[0].reads()[0]
    start = Tensor("start", Spec((6, 4)), "feed")
    k.calls.insert(0, Call(OPS["pointwise"], ((start,), a), {"expr": "a"}, Origin("l")))
    k.pointwise([d], Tensor("out", Spec((6, 4))), expr="a")
    program = summed(Program(tuple(k.calls), keeps=frozenset([total])))
    assert program.calls[1].op is SUMMED
    offsets = plan(program).offsets
    assert offsets[a] == offsets[d]
