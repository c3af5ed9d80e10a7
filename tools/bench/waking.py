"""How long should the threads of device cpu wait actively for work, alone and beside other processes?

    python tools/bench/waking.py [--turns 1000,10000,300000] [--beside 0,2] [--net lenet]

Each measurement is a process of its own, because libgomp reads GOMP_SPINCOUNT when it is loaded: it trains a net on
noise for about --seconds and says its milliseconds an iteration. "own" leaves the choice to netrun (cpu/waiting.py);
300,000 turns are libgomp's. --beside processes that only count run at the same time. The settings take turns; the
figures are medians over --rounds. How other programs of the machine interfere is not known to this script: what it
measures "alone" is true where nothing else runs.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import arguments, median, write

CHILD = "--child"


def child(net: str, seconds: float) -> None:
    """Train and print the median of the milliseconds of an iteration."""
    from train import NETS, ROOT, our_solver, train_net

    solver_file, net_file, shape, classes = NETS[net]
    with our_solver(str(ROOT / solver_file), train_net(str(ROOT / net_file), shape, classes)) as solver:
        solver.step(5)
        spent, end = list[float](), time.perf_counter() + seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            solver.step(5)
            spent.append((time.perf_counter() - start) / 5)
    print(statistics.median(spent) * 1e3)


def main() -> None:
    """Measure and print."""
    args = arguments(
        "active waiting",
        turns={"default": "own,1000,3000,10000,30000,300000", "help": "values of GOMP_SPINCOUNT, separated by commas"},
        beside={"default": "0,1,2", "help": "numbers of competitors"},
        net={"default": "lenet", "help": "a net of train.py"},
    )
    rows = []
    turns = args.turns.split(",")
    print(f"{'beside':>6} " + " ".join(f"{t:>9}" for t in turns) + "   ms an iteration")
    for beside in map(int, args.beside.split(",")):
        found: dict[str, list[float]] = {t: [] for t in turns}
        others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(beside)]
        try:
            for _ in range(args.rounds):
                for t in turns:
                    found[t].append(measured(t, args.net, args.seconds))
        finally:
            for other in others:
                other.kill()
                other.wait()
        print(f"{beside:6} " + " ".join(f"{median(v):9.2f}" for v in found.values()), flush=True)
        rows.append({"beside": beside, "ms": found})
    write("waking", args, rows)


def measured(turns: str, net: str, seconds: float) -> float:
    """Milliseconds of an iteration of one process with that setting."""
    env = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    if turns != "own":
        env["GOMP_SPINCOUNT"] = turns
    command = [sys.executable, str(Path(__file__)), CHILD, net, str(seconds)]
    return float(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        child(sys.argv[2], float(sys.argv[3]))
    else:
        main()
