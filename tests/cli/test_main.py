"""What ``main`` makes of errors, and the command as a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from netrun import cli
from netrun.cli import summary
from netrun.errors import OutOfMemoryError, WorkerError

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (OutOfMemoryError("too much"), 5, "too much\n"),
        (WorkerError("gone"), 6, "gone\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (MemoryError(), 5, "out of memory\n"),
        (OSError(28, "No space left on device", "x.caffemodel"), 3, "x.caffemodel: No space left on device\n"),
        (
            ValueError("odd\nthing"),
            70,
            "internal error: ValueError: odd thing (run with NETRUN_DEBUG=1 for the traceback)\n",
        ),
    ],
)
def test_every_error_becomes_one_message_and_a_code(
    run: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, message: str
) -> None:
    def fail(path: Any) -> None:
        raise error

    monkeypatch.setattr(summary, "open_graph", fail)
    monkeypatch.delenv("NETRUN_DEBUG", raising=False)
    found = run("summary", "net.prototxt")
    assert (found.code, found.out, found.err) == (code, "", message)


def test_the_traceback_of_a_mistake_of_ours_on_request(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "open_graph", lambda args: 1 / 0)
    monkeypatch.setenv("NETRUN_DEBUG", "1")
    found = run("summary", "net.prototxt")
    assert found.code == 70
    assert found.err.startswith("Traceback")


def netrun(*argv: str, **keywords: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "netrun", *argv], capture_output=True, text=True, **keywords)


def test_as_a_process() -> None:
    found = netrun("trian")
    assert found.returncode == 2
    assert 'did you mean "train"?' in found.stderr
    assert netrun("--version").stdout.startswith("netrun ")


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = [sys.executable, "-m", "netrun", "plan", str(CONFIGS / "benchmark" / "googlenet.prototxt")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(60) == cli.PIPE_EXIT
        assert process.stderr.read() == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a file that is always full")
@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "2> >(head -n 1)"])
def test_a_log_that_cannot_be_written_does_not_end_a_training(folder: Path, redirection: str) -> None:
    command = f'"{sys.executable}" -m netrun train solver.prototxt {redirection}'
    found = subprocess.run(["bash", "-c", command], cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
    assert found.returncode == 0
    assert "iteration 8" in found.stdout
    assert (folder / "out" / "tiny_iter_8.caffemodel").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a file that is always full")
def test_results_that_cannot_be_written_are_an_error(folder: Path) -> None:
    command = f'"{sys.executable}" -m netrun summary net.prototxt'
    full = subprocess.run(["bash", "-c", f"{command} >/dev/full"], cwd=folder, capture_output=True, text=True)
    assert (full.returncode, full.stderr) == (3, "No space left on device\n")
    closed = subprocess.run(["bash", "-c", f"{command} >&-"], cwd=folder, capture_output=True, text=True)
    assert (closed.returncode, closed.stderr) == (0, "")


def test_help_is_quick() -> None:
    """By the processor's time, from the start of the interpreter: how busy the machine is does not count."""
    tell = "import atexit, sys, time; atexit.register(lambda: print(time.process_time(), file=sys.stderr))"
    code = f"{tell}; from netrun.cli import main; sys.exit(main(['train', '--help']))"

    def once() -> float:
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert "example" in found.stdout
        return float(found.stderr)

    assert min(once() for _ in range(5)) < 0.2


def test_help_loads_nothing_heavy() -> None:
    code = "import sys; from netrun.cli import main; main(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    assert all(f"'{name}'" not in loaded for name in ("numpy", "google.protobuf", "netrun.config", "netrun.layers"))
