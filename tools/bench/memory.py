"""How much memory does training take, and how near is that to the plan? Each net in a process of its own.

    python tools/bench/memory.py

"planned" is what ``netrun plan`` prints for a pass; "measured" is the process's peak less what it held before the
session was made; "all blobs" is the sum of every blob and gradient if none shared memory.
"""

from __future__ import annotations

import json
import subprocess
import sys

from common import ROOT, arguments, write
from nets import NETS

CASES = [("googlenet", 32), ("alexnet", 64), ("resnet50", 8)]

CHILD = """
import json, resource, sys
sys.path[:0] = [{here!r}]
from ours import net_for, session
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
message, _ = net_for({net!r}, 1)
small = session(message, "both")
small.run()
before, kept = peak(), small.plan.total
message, _ = net_for({net!r}, {batch})
made = session(message, "both")
made.run()
made.run()
print(json.dumps({{"planned": made.plan.total, "naive": made.plan.naive + made.plan.held, "measured": peak() - before,
                   "before": before, "planned_before": kept}}))
"""


def main() -> None:
    """Measure and print."""
    args = arguments("peak memory")
    rows = []
    print(f"{'net':10} {'batch':>5} {'planned MiB':>12} {'measured MiB':>13} {'all blobs MiB':>14}")
    for name, batch in CASES:
        code = CHILD.format(here=str(ROOT / "tools/bench"), net=str(ROOT / NETS[name]), batch=batch)
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        found = json.loads(done.stdout)
        cells = [found[key] / 2**20 for key in ("planned", "measured", "naive")]
        print(f"{name:10} {batch:5} {cells[0]:12.1f} {cells[1]:13.1f} {cells[2]:14.1f}", flush=True)
        rows.append({"net": name, "batch": batch, **found})
    write("memory", args, rows)


if __name__ == "__main__":
    main()
