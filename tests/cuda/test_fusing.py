"""Pointwise calls within those that read them, a ReLU within its convolution, updates in one launch, and batch
normalisation as sums and expressions: what becomes of a program, and that the numbers stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fakecupy
import fakelibs
import fakestream
import numpy as np
import pytest
from fakelibs import Cudnn

from layers_cuda import batch
from layers_cuda.device import Cuda
from layers_cuda.fusing import fused
from layers_cuda.prepare import prepare
from netrun.config import schema
from netrun.config.text import parse
from netrun.cpu.reference import Reference
from netrun.expression import rule
from netrun.kernels import OPS
from netrun.program import Call, Origin, Program, Recorder
from netrun.session import Session
from netrun.solver import Solver
from netrun.types import Spec, Tensor, Window

Make = Callable[..., Cuda]

NET = """
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: 6 dim: 3 dim: 8 dim: 8 } shape { dim: 6 }
  data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 1 } } }
layer { name: "a" type: "Convolution" bottom: "data" top: "a"
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 bias_term: false weight_filler { type: "xavier" } } }
layer { name: "bn_a" type: "BatchNorm" bottom: "a" top: "a" }
layer { name: "scale_a" type: "Scale" bottom: "a" top: "a" scale_param { bias_term: true } }
layer { name: "relu_a" type: "ReLU" bottom: "a" top: "a" }
layer { name: "b" type: "Convolution" bottom: "a" top: "b"
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 bias_term: false weight_filler { type: "xavier" } } }
layer { name: "bn_b" type: "BatchNorm" bottom: "b" top: "b" }
layer { name: "scale_b" type: "Scale" bottom: "b" top: "b" scale_param { bias_term: true } }
layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "sum" }
layer { name: "relu_s" type: "ReLU" bottom: "sum" top: "sum" }
layer { name: "c" type: "Convolution" bottom: "sum" top: "c"
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 bias_term: false weight_filler { type: "xavier" } } }
layer { name: "bn_c" type: "BatchNorm" bottom: "c" top: "c" }
layer { name: "ip" type: "InnerProduct" bottom: "c" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def solver(precision: str, more: str = "") -> schema.SolverParameter:
    text = f"""net_param {{ {NET} }} base_lr: 0.01 momentum: 0.9 lr_policy: "fixed" random_seed: 1 max_iter: 9
        precision: {precision} {more}"""
    message, _ = parse(text, schema.SolverParameter, "solver")
    return message


def trained(message: schema.SolverParameter, device: Any) -> tuple[list[Call], list[float], list[Any]]:
    """The calls, the losses and the parameters and statistics of four iterations."""
    losses = []
    with Solver(message, device=device) as run:
        for _ in range(4):
            run.step(1)
            losses.append(run.losses[-1])
        found = [run.memory.read(t) for t in run.training.recording.parameters.values()]
        return list(run.sessions[0].program.calls), losses, found


@pytest.mark.parametrize("more", ["", "iter_size: 2", "clip_gradients: 0.5"])
@pytest.mark.parametrize(("precision", "near"), [("FP32", 1e-4), ("TF32", 1e-4), ("BF16", 0.05), ("FP16", 0.02)])
def test_batch_normalisation_trains_as_on_the_cpu(precision: str, near: float, more: str, make_device: Make) -> None:
    calls, losses, values = trained(solver(precision, more), make_device())
    _, wanted, exact = trained(solver("FP32", more), "cpu")
    np.testing.assert_allclose(losses, wanted, near)
    for got, value in zip(values, exact, strict=True):
        np.testing.assert_allclose(got, value, 0, near * max(1.0, float(np.abs(value).max())))
    names = [c.op.name for c in calls]
    assert not {"normalize", "normalize_grad"} & set(names)
    assert (names.count("moments"), names.count("sums")) == (3, 3)


def test_what_a_residual_block_becomes(make_device: Make) -> None:
    """Each activation is written once and no normalised one at all; running statistics are updated in the end."""
    calls, _, _ = trained(solver("FP32"), make_device())
    forward = [c for c in calls if c.op.name == "pointwise" and not c.origin.way]
    assert [str(c.origin) for c in forward] == ["relu_a", "relu_s", "bn_c"]
    assert forward[1].attrs["expr"].startswith("relu(")
    wide = [c for c in calls if c.op.name == "reduce" and len(c.reads()[0].shape) == 4]
    assert not wide, "the gradients of scale and shift come with the sums"
    updates = [i for i, c in enumerate(calls) if c.op.name == "update"]
    assert updates == list(range(len(calls) - len(updates), len(calls)))


def test_updates_of_statistics_are_one_launch_each_kind(make_device: Make) -> None:
    with Solver(solver("FP32"), device=make_device()) as run:
        run.step(1)
        fakestream.log.clear()
        run.step(1)
        assert "update" not in fakestream.log
        assert fakestream.log.count("update_many") == 3  # parameters, means and variances, factors


# ------------------------------------------------------------------------------------------------------------- rules
def recorder(*shapes: tuple[int, ...]) -> tuple[Recorder, list[Tensor], list[Tensor]]:
    """A recorder, learned tensors of these shapes, and passing ones of the first."""
    k = Recorder()
    given = [Tensor(f"g{i}", Spec(s), "learned") for i, s in enumerate(shapes)]
    return k, given, [Tensor(n, Spec(shapes[0])) for n in "xyzuv"]


def same(program: Program, device: Cuda) -> list[str]:
    """Runs the program fused and on the reference; returns the names of the fused calls."""
    found = []
    rng = np.random.default_rng(0)
    start = {t: rng.standard_normal(t.shape) for t in program.persistent() if t.kind == "learned"}
    for target in (device, Reference()):
        session = Session(program, target)
        for t, value in start.items():
            session.write(t, value)
        session.run()
        found.append([session.read(t) for t in sorted(program.keeps, key=lambda t: t.name)])
    for got, exact in zip(*found, strict=True):
        np.testing.assert_allclose(got, exact, 1e-5, 1e-5)
    return [c.op.name for c in fused(program).calls]


def test_a_chain_becomes_one(device: Cuda) -> None:
    k, (a, b, c), (x, y, z, _, _) = recorder((4, 6), (4, 6), (6,))
    k.pointwise([a, c], x, expr="a * b")
    k.pointwise([x, b], y, expr="a + b * a")
    k.pointwise([y], z, expr="relu(a, 0)")
    program = Program(tuple(k.calls), keeps=frozenset([z]))
    assert same(program, device) == ["pointwise"]
    (call,) = fused(program).calls
    assert len(call.reads()) == 3


def test_what_is_kept_is_made(device: Cuda) -> None:
    k, (a,), (x, y, *_) = recorder((4, 6))
    k.pointwise([a], x, expr="a * 2")
    k.pointwise([x], y, expr="a + 1")
    assert same(Program(tuple(k.calls), keeps=frozenset([x, y])), device) == ["pointwise"] * 2


def test_a_smaller_one_is_not_computed_for_every_element(device: Cuda) -> None:
    k, (a, b), (x, *_) = recorder((4, 6), (6,))
    small = Tensor("small", Spec((6,)))
    k.pointwise([b], small, expr="a * 2")
    k.pointwise([a, small], x, expr="a + b")
    assert same(Program(tuple(k.calls), keeps=frozenset([x])), device) == ["pointwise"] * 2


def test_slow_functions_are_not_computed_twice(device: Cuda) -> None:
    for expr, count in (("exp(a)", 3), ("a * a", 2)):
        k, (a, b), (x, y, z, _, _) = recorder((4, 6), (4, 6))
        k.pointwise([a], x, expr=expr)
        k.pointwise([x, b], y, expr="a + b")
        k.pointwise([x, b], z, expr="a - b")
        assert same(Program(tuple(k.calls), keeps=frozenset([y, z])), device) == ["pointwise"] * count


def test_more_reading_than_it_saves(device: Cuda) -> None:
    """Three who would read two tensors each instead of one."""
    k, (a, b), (x, *ys) = recorder((4, 6), (4, 6))
    k.pointwise([a, b], x, expr="a * b")
    for i, y in enumerate(ys[:3]):
        k.pointwise([x], y, expr=f"a + {i}")
    assert same(Program(tuple(k.calls), keeps=frozenset(ys[:3])), device) == ["pointwise"] * 4


def test_what_changes_meanwhile(device: Cuda) -> None:
    """A value that is updated before the reader runs is read where it was."""
    k, (a, b), (x, y, *_) = recorder((4, 6), (4, 6))
    k.pointwise([a], x, expr="a * 2")
    k.update([b], [a], rule=rule(["g"], ["w"], "w = w - g"))
    k.pointwise([x, a], y, expr="a + b")
    assert same(Program(tuple(k.calls), keeps=frozenset([y])), device) == ["pointwise", "update", "pointwise"]


def test_into_a_reduction(device: Cuda) -> None:
    k, (a, b), (x, *_) = recorder((4, 6), (4, 6))
    total = Tensor("total", Spec((6,)))
    k.pointwise([a, b], x, expr="a * b")
    k.reduce([x], total, expr="a + 1", how="sum", axes=(0,))
    assert same(Program(tuple(k.calls), keeps=frozenset([total])), device) == ["reduce"]


# ----------------------------------------------------------------------------------------------------------- kernels
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [((7, 5, 8), (0, 1)), ((900, 8), (0,)), ((30, 40, 3), (0, 1)), ((3, 6, 500), (0, 2)), ((2, 64, 2, 9), (0, 2, 3)),
     ((5000, 4), (0,)), ((6, 3, 4, 12), (0, 2))],
)  # fmt: skip
def test_moments_and_sums(shape: tuple[int, ...], axes: tuple[int, ...], dtype: str, device: Cuda) -> None:
    """By one thread or four results at a time, by one block or many."""
    rng = np.random.default_rng(1)
    kept = tuple(1 if i in axes else n for i, n in enumerate(shape))
    values = [(rng.standard_normal(shape) + 3).astype(dtype), rng.standard_normal(shape).astype(dtype)]
    real = "float64" if dtype == "float64" else "float32"
    arrays = [device.array(device.allocate(v.nbytes), 0, Spec(shape, dtype)) for v in values]
    for array, value in zip(arrays, values, strict=True):
        device.write(array, value)
    out = [device.array(device.allocate(8 * int(np.prod(kept))), 0, Spec(kept, real)) for _ in range(5)]
    room = device.allocate(batch.scratch_bytes(device, shape, [shape, shape, kept], axes))
    batch.moments(device, arrays[0], *out[:3], axes, 1e-3, room)()
    x, d = (v.astype("float64") for v in values)
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    tolerance = 1e-12 if dtype == "float64" else 2e-5
    for got, exact in zip(out[:3], (mean, var, 1 / np.sqrt(var + 1e-3)), strict=True):
        np.testing.assert_allclose(device.read(got), exact, tolerance)
    batch.sums(device, [*arrays, out[0]], *out[3:], "b * 2", "a - c", axes, room)()
    total, product = (2 * d).sum(axes, keepdims=True), (2 * d * (x - mean)).sum(axes, keepdims=True)
    np.testing.assert_allclose(device.read(out[3]), total, 0, tolerance * np.abs(2 * d).sum(axes).max())
    np.testing.assert_allclose(device.read(out[4]), product, 0, tolerance * np.abs(2 * d * x).sum(axes).max())


