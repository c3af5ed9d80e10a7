"""The nets of configs/text learn what they are said to learn, as far as a few steps show; data as the tool writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from netrun.solver import Solver

ROOT = Path(__file__).resolve().parents[2]
TEXT = ROOT / "configs" / "text"


def losses(name: str, steps: int) -> list[float]:
    found: list[float] = []
    with Solver(TEXT / name) as solver:
        solver.on_iteration.append(lambda _, loss: found.append(loss))
        solver.step(steps)
    return found


def test_letters_learn() -> None:
    found = losses("letters_solver.prototxt", 40)
    assert 3.2 < found[0] < 3.3, "it starts by saying any of 26 letters"
    assert np.mean(found[-5:]) < 2.6, "less than the letters alone cost"


def test_the_tagger_learns() -> None:
    found = losses("tagger_solver.prototxt", 50)
    assert 2 < found[0] < 2.2, "it starts by saying any of 8 kinds"
    assert np.mean(found[-10:]) < 0.25


def test_the_files_are_the_ones_the_tool_writes() -> None:
    command = [sys.executable, str(ROOT / "tools" / "make_text.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "test.txt: 0.611 bits a letter\n"), done.stderr
