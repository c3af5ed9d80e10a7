"""``netrun train``: the log that parsers read, results on stdout, overrides, resume, dry runs."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from netrun.cli import device
from netrun.config.weights import read_weights
from netrun.errors import DeviceError

PREFIX = re.compile(r"[IWE]\d{8} \d\d:\d\d:\d\d\.\d{6} +\d+ (\S+:\d+)\] (.*)")
NUMBER = r"[-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?"
TRAIN = ("train", "-solver", "solver.prototxt")


def parse_log(text: str) -> dict[str, list[tuple[float, ...]]]:
    """The log as the usual parsers read it: rows of (iteration, value) for loss, lr, and each output."""
    found: dict[str, list[tuple[float, ...]]] = {"loss": [], "lr": []}
    iteration = -1.0
    for line in text.splitlines():
        if at := re.search(r"Iteration (\d+)", line):
            iteration = float(at[1])
        if loss := re.search(rf"Iteration \d+ \({NUMBER} iter/s, {NUMBER}s/\d+ iters\), loss = ({NUMBER})$", line):
            found["loss"].append((iteration, float(loss[1])))
        if rate := re.search(rf"Iteration \d+, lr = ({NUMBER})$", line):
            found["lr"].append((iteration, float(rate[1])))
        if output := re.search(rf"    (Train|Test) net output #(\d+): (\S+) = ({NUMBER})", line):
            found.setdefault(f"{output[1]} {output[2]} {output[3]}", []).append((iteration, float(output[4])))
    return found


def test_log_has_caffes_lines(run: Any) -> None:
    found = run(*TRAIN)
    assert found.code == 0
    rows = parse_log(found.err)
    assert [i for i, _ in rows["loss"]] == [0, 2, 4, 6]
    assert rows["lr"] == [(i, pytest.approx(0.05 * (1 + 0.1 * i) ** -0.75, rel=1e-5)) for i in (0, 2, 4, 6)]
    assert [i for i, _ in rows["Test 0 accuracy"]] == [0, 4, 8]
    assert [i for i, _ in rows["Test 1 loss"]] == [0, 4, 8]
    assert [row[0] for row in rows["Train 0 loss"]] == [0, 2, 4, 6]
    assert rows["Train 0 loss"] == rows["loss"]
    assert "{\n}" not in found.err  # no blocks that nobody wrote


def test_log_tells_the_story_in_order(run: Any) -> None:
    lines = [m.groups() for line in run(*TRAIN).err.splitlines() if (m := PREFIX.fullmatch(line))]
    wanted = [
        ("caffe.cpp:197", "Use CPU."),
        ("solver.cpp:45", "Initializing solver from parameters: "),
        ("solver.cpp:102", "Creating training net from net file: net.prototxt"),
        ("solver.cpp:190", "Creating test net (#0) specified by net file: net.prototxt"),
        ("solver.cpp:57", "Solver scaffolding done."),
        ("caffe.cpp:239", "Starting Optimization"),
        ("solver.cpp:289", "Solving tiny"),
        ("solver.cpp:290", "Learning Rate Policy: inv"),
        ("solver.cpp:347", "Iteration 0, Testing net (#0)"),
        ("solver.cpp:464", "Snapshotting to binary proto file out/tiny_iter_8.caffemodel"),
        ("sgd_solver.cpp:284", "Snapshotting solver state to binary proto file out/tiny_iter_8.solverstate"),
        ("solver.cpp:332", "Optimization Done."),
        ("caffe.cpp:250", "Optimization Done."),
    ]
    rest = iter(lines)
    for line in wanted:
        assert line in rest  # consumes up to the line, so the order counts


def test_results_stand_on_stdout(run: Any) -> None:
    found = run(*TRAIN)
    assert re.fullmatch(
        r"iteration 8, \d+\.\d s\naccuracy = \S+\nloss = \S+ \(\* 1 = \S+ loss\)\n"
        r"weights: out/tiny_iter_8\.caffemodel\nstate: out/tiny_iter_8\.solverstate\n",
        found.out,
    )


def test_results_as_json(run: Any) -> None:
    found = json.loads(run(*TRAIN, "--json").out)
    assert (found["iteration"], found["stopped"], found["tested_at"]) == (8, False, 8)
    assert set(found["tests"][0]) == {"accuracy", "loss"}
    assert os.path.exists(found["weights"])
    assert os.path.exists(found["state"])


def test_short_log_has_no_prefix(run: Any) -> None:
    err = run(*TRAIN, "--log", "short").err
    assert not PREFIX.search(err)
    assert "iteration 4: test net #0  accuracy " in err
    assert "iteration 8: wrote out/tiny_iter_8.caffemodel out/tiny_iter_8.solverstate" in err
    assert "Initializing solver" not in err


def test_the_solver_may_stand_without_its_flag(run: Any) -> None:
    assert run("train", "solver.prototxt", "--set", "max_iter=1").code == 0


def test_resume_goes_on_exactly(run: Any, folder: Path) -> None:
    assert run(*TRAIN, "--set", "snapshot_prefix=whole").code == 0
    assert run(*TRAIN, "--set", "max_iter=4").code == 0
    found = run(*TRAIN, "--snapshot", "out/tiny_iter_4.solverstate", "--set", "snapshot_prefix=half")
    assert "caffe.cpp:235] Resuming from out/tiny_iter_4.solverstate" in found.err
    whole, half = (read_weights(str(folder / f"{name}_iter_8.caffemodel")) for name in ("whole", "half"))
    for a, b in zip(whole, half, strict=True):
        assert [blob.tobytes() for blob in a.blobs] == [blob.tobytes() for blob in b.blobs]


def test_weights_are_loaded_before_training(run: Any, folder: Path) -> None:
    run(*TRAIN, "--set", "max_iter=1")
    found = run(
        "train", "solver.prototxt", "-weights", "out/tiny_iter_1.caffemodel", "--set", "base_lr=0",
        "--set", "max_iter=2", "--set", "snapshot_prefix=tuned",
    )  # fmt: skip
    assert "Finetuning from out/tiny_iter_1.caffemodel" in found.err
    first, second = (read_weights(str(folder / f)) for f in ("out/tiny_iter_1.caffemodel", "tuned_iter_2.caffemodel"))
    for a, b in zip(first, second, strict=True):
        assert [blob.tobytes() for blob in a.blobs] == [blob.tobytes() for blob in b.blobs]


def test_what_an_upgrade_changed_is_said_once(run: Any, folder: Path) -> None:
    solver = (folder / "solver.prototxt").read_text() + "solver_type: ADAGRAD momentum: 0"
    (folder / "solver.prototxt").write_text(solver.replace("momentum: 0.9\n", ""))
    found = run(*TRAIN, "--log", "short", "--set", "max_iter=1")
    assert found.code == 0
    assert found.err.count('warning: solver.prototxt:14:1: solver_type: ADAGRAD is read as type: "AdaGrad"') == 1


# ------------------------------------------------------------------------------------------------------------ --set
@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("base_lrr=1", 'has no field "base_lrr"; did you mean "base_lr"?'),
        ("base_lr=fast", "base_lr wants a number, got fast"),
        ("max_iter=1.5", "max_iter wants a whole number"),
        ("solver_mode=TPU", "solver_mode wants CPU or GPU"),
        ("train_state.levl=1", 'NetState has no field "levl"; did you mean "level"?'),
        ("base_lr.x=1", "base_lr is a plain value"),
        ("test_state.level=1", "say which entry"),
        ("test_state.0.level=1", "there is no entry 0"),
        ("base_lr", "wants FIELD=VALUE"),
        ("=1", "wants FIELD=VALUE"),
        ("lr_policy=setp", 'there is no lr_policy "setp"; did you mean "step"?'),
        ("type=Adamm", 'did you mean "Adam"?'),
    ],
)
def test_set_refuses(run: Any, assignment: str, message: str) -> None:
    found = run(*TRAIN, "--set", assignment)
    assert found.code == 2
    assert message in found.err


def test_set_takes_every_kind_of_value(run: Any) -> None:
    found = run(
        *TRAIN, "--set", "lr_policy=multistep", "--set", "stepvalue=[2, 4]", "--set", "average_loss=2",
        "--set", "snapshot_after_train=false", "--set", "type=Adam", "--set", "train_state.level=1",
        "--set", 'regularization_type="L1"', "--set", "solver_mode=CPU", "--set", "test_iter=1",
    )  # fmt: skip
    assert found.code == 0
    for line in (
        'lr_policy: "multistep"',
        "stepvalue: 2",
        "stepvalue: 4",
        'type: "Adam"',
        "  level: 1",
        "test_iter: 1",
    ):
        assert f"\n{line}\n" in found.err
    assert "test_iter: 2" not in found.err
    assert not os.path.exists("out/tiny_iter_8.caffemodel")


def test_level_and_stage_reach_the_rules(run: Any, folder: Path) -> None:
    extra = 'layer {{ name: "{0}" type: "Silence" bottom: "{1}" include {{ {2} }} }}'
    net = (folder / "net.prototxt").read_text()
    net += extra.format("a", "conv", 'stage: "deep"') + extra.format("b", "ip", "min_level: 2")
    (folder / "net.prototxt").write_text(net + 'layer { name: "c" type: "Nothing" include { stage: "broken" } }')
    assert run(*TRAIN, "-level", "2", "-stage", "deep,wide", "--set", "max_iter=1").code == 0
    assert 'there is no layer type "Nothing"' in run(*TRAIN, "-stage", "deep,broken").err


# ----------------------------------------------------------------------------------------------------------- devices
def test_a_solver_that_says_gpu_runs_on_the_cpu_and_says_so_once(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = device.open_device

    def without_gpu(name: str) -> Any:
        if name.startswith("cuda"):
            raise DeviceError(f'device "{name}": there is none')
        return real(name)

    monkeypatch.setattr(device, "open_device", without_gpu)
    found = run(*TRAIN, "--set", "solver_mode=GPU", "--set", "max_iter=1")
    assert found.code == 0
    assert found.err.count("the solver says GPU") == 1
    assert found.err.count("Use CPU.") == 1
    assert run(*TRAIN, "--gpu", "0").code == 2
    assert run(*TRAIN, "--gpu", "none", "--set", "max_iter=1").code == 0
    assert run(*TRAIN, "--set", "device=cuda:0").code == 2


def test_null_device_runs_the_loop_without_arithmetic(run: Any) -> None:
    found = run(*TRAIN, "--device", "null", "--json")
    assert found.code == 0
    assert json.loads(found.out)["loss"] == 0


def test_the_solvers_own_device_counts(run: Any) -> None:
    assert "Use device reference." in run(*TRAIN, "--set", "device=reference", "--set", "max_iter=1").err


# ----------------------------------------------------------------------------------------------------------- dry runs
def test_dry_run_leaves_nothing(run: Any, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    before = sorted(folder.rglob("*"))
    elsewhere = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(elsewhere))
        found = run(*TRAIN, "--dry-run")
    assert found.code == 0
    assert re.match(
        r"ok: one iteration \(\S+ s\), 1 test net, a snapshot and a resume in \S+ s; .* planned\n", found.out
    )
    assert sorted(folder.rglob("*")) == before
    assert list(elsewhere.iterdir()) == []


def test_dry_run_as_json(run: Any) -> None:
    found = json.loads(run(*TRAIN, "--dry-run", "--json").out)
    assert found["ok"]
    assert found["planned_bytes"] > 4 * 4 * 3 * 6 * 6


def test_dry_run_finds_what_would_fail_later(run: Any, folder: Path) -> None:
    found = run(*TRAIN, "--dry-run", "--set", "snapshot_prefix=net.prototxt/x")
    assert found.code == 2
    assert "snapshot_prefix" in found.err


# -------------------------------------------------------------------------------------------------------------- ends
def test_diverging_ends_with_4(run: Any) -> None:
    found = run(*TRAIN, "--set", "base_lr=1e30", "--set", "max_iter=50", "--set", "momentum=0.99")
    assert found.code == 4
    assert "the loss is" in found.err
    assert "Traceback" not in found.err


def test_a_precision_the_cpu_lacks_is_refused(run: Any) -> None:
    found = run("train", "solver.prototxt", "--precision", "fp16")
    assert found.code == 2
    assert "device cpu: no precision FP16 here, only FP32" in found.err
    assert "--precision FP32 goes before what net and solver say" in found.err


@pytest.mark.parametrize("command", ["train", "time", "plan"])
def test_tf32_is_a_permission(run: Any, command: str) -> None:
    more = ["--iterations", "1"] if command == "time" else []
    file = "net.prototxt" if command == "time" else "solver.prototxt"
    assert run(command, file, "--precision", "TF32", *more).code == 0


def test_the_solver_decides_the_precision_of_its_nets(run: Any, folder: Path) -> None:
    net = (folder / "net.prototxt").read_text()
    (folder / "net.prototxt").write_text(net + "precision: FP16\n")
    assert run("train", "solver.prototxt").code == 2
    assert run("train", "solver.prototxt", "--set", "precision=FP32").code == 0


def test_a_misspelled_precision(run: Any, folder: Path) -> None:
    (folder / "net.prototxt").write_text((folder / "net.prototxt").read_text() + "precision: BF61\n")
    found = run("check", "net.prototxt")
    assert found.code == 2
    assert "BF16" in found.err + found.out


def test_deterministic_says_what_it_holds_for(run: Any) -> None:
    found = run("train", "solver.prototxt", "--deterministic", "--log", "caffe")
    assert found.code == 0
    assert "deterministic: every layer gives the same bits in every run" in found.err


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("max_iter=-5", "max_iter must be at least 0, got -5"),
        ("display=-1", "display must be at least 0, got -1"),
        ("snapshot=-3", "snapshot must be at least 0, got -3"),
        ("test_interval=-1", "test_interval must be at least 0, got -1"),
        ("base_lr=nan", "base_lr must be a finite number, got nan"),
        ("weight_decay=inf", "weight_decay must be a finite number, got inf"),
        ("clip_gradients=inf", "clip_gradients must be a finite number, got inf"),
        ("min_lr=nan", "min_lr must be a finite number, got nan"),
        ("test_iter=-2", "test_iter must be at least 0, got -2"),
        ("snapshot_prefix='a\\000b'", "is no name of a file: it holds a zero byte"),
        ("snapshot_prefix=/proc/x", 'snapshot_prefix "/proc/x": the folder /proc cannot be written to'),
    ],
)
def test_values_that_mean_nothing_are_refused_before_the_first_iteration(run: Any, field: str, said: str) -> None:
    found = run(*TRAIN, "--set", field)
    assert found.code == 2
    assert said in found.err
    assert "Iteration 0" not in found.err


def test_a_run_that_has_nothing_to_train_says_so(run: Any, folder: Path) -> None:
    assert run(*TRAIN, "--set", "max_iter=4").code == 0
    again = run(*TRAIN, "--set", "max_iter=4", "--snapshot", "out/tiny_iter_4.solverstate")
    assert again.code == 0
    assert "Nothing is left to train: max_iter is 4." in again.err
    (folder / "solver.prototxt").write_text(re.sub(r"max_iter: \d+", "", (folder / "solver.prototxt").read_text()))
    found = run(*TRAIN)
    assert found.code == 2
    assert "the solver does not say max_iter" in found.err
    assert run(*TRAIN, "--dry-run").code == 0


def test_a_state_whose_weights_are_gone_names_them_once(run: Any, folder: Path) -> None:
    assert run(*TRAIN).code == 0
    (folder / "out" / "tiny_iter_8.caffemodel").unlink()
    found = run(*TRAIN, "--snapshot", "out/tiny_iter_8.solverstate")
    assert found.code == 2
    last = found.err.splitlines()[-1]
    assert last == "out/tiny_iter_8.solverstate: the weights it belongs to are gone: out/tiny_iter_8.caffemodel"
