"""Losses that are looked at late: in order, as many as are wanted, and no further than one that is no number."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from netrun.errors import DivergedError
from netrun.losses import LossWatch


def watch(count: int = 3) -> tuple[LossWatch, list[tuple[int, float]], list[int]]:
    """A watch, what it has told, and the iterations whose loss it has looked at."""
    told: list[tuple[int, float]] = []
    return LossWatch(count, lambda iteration, mean: told.append((iteration, mean))), told, []


def test_losses_are_looked_at_when_they_are_old_enough() -> None:
    losses, told, looked = watch()

    def later(i: int) -> Callable[[], float]:
        def found() -> float:
            looked.append(i)
            return 10.0 * i

        return found

    for i in range(4):
        losses.expect(i, 0.1, later(i))
        losses.settle(2)
    assert looked == [0, 1]
    assert told == [(0, 0.0), (1, 5.0)]
    losses.settle()
    assert looked == [0, 1, 2, 3]
    assert losses.last == [10, 20, 30]
    assert (losses.mean, told[-1]) == (20, (3, 20))


def test_a_loss_that_is_no_number_ends_it() -> None:
    losses, told, _ = watch()
    for i, loss in enumerate([1.0, float("nan"), 2.0]):
        losses.expect(i, 0.5, lambda loss=loss: loss)  # type: ignore[misc]
    with pytest.raises(DivergedError, match=r"iteration 1: the loss is nan\n +learning rate 0.5;"):
        losses.settle()
    losses.settle()  # what came after it is not counted
    assert losses.last == [1]
    assert told == [(0, 1)]


def test_another_run_begins_with_its_own_losses() -> None:
    losses, told, looked = watch(2)
    losses.expect(0, 0.1, lambda: float(looked.append(0) or 1))
    losses.forget()
    losses.begin([4.0, 6.0])
    losses.settle()
    assert (looked, told) == ([], [])
    assert losses.smooth(8.0) == 7
    losses.begin()
    assert losses.last == []