# ---------------------------------------------------------------------------------------- a ReLU within its convolution
def convolved(keep_middle: bool = False, readers: int = 1, expr: str = "relu(a, 0)") -> Program:
    k = Recorder()
    x, w, y, z = (Tensor(n, Spec(s)) for n, s in (("x", (1, 2, 4, 4)), ("w", (3, 2, 3, 3)), ("y", (1, 3, 2, 2)),
                                                  ("z", (1, 3, 2, 2))))  # fmt: skip
    k.origin = Origin("conv1")
    k.conv(x, w, None, y, window=Window((3, 3)), groups=1)
    k.origin = Origin("relu1")
    k.pointwise([y], z, expr=expr)
    others = [Tensor(f"other{i}", Spec((1, 3, 2, 2))) for i in range(1, readers)]
    for other in others:
        k.pointwise([y], other, expr="a * 2")
    return Program(tuple(k.calls), {}, frozenset([z, *others, *([y] if keep_middle else [])]))


def test_a_relu_moves_into_its_convolution() -> None:
    made = prepare(convolved())
    assert str(made) == "   0  conv1  z <- conv x w | window=3x3 groups=1 relu=True"


@pytest.mark.parametrize(
    "given",
    [convolved(keep_middle=True), convolved(readers=2), convolved(expr="relu(a, 0.1)")],
    ids=["the value is kept", "somebody else reads it", "another function"],
)
def test_a_relu_stays(given: Program) -> None:
    assert prepare(given) == given


