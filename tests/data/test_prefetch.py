"""Threads: order, errors, an end in every way, and never more than there are cores."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time

import pytest

from netrun.data import prefetch
from netrun.data.prefetch import Decoders, Prefetcher, cores
from netrun.errors import DataError


def alive() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("netrun-")]


def wait_until_gone() -> None:
    end = time.monotonic() + 5
    while alive() and time.monotonic() < end:
        time.sleep(0.005)
    assert not alive()


def test_items_come_in_order_and_not_too_far_ahead() -> None:
    made: list[int] = []

    def produce(step: int) -> int:
        made.append(step)
        return step

    ahead = Prefetcher(produce, 3)
    for step in range(50):
        assert ahead.next() == step
        assert max(made) <= step + 4  # three in the queue and one in the making
    ahead.close()
    ahead.close()
    assert not alive()
    with pytest.raises(DataError, match="closed"):
        ahead.next()


def test_an_error_comes_with_its_item_and_stays() -> None:
    def produce(step: int) -> int:
        if step == 2:
            raise DataError("record 2 is bad")
        return step

    ahead = Prefetcher(produce, 4)
    assert [ahead.next(), ahead.next()] == [0, 1]
    for _ in range(2):
        with pytest.raises(DataError, match="record 2 is bad"):
            ahead.next()
    ahead.close()


def test_a_programming_error_is_not_swallowed() -> None:
    ahead = Prefetcher(lambda step: 1 // step, 2)
    with pytest.raises(ZeroDivisionError):
        ahead.next()
    ahead.close()


def test_dropping_it_ends_the_thread() -> None:
    ahead = Prefetcher(lambda step: step, 2)
    ahead.next()
    del ahead
    gc.collect()
    wait_until_gone()


def test_closing_does_not_wait_for_a_full_queue() -> None:
    ahead = Prefetcher(lambda step: step, 1)
    ahead.next()
    time.sleep(0.01)
    start = time.monotonic()
    ahead.close()
    assert time.monotonic() - start < 2


def test_the_program_ends_while_threads_are_busy() -> None:
    program = """
import time
from netrun.data.prefetch import Decoders, Prefetcher
decoders = Decoders()
def produce(step):
    decoders.each(lambda i: time.sleep(0.001), 8)
    return step
ahead = Prefetcher(produce, 2)
print(ahead.next(), ahead.next())
waiting = Prefetcher(lambda step: time.sleep(3600), 2)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 1\n", "")


def test_work_is_shared_and_the_lowest_failure_wins() -> None:
    decoders = Decoders()
    done: set[int] = set()
    decoders.each(done.add, 37)
    assert done == set(range(37))

    def fail(i: int) -> None:
        if i % 5 == 4:
            raise DataError(f"record {i}")

    for _ in range(20):
        with pytest.raises(DataError, match=r"record 4$"):
            decoders.each(fail, 30)
    decoders.close()


def test_all_layers_together_never_use_more_threads_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "cores", lambda: 3)
    busy, most = 0, 0
    lock = threading.Lock()

    def work(i: int) -> None:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.002)
        with lock:
            busy -= 1

    first, second = Decoders(), Decoders(threads=64)
    first.each(work, 20)
    second.each(work, 20)
    assert 1 < most <= 3
    assert len(alive()) == 2  # the caller is the third
    first.close()
    second.each(work, 5)
    second.close()
    second.close()
    assert not alive()


def test_one_thread_means_none_beside_the_caller() -> None:
    for threads in (0, 1):
        decoders = Decoders(threads)
        names: set[str] = set()
        decoders.each(lambda i, names=names: names.add(threading.current_thread().name), 9)  # type: ignore[misc]
        assert names == {threading.current_thread().name}
        decoders.close()
    assert cores() >= 1
