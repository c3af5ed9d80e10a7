"""The progress bar and the log above it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from netrun.cli.logs import ShortLog
from netrun.cli.progress import Bar, duration, is_terminal, picture


class Clock:
    """A clock that stands still until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(name="clock")
def clock_fixture(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setenv("COLUMNS", "100")
    return Clock()


def test_line_says_how_far_and_how_long(clock: Clock) -> None:
    bar = Bar(io.StringIO(), "lenet", 10000, start=2000, clock=clock)
    line = bar.line(4000, 10.0, ["loss 0.1", "lr 0.01"], 100)
    assert line == "lenet  4,000/10,000  [############------------------]   40%  loss 0.1  lr 0.01  ETA 0:30"
    assert "[" not in bar.line(4000, 10.0, ["loss 0.1", "lr 0.01"], 60)
    assert len(bar.line(4000, 10.0, ["loss 0.1"], 20)) == 20
    assert "ETA" not in bar.line(10000, 10.0, [], 100)


def test_a_length_that_nobody_knows(clock: Clock) -> None:
    assert Bar(io.StringIO(), "file", 0, clock=clock).line(1234, 1.0, [], 80) == "file  1,234"


def test_redraws_at_most_ten_times_a_second(clock: Clock) -> None:
    stream = io.StringIO()
    bar = Bar(stream, "net", 100, clock=clock)
    for i in range(100):
        clock.now = i / 50  # two seconds
        bar.update(i)
    assert 10 <= stream.getvalue().count("\r") <= 21


def test_log_lines_stand_above_the_bar(clock: Clock) -> None:
    stream = io.StringIO()
    log = ShortLog(stream)
    log("before", "net.cpp:744")
    log.bar = Bar(stream, "net", 100, clock=clock)
    log.bar.update(1)
    log("Iteration 0, lr = 0.1", "sgd_solver.cpp:112")
    log("said", "net.cpp:744")
    log("careful", "net.cpp:744", "W")
    log.bar.clear()
    text = stream.getvalue()
    assert "Iteration 0" not in text
    assert text.startswith("before\n\rnet  1/100")
    assert text.endswith("\r\x1b[Ksaid\nwarning: careful\n")


def test_short_log_without_a_bar_shows_losses() -> None:
    stream = io.StringIO()
    log = ShortLog(stream)
    log("Iteration 0, lr = 0.1", "sgd_solver.cpp:112")
    log("Solver scaffolding done.", "solver.cpp:57")
    assert stream.getvalue() == "Iteration 0, lr = 0.1\n"


def test_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [duration(s) for s in (0, 59.6, 3723)] == ["0:00", "1:00", "1:02:03"]
    assert [picture(s, 6) for s in (0.0, 0.5, 1.0)] == ["[----]", "[##--]", "[####]"]
    assert not is_terminal(io.StringIO())


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo terminals are POSIX")
def test_on_a_terminal(folder: Path) -> None:
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "netrun", "train", "solver.prototxt"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=theirs, env=environment) as process:
        os.close(theirs)
        text = b""
        try:
            while block := os.read(ours, 4096):
                text += block
        except OSError:  # Linux says so when the other end is closed
            pass
        os.close(ours)
        assert process.wait(60) == 0
    shown = text.decode()
    assert "\rtiny  8/8  [" in shown
    assert "]  100%  loss " in shown
    assert " images/s" in shown
    assert "iteration 4: test net #0  accuracy " in shown
    assert "Initializing solver" not in shown
    assert "solver.cpp" not in shown
    assert shown.rstrip().endswith("out/tiny_iter_8.solverstate") or "iteration 8: test net #0" in shown
