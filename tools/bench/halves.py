"""How much faster are the large nets in BF16 than in FP32, forward + backward, on this processor?

    python tools/bench/halves.py [--nets alexnet,googlenet] [--batch 16] [--direct]

``--direct`` leaves Winograd's filtering and products at frequencies out on both sides; they gain more in FP32, whose
rounding errors allow larger tiles, so that the ratio without them is that of the arithmetic.

The processor has to multiply bfloat16 itself; elsewhere device cpu refuses, and this script says so.
"""

from __future__ import annotations

from common import ROOT, arguments, median, ratio, take_turns, write
from nets import LARGEST, NETS
from ours import net_for, session

from netrun.cpu import frequencies, winograd_cost


def main() -> None:
    """Measure and print."""
    args = arguments(
        "BF16 against FP32",
        nets={"default": ",".join(NETS), "help": "which, separated by commas"},
        batch={"type": int, "default": 16, "help": "batch size"},
        direct={"action": "store_true", "help": "without Winograd's filtering and frequencies"},
    )
    winograd_cost.ENABLED = frequencies.ENABLED = not args.direct
    rows = []
    print(f"{'net':10} {'batch':>5} {'FP32 ms':>10} {'BF16 ms':>10} {'ratio':>6} {'FP32 MiB':>9} {'BF16 MiB':>9}")
    for name in args.nets.split(","):
        batch = min(args.batch, LARGEST.get(name, 1024))
        message, _ = net_for(str(ROOT / NETS[name]), batch)
        made = {p: session(message, "both", precision=p) for p in ("FP32", "BF16")}
        times = take_turns({p: s.run for p, s in made.items()}, args.rounds, args.seconds)
        factor = ratio(times["BF16"], times["FP32"])
        bytes_ = {p: s.plan.arena for p, s in made.items()}
        spent = " ".join(f"{median(times[p]) * 1e3:10.1f}" for p in made)
        room = " ".join(f"{bytes_[p] / 2**20:9.1f}" for p in made)
        print(f"{name:10} {batch:5} {spent} {factor:6.2f} {room}", flush=True)
        rows.append({"net": name, "batch": batch, "seconds": times, "ratio": factor, "arena_bytes": bytes_})
    write("halves", args, rows)


if __name__ == "__main__":
    main()
