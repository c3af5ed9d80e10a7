"""Gradients added to what is there by the convolutions and products that make them: the CPU's numbers, in fewer passes
over memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import fakestream
import numpy as np
import pytest
from fakelibs import Cudnn

from layers_cuda.adding import CLEAR, added, is_sum
from layers_cuda.device import Cuda
from netrun.config import schema
from netrun.config.text import parse
from netrun.cpu.reference import Reference
from netrun.kernels import OPS
from netrun.program import Call, Program, Recorder
from netrun.session import Session
from netrun.solver import Solver
from netrun.types import Spec, Tensor, Window

Make = Callable[..., Cuda]

DATA = """
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: 4 dim: 3 dim: 8 dim: 8 } shape { dim: 4 }
  data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 1 } } }"""


def conv(name: str, bottom: str, top: int, size: int = 1, more: str = "") -> str:
    return f"""layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" {more} convolution_param {{
        num_output: {top} kernel_size: {size} pad: {size // 2} weight_filler {{ type: "xavier" }} }} }}
        layer {{ name: "relu_{name}" type: "ReLU" bottom: "{name}" top: "{name}" }}"""


END = """
layer { name: "ip" type: "InnerProduct" bottom: "last" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }"""

INCEPTION = f"""{DATA} {conv("first", "data", 8)}
layer {{ name: "stem" type: "Pooling" bottom: "first" top: "stem" pooling_param {{ kernel_size: 3 stride: 1 pad: 1 }} }}
{conv("a", "stem", 8)} {conv("b", "stem", 8, 3)} {conv("c", "stem", 8)}
layer {{ name: "p" type: "Pooling" bottom: "stem" top: "p" pooling_param {{ kernel_size: 3 stride: 1 pad: 1 }} }}
{conv("q", "p", 8)}
layer {{ name: "last" type: "Concat" bottom: "a" bottom: "b" bottom: "c" bottom: "q" top: "last" }} {END}"""
"""Four branches read stem."""

SHARED = f"""{DATA} {conv("stem", "data", 8)}
{conv("a", "stem", 8, 3, 'param { name: "w" } param { name: "b" }')}
{conv("last", "a", 8, 3, 'param { name: "w" } param { name: "b" }')} {END}"""
"""Two layers with one filter."""


def solver(net: str, precision: str = "FP32", more: str = "") -> schema.SolverParameter:
    text = f"""net_param {{ {net} }} base_lr: 0.005 momentum: 0.9 lr_policy: "fixed" random_seed: 1 max_iter: 9
        precision: {precision} {more}"""
    message, _ = parse(text, schema.SolverParameter, "solver")
    return message


def trained(message: schema.SolverParameter, device: Any) -> tuple[list[Call], list[float], list[Any]]:
    """The calls, the losses and the parameters of four iterations."""
    losses = []
    with Solver(message, device=device) as run:
        for _ in range(4):
            run.step(1)
            losses.append(run.losses[-1])
        found = [run.memory.read(t) for t in run.training.recording.parameters.values()]
        return list(run.sessions[0].program.calls), losses, found


def passes(calls: list[Call], of: str) -> int:
    """How often tensors of that name, of whatever version, go through memory: reads and writes, of gradients' sums."""
    found = 0
    for call in calls:
        found += sum(t.name.startswith(of) for t in call.tensors())
        found += bool(call.attrs.get("add")) and call.writes()[0].name.startswith(of)
    return found


@pytest.mark.parametrize("more", ["", "iter_size: 2", "iter_size: 3 clip_gradients: 0.5"])
@pytest.mark.parametrize(("precision", "near"), [("FP32", 1e-4), ("TF32", 1e-4), ("BF16", 0.05), ("FP16", 0.02)])
@pytest.mark.parametrize("net", [INCEPTION, SHARED], ids=["inception", "shared"])
def test_training_is_as_on_the_cpu(net: str, precision: str, near: float, more: str, make_device: Make) -> None:
    calls, losses, values = trained(solver(net, precision, more), make_device())
    _, wanted, exact = trained(solver(net, "FP32", more), "cpu")
    np.testing.assert_allclose(losses, wanted, near, near / 100)
    for got, value in zip(values, exact, strict=True):
        np.testing.assert_allclose(got, value, 0, near * max(1.0, float(np.abs(value).max())))
    assert any(c.attrs.get("add") for c in calls) or (net == SHARED and precision != "FP32")


@pytest.mark.parametrize("precision", ["FP32", "BF16"])
def test_four_branches_take_two_passes_less(precision: str, make_device: Make) -> None:
    """Four contributions and one reader for each of them: 2 * 4 passes; with a sum of its own they were 2 * 4 + 2."""
    found = []
    for how in ("own", "library"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("NETRUN_CUDA_ADD", how)
            calls, _, _ = trained(solver(INCEPTION, precision), make_device())
        found.append((passes(calls, "stem'"), sum(is_sum(c) for c in calls)))
        added_by = [str(c.origin) for c in calls if c.attrs.get("add")]
    (before, sums), (after, none) = found
    assert (before - after, sums, none) == (2, 1, 0)
    assert added_by == ["c'", "b'", "a'"]


def test_the_gradients_of_one_filter_are_added_up_by_cudnn(make_device: Make) -> None:
    library = Cudnn()
    calls, _, _ = trained(solver(SHARED), make_device(cudnn=library))
    assert "wgrad add" in library.executed
    assert not [c for c in calls if is_sum(c) and len(c.reads()[0].shape) == 4]


def test_the_sums_over_passes_take_what_convolutions_make(make_device: Make) -> None:
    """What passes over memory: nothing is read and written again to be added up, and one launch clears all sums."""
    message = solver(INCEPTION, more="iter_size: 2")
    with Solver(message, device=make_device()) as run:
        calls = list(run.sessions[0].program.calls)
        assert calls[0].op is CLEAR
        left = [c for c in calls if c.op.name == "update"]
        assert {c.reads()[0].name for c in left} == {f"{n}.bias'" for n in ("first", "a", "b", "c", "q", "ip")}
        assert Counter(c.op.name for c in calls if c.attrs.get("add")) == {
            "conv_grad_w": 5,
            "conv_grad_x": 3,
            "gemm": 1,
        }
        fakestream.log.clear()
        run.step(1)
        assert fakestream.log.count("clear") == 2


def test_without_an_engine_that_adds_everything_is_as_it_was(make_device: Make) -> None:
    library = Cudnn()
    library.adds = False
    calls, losses, _ = trained(solver(INCEPTION), make_device(cudnn=library))
    assert not [c for c in calls if c.op.name != "gemm" and c.attrs.get("add")]
    assert losses == pytest.approx(trained(solver(INCEPTION), "cpu")[1], rel=1e-4)


# ------------------------------------------------------------------------------------------------------------- rules
def same(program: Program, device: Cuda) -> list[str]:
    """Runs the program with sums added and on the reference, twice; returns the kernels it then has."""
    found = []
    rng = np.random.default_rng(0)
    start = {t: rng.standard_normal(t.shape) for t in program.persistent() if t.kind == "learned"}
    for target in (device, Reference()):
        session = Session(program, target)
        for t, value in start.items():
            session.write(t, value)
        for _ in range(2):
            session.run()
        found.append([session.read(t) for t in sorted(program.keeps, key=lambda t: t.name)])
    for got, exact in zip(*found, strict=True):
        np.testing.assert_allclose(got, exact, 1e-4, 1e-4)
    made = added(program, lambda call: True)
    return [c.op.name + "+" * bool(c.attrs.get("add")) for c in made.calls]


def products(k: Recorder, count: int) -> tuple[list[Tensor], Tensor]:
    """Products of one shape, and their sum."""
    made = []
    for i in range(count):
        a, b = Tensor(f"a{i}", Spec((4, 5)), "learned"), Tensor(f"b{i}", Spec((5, 6)), "learned")
        made.append(Tensor(f"y{i}", Spec((4, 6)), "diff"))
        k.gemm(a, b, None, made[-1], ta=False, tb=False)
    return made, Tensor("sum", Spec((4, 6)), "diff")


def test_products_add_up(device: Cuda) -> None:
    k = Recorder()
    given, total = products(k, 3)
    k.pointwise(given, total, expr="c + a + b")
    assert same(Program(tuple(k.calls), keeps=frozenset([total])), device) == ["gemm", "gemm+", "gemm+"]


def test_what_somebody_else_reads_is_not_added_to(device: Cuda) -> None:
    k = Recorder()
    given, total = products(k, 3)
    other = Tensor("other", Spec((4, 6)))
    k.pointwise([given[0]], other, expr="a * 2")
    k.pointwise(given, total, expr="a + b + c")
    program = Program(tuple(k.calls), keeps=frozenset([total, other]))
    assert same(program, device) == ["gemm", "gemm", "gemm+", "pointwise", "pointwise"]


def test_what_cannot_add_comes_first_or_stays_in_the_sum(device: Cuda) -> None:
    for early in (True, False):
        k = Recorder()
        x = Tensor("x", Spec((4, 6)), "learned")
        double = Tensor("double", Spec((4, 6)), "diff")
        if early:
            k.pointwise([x], double, expr="a * 2")
        given, total = products(k, 2)
        if not early:
            k.pointwise([x], double, expr="a * 2")
        k.pointwise([*given, double], total, expr="a + b + c")
        wanted = ["pointwise", "gemm+", "gemm+"] if early else ["gemm", "gemm+", "pointwise", "pointwise"]
        assert same(Program(tuple(k.calls), keeps=frozenset([total])), device) == wanted


def test_more_than_a_sum_is_left_alone(device: Cuda) -> None:
    for expr in ("a + b + a", "a - b", "(a + b) * 2", "a"):
        k = Recorder()
        given, total = products(k, 2 if "b" in expr else 1)
        k.pointwise(given, total, expr=expr)
        assert "gemm+" not in same(Program(tuple(k.calls), keeps=frozenset([total])), device), expr


def test_sums_of_sums(device: Cuda) -> None:
    k = Recorder()
    given, first = products(k, 2)
    k.pointwise(given, first, expr="a + b")
    c, d = Tensor("c", Spec((4, 5)), "learned"), Tensor("d", Spec((5, 6)), "learned")
    third, total = Tensor("third", Spec((4, 6)), "diff"), Tensor("total", Spec((4, 6)), "diff")
    k.gemm(c, d, None, third, ta=False, tb=False)
    k.pointwise([first, third], total, expr="a + b")
    assert same(Program(tuple(k.calls), keeps=frozenset([total])), device) == ["gemm", "gemm+", "gemm+"]


def test_only_so_many_are_rounded_into_a_16_bit_sum() -> None:
    k = Recorder()
    window = Window((1, 1))
    made = []
    for i in range(12):
        w, dy = Tensor(f"w{i}", Spec((4, 4, 1, 1), "bfloat16")), Tensor(f"dy{i}", Spec((2, 4, 3, 3), "bfloat16"))
        made.append(Tensor(f"dx{i}", Spec((2, 4, 3, 3), "bfloat16"), "diff"))
        k.conv_grad_x(w, dy, made[-1], window=window, groups=1)
    total = Tensor("total", made[0].spec, "diff")
    k.pointwise(made, total, expr=" + ".join("abcdefghijkl"))
    program = added(Program(tuple(k.calls), keeps=frozenset([total])), lambda call: True)
    assert sum(bool(c.attrs.get("add")) for c in program.calls) == 7
    assert len(program.calls[-1].reads()) == 5
    assert OPS["pointwise"] is program.calls[-1].op
