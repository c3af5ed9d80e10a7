"""Steps shared out among threads: all run once, what one raises comes out, a team that is busy is not waited for."""

from __future__ import annotations

import signal
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from netrun.cpu import dnnl, team


@pytest.fixture(params=["library's threads", "own threads", "one thread of the library's"])
def together(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """team.together in each of its forms."""
    if request.param == "own threads":
        monkeypatch.setattr(team, "library", lambda: None)
        return team.together
    if dnnl.library() is None:
        pytest.skip(f"no oneDNN here: {dnnl.reason()}")
    if request.param == "one thread of the library's":
        made = team.together

        def alone(shares: Any) -> Any:
            step = made(shares)
            step._run = lambda body, *_: body(None)
            return step

        return alone
    return team.together


def test_every_share_runs_once(together: Callable[..., Any]) -> None:
    seen: list[tuple[int, int]] = []
    step = together([[lambda i=i, j=j: seen.append((i, j)) for j in range(2)] for i in range(5)])
    for _ in range(20):
        seen.clear()
        step()
        assert sorted(seen) == [(i, j) for i in range(5) for j in range(2)]
        assert all(seen.index((i, 0)) < seen.index((i, 1)) for i in range(5))


@pytest.mark.parametrize("bad", [0, 1])
def test_what_a_share_raises_comes_out(together: Callable[..., Any], bad: int) -> None:
    def fail() -> None:
        raise KeyError("label")

    done: list[int] = []
    step = together([[fail] if i == bad else [lambda: done.append(1)] for i in range(2)])
    for _ in range(3):
        with pytest.raises(KeyError, match="label"):
            step()
    assert len(done) == 3


def test_no_warnings_of_numpy(together: Callable[..., Any]) -> None:
    x = np.zeros(8, np.float32)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("error")
        together([[lambda: np.divide(x, x)], [lambda: np.log(x)]])()


def test_a_busy_team_is_not_waited_for(together: Callable[..., Any]) -> None:
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        inside.set()
        leave.wait(10)

    other = threading.Thread(target=together([[hold], [hold]]))
    other.start()
    assert inside.wait(10)
    found: list[int] = []
    together([[lambda: found.append(threading.get_ident())], [lambda: found.append(threading.get_ident())]])()
    assert found == [threading.get_ident()] * 2
    leave.set()
    other.join(10)
    assert not other.is_alive()


def test_an_interrupt_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the others work: what they do is done before it comes out, and the next step waits for its own."""
    monkeypatch.setattr(team, "library", lambda: None)
    done: list[str] = []

    def interrupting() -> None:
        time.sleep(0.1)  # the other one waits by now
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(0.2)
        done.append("first")

    def slow() -> None:
        time.sleep(0.1)
        done.append("second")

    with pytest.raises(KeyboardInterrupt):
        team.together([[int], [interrupting]])()
    assert done == ["first"]
    team.together([[int], [slow]])()
    assert done == ["first", "second"]


def test_one_share_needs_no_team() -> None:
    found: list[int] = []
    team.together([[lambda: found.append(1)], []])()
    team.together([])()
    assert found == [1]
