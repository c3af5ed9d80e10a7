"""A killed run that goes on ends where the straight run ends, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from netrun.config import schema
from netrun.config.upgrade import parse_net, parse_solver
from netrun.config.weights import read_state, read_weights
from netrun.errors import WeightsError
from netrun.net_solver import NetSolver
from netrun.solver import Solver

DIGITS = Path(__file__).parents[1] / "configs" / "digits"

NET = """
layer {{ name: "digits" type: "Data" top: "data" top: "label"
  transform_param {{ scale: 0.0625 mirror: true crop_size: 7 }}
  data_param {{ source: "{source}" batch_size: 16 backend: LMDB shuffle: true }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param {{ num_output: 8 kernel_size: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }}
layer {{ name: "relu" type: "ReLU" bottom: "conv" top: "conv" }}
layer {{ name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param {{ kernel_size: 2 stride: 2 }} }}
layer {{ name: "drop" type: "Dropout" bottom: "pool" top: "pool" dropout_param {{ dropout_ratio: 0.3 }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "pool" top: "ip"
  inner_product_param {{ num_output: 10 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
"""

SOLVER = """
net: "net.prototxt" base_lr: 0.02 momentum: 0.9 weight_decay: 0.001 lr_policy: "multistep" gamma: 0.5
stepvalue: 60 stepvalue: 130 max_iter: {stop} snapshot: {every} snapshot_prefix: "{prefix}" display: 1 average_loss: 7
iter_size: 2 clip_gradients: 3 test_iter: 2 test_interval: 25
"""


def write(folder: Path, prefix: str, stop: int, every: int) -> Path:
    (folder / "net.prototxt").write_text(NET.format(source=DIGITS / "digits_train_lmdb"))
    file = folder / f"{prefix}.prototxt"
    file.write_text(SOLVER.format(prefix=prefix, stop=stop, every=every))
    return file


def train(folder: Path, file: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "netrun", "train", "--solver", file.name, "--device", "cpu", *more]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def log_from(text: str, iteration: int) -> list[str]:
    """The lines of losses, rates and scores from an iteration on, without times."""
    lines = [line.split("] ", 1)[1] for line in text.splitlines() if "] " in line]
    start = next(i for i, t in enumerate(lines) if t.startswith(f"Iteration {iteration} ("))
    kept = [t.split(" (")[0] + t.rsplit(",", 1)[1] if "iter/s" in t else t for t in lines[start:]]
    return [t for t in kept if t.startswith(("Iteration", "    Test", "    Train"))]


def test_kill_and_resume_is_bit_identical(tmp_path: Path) -> None:
    straight = train(tmp_path, write(tmp_path, "straight", 200, 0), "--set", "random_seed=11")
    assert straight.returncode == 0, straight.stderr
    file = write(tmp_path, "killed", 200, 100)
    command = [
        sys.executable,
        "-m",
        "netrun",
        "train",
        "--solver",
        file.name,
        "--device",
        "cpu",
        "--set",
        "random_seed=11",
    ]
    child = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    for line in child.stderr:
        if "Iteration 117 " in line:  # well past the snapshot of iteration 100
            os.kill(child.pid, signal.SIGKILL)
            break
    child.stderr.close()
    assert child.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed_iter_200.caffemodel").exists()
    # Without the seed: the snapshot knows it.
    resumed = train(tmp_path, file, "--snapshot", "killed_iter_100.solverstate")
    assert resumed.returncode == 0, resumed.stderr
    assert log_from(resumed.stderr, 101) == log_from(straight.stderr, 101)
    for a, b in zip(
        *(read_weights(tmp_path / f"{n}_iter_200.caffemodel") for n in ("straight", "killed")), strict=True
    ):
        assert a.name == b.name
        for x, y in zip(a.blobs, b.blobs, strict=True):
            np.testing.assert_array_equal(x, y, f"{a.name} differs after the resume")
    one, two = (read_state(tmp_path / f"{n}_iter_200.solverstate") for n in ("straight", "killed"))
    for x, y in zip(one.history, two.history, strict=True):
        np.testing.assert_array_equal(x, y)
    assert one.cursor == two.cursor


@pytest.mark.parametrize("delay", [0.0, 0.004, 0.011, 0.02])
def test_a_kill_at_any_moment_leaves_whole_snapshots(tmp_path: Path, delay: float) -> None:
    file = write(tmp_path, "often", 5000, 1)
    command = [sys.executable, "-m", "netrun", "train", "--solver", file.name, "--device", "cpu"]
    child = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    for line in child.stderr:
        if "Snapshotting to" in line and "_iter_3." in line:
            time.sleep(delay)
            child.kill()
            break
    child.stderr.close()
    child.wait()
    states = sorted(tmp_path.glob("often_iter_*.solverstate"))
    assert states
    for state in states:
        assert read_state(state).iter > 0
        assert len(read_weights(state.with_suffix(".caffemodel"))) == 8


CARRYING = """
layer {{ name: "x" type: "HDF5Data" top: "x" top: "cont" top: "y"
  hdf5_data_param {{ source: "list.txt" batch_size: 5 }} }}
layer {{ name: "{name}" type: "{kind}" bottom: "x" bottom: "cont" top: "h"
  {body} }}
layer {{ name: "loss" type: "EuclideanLoss" bottom: "h" bottom: "y" top: "loss" }}
"""
BUILT_IN = 'recurrent_param { num_output: 3 weight_filler { type: "uniform" min: -0.5 max: 0.5 } }'


def sequences(folder: Path, streams: int = 2) -> None:
    """40 steps of ``streams`` streams that are one sequence each: no batch but the first starts anew."""
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(3)
    cont = np.ones((40, streams), np.float32)
    cont[0] = 0
    with h5py.File(folder / "data.h5", "w") as file:
        file["x"], file["cont"] = rng.standard_normal((40, streams, 4)).astype(np.float32), cont
        file["y"] = rng.standard_normal((40, streams, 3)).astype(np.float32)
    (folder / "list.txt").write_text("data.h5\n")


def carrying_solver(net: str, form: str, **more: object) -> schema.SolverParameter:
    solver = schema.SolverParameter()
    text = f'base_lr: 0.1 momentum: 0.9 lr_policy: "fixed" random_seed: 4 snapshot_prefix: "s" snapshot_format: {form} '
    text_format.Parse(text + "test_iter: 1 test_interval: 3 " + " ".join(f"{k}: {v}" for k, v in more.items()), solver)
    solver.net_param.CopyFrom(parse_net(net)[0])
    return solver


def carried_state_is_resumed(net: str, form: str) -> None:
    """Train 7 iterations at once and in two parts: weights, losses and states end the same, bit for bit."""
    with Solver(carrying_solver(net, form)) as straight, Solver(carrying_solver(net, form)) as first:
        straight.step(7)
        first.step(4)
        state = first.snapshot()[1]
    with Solver(carrying_solver(net, form)) as second:
        second.restore(state)
        second.step(3)
        carried = dict(straight.runners[0].carried())
        assert carried, "the net carries nothing"
        for ours, theirs in zip(second.runners, straight.runners, strict=True):
            for key, values in theirs.carried().items():
                assert np.any(values)
                np.testing.assert_array_equal(ours.carried()[key], values)
        for tensor in straight.training.recording.parameters.values():
            np.testing.assert_array_equal(second.memory.read(tensor), straight.memory.read(tensor))
        assert second.losses == straight.losses


RANDOM = """net_param {
  layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param {
    shape { dim: 4 dim: 3 } shape { dim: 4 dim: 3 } data_filler { type: "gaussian" } } }
  layer { name: "ip" type: "InnerProduct" bottom: "x" top: "p"
    inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
  layer { name: "drop" type: "Dropout" bottom: "p" top: "p" phase: TRAIN }
  layer { name: "loss" type: "EuclideanLoss" bottom: "p" bottom: "y" top: "loss" } }
base_lr: 0.1 lr_policy: "fixed" random_seed: 3 snapshot_prefix: "s" test_iter: 2 test_interval: 2 iter_size: 2
average_loss: 5"""


@pytest.mark.parametrize("kind", [Solver, NetSolver])
def test_what_is_random_goes_on(kind: type[Solver], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data and masks, in training and in tests: a layer may be random there too."""
    monkeypatch.chdir(tmp_path)
    lines: list[str] = []
    with kind(parse_solver(RANDOM)[0], log=lambda line, *_: lines.append(line)) as first:
        first.step(3)
        state, losses = first.snapshot()[1], list(first.losses)
        lines.clear()
        first.step(4)
        wanted = [line for line in lines if "Test net output" in line]
        assert len(set(wanted)) == 2
        with kind(parse_solver(RANDOM)[0], log=lambda line, *_: lines.append(line)) as second:
            second.restore(state)
            assert second.losses == losses
            lines.clear()
            second.step(4)
            assert [line for line in lines if "Test net output" in line] == wanted
            for tensor in first.training.recording.parameters.values():
                np.testing.assert_array_equal(second.memory.read(tensor), first.memory.read(tensor))


LOOP = """recurrent_net_param {
    output: "new" cont: "cont" state { name: "s" next: "new" dim: 3 carry: true }
    body {
      layer { name: "x" type: "InnerProduct" bottom: "x" top: "a"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
      layer { name: "s" type: "InnerProduct" bottom: "s" top: "b"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
      layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "sum" }
      layer { name: "drop" type: "Dropout" bottom: "sum" top: "sum" dropout_param { dropout_ratio: 0.2 } }
      layer { name: "new" type: "TanH" bottom: "sum" top: "new" } } }"""


@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
@pytest.mark.parametrize("kind", ["LSTM", "RNN", "Recurrent"])
def test_what_a_recurrent_layer_carries_is_resumed(
    kind: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequences(tmp_path)
    monkeypatch.chdir(tmp_path)
    carried_state_is_resumed(CARRYING.format(name="r", kind=kind, body=LOOP if kind == "Recurrent" else BUILT_IN), form)


def test_carried_states_of_another_batch_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sequences(tmp_path)
    monkeypatch.chdir(tmp_path)
    net = CARRYING.format(name="r", kind="LSTM", body=BUILT_IN)
    with Solver(carrying_solver(net, "BINARYPROTO")) as solver:
        solver.step(1)
        state = solver.snapshot()[1]
    sequences(tmp_path, streams=3)
    refused = pytest.raises(WeightsError, match=r"the state r\.hidden of the train net has the shape 1 2 3 .* 1 3 3")
    with Solver(carrying_solver(net, "BINARYPROTO")) as solver, refused:
        solver.restore(state)


def test_a_state_of_caffe_without_carried_values_starts_them_at_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequences(tmp_path)
    monkeypatch.chdir(tmp_path)
    net = CARRYING.format(name="r", kind="LSTM", body=BUILT_IN)
    with Solver(carrying_solver(net, "BINARYPROTO")) as solver:
        solver.step(2)
        name = solver.snapshot()[1]
        message = schema.SolverState.FromString(Path(name).read_bytes())
        assert {(c.net, c.name) for c in message.carried} == {
            (net, f"r.{part}") for net in ("train", "test0") for part in ("hidden", "cell")
        }
        del message.carried[:]
        Path(name).write_bytes(message.SerializeToString())
        solver.restore(name)
        assert not any(np.any(values) for values in solver.runners[0].carried().values())


def test_a_net_with_other_layers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A renamed layer would begin anew, with the momentum of the old one."""
    monkeypatch.chdir(tmp_path)
    with Solver(parse_solver(RANDOM)[0]) as solver:
        solver.step(1)
        state = solver.snapshot()[1]
    with Solver(parse_solver(RANDOM.replace('"ip"', '"fc"'))[0]) as other, pytest.raises(WeightsError) as caught:
        other.restore(state)
    hints = [
        "    ip of the file has the shapes of fc: --rename ip=fc would load it",
        "    --weights in place of --snapshot starts a new run from these weights",
    ]
    file = "s_iter_1.caffemodel: a run is resumed with the layers it had"
    assert str(caught.value).splitlines() == [
        f"{file}, but not in the net: ip", *hints, f"{file}, but not in the file: fc", *hints
    ]  # fmt: skip


def test_the_weights_beside_a_state_are_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resumed from another folder, where another run has left weights of the same name."""
    found = {}
    for name, seed in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        with Solver(parse_solver(RANDOM.replace("random_seed: 3", f"random_seed: {seed}"))[0]) as solver:
            solver.step(1)
            solver.snapshot()
            found[name] = [solver.memory.read(t) for t in solver.training.recording.parameters.values()]
    assert (found["one"][0] != found["two"][0]).any()
    with Solver(parse_solver(RANDOM)[0]) as solver:
        solver.restore("../one/s_iter_1.solverstate")
        for tensor, wanted in zip(solver.training.recording.parameters.values(), found["one"], strict=True):
            np.testing.assert_array_equal(solver.memory.read(tensor), wanted)
