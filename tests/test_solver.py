"""The loop of a solver as Caffe has it: random solvers against a plain loop in float64, the nets it tests, its log."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netrun.config.upgrade import parse_solver
from netrun.config.weights import read_state
from netrun.errors import ConfigError
from netrun.net_solver import NetSolver
from netrun.solver import Solver

Array = Any

# ------------------------------------------------------------------------------------------ every option, at random
NET = """
net_param {
  layer { name: "in" type: "Input" top: "x" top: "t"
    input_param { shape { dim: 6 dim: 3 } shape { dim: 6 dim: 2 } } }
  layer { name: "ip" type: "InnerProduct" bottom: "x" top: "h" inner_product_param { num_output: 4 }
    param { decay_mult: 0.5 } param { lr_mult: 2 decay_mult: 0 } }
  layer { name: "frozen" type: "InnerProduct" bottom: "h" top: "y"
    inner_product_param { num_output: 2 bias_term: false } param { lr_mult: 0 } }
  layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }
}
max_iter: 9 snapshot_after_train: false random_seed: 1
"""
LR_MULTS, DECAY_MULTS = (1.0, 2.0, 0.0), (0.5, 0.0, 1.0)
STEPS = 9


def drawn(seed: int) -> dict[str, Any]:
    """A solver made of one choice for every option."""
    rng = np.random.default_rng(seed)
    kind = str(rng.choice(["SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"]))
    found: dict[str, Any] = {"type": kind, "base_lr": float(rng.choice([0.01, 0.1])), "delta": 1e-3}
    if kind not in ("AdaGrad", "RMSProp"):
        found["momentum"] = float(rng.choice([0.0, 0.5, 0.9]))
    if kind == "RMSProp":
        found["rms_decay"] = float(rng.choice([0.5, 0.95]))
    if kind == "Adam":
        found["momentum2"] = float(rng.choice([0.9, 0.999]))
    found["weight_decay"] = float(rng.choice([0.0, 0.1]))
    found["regularization_type"] = str(rng.choice(["L1", "L2"]))
    found["clip_gradients"] = float(rng.choice([-1.0, 0.3, 1e3]))
    found["iter_size"] = int(rng.choice([1, 3]))
    policies = {
        "fixed": {}, "step": {"gamma": 0.5, "stepsize": 3}, "exp": {"gamma": 0.9},
        "inv": {"gamma": 0.1, "power": 0.75}, "multistep": {"gamma": 0.5, "stepvalue": [2, 2, 7]},
        "poly": {"power": 2.0}, "sigmoid": {"gamma": -0.5, "stepsize": 4},
    }  # fmt: skip
    found["lr_policy"] = str(rng.choice(sorted(policies)))
    return {**found, **policies[found["lr_policy"]]}


def text_of(options: dict[str, Any]) -> str:
    lines = []
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            lines.append(f'{name}: "{one}"' if isinstance(one, str) else f"{name}: {one}")
    return NET + "\n".join(lines)


def rate(o: dict[str, Any], i: int) -> float:
    taken = 0
    for past in range(i + 1):  # multistep: one step an iteration at most
        if o["lr_policy"] == "multistep" and taken < len(o["stepvalue"]) and past >= o["stepvalue"][taken]:
            taken += 1
    return float(
        o["base_lr"]
        * {
            "fixed": lambda: 1.0,
            "step": lambda: o["gamma"] ** (i // o["stepsize"]),
            "exp": lambda: o["gamma"] ** i,
            "inv": lambda: (1 + o["gamma"] * i) ** -o["power"],
            "multistep": lambda: o["gamma"] ** taken,
            "poly": lambda: (1 - i / STEPS) ** o["power"],
            "sigmoid": lambda: 1 / (1 + math.exp(-o["gamma"] * (i - o["stepsize"]))),
        }[o["lr_policy"]]()
    )


def moved(o: dict[str, Any], w: Array, g: Array, s: dict[str, Array], lr: float, t: int) -> Array:
    """What one update subtracts, from Caffe's formulas."""
    beta, delta, kind = o.get("momentum", 0.0), o["delta"], o["type"]
    h = s.get("h", np.zeros_like(w))
    if kind in ("SGD", "Nesterov"):
        s["h"] = beta * h + lr * g
        return s["h"] if kind == "SGD" else (1 + beta) * s["h"] - beta * h
    if kind == "AdaGrad":
        s["h"] = h + g**2
        return lr * g / (np.sqrt(s["h"]) + delta)
    if kind == "RMSProp":
        s["h"] = o["rms_decay"] * h + (1 - o["rms_decay"]) * g**2
        return lr * g / (np.sqrt(s["h"]) + delta)
    u = s.get("u", np.zeros_like(w))
    if kind == "AdaDelta":
        s["h"] = beta * h + (1 - beta) * g**2
        step = g * np.sqrt((u + delta) / (s["h"] + delta))
        s["u"] = beta * u + (1 - beta) * step**2
        return lr * step
    beta2 = o["momentum2"]
    s["h"], s["u"] = beta * h + (1 - beta) * g, beta2 * u + (1 - beta2) * g**2
    return lr * math.sqrt(1 - beta2**t) / (1 - beta**t) * s["h"] / (np.sqrt(s["u"]) + delta)


