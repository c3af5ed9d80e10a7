"""How long from the command to the first iteration's loss? LeNet on a small database, in a process of its own.

python tools/bench/startup.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, arguments, median, write

SOLVER = """net: "{net}" base_lr: 0.01 momentum: 0.9 lr_policy: "fixed" max_iter: 1 display: 1 random_seed: 1
snapshot_after_train: false solver_mode: CPU snapshot_prefix: "{folder}/x" """


def main() -> None:
    """Measure and print."""
    args = arguments("start-up")
    rows = {"netrun train, 1 iteration": train, "import netrun": bare}
    found = {name: [] for name in rows}
    for _ in range(args.rounds):
        for name, step in rows.items():
            start = time.perf_counter()
            step()
            found[name].append(time.perf_counter() - start)
    for name, seconds in found.items():
        print(f"{name:28} {median(seconds):6.2f} s (best {min(seconds):.2f})")
    write("startup", args, found)


def train() -> None:
    """LeNet on MNIST's database, one iteration, no test."""
    with tempfile.TemporaryDirectory() as folder:
        solver = Path(folder) / "solver.prototxt"
        net = ROOT / "configs/mnist/lenet_train_test.prototxt"
        solver.write_text(SOLVER.format(net=net, folder=folder))
        command = [sys.executable, "-m", "netrun", "train", "--solver", str(solver)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)


def bare() -> None:
    """A Python that imports netrun and leaves."""
    subprocess.run([sys.executable, "-c", "import netrun"], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
