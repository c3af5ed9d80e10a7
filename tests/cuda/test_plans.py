"""Every convolution of every net in configs/ has a plan of the real cuDNN for an H200, with no GPU at hand.

It needs the wheels nvidia-cudnn-cu13 and nvidia-cublas (800 MB) and is skipped where they are absent. The device is
described by h200_sm90.json, made by hand from published figures; tools/gpu/checklist.py compares it with a real one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from layers_cuda import lazy
from layers_cuda.adding import is_sum
from layers_cuda.conv import Case, has_plan, takes_parts, takes_sums
from layers_cuda.dnn import Dnn, Problem, declare
from layers_cuda.plans import CAP, Plans
from layers_cuda.precision import PRECISIONS
from layers_cuda.prepare import prepare
from netrun.cli.files import build_with
from netrun.compiler.graph import State, build
from netrun.compiler.passes import elide_copies
from netrun.compiler.record import record
from netrun.config import schema
from netrun.config.upgrade import read_net
from netrun.errors import DeviceError, NetrunError
from netrun.training import compile_training

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
NETS = sorted(p for p in CONFIGS.rglob("*.prototxt") if "solver" not in p.name)


@pytest.fixture(scope="module")
def planner() -> Dnn:
    """The real cuDNN, planning for an H200."""
    try:
        library = declare(lazy.library("cudnn"))
    except DeviceError as error:
        pytest.skip(f"no cuDNN: {error.problems[0].what}")
    return Dnn(library, None, (Path(__file__).parent / "h200_sm90.json").read_text())


def convolutions(path: Path) -> Iterator[Any]:
    """The calls of a net's training iteration, or of its forward pass, that are convolutions."""
    message, source = read_net(str(path))
    trains = any(rule.phase == schema.TRAIN for layer in message.layer for rule in layer.include)
    phase = schema.TRAIN if trains else schema.TEST
    state = State.of(schema.NetState(phase=schema.Phase.Name(phase)))
    graph = build(message, source, state, seed=0, folder=str(path.parent))
    if trains:
        solver = schema.SolverParameter(base_lr=0.1, lr_policy="fixed")
        calls = [call for program in compile_training(graph, solver).programs for call in program.calls]
    else:
        calls = list(record(graph).forward)
    yield from (call for call in calls if call.op.name.startswith("conv"))


@pytest.mark.parametrize("path", NETS, ids=lambda p: str(p.relative_to(CONFIGS)))
def test_every_convolution_has_plans(path: Path, planner: Dnn) -> None:
    try:
        problems = {p for call in convolutions(path) for p in variants(call)}
    except NetrunError as error:
        pytest.skip(f"the net cannot be built here: {error.problems[0].what}")
    for problem in problems:
        plan = next(planner.plans(problem, CAP), None)
        assert plan is not None, problem
        assert plan.workspace <= CAP


def variants(call: Any) -> Iterator[Problem]:
    """The problem of a call in every precision, and with nothing left to chance."""
    case = Case.of(call)
    for precision in PRECISIONS.values():
        problem = replace(case, precision=precision).problem()
        assert problem is not None
        yield problem
        if precision.tensor:  # what layout.py asks for
            yield replace(problem, last=True)
        if case.kind != "fprop":  # what adding.py asks for
            yield replace(problem, add=True, last=precision.tensor)
        if precision.name == "FP32":
            yield replace(problem, deterministic=True)


ODD = {
    "one axis": ((2, 3, 1, 20), (4, 3, 1, 5), (2, 4, 1, 16), {}),
    "three axes": ((2, 3, 6, 7, 8), (4, 3, 2, 2, 2), (2, 4, 5, 6, 7), {}),
    "groups": ((2, 4, 8, 8), (6, 2, 3, 3), (2, 6, 6, 6), {}),
    "depthwise": ((2, 6, 8, 8), (6, 1, 3, 3), (2, 6, 6, 6), {}),
    "uneven padding": ((2, 4, 8, 8), (6, 4, 3, 3), (2, 6, 7, 7), {"pad_end": (1, 1)}),
    "dilation": ((2, 4, 9, 9), (6, 4, 3, 3), (2, 6, 5, 5), {"dilation": (2, 2)}),
    "stride": ((2, 4, 9, 9), (6, 4, 1, 1), (2, 6, 5, 5), {"stride": (2, 2)}),
}


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("name", ODD)
def test_odd_convolutions_have_plans(name: str, dtype: str, planner: Dnn) -> None:
    x, w, y, more = ODD[name]
    axes = len(x) - 2
    parts = {"stride": (1,) * axes, "pad": (0,) * axes, "pad_end": (0,) * axes, "dilation": (1,) * axes} | more
    problem = Problem("fprop", dtype, x, w, y, **parts)  # type: ignore[arg-type]
    for kind in ("fprop", "dgrad", "wgrad"):
        for add in (False, True):
            wanted = replace(problem, kind=kind, add=add)
            assert next(planner.plans(wanted, CAP), None) is not None, wanted