@pytest.mark.parametrize("seed", range(40))
def test_random_solvers_against_a_plain_loop(seed: int, tmp_path: Path) -> None:
    o = drawn(seed)
    rng = np.random.default_rng(100 + seed)
    x, t = rng.standard_normal((6, 3)), rng.standard_normal((6, 2))
    values = [rng.standard_normal(shape) for shape in ((4, 3), (4,), (2, 4))]
    carried: list[dict[str, Array]] = [{}, {}, {}]
    with Solver(parse_solver(text_of(o))[0]) as solver:
        recording = solver.training.recording
        for value, array in zip(recording.graph.inputs, (x, t), strict=True):
            solver.runners[0].session.write(recording.tensors[value], array)
        tensors = list(recording.parameters.values())
        for tensor, array in zip(tensors, values, strict=True):
            solver.memory.write(tensor, array)
        for i in range(STEPS):
            solver.step(1)
            w, b, v = values
            dy = ((x @ w.T + b) @ v.T - t) / len(x) * o["iter_size"]
            gradients = [v.T @ dy.T @ x, (dy @ v).sum(axis=0), np.zeros_like(v)]
            norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
            if 0 <= o["clip_gradients"] < norm:
                gradients = [g * o["clip_gradients"] / norm for g in gradients]
            for k, g in enumerate(gradients):
                decay = o["weight_decay"] * DECAY_MULTS[k]
                g = g / o["iter_size"] + decay * (values[k] if o["regularization_type"] == "L2" else np.sign(values[k]))
                values[k] = values[k] - moved(o, values[k], g, carried[k], rate(o, i) * LR_MULTS[k], i + 1)
            for k, tensor in enumerate(tensors):
                scale = float(np.abs(values[k]).max())
                np.testing.assert_allclose(
                    solver.memory.read(tensor), values[k], 2e-5, 2e-6 + 2e-5 * scale, err_msg=f"{k} after {i}: {o}"
                )
        solver.prefix = str(tmp_path / "s")
        groups = [s["h"] for s in carried] + ([s["u"] for s in carried] if "u" in carried[0] else [])
        for ours, wanted in zip(read_state(solver.snapshot()[1]).history, groups, strict=True):
            np.testing.assert_allclose(ours, wanted, 1e-4, 1e-6 + 1e-4 * np.abs(wanted).max())


def test_statistics_are_decayed_in_the_history_alone() -> None:
    """Caffe counts the blobs of a BatchNorm among the learnable ones, at rate 0: decay reaches Adam's means."""
    text = """net_param {
      layer { name: "in" type: "Input" top: "x" top: "t" input_param { shape { dim: 4 dim: 2 } } }
      layer { name: "bn" type: "BatchNorm" bottom: "x" top: "y" %s }
      layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" } }
    type: "Adam" momentum: 0.5 base_lr: 0.1 lr_policy: "fixed" weight_decay: 0.1 max_iter: 1"""
    x = np.array([[1, 2], [3, 4], [5, 6], [7, 8]], np.float32)
    for param, decay in (("", 0.1), ("param { lr_mult: 0 } param { lr_mult: 0 } param { lr_mult: 0 }", 0.0)):
        with Solver(parse_solver(text % param)[0]) as solver:
            recording = solver.training.recording
            solver.runners[0].session.write(recording.tensors[recording.graph.inputs[0]], x)
            solver.step(1)
            blobs = [solver.memory.read(tensor) for tensor in recording.parameters.values()]
            np.testing.assert_allclose(blobs[0], [4, 5])
            columns = list(solver.training.history.values())
            for blob, (mean, _) in zip(blobs, columns, strict=True):
                got = solver.memory.read(mean) if mean.name in solver.memory else 0 * blob
                np.testing.assert_allclose(got, 0.5 * decay * blob, 1e-5)


# ------------------------------------------------------------------------------------------------- the nets it tests
def net(name: str, more: str = "") -> str:
    return f"""name: "{name}"
      layer {{ name: "d" type: "DummyData" top: "x" dummy_data_param {{ shape {{ dim: 2 dim: 3 }} }} }}
      layer {{ name: "ip" type: "InnerProduct" bottom: "x" top: "{name}" inner_product_param {{ num_output: 1
        bias_filler {{ type: "constant" value: 2 }} }} {more} }}"""


