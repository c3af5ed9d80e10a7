"""How fast are the four nets of configs/benchmark and ResNet-50, forward and forward + backward, against PyTorch?

    python tools/bench/nets.py [--nets alexnet,googlenet] [--batches 1,16]

PyTorch runs eagerly, once contiguous and once channels-last; the ratio is to the better of the two.
"""

from __future__ import annotations

from common import ROOT, arguments, median, ratio, take_turns, torch_or_none, write
from ours import net_for, session

NETS = {
    "alexnet": "configs/benchmark/alexnet.prototxt",
    "overfeat": "configs/benchmark/overfeat.prototxt",
    "vgg_a": "configs/benchmark/vgg_a.prototxt",
    "googlenet": "configs/benchmark/googlenet.prototxt",
    "resnet50": "configs/imagenet/resnet50/deploy.prototxt",
}
LARGEST = {"vgg_a": 8}


def main() -> None:
    """Measure and print."""
    args = arguments(
        "the speed of large nets",
        nets={"default": ",".join(NETS), "help": "which, separated by commas"},
        batches={"default": "1,16", "help": "batch sizes"},
        ways={"default": "forward,both", "help": "forward, both"},
    )
    torch = torch_or_none(args)
    rows = []
    print(f"{'net':10} {'batch':>5} {'pass':8} {'netrun ms':>10} {'torch ms':>10} {'last ms':>10} {'ratio':>6}")
    for name in args.nets.split(","):
        for batch in (min(int(b), LARGEST.get(name, 1024)) for b in args.batches.split(",")):
            for way in args.ways.split(","):
                message, shapes = net_for(str(ROOT / NETS[name]), batch)
                ours = session(message, way)
                sides = {"netrun": ours.run}
                if torch is not None:
                    sides |= torch_sides(torch, message, shapes, way)
                times = take_turns(sides, args.rounds, args.seconds)
                best = min((s for s in times if s != "netrun"), key=lambda s: median(times[s]), default=None)
                factor = ratio(times["netrun"], times[best]) if best else None
                cells = [
                    f"{median(times[s]) * 1e3:10.1f}" if s in times else " " * 10 for s in ("netrun", "torch", "last")
                ]
                print(f"{name:10} {batch:5} {way:8} {' '.join(cells)} {f'{factor:6.2f}' if factor else ''}", flush=True)
                rows.append({"net": name, "batch": batch, "pass": way, "seconds": times, "ratio": factor,
                             "planned_bytes": ours.plan.total})  # fmt: skip
                del ours, sides
    write("nets", args, rows, torch=getattr(torch, "__version__", None))


def torch_sides(torch, message, shapes, way):  # type: ignore[no-untyped-def]
    """PyTorch's steps, by memory format."""
    from torch_net import Net

    found = {}
    for label, layout in (("torch", torch.contiguous_format), ("last", torch.channels_last)):
        net = Net(message, shapes).to(memory_format=layout)
        x = torch.randn(next(iter(shapes.values()))).to(memory_format=layout)
        net.train(way == "both")

        def forward(net=net, x=x):  # type: ignore[no-untyped-def]
            with torch.inference_mode():
                net(x)

        def both(net=net, x=x):  # type: ignore[no-untyped-def]
            y = net(x)
            net.zero_grad()
            y.backward(torch.ones_like(y))

        found[label] = both if way == "both" else forward
    return found


if __name__ == "__main__":
    main()
