"""What an iteration on the device is made of: graphs by shape, values that change in device memory, no allocation, no
waiting; and the modes that give that up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakecupy
import fakestream
import numpy as np
import pytest
from cases.layers import LAYERS
from fakelibs import Cudnn
from test_lenet_step import batches, lenet

from layers_cuda.capture import Bound, Segment
from layers_cuda.device import Cuda
from netrun.compiler.passes import filled_calls
from netrun.config import schema
from netrun.config.text import parse
from netrun.config.upgrade import parse_net
from netrun.errors import DeviceError
from netrun.kernels import OPS
from netrun.layers import Layer
from netrun.net import Net
from netrun.net_solver import NetSolver
from netrun.program import Call, Origin, Program
from netrun.solver import Solver

Make = Callable[..., Cuda]

NET = """
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: 4 dim: 6 } shape { dim: 4 }
  data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 1 } } }
MORE
layer { name: "ip" type: "InnerProduct" bottom: "BOTTOM" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "drop" type: "Dropout" bottom: "ip" top: "drop" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "drop" bottom: "label" top: "loss" }
"""
PYTHON = """layer { name: "py" type: "Python" bottom: "data" top: "py"
  python_param { module: "cases.python_layers" layer: "Affine" param_str: "2" } }"""


def message(more: str = "", layer: str = "") -> schema.SolverParameter:
    more += "" if "lr_policy" in more else ' lr_policy: "fixed"'
    net = NET.replace("MORE", layer).replace("BOTTOM", "py" if layer else "data")
    return parse(f"net_param {{ {net} }} base_lr: 0.5 random_seed: 1 max_iter: 99 {more}", schema.SolverParameter, "s")[
        0
    ]


def trained(device: Any, more: str, count: int = 6, kind: type[Solver] = Solver) -> list[Any]:
    """The loss of every iteration, and the parameters in the end."""
    with kind(message(more), device=device) as solver:
        losses = []
        for _ in range(count):
            solver.step(1)
            losses.append(solver.losses[-1])
        return [np.array(losses), *map(solver.memory.read, solver.training.recording.parameters.values())]


@pytest.mark.parametrize("kind", [Solver, NetSolver])
@pytest.mark.parametrize(
    "more",
    [
        'lr_policy: "step" stepsize: 1 gamma: 0.3 momentum: 0.9',
        'lr_policy: "fixed" clip_gradients: 0.05',
        'type: "Adam" momentum: 0.9 momentum2: 0.99 lr_policy: "fixed"',
    ],
    ids=["rate", "clipping", "correction"],
)
def test_what_changes_reaches_a_replayed_graph(more: str, kind: type[Solver], make_device: Make) -> None:
    """The learning rate falls to a third each time, the norm is another each time, and so is the mask."""
    got, wanted = trained(make_device(), more, kind=kind), trained("cpu", more, kind=kind)
    assert fakestream.log.count("graph") >= 4
    for ours, exact in zip(got, wanted, strict=True):
        np.testing.assert_allclose(ours, exact, 2e-5, 1e-6)
    assert len(set(wanted[0])) == 6


@pytest.mark.parametrize("precision", ["FP32", "BF16"])
def test_nothing_is_allocated_and_nothing_waited_for(
    precision: str, make_device: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clipping among it: the norm is looked at by the device alone."""
    device = make_device()
    file = lenet(tmp_path, 2, f"precision: {precision}")
    file.write_text(file.read_text().replace("clip_gradients: 20", "clip_gradients: 0.01"))
    with Solver(file, device=device) as solver:
        solver.runners[0].session.feed(next(batches(2)))
        solver.step(3)
        happened: list[str] = []
        monkeypatch.setattr(device, "allocate", lambda nbytes: happened.append(f"{nbytes} bytes"))
        monkeypatch.setattr(fakecupy, "empty", lambda *_: happened.append("an array"))
        monkeypatch.setattr(fakecupy.Stream, "synchronize", lambda self: happened.append("waited"))
        solver.step(4)
        assert not happened


