"""What the benchmarks share: taking turns, medians, a description of the machine, and the raw log.

Every script prints a table and writes tools/results/NAME-DATE.json: the command, the commit, the machine, every single
measurement. Two sides of a comparison take turns within one run, so that a busy machine slows down both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "tools" / "results"
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from netrun.version import __version__  # noqa: E402

Side = Callable[[], Any]


def arguments(description: str, **more: Mapping[str, Any]) -> argparse.Namespace:
    """The flags all benchmarks know, and some more: name=dict(type=..., default=..., help=...)."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=9, help="how often the sides take turns")
    parser.add_argument("--seconds", type=float, default=0.5, help="how long one turn lasts, about")
    parser.add_argument("--no-torch", action="store_true", help="do not compare with PyTorch")
    parser.add_argument("--note", default="", help="a remark for the log")
    for name, options in more.items():
        parser.add_argument(f"--{name}", **options)
    return parser.parse_args()


def torch_or_none(args: argparse.Namespace) -> Any:
    """PyTorch on as many threads as there are cores, or None."""
    if args.no_torch:
        return None
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed: netrun alone", file=sys.stderr)
        return None
    torch.manual_seed(0)
    torch.set_num_threads(cores())
    return torch


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def take_turns(
    sides: Mapping[str, Side], rounds: int, seconds: float, rest: float = 0.02, settle: bool = False
) -> dict[str, list[float]]:
    """Seconds a call, by side: one entry a round, each the mean over calls that take about ``seconds`` together.

    Args:
        rest: seconds between two sides, in which the threads of the first go to sleep. Those of NumPy's BLAS look for
            work for 30 ms.
        settle: one call in front of every turn is not timed: small operations otherwise begin in the other's cache.
    """
    counts = {}
    for name, side in sides.items():
        side()
        start = time.perf_counter()
        side()
        counts[name] = max(1, round(seconds / max(time.perf_counter() - start, 1e-7)))
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            time.sleep(rest)
            if settle:
                side()
            start = time.perf_counter()
            for _ in range(counts[name]):
                side()
            found[name].append((time.perf_counter() - start) / counts[name])
    return found


def median(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """How many times faster ours is: the median over rounds of the ratio within a round."""
    return median([b / a for a, b in zip(ours, theirs, strict=True)])


def machine() -> dict[str, Any]:
    """What a reader needs to know about where this ran."""
    model = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        flags = next(line.partition(":")[2].split() for line in lines if line.startswith("flags"))
    except (OSError, StopIteration):
        flags = []
    load = os.getloadavg() if hasattr(os, "getloadavg") else (0.0, 0.0, 0.0)
    return {"processor": model, "cores": cores(), "features": [f for f in flags if "avx" in f or "amx" in f],
            "system": f"{platform.system()} {platform.machine()}", "python": platform.python_version(),
            "numpy": np.__version__,
            "load": load}  # fmt: skip


def commit() -> str:
    """The commit, with a + if files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain") else "")


def write(name: str, args: argparse.Namespace, rows: Any, **more: Any) -> None:
    """Write the raw log."""
    RESULTS.mkdir(exist_ok=True)
    now = datetime.now(timezone.utc)
    path = RESULTS / f"{name}-{now:%Y%m%d-%H%M%S}.json"
    log = {"benchmark": name, "command": " ".join(sys.argv), "arguments": vars(args), "time": now.isoformat(),
           "netrun": __version__, "commit": commit(), "machine": machine(), **more, "rows": rows}  # fmt: skip
    path.write_text(json.dumps(log, indent=1, default=str) + "\n")
    print(f"raw log: {path.relative_to(ROOT)}")
