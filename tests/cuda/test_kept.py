"""Nets that keep all their blobs (netrun.Net, NetSolver) on a GPU: blobs lie there in 16 bits and with channels last,
and are seen as plain float32; in float16 gradients are scaled there, and seen as those of the loss itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakelibs import Cudnn
from test_lenet_step import batches, lenet

from layers_cuda.device import Cuda
from netrun.config.upgrade import parse_net
from netrun.homes import Seen
from netrun.loss_scale import FIRST
from netrun.net import Net
from netrun.net_solver import NetSolver

Make = Callable[..., Cuda]
FILLER = 'weight_filler { type: "gaussian" std: 0.2 }'
NET = f"""force_backward: true
layer {{ name: "data" type: "Input" top: "data" top: "label"
  input_param {{ shape {{ dim: 2 dim: 3 dim: 8 dim: 8 }} shape {{ dim: 2 }} }} }}
layer {{ name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param {{ num_output: 8 kernel_size: 3 pad: 1 {FILLER} }} }}
layer {{ name: "relu1" type: "ReLU" bottom: "conv1" top: "relu1" }}
layer {{ name: "a" type: "Convolution" bottom: "relu1" top: "a" convolution_param {{ num_output: 4 kernel_size: 1 {FILLER} }} }}
layer {{ name: "b" type: "Convolution" bottom: "relu1" top: "b" convolution_param {{ num_output: 6 kernel_size: 1 {FILLER} }} }}
layer {{ name: "relu_b" type: "ReLU" bottom: "b" top: "b" }}
layer {{ name: "cat" type: "Concat" bottom: "a" bottom: "b" top: "cat" }}
layer {{ name: "pool" type: "Pooling" bottom: "cat" top: "pool" pooling_param {{ pool: AVE kernel_size: 2 stride: 2 }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "pool" top: "ip" inner_product_param {{ num_output: 5 {FILLER} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
"""  # noqa: E501
NEAR = {"TF32": 1e-5, "BF16": 0.04, "FP16": 0.01}
"""How far a blob may be, in lengths of it (a ReLU may decide otherwise). The stand-ins do not round to TF32."""
TYPES = {"TF32": "float32", "BF16": "bfloat16", "FP16": "float16"}
LAST = {"conv1": (2, 8, 8, 8), "a": (2, 8, 8, 4), "cat": (2, 8, 8, 10), "pool": (2, 4, 4, 10)}


def inputs() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    return {"data": rng.standard_normal((2, 3, 8, 8)).astype("float32"), "label": np.array([1, 4], "float32")}


def pair(device: Cuda, precision: str, phase: str = "TRAIN", text: str = NET) -> tuple[Net, Net]:
    """The net on the device in that precision, and on the reference."""
    ours = Net(parse_net(text)[0], phase, device=device, precision=precision, seed=1)
    return ours, Net(parse_net(text)[0], phase, device="reference", seed=1)


def same(ours: Net, exact: Net, near: float, diffs: bool = True) -> None:
    """All that people see."""
    for name in exact.blobs:
        for kind in ("data", "diff") if diffs else ("data",):
            got, wanted = (np.array(getattr(net.blobs[name], kind)) for net in (ours, exact))
            assert got.dtype == np.float32
            assert np.linalg.norm(got - wanted) <= near * np.linalg.norm(wanted) + 1e-9, f"{name}.{kind}"
    for name, blobs in exact.params.items() if diffs else ():
        for i, blob in enumerate(blobs):
            far = np.linalg.norm(ours.params[name][i].diff - blob.diff)
            assert far <= near * np.linalg.norm(blob.diff) + 1e-9, f"{name}[{i}]"


@pytest.mark.parametrize("precision", NEAR)
def test_blobs_lie_in_another_form_and_are_seen_plain(precision: str, make_device: Make) -> None:
    ours, exact = pair(make_device(), precision)
    for net in (ours, exact):
        net.forward(**inputs())
        net.backward()
        net.backward()  # gradients of parameters add up
    whole, session = ours._engine.now.whole, ours.session
    for name, lying in LAST.items():
        home = session.program.homes[whole.data[name]]
        assert (home.tensor.shape, home.tensor.dtype) == (lying, TYPES[precision])
        if name != "pool":  # a product makes its gradient, in plain order
            assert session.program.homes[whole.diff[name]].tensor.spec == home.tensor.spec
    assert not isinstance(session.array(whole.data["loss"]), Seen)
    same(ours, exact, NEAR[precision])
    assert not any(
        c.op.name == "transpose" and str(c.origin) in ("a", "b", "cat", "pool") for c in session.program.calls
    )


@pytest.mark.parametrize("precision", NEAR)
def test_what_is_written_between_layers(precision: str, make_device: Make) -> None:
    """Parts of a pass read what was written last, in every form that a layer wants it in."""
    ours, exact = pair(make_device(), precision)
    rng = np.random.default_rng(5)
    value, slope = (rng.standard_normal((2, n, 8, 8)).astype("float32") for n in (8, 10))
    for net in (ours, exact):
        net.forward(**inputs())
        held = net.blobs["relu1"].data
        held[...] = value
        net.forward(start="b")  # "a" has read the other value
        net.blobs["cat"].diff = slope
        net.backward(start="cat", end="b")
        net.blobs["relu1"].data[:, 0] = 2
        net.backward(start="b", end="a")
        net.forward(start="a", end="a")
    same(ours, exact, NEAR[precision])


TWO = f"""
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 2 dim: 3 dim: 8 dim: 8 }} }} }}
layer {{ name: "one" type: "Convolution" bottom: "data" top: "one"
  convolution_param {{ num_output: 4 kernel_size: 3 {FILLER} }} }}