def test_one_graph_for_each_shape(device: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made at the second pass of a shape; who comes back to a shape finds its graph."""
    made: list[int] = []
    capture = Segment._capture
    monkeypatch.setattr(Segment, "_capture", lambda self: made.append(1) or capture(self))  # type: ignore[func-returns-value]
    text = (
        NET.replace("MORE", "").replace("BOTTOM", "data").replace("DummyData", "Input").replace("dummy_data", "input")
    )
    text = "\n".join(line for line in text.splitlines() if "data_filler" not in line).replace(
        "dim: 4 }", "dim: 4 } } }", 1
    )
    text = text.replace("shape { dim: 4 } } }", "shape { dim: 4 } } }")
    nets = [Net(parse_net(text)[0], "TEST", device=d, seed=1) for d in (device, "cpu")]
    graphs = []
    for batch in (4, 4, 4, 2, 2, 4, 2, 2):
        values = {"data": np.full((batch, 6), batch, "float32"), "label": np.ones(batch, "float32")}
        for net in nets:
            net.reshape(**{name: value.shape for name, value in values.items()})
        ours, exact = (net.forward(**values)["loss"] for net in nets)
        np.testing.assert_allclose(ours, exact, 1e-5)
        graphs.append(len(made))
    assert graphs == [0, 1, 1, 1, 2, 2, 2, 2]


# ---------------------------------------------------------------------------------------------------------------- modes
def test_debugging_waits_after_every_call(make_device: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """So an error that shows only in waiting is that of the call before it."""
    monkeypatch.setenv("NETRUN_CUDA_DEBUG", "1")
    device = make_device()
    with Solver(message(), device=device) as solver:
        program = solver.sessions[0].program
        calls = len(program.calls) - len(filled_calls(program))
        solver.step(1)
        waits: list[int] = []
        real = fakecupy.Stream.synchronize

        def counted(stream: fakecupy.Stream) -> None:
            waits.append(len(fakestream.log))
            real(stream)

        monkeypatch.setattr(fakecupy.Stream, "synchronize", counted)
        fakestream.log.clear()
        solver.step(1)
        assert len(waits) >= calls
        assert "graph" not in fakestream.log

        def late(self: Any) -> None:
            if len(fakestream.log) > 3:
                raise fakecupy.CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")

        fakestream.log.clear()
        monkeypatch.setattr(fakecupy.Stream, "synchronize", late)
        with pytest.raises(DeviceError, match=r"device cuda:0: call \d+, \w+'?: .*<-.*\n.*illegal memory access"):
            solver.step(1)


@pytest.mark.parametrize("kind", [Solver, NetSolver])
def test_layers_that_cannot_be_deterministic_are_named(kind: type[Solver], make_device: Make) -> None:
    """Code that is not ours; everything else is, on a GPU too."""
    for layer, said in (
        (PYTHON, "deterministic: the same bits in every run, but for what these do in Python: py"),
        ("", "deterministic: every layer gives the same bits in every run"),
    ):
        lines: list[str] = []
        log = lambda text, *_, lines=lines: lines.append(text)  # noqa: E731
        with kind(message("deterministic: true", layer), device=make_device(), log=log):
            assert said in lines


def test_deterministic_runs_no_other_plan(make_device: Make, tmp_path: Path) -> None:
    """The stand-in offers an engine that is not: it is the first choice where nothing forbids it."""
    engines: dict[bool, set[Any]] = {}
    for wanted in (False, True):
        library = Cudnn()
        more = f"deterministic: {str(wanted).lower()}"
        with Solver(lenet(tmp_path, 2, more), device=make_device(cudnn=library)) as solver:
            convs = [c for c in solver.sessions[0].program.calls if c.op.name.startswith("conv")]
            assert all(bool(c.attrs.get("deterministic")) == wanted for c in convs)
            plans = solver.device.plans  # type: ignore[attr-defined]
            engines[wanted] = {plan.engine for plan in plans._found.values() if plan is not None}
    assert engines == {False: {2}, True: {3}}


# ------------------------------------------------------------------------------------------------------------- coverage
def test_every_layer_type_that_computes_has_a_row_that_runs_here() -> None:
    """tests/cuda/test_layers.py runs the first row of every type in the table on the stand-in."""
    computing = {
        kind for kind, layer in Layer.registry.items() if not layer.fed and layer.__module__.startswith("netrun.")
    }
    assert computing <= {case.type for case in LAYERS}


def test_a_second_gpu_is_in_nobodys_way(device: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever makes something on a GPU or launches says first on which, also behind a step that went elsewhere."""
    seen: list[str] = []
    monkeypatch.setattr(device._here, "use", lambda: seen.append("use"))
    nothing = Program(())
    for call in (lambda: device.prepare(nothing), lambda: device.capture([]), lambda: device.allocate(4)):
        seen.clear()
        call()
        assert seen
    seen.clear()
    elsewhere = Bound(Call(OPS["host"], ((), ()), {}, Origin("py")), ((), ()), lambda: seen.append("elsewhere"))
    run = device.capture([lambda: seen.append("ours"), elsewhere, lambda: seen.append("ours")])
    seen.clear()
    run()
    assert seen == ["use", "ours", "use", "elsewhere", "use", "ours"]
