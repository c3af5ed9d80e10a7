"""How long the library's threads wait for work actively before they sleep.

Between two primitives of a net lie microseconds, and the thread that has to be woken costs more than it computes: on
a virtual machine up to 100 us a primitive. So threads turn around for half a millisecond. Where other processes want
the same cores that is wrong: who turns around keeps a core from whoever would end the wait. Measured, LeNet's
iterations on two cores, in ms:

    turns      1,000     3,000    10,000    30,000   300,000 (the library's own)
    alone     5.4-16    5.7-20       5.5       5.6       5.6
    beside 2      16        15        35        73        46

1,000 turns take 60 us there, 10,000 take 0.5 ms; tools/bench/waking.py measures it again, wherever it runs.

The choice is made once, while the library is loaded, from what runs at that moment.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TURNS = "GOMP_SPINCOUNT"
"""The variable that libgomp reads when it is loaded."""
ALONE, BESIDE = 10_000, 1_000
"""Turns of an active wait: where cores are free, and beside other processes."""
STATE = Path("/proc/stat")
LOOKS = 3
"""How often is looked, a millisecond apart: what the system does for a moment is no other process."""


def running() -> int:
    """Threads that run or want to, on the whole machine, this one among them; 1 where nobody says."""
    try:
        lines = STATE.read_text().splitlines()
    except OSError:
        return 1
    return next((int(line.split()[1]) for line in lines if line.startswith("procs_running ")), 1)


def turns(cores: int) -> int:
    """Turns for threads on so many cores, by what else runs on the machine at present."""
    seen = [running()]
    while len(seen) < LOOKS and seen[-1] > 1:
        time.sleep(0.001)
        seen.append(running())
    others = min(seen) - 1
    return BESIDE if others + cores > (os.cpu_count() or 1) and others else ALONE


@contextmanager
def waiting(cores: int) -> Iterator[None]:
    """While this lasts, the environment tells the library's threads how long to wait, unless the user does."""
    if TURNS in os.environ or "OMP_WAIT_POLICY" in os.environ:
        yield
        return
    os.environ[TURNS] = str(turns(cores))
    try:
        yield
    finally:
        del os.environ[TURNS]
