"""How long does one image take? Forward at batch 1, from an array on the host to an array on the host.

python tools/bench/latency.py
"""

from __future__ import annotations

import numpy as np
from common import ROOT, arguments, median, ratio, take_turns, torch_or_none, write
from nets import NETS
from ours import net_for, session

SMALL = {"lenet": "configs/mnist/lenet.prototxt", "cifar10_quick": "configs/cifar10/quick.prototxt"}


def main() -> None:
    """Measure and print."""
    args = arguments("latency of one image", nets={"default": ",".join(SMALL | NETS), "help": "which"})
    torch = torch_or_none(args)
    rows = []
    print(f"{'net':14} {'netrun ms':>10} {'torch ms':>10} {'ratio':>6}")
    for name in args.nets.split(","):
        message, shapes = net_for(str(ROOT / (SMALL | NETS)[name]), 1)
        ours = session(message, "forward")
        image = np.random.default_rng(0).standard_normal(next(iter(shapes.values()))).astype("float32")
        (feed,) = ours.program.feeds
        (kept, *_) = [t for t in ours.program.keeps if t.kind == "data"]

        def run(ours=ours, feed=feed, kept=kept, image=image):  # type: ignore[no-untyped-def]
            ours.feed({feed: image})
            ours.run()
            return ours.read(kept)

        sides = {"netrun": run}
        if torch is not None:
            from torch_net import Net

            module = Net(message, shapes).eval()

            def theirs(module=module, image=image):  # type: ignore[no-untyped-def]
                with torch.inference_mode():
                    return module(torch.from_numpy(image)).numpy()

            sides["torch"] = theirs
        times = take_turns(sides, args.rounds, args.seconds)
        factor = ratio(times["netrun"], times["torch"]) if "torch" in times else None
        cells = [f"{median(times[s]) * 1e3:10.2f}" if s in times else " " * 10 for s in ("netrun", "torch")]
        print(f"{name:14} {' '.join(cells)} {f'{factor:6.2f}' if factor else ''}", flush=True)
        rows.append({"net": name, "seconds": times, "ratio": factor})
    write("latency", args, rows, torch=getattr(torch, "__version__", None))


if __name__ == "__main__":
    main()
