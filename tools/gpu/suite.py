"""The tests that name a device, on a GPU, in several processes at once: most of their time goes into compiling kernels.

    python tools/gpu/suite.py --out FOLDER [--device cuda:0] [--jobs 8] [PYTEST OPTIONS]

Process I of N takes every N-th test and writes FOLDER/I.log while it runs. Prints the last line of each and what
failed; exits with 1 if anything did. A kernel compiled by one is there for all: CuPy keeps it on disk.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run and tell; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--jobs", type=int, default=min(8, os.cpu_count() or 1))
    args, more = parser.parse_known_args()
    args.out.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    logs = [args.out / f"{i}.log" for i in range(1, args.jobs + 1)]
    runs = []
    for i, log in enumerate(logs, 1):
        command = [sys.executable, "-m", "pytest", "--device", args.device, "--shard", f"{i}/{args.jobs}"]
        with log.open("w") as out:
            # -v: who is killed for lack of time has said what failed until then
            options = ["-v", "--tb=short", "-p", "no:cacheprovider", "-rfE", *more]
            runs.append(subprocess.Popen([*command, *options], stdout=out, stderr=subprocess.STDOUT, env=environment))
    codes = [run.wait() for run in runs]
    for code, log in zip(codes, logs, strict=True):
        lines = log.read_text(errors="replace").splitlines()
        print(f"{log}: exit code {code}; {lines[-1] if lines else 'no output'}")
        for line in lines:
            if line.startswith(("FAILED ", "ERROR ")):
                print(f"  {line[:300]}")
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
