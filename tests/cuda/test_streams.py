"""Work that runs as late as CUDA may run it: what one stream, or the host, changes too early shows in the numbers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import fakecupy
import fakestream
import numpy as np
import pytest
from test_lenet_step import batches, lenet

from layers_cuda.device import Cuda
from layers_cuda.transfer import LARGE, SLOT, SLOTS, SMALL_SLOTS
from netrun.expression import rule
from netrun.kernels import OPS
from netrun.program import Call
from netrun.solver import Solver
from netrun.types import Spec, Tensor

Make = Callable[..., Cuda]


def adding(device: Cuda, count: int) -> tuple[Any, Any, Callable[[], None]]:
    """An array, a total, and a step that adds the array's first element to the total."""
    array = device.array(device.allocate(4 * count), 0, Spec((count,)))
    total = device.array(device.allocate(4), 0, Spec(()))
    device.write(total, 0.0)
    attrs = {"rule": rule(["x"], ["s"], "s = s + x")}
    add = Call(OPS["update"], ((Tensor("x", Spec(())),), (Tensor("s", Spec(())),)), attrs)
    return array, total, device.bind(add, [(array[:1].reshape(()),), (total,)], None)


@pytest.mark.parametrize("count", [4, SLOT // 16, LARGE // 4 + 7], ids=["small", "ring", "ahead"])
def test_every_value_is_seen_once(count: int, device: Cuda) -> None:
    """More writes than there are slots, each read by a step behind it."""
    with fakestream.late(device.stream.ptr):
        array, total, step = adding(device, count)
        rounds = SMALL_SLOTS + 3 if count == 4 else 4 * SLOTS
        for i in range(rounds):
            values = np.full(count, i, "float32")
            device.write(array, values)
            values[:] = np.nan
            step()
        assert float(device.read(total)) == sum(range(rounds))


@pytest.mark.parametrize("which", ["arrived", "read", "free"])
def test_an_event_that_nobody_waits_for_shows(which: str, device: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the three events of a batch that travels ahead is needed."""
    count = LARGE // 4
    wait, synchronize = fakecupy.Stream.wait_event, fakecupy.Event.synchronize
    side = device._uploads.side

    def skipped(self: Any, event: Any) -> None:
        if which != ("read" if self is side else "arrived"):
            wait(self, event)

    monkeypatch.setattr(fakecupy.Stream, "wait_event", skipped)
    if which == "free":
        monkeypatch.setattr(fakecupy.Event, "synchronize", lambda self: None)
    with fakestream.late(device.stream.ptr):
        array, total, step = adding(device, count)
        for i in range(12):
            device.write(array, np.full(count, i, "float32"))
            step()
        monkeypatch.setattr(fakecupy.Event, "synchronize", synchronize)
        assert float(device.read(total)) != sum(range(12))


def test_a_batch_may_be_early_and_the_steps_late(device: Cuda) -> None:
    """The side stream runs at once, everything else when it is asked for."""
    count = LARGE // 4
    side = device._uploads.side
    with fakestream.late(device.stream.ptr):
        array, total, step = adding(device, count)
        for i in range(12):
            device.write(array, np.full(count, i, "float32"))
            side.synchronize()
            step()
        assert float(device.read(total)) == sum(range(12))


def test_training_is_the_same(make_device: Make, tmp_path: Path) -> None:
    """LeNet with a new batch each time, losses read two iterations later: work waits until somebody asks for one."""
    found = []
    for device in (make_device(), "cpu"):
        with Solver(lenet(tmp_path, 2, "average_loss: 9"), device=device) as solver:
            given = batches(2)

            def feed(solver: Any, loss: float, given: Any = given) -> None:
                values = next(given)
                solver.runners[0].session.feed(values)
                for value in values.values():
                    value[...] = np.nan

            feed(solver, 0.0)
            solver.on_iteration.append(feed)
            with fakestream.late(device.stream.ptr) if isinstance(device, Cuda) else nullcontext():
                solver.step(9)
            found.append(list(solver.losses))
    assert len(set(found[0])) == 9
    np.testing.assert_allclose(found[0], found[1], 1e-4)