REST = 'base_lr: 0 lr_policy: "fixed" max_iter: 1 snapshot_after_train: false'


def test_nets_are_tested_in_caffes_order_and_states(tmp_path: Path) -> None:
    (tmp_path / "file.prototxt").write_text(net("file"))
    extra = 'layer { name: "%s" type: "Split" bottom: "train" top: "%s" include { %s } }'
    both = net("train") + extra % ("a", "at_level_2", "min_level: 2") + extra % ("b", "at_stage", 'stage: "s"')
    text = f"""net_param {{ {both} }} test_net: "file.prototxt" test_net_param {{ {net("inside")} }}
      test_iter: 1 test_iter: 2 test_iter: 3 test_iter: 1 test_interval: 1 {REST}
      test_state {{}} test_state {{}} test_state {{ level: 2 }} test_state {{ stage: "s" }}"""
    lines: list[str] = []
    with Solver(parse_solver(text)[0], folder=str(tmp_path), log=lambda t, *_: lines.append(t)) as solver:
        found = solver.test_all()
        assert [[o.name for o in outputs] for outputs in found] == [["inside"], ["file"], ["at_level_2"], ["at_stage"]]
    for wanted in ("(#0) specified by test_net_param (#0)", "(#1) specified by test_net file: file.prototxt",
                   "(#2) specified by net_param", "(#3) specified by net_param"):  # fmt: skip
        assert sum(f"Creating test net {wanted}" in line for line in lines) == 1


def test_a_test_net_has_the_weights_of_its_layers_however_they_are_shared() -> None:
    """The owner of a shared blob may be missing in the test net; the layer is what counts, as in Caffe."""
    twin = """layer { name: "ip2" type: "InnerProduct" bottom: "x" top: "twin" inner_product_param { num_output: 1 }
      param { name: "w" } param { name: "b" } }"""
    shared = 'param { name: "w" } param { name: "b" }'
    text = f"""train_net_param {{ {net("train", shared)} {twin} }}
      test_net_param {{ {net("train").partition('layer { name: "ip"')[0]} {twin} }}
      test_iter: 1 test_interval: 1 {REST}"""
    for kind in (Solver, NetSolver):
        with kind(parse_solver(text)[0]) as solver:
            assert solver.test()[0].values.reshape(-1).tolist() == [2, 2]
            for tensor in solver.training.recording.parameters.values():
                solver.memory.write(tensor, np.full(tensor.shape, 3))
            assert solver.test()[0].values.reshape(-1).tolist() == [3, 3], kind


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ("num_output: 2", "ip.weight has the shape 2x3, in the training net it has 1x3"),
        ("num_output: 1 bias_term: false", "layer ip has 1 parameter blobs, in the training net it has 2"),
    ],
)
def test_a_test_net_that_does_not_fit_is_refused(other: str, what: str) -> None:
    test = net("test").replace("num_output: 1", other)
    nets = f"train_net_param {{ {net('train')} }} test_net_param {{ {test} }} test_iter: 1 test_interval: 1"
    with pytest.raises(ConfigError, match=what):
        Solver(parse_solver(f"{nets} {REST}")[0])


# ------------------------------------------------------------------------------------------------------------ display
def test_each_call_of_step_averages_anew_and_a_resumed_one_goes_on(tmp_path: Path) -> None:
    text = NET + 'base_lr: 0.1 lr_policy: "fixed" average_loss: 4'
    with Solver(parse_solver(text)[0]) as solver:
        solver.prefix = str(tmp_path / "s")
        solver.step(3)
        assert len(solver.losses) == 3
        state = solver.snapshot()[1]
        solver.step(1)
        assert len(solver.losses) == 1
        solver.restore(state)
        solver.step(2)
        assert len(solver.losses) == 4


def test_debug_info_is_logged_where_the_loss_is(tmp_path: Path) -> None:
    lines: list[str] = []
    text = NET + 'base_lr: 0.1 lr_policy: "multistep" gamma: 0.1 stepvalue: 2 display: 2 debug_info: true'
    with Solver(parse_solver(text)[0], log=lambda t, *_: lines.append(t)) as solver:
        solver.step(4)
    shown = [line for line in lines if "Layer loss, top blob loss data" in line or line.startswith(("Iter", "Multi"))]
    kinds = ["Forward" if "[Forward]" in line else line.partition(" (")[0].partition(",")[0] for line in shown]
    assert kinds == ["Forward", "Iteration 0", "Iteration 0", "MultiStep Status: Iteration 2", "Forward",
                     "Iteration 2", "Iteration 2"]  # fmt: skip


