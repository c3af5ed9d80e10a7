"""How long the library's threads wait actively: by what else runs, unless the user says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from netrun.cpu import waiting


def state(monkeypatch: pytest.MonkeyPatch, *running: int) -> None:
    """The machine says, look by look, that so many threads run."""
    answers = iter(running)

    class State:
        def read_text(self) -> str:
            return f"cpu 1 2 3\nprocs_running {next(answers)}\nprocs_blocked 0\n"

    monkeypatch.setattr(waiting, "STATE", State())
    monkeypatch.setattr(os, "cpu_count", lambda: 4)


@pytest.mark.parametrize(
    ("running", "cores", "wanted"),
    [
        ((1,), 4, waiting.ALONE),
        ((3, 2, 1), 4, waiting.ALONE),  # for a moment only
        ((2, 2, 2), 4, waiting.BESIDE),
        ((3, 3, 3), 2, waiting.ALONE),  # two of four cores are ours, two others run
        ((4, 4, 4), 2, waiting.BESIDE),
    ],
)
def test_turns(monkeypatch: pytest.MonkeyPatch, running: tuple[int, ...], cores: int, wanted: int) -> None:
    state(monkeypatch, *running)
    assert waiting.turns(cores) == wanted


def test_where_nobody_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "STATE", tmp_path / "none")
    assert waiting.turns(2) == waiting.ALONE


def test_the_environment_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(waiting.TURNS, raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    with waiting.waiting(1):
        assert os.environ[waiting.TURNS] in (str(waiting.ALONE), str(waiting.BESIDE))
    assert waiting.TURNS not in os.environ


@pytest.mark.parametrize(("name", "value"), [(waiting.TURNS, "77"), ("OMP_WAIT_POLICY", "passive")])
def test_the_user_decides(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.delenv(waiting.TURNS, raising=False)
    monkeypatch.setenv(name, value)
    with waiting.waiting(1):
        assert os.environ[name] == value
        assert (waiting.TURNS in os.environ) == (name == waiting.TURNS)
