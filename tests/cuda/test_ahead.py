"""The host does not wait for the GPU in every iteration, and what is displayed stays the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakecupy
import numpy as np
import pytest
from test_lenet_step import batches, lenet

from layers_cuda.device import Cuda
from netrun.errors import DataError, DivergedError
from netrun.solver import Solver

Make = Callable[..., Cuda]


def waits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every time the host waits for the stream."""
    seen: list[str] = []
    monkeypatch.setattr(fakecupy.Stream, "synchronize", lambda self: seen.append("stream"))
    return seen


def test_iterations_wait_for_nothing(make_device: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Solver(lenet(tmp_path, 2), device=make_device()) as solver:
        solver.step(2)
        seen = waits(monkeypatch)
        solver.step(5)
        assert not seen


def test_the_log_is_the_same(make_device: Make, tmp_path: Path) -> None:
    """Smoothed over five losses, with several passes an iteration, displayed every third time."""
    logs = []
    for device in (make_device(), "cpu"):
        lines: list[str] = []
        file = lenet(tmp_path, 2, "average_loss: 5 display: 3 iter_size: 2")
        with Solver(file, device=device, log=lambda text, source, level="I", lines=lines: lines.append(text)) as solver:
            solver.runners[0].session.feed(next(batches(2)))
            solver.step(8)
            assert len(solver.losses) == 5
            assert solver.loss == float(np.mean(solver.losses))
            logs.append([float(line.rpartition(" = ")[2]) for line in lines if "iter/s" in line])
    assert len(logs[0]) == 3
    np.testing.assert_allclose(logs[0], logs[1], 1e-4)


def test_divergence_is_noticed_soon(make_device: Make, tmp_path: Path) -> None:
    device = make_device()
    with Solver(lenet(tmp_path, 2), device=device) as solver:
        values = next(batches(2))
        solver.runners[0].session.feed(values)
        solver.step(2)
        solver.runners[0].session.feed({**values, "data": np.full_like(values["data"], np.nan)})
        with pytest.raises(DivergedError, match="iteration 2: the loss is nan") as caught:
            solver.step(50)
        assert solver.iteration <= 2 + device.ahead
        assert "learning rate 0.00998" in str(caught.value)


def test_a_wrong_label_is_noticed_soon(make_device: Make, tmp_path: Path) -> None:
    device = make_device()
    with Solver(lenet(tmp_path, 2), device=device) as solver:
        values = next(batches(2))
        solver.runners[0].session.feed({**values, "label": np.array([3, 11], "float32")})
        with pytest.raises(DataError, match="label 11"):
            solver.step(50)
        assert solver.iteration <= device.ahead


def test_a_copy_is_of_its_moment(device: Cuda) -> None:
    """What is written later does not show, and slots are used again."""
    array: Any = fakecupy.asarray(np.arange(4, dtype="float32"))
    found = []
    for i in range(3):
        found.append(device.later(array))
        np.asarray(array)[...] += 1
        if i == 1:
            np.testing.assert_array_equal(found[0](), [0, 1, 2, 3])
    for i, values in enumerate(found):
        np.testing.assert_array_equal(values(), np.arange(4) + i)
        np.testing.assert_array_equal(values(), np.arange(4) + i)