@pytest.mark.parametrize("kind", [Solver, NetSolver])
def test_layers_of_one_name_share_nothing(kind: type[Solver], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data, masks and states are each layer's own, in a run and in its snapshot; Caffe accepts such nets too."""
    h5py = pytest.importorskip("h5py", reason="the extra hdf5 is not installed")
    monkeypatch.chdir(tmp_path)
    text = """layer { name: "one" type: "DummyData" top: "one" dummy_data_param { shape { dim: 1 dim: 2 dim: 64 }
        data_filler { value: 1 } } }
      layer { name: "c" type: "DummyData" top: "c" dummy_data_param { shape { dim: 1 dim: 2 }
        data_filler { value: 1 } } }"""
    for i, name in enumerate("ab"):
        with h5py.File(f"{name}.h5", "w") as file:
            file[name] = np.arange(7, dtype="float32").reshape(7, 1) + 100 * i
        (tmp_path / f"{name}.txt").write_text(f"{name}.h5\n")
        text += f"""layer {{ name: "d" type: "HDF5Data" top: "{name}" hdf5_data_param {{ source: "{name}.txt"
            batch_size: {2 + i} }} }}
          layer {{ name: "drop" type: "Dropout" bottom: "one" top: "drop{i}" }}
          layer {{ name: "l" type: "LSTM" bottom: "one" bottom: "c" top: "l{i}" recurrent_param {{ num_output: 3
            weight_filler {{ type: "uniform" min: -0.5 max: 0.5 }} }} }}
          layer {{ name: "m" type: "Reduction" bottom: "l{i}" top: "m{i}" loss_weight: 1 }}"""
    solver = f'net_param {{ {text} }} base_lr: 0.01 lr_policy: "fixed" random_seed: 3 snapshot_prefix: "s"'

    def seen(runner: Any) -> dict[str, list[float]]:
        return {output.name: output.values.reshape(-1).tolist() for output in runner.outputs()}

    with kind(parse_solver(solver)[0]) as first:
        first.step(2)
        found = seen(first.runners[0])
        assert (found["a"], found["b"]) == ([2, 3], [103, 104, 105])
        assert found["drop0"] != found["drop1"]
        state = first.snapshot()[1]
        first.step(1)
        wanted = seen(first.runners[0])
        assert (wanted["a"], wanted["b"]) == ([4, 5], [106, 100, 101])
        with kind(parse_solver(solver)[0]) as second:
            second.restore(state)
            second.step(1)
            assert seen(second.runners[0]) == wanted


@pytest.mark.parametrize("kind", [Solver, NetSolver])
def test_a_step_of_multistep_is_logged(kind: type[Solver]) -> None:
    lines: list[str] = []
    text = NET + 'base_lr: 0.1 lr_policy: "multistep" gamma: 0.1 stepvalue: 2'
    with kind(parse_solver(text)[0], log=lambda line, *_: lines.append(line)) as solver:
        solver.step(4)
    assert [line for line in lines if "Step" in line] == ["MultiStep Status: Iteration 2, step = 1"]


def test_a_solver_that_was_stopped_can_go_on() -> None:
    text = NET + 'base_lr: 0.1 lr_policy: "fixed"'
    with Solver(parse_solver(text)[0]) as solver:
        solver.action = lambda: "stop"
        solver.step(5)
        assert (solver.iteration, solver.stopped) == (1, True)
        solver.action = lambda: ""
        solver.message.test_interval = 1  # where the next thing is a test
        solver.step(2)
        assert (solver.iteration, solver.stopped) == (3, False)


@pytest.mark.parametrize("kind", [Solver, NetSolver])
def test_weights_in_a_folder_with_a_comma_in_its_name(kind: type[Solver], tmp_path: Path) -> None:
    folder = tmp_path / "run 1,2"
    folder.mkdir()
    with kind(parse_solver(NET + 'base_lr: 0.1 lr_policy: "fixed"')[0]) as solver:
        solver.prefix = str(folder / "s")
        solver.snapshot()
        wanted = [solver.memory.read(t) for t in solver.training.recording.parameters.values()]
    text = NET + 'base_lr: 0.1 lr_policy: "fixed" weights: "s_iter_0.caffemodel, s_iter_0.caffemodel"'
    (folder / "solver.prototxt").write_text(text)
    with kind(str(folder / "solver.prototxt")) as solver:
        for tensor, value in zip(solver.training.recording.parameters.values(), wanted, strict=True):
            np.testing.assert_array_equal(solver.memory.read(tensor), value)
