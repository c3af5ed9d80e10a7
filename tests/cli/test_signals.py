"""Signals against a real training process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netrun.cli.signals import Signals

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="these signals are POSIX")

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(name="start")
def start_fixture(folder: Path) -> Iterator[Start]:
    """Starts ``netrun train`` and waits for a line of its log; ends what is left of it."""
    started: list[subprocess.Popen[str]] = []

    def start(*flags: str, until: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "netrun", "train", "solver.prototxt", "--set", "max_iter=100000000", *flags]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        wait_for(process, until)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_for(process: subprocess.Popen[str], text: str) -> str:
    """Read the log up to a line with the text in it; returns the line."""
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"the process ended ({process.wait()}) without saying {text!r}")


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_snapshot_and_the_end(start: Start, folder: Path, name: str) -> None:
    process = start(until="Iteration 20,")
    process.send_signal(getattr(signal, name))
    code, out, err = finish(process)
    assert code == 0
    order = ["Snapshotting to binary proto file", "Optimization stopped early.", "caffe.cpp:250] Optimization Done."]
    assert [err.index(text) for text in order] == sorted(err.index(text) for text in order)
    assert "(stopped early)" in out
    weights, state = sorted((folder / "out").iterdir())
    assert weights.stem == state.stem
    assert (weights.suffix, state.suffix) == (".caffemodel", ".solverstate")


def test_a_stop_without_snapshot_after_train(start: Start, folder: Path) -> None:
    process = start("--set", "snapshot_after_train=false", until="Iteration 20,")
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 0
    assert not (folder / "out").exists()


def test_sighup_takes_a_snapshot_and_goes_on(start: Start, folder: Path) -> None:
    process = start("--set", "test_interval=1000000", until="Iteration 20,")
    process.send_signal(signal.SIGHUP)
    wait_for(process, "Snapshotting solver state")
    wait_for(process, "lr = ")  # it goes on
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 0
    assert len(list((folder / "out").glob("*.solverstate"))) == 2


def test_effects_can_be_chosen(start: Start, folder: Path) -> None:
    process = start("-sigint_effect", "snapshot", "--sighup_effect=stop", until="Iteration 20,")
    process.send_signal(signal.SIGINT)
    wait_for(process, "Snapshotting solver state")
    process.send_signal(signal.SIGHUP)
    code, _, err = finish(process)
    assert code == 0
    assert "Optimization stopped early." in err


def test_a_signal_without_effect(start: Start, folder: Path) -> None:
    process = start("-sigint_effect=none", until="Iteration 20,")
    process.send_signal(signal.SIGINT)
    wait_for(process, "Iteration")
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 0


def test_the_second_ctrl_c_stops_at_once(start: Start, folder: Path) -> None:
    # An iteration of so many passes that only an interrupt ends it.
    process = start("--set", "iter_size=100000000", "--set", "test_initialization=false", until="Learning Rate Policy")
    process.send_signal(signal.SIGINT)
    wait_for(process, "stopping after this iteration")
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130
    assert err.strip() == "interrupted"
    assert list((folder / "out").iterdir()) == []


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGHUP)
    with Signals({"SIGHUP": "snapshot", "SIGNOTHING": "stop"}) as signals:
        assert signals.action() == ""
        os.kill(os.getpid(), signal.SIGHUP)
        assert [signals.action(), signals.action()] == ["snapshot", ""]
    assert signal.getsignal(signal.SIGHUP) is before


def test_sighup_of_a_terminal_that_has_gone(start: Start, folder: Path) -> None:
    """Nobody reads what is said any more: the snapshot is taken, and training goes on."""
    quiet = [f for s in ("display=0", "test_initialization=false", "test_interval=100000000") for f in ("--set", s)]
    process = start(*quiet, "--set", "snapshot_prefix='out/gone'", until="Learning Rate Policy")
    assert process.stderr is not None
    process.stderr.close()
    deadline = time.monotonic() + 60
    for wanted in range(1, 4):  # more than once: where a log is being written just then, its failure is nobody's
        time.sleep(0.1)
        process.send_signal(signal.SIGHUP)
        while len(list((folder / "out").glob("gone_*.solverstate"))) < wanted:
            assert process.poll() is None, "training ended"
            assert time.monotonic() < deadline
            time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