layer {{ name: "two" type: "Convolution" bottom: "data" top: "two"
  convolution_param {{ num_output: 4 kernel_size: 3 {FILLER} }} }}
"""


@pytest.mark.parametrize("precision", NEAR)
def test_every_layer_converts_for_itself(precision: str, make_device: Make) -> None:
    """What two layers read in another form: the second one alone does not read what was made for the first."""
    ours, exact = pair(make_device(), precision, "TEST", TWO)
    for net in (ours, exact):
        net.forward(data=inputs()["data"])
        net.blobs["data"].data[...] = 3 * inputs()["data"] + 1
        net.forward(start="two")
    same(ours, exact, NEAR[precision], diffs=False)


def test_small_gradients_survive_in_float16(make_device: Make) -> None:
    """Below 6e-8 float16 has nothing; the scale is 1024 where nobody trains."""
    ours, exact = pair(make_device(), "FP16")
    for net in (ours, exact):
        net.forward(**inputs())
        net.blobs["loss"].diff = 1e-5
        net.backward()
    for large in (1e37, 7.0):  # more than float16, or float32 times the scale, holds
        ours.blobs["a"].diff = large
        assert np.array(ours.blobs["a"].diff).flat[0] == (np.inf if large > 7 else 7)
    ours.backward()
    exact.backward()
    wanted = exact.blobs["conv1"].diff
    assert 0 < np.median(np.abs(wanted[wanted != 0])) < 3e-7
    same(ours, exact, 0.02)


def test_backward_asked_for_late(make_device: Make) -> None:
    """A net for use is compiled forward alone; what is seen stays when backward joins it."""
    text = NET.replace("force_backward: true\n", "")
    ours, exact = pair(make_device(), "BF16", "TEST", text)
    for net in (ours, exact):
        net.forward(**inputs())
    before = {name: np.array(blob.data) for name, blob in ours.blobs.items()}
    ours.blobs["conv1"].data[0] = before["conv1"][0] = 0.5
    assert ours.blobs["cat"].diff.shape == (2, 10, 8, 8)
    for name, value in before.items():
        np.testing.assert_allclose(ours.blobs[name].data, value, 2**-8, err_msg=name)


def test_moving(make_device: Make) -> None:
    """To a device that keeps them plain, and back."""
    ours, exact = pair(make_device(), "TF32")
    for net in (ours, exact):
        net.forward(**inputs())
        net.backward()
    device = ours.device
    for other in ("reference", device):
        ours.to(other)
        same(ours, exact, 1e-5)
        ours.forward(start="a")
        ours.backward(end="a")
        exact.backward(end="a")
        same(ours, exact, 1e-5)


def test_memory_halves(make_device: Make) -> None:
    device, found = make_device(), []
    for precision in ("FP32", "BF16"):
        net = Net(parse_net(NET)[0], "TRAIN", device=device, precision=precision)
        program = net.session.program
        found.append(sum(t.spec.nbytes for t in program.keeps if t.kind in ("data", "diff")))
    assert found[1] < 0.6 * found[0]


# --------------------------------------------------------------------------------------------------------- the solver's
def netsolver(folder: Path, precision: str, device: Any, more: str = "") -> NetSolver:
    return NetSolver(lenet(folder, 2, f"precision: {precision} display: 1 {more}"), device=device)


def run(solver: NetSolver, count: int) -> list[float]:
    values = batches(2)
    for _ in range(count):
        for name, value in next(values).items():
            solver.net.blobs[name].data = value
        solver.step(1)
    return list(solver.losses)


@pytest.mark.parametrize(("precision", "near"), [("BF16", 0.03), ("FP16", 0.01)])
def test_a_solver_of_open_nets_trains(precision: str, near: float, make_device: Make, tmp_path: Path) -> None:
    with netsolver(tmp_path, precision, make_device()) as ours, netsolver(tmp_path, "FP32", "reference") as exact:
        got, wanted = [], []
        for solver, found in ((ours, got), (exact, wanted)):
            values = batches(2)
            for _ in range(4):
                for name, value in next(values).items():
                    solver.net.blobs[name].data = value
                solver.step(1)
                found.append(solver.losses[-1])
        np.testing.assert_allclose(got, wanted, near)
        for blobs, others in zip(ours.net.params.values(), exact.net.params.values(), strict=True):
            for a, b in zip(blobs, others, strict=True):  # what the update subtracted
                assert np.linalg.norm(a.diff) == pytest.approx(np.linalg.norm(b.diff), 0.05)


def test_an_overflow_changes_nothing_and_halves_the_scale(make_device: Make, tmp_path: Path) -> None:
    with netsolver(tmp_path, "FP16", make_device(), f'snapshot_prefix: "{tmp_path}/s"') as solver:
        scaling, session = solver.training.scaling, solver._update_session
        assert scaling is not None
        run(solver, 1)
        assert float(solver.net.session.read(solver.net._engine.now.whole.scale)) == FIRST
        weights = [np.array(b.data) for blobs in solver.net.params.values() for b in blobs]
        session.write(scaling.excess, np.float32(2.0**30 - FIRST))
        run(solver, 1)
        assert float(session.read(scaling.excess)) + FIRST == 2.0**29
        for blob, value in zip([b for bs in solver.net.params.values() for b in bs], weights, strict=True):
            np.testing.assert_array_equal(blob.data, value)
            assert not blob.diff.any()
        state = solver.snapshot()[1]
    with netsolver(tmp_path, "FP16", make_device()) as solver:
        solver.restore(state)
        assert solver.training.scaling is not None
        assert float(solver._update_session.read(solver.training.scaling.excess)) + FIRST == 2.0**29


def test_plans_that_are_missing_leave_blobs_plain(make_device: Make) -> None:
    """No plan with channels last: 16 bits in plain order."""
    device = make_device(cudnn=Cudnn(lambda kind, bias, relu, dtype: True))
    ours, exact = pair(device, "BF16")
    for net in (ours, exact):
        net.forward(**inputs())
        net.backward()
    assert all(not home.axes for home in ours.session.program.homes.values())
    same(ours, exact, NEAR["BF16"])