@pytest.mark.parametrize("refuses", [None, lambda kind, bias, relu, dtype: relu, lambda kind, bias, relu, dtype: True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("precision", ["FP32", "BF16"])
def test_a_fused_relu_is_applied(refuses: Any, bias: bool, precision: str, make_device: Make) -> None:
    device = make_device(cudnn=Cudnn(refuses))
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(s).astype("float32") for s in ((2, 4, 5, 5), (6, 2, 3, 3), (6,))]
    arrays = [fakecupy.asarray(v) for v in values]
    y = fakecupy.asarray(np.full((2, 6, 3, 3), np.nan, "float32"))
    args = [arrays[0], arrays[1], arrays[2] if bias else None, y]
    tensors = tuple(None if a is None else Tensor("t", Spec(a.shape)) for a in args)
    attrs = {"window": Window((3, 3)), "groups": 2, "relu": True, "precision": precision}
    call = Call(OPS["conv"], tensors, attrs, Origin("conv1"))
    device.bind(call, args, device.allocate(device.workspace(call)))()
    wanted = np.empty_like(y)
    fakelibs.REFERENCE.conv(values[0], values[1], values[2] if bias else None, wanted, window=Window((3, 3)), groups=2)
    np.testing.assert_allclose(y, np.maximum(wanted, 0), 0.02, 0.1 if precision == "BF16" else 1e-4)


# ------------------------------------------------------------------------------------------------ updates in one launch
def updates(device: Cuda, count: int, share: bool) -> tuple[list[Any], list[Any], list[Any]]:
    """Update calls of two rules in turn; with ``share`` the last changes what the first has changed."""
    rules = [rule(["g", "lr"], ["w"], "w = w - lr * g"), rule(["g", "lr"], ["w"], "w = w + 2 * lr * g")]
    lr = fakecupy.asarray(np.float32(0.5))
    weights = [fakecupy.asarray(np.arange(n, dtype="float32")) for n in range(3, 3 + count)]
    if share:
        weights[-1] = weights[0]
    grads = [fakecupy.asarray(np.ones_like(w)) for w in weights]
    steps = []
    for i, (w, g) in enumerate(zip(weights, grads, strict=True)):
        tensors = tuple(tuple(Tensor("t", Spec(a.shape)) for a in part) for part in ((g, lr), (w,)))
        steps.append(
            device.bind(
                Call(OPS["update"], tensors, {"rule": rules[i % 2]}, Origin(f"l{i}").update), [(g, lr), (w,)], None
            )
        )
    return steps, weights, [np.asarray(w).copy() for w in weights]


@pytest.mark.parametrize(("share", "launches"), [(False, 2), (True, 5)])
def test_updates_of_one_rule_are_one_launch(share: bool, launches: int, device: Cuda) -> None:
    steps, weights, before = updates(device, 5, share)
    run = device.capture(steps)
    fakestream.log.clear()
    run()
    assert len(fakestream.log) == launches
    for i, (w, old) in enumerate(zip(weights, before, strict=True)):
        moved = {0: -0.5, 1: 1.0}[i % 2] * (2 if share and i in (0, 4) else 1)
        np.testing.assert_allclose(w, old + moved)


@pytest.mark.parametrize("reads", [False, True])
def test_updates_of_arrays_within_others_keep_their_order(reads: bool, device: Cuda) -> None:
    """An update reads, or changes, a part of what another rule has changed: it is not put to the first of its rule."""
    keep, count = rule(["x"], ["s"], "s = x"), rule([], ["s"], "s = s + 1")
    flat, part, other, source = (fakecupy.asarray(np.arange(n, dtype="float32")) for n in (8, 3, 3, 3))
    inner = flat[4:7]
    assert inner.data.ptr != flat.data.ptr
    last = ((inner,), (part,)) if reads else ((source,), (inner,))
    steps = []
    for how, args in ((keep, ((source,), (other,))), (count, ((), (flat,))), (keep, last)):
        tensors = tuple(tuple(Tensor("t", Spec(a.shape)) for a in arrays) for arrays in args)
        steps.append(device.bind(Call(OPS["update"], tensors, {"rule": how}, Origin("l").update), list(args), None))
    device.capture(steps)()
    np.testing.assert_allclose(*((part, [5, 6, 7]) if reads else (inner, [0, 1, 2])))
    np.testing.assert_allclose(other, source)
