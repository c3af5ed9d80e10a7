"""How long does one image take? Forward at batch 1, from an array on the host to an array on the host.

    python tools/bench/latency.py

PyTorch runs eagerly, once contiguous and once channels-last; the ratio is to the better of the two.
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
    print(f"{'net':14} {'netrun ms':>10} {'torch ms':>10} {'last ms':>10} {'ratio':>6}")
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
            sides |= torch_sides(torch, message, shapes, image)
        times = take_turns(sides, args.rounds, args.seconds)
        best = min((s for s in times if s != "netrun"), key=lambda s: median(times[s]), default=None)
        factor = ratio(times["netrun"], times[best]) if best else None
        cells = [f"{median(times[s]) * 1e3:10.2f}" if s in times else " " * 10 for s in ("netrun", "torch", "last")]
        print(f"{name:14} {' '.join(cells)} {f'{factor:6.2f}' if factor else ''}", flush=True)
        rows.append({"net": name, "seconds": times, "ratio": factor})
    write("latency", args, rows, torch=getattr(torch, "__version__", None))


def torch_sides(torch, message, shapes, image):  # type: ignore[no-untyped-def]
    """One image through PyTorch, by memory format of the weights and what follows from them."""
    from torch_net import Net

    found = {}
    for label, layout in (("torch", torch.contiguous_format), ("last", torch.channels_last)):
        module = Net(message, shapes).eval().to(memory_format=layout)

        def run(module=module, layout=layout):  # type: ignore[no-untyped-def]
            with torch.inference_mode():
                return module(torch.from_numpy(image).to(memory_format=layout)).numpy()

        found[label] = run
    return found


if __name__ == "__main__":
    main()