def test_bias_and_relu_fuse(planner: Dnn) -> None:
    problem = Problem(
        "fprop", "float32", (2, 8, 8, 8), (8, 8, 3, 3), (2, 8, 8, 8), *((1, 1),) * 4, bias=True, relu=True
    )
    for dtype in ("float32", "float64", "float16", "bfloat16"):
        assert next(planner.plans(replace(problem, dtype=dtype), CAP), None) is not None, dtype


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_part_of_a_larger_tensor_is_written_and_read(dtype: str, last: bool, planner: Dnn) -> None:
    """What slices.py asks for, with bias and ReLU: a branch of an inception of GoogLeNet."""
    shapes = (32, 192, 28, 28), (64, 192, 1, 1), (32, 64, 28, 28)
    problem = Problem("fprop", dtype, *shapes, (1, 1), (0, 0), (0, 0), (1, 1), bias=True, relu=True)
    wanted = replace(problem, last=last, within=256, tensor=last)
    assert next(planner.plans(wanted, CAP), None) is not None
    for kind in ("dgrad", "wgrad"):  # whose gradient is a part
        adjoint = replace(wanted, kind=kind, bias=False, relu=False)
        assert next(planner.plans(adjoint, CAP), None) is not None, kind


@pytest.mark.parametrize("precision", ["FP32", "BF16"])
def test_every_branch_of_googlenet_is_written_and_read_in_place(precision: str, planner: Dnn) -> None:
    """Four branches of nine inceptions; what cuDNN refused would be copied."""
    message, source = read_net(str(CONFIGS / "imagenet" / "googlenet" / "train_val.prototxt"))
    message.precision = precision  # type: ignore[assignment]
    graph = build_with(message, source, State(schema.TRAIN), ["data=32,3,224,224"])
    step = compile_training(graph, schema.SolverParameter(base_lr=0.1, lr_policy="fixed")).step
    device: Any = SimpleNamespace(plans=Plans(planner, "H200"))
    made = prepare(elide_copies(step)[0], lambda call: has_plan(device, call), lambda call: takes_parts(device, call))
    assert not {"concat", "slice", "split"} & {call.op.name for call in made.calls}
    assert sum("begin" in call.attrs for call in made.calls if call.op.name == "conv") == 36
    assert sum("cut" in call.attrs for call in made.calls) == 36


@pytest.mark.parametrize("precision", ["FP32", "TF32", "BF16", "FP16"])
def test_branches_of_googlenet_add_their_gradients_up(precision: str, planner: Dnn) -> None:
    """Three contributions of each inception's four; none is added up by a kernel but those of two more losses."""
    message, source = read_net(str(CONFIGS / "imagenet" / "googlenet" / "train_val.prototxt"))
    message.precision = precision  # type: ignore[assignment]
    graph = build_with(message, source, State(schema.TRAIN), ["data=32,3,224,224"])
    step = compile_training(graph, schema.SolverParameter(base_lr=0.1, lr_policy="fixed")).step
    device: Any = SimpleNamespace(plans=Plans(planner, "H200"))
    made = prepare(
        elide_copies(step)[0], lambda call: has_plan(device, call), lambda call: takes_parts(device, call), None,
        lambda call: takes_sums(device, call),
    )  # fmt: skip
    assert sum(bool(call.attrs.get("add")) for call in made.calls) == 27
    assert [len(call.reads()) for call in made.calls if is_sum(call)] == [2, 2]


def test_a_plan_outlives_the_process(planner: Dnn) -> None:
    problem = Problem("wgrad", "float32", (8, 16, 20, 20), (16, 16, 3, 3), (8, 16, 20, 20), *((1, 1),) * 4, tensor=True)
    plan = next(planner.plans(problem, CAP))
    restored = planner.restored(problem, planner.text_of(plan))
    assert restored is not None
    assert restored.workspace == plan.workspace
    assert planner.restored(problem, b"{}") is None
