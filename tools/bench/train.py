"""How many training iterations a second, with the update: LeNet batch 64, CIFAR-10 quick batch 100, ResNet-50 batch 8?

    python tools/bench/train.py [--nets lenet,cifar10,resnet50]

Data is noise that stays in memory on both sides; netrun runs its solver's own loop, PyTorch SGD with momentum (its
fused update), contiguous and channels-last. Three losses of each side are in the log, so that nobody times a net that
does not train.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from common import ROOT, arguments, median, ratio, take_turns, torch_or_none, write

from netrun.config import schema
from netrun.config.upgrade import read_net, read_solver
from netrun.data.feeder import Cursor, Feeder, Floats
from netrun.solver import Solver

NETS = {
    "lenet": ("configs/mnist/solver.prototxt", "configs/mnist/lenet_train_test.prototxt", (64, 1, 28, 28), 10),
    "cifar10": ("configs/cifar10/quick_solver.prototxt", "configs/cifar10/quick_train_test.prototxt",
                (100, 3, 32, 32), 10),
    "resnet50": ("configs/imagenet/resnet50/solver.prototxt", "configs/imagenet/resnet50/train_val.prototxt",
                 (8, 3, 224, 224), 1000),
}  # fmt: skip


def main() -> None:
    """Measure and print."""
    args = arguments("training speed", nets={"default": ",".join(NETS), "help": "which, separated by commas"})
    torch = torch_or_none(args)
    rows = []
    print(f"{'net':10} {'batch':>5} {'netrun it/s':>12} {'torch it/s':>11} {'last it/s':>10} {'ratio':>6}")
    for name in args.nets.split(","):
        solver_file, net_file, shape, classes = NETS[name]
        net = train_net(str(ROOT / net_file), shape, classes)
        solver = our_solver(str(ROOT / solver_file), net)
        sides = {"netrun": lambda solver=solver: solver.step(1)}
        if torch is not None:
            sides |= torch_sides(torch, net, shape, classes)
        times = take_turns(sides, args.rounds, args.seconds)
        best = min((s for s in times if s != "netrun"), key=lambda s: median(times[s]), default=None)
        factor = ratio(times["netrun"], times[best]) if best else None
        speeds = [f"{1 / median(times[s]):10.1f}" if s in times else " " * 10 for s in ("netrun", "torch", "last")]
        print(f"{name:10} {shape[0]:5}   {'  '.join(speeds)} {f'{factor:6.2f}' if factor else ''}", flush=True)
        rows.append({"net": name, "batch": shape[0], "seconds": times, "ratio": factor,
                     "loss": float(np.mean(solver.losses))})  # fmt: skip
        solver.close()
    write("train", args, rows, torch=getattr(torch, "__version__", None))


def train_net(path: str, shape: tuple[int, ...], classes: int) -> schema.NetParameter:
    """The training net on noise instead of a database."""
    message, _ = read_net(path)
    layers = [m for m in message.layer if m.type not in ("Data", "Accuracy")]
    layers = [m for m in layers if not any(rule.phase == schema.TEST for rule in m.include)]
    del message.layer[:]
    data = message.layer.add(name="data", type="DummyData", top=["data", "label"])
    data.dummy_data_param.shape.add().dim.extend(shape)
    data.dummy_data_param.shape.add().dim.extend(shape[:1])
    data.dummy_data_param.data_filler.add(type="gaussian", std=1.0)
    data.dummy_data_param.data_filler.add(type="constant", value=classes // 2)
    for layer in layers:
        message.layer.add().CopyFrom(layer)
    return message


def our_solver(path: str, net: schema.NetParameter) -> Solver:
    """The solver on that net, without tests, display and snapshots."""
    message, _ = read_solver(path)
    for field in ("net", "test_iter", "test_interval", "display", "snapshot", "snapshot_prefix", "iter_size"):
        message.ClearField(field)
    message.net_param.CopyFrom(net)
    message.random_seed, message.base_lr, message.max_iter = 1, 1e-3, 10**9
    solver = Solver(message)
    feeders = solver.runners[0].feeders
    for layer, feeder in feeders.items():  # DummyData draws new noise for every batch; PyTorch's side keeps its own
        feeders[layer] = Same(feeder)
    return solver


class Same:
    """Delivers the first batch of a feeder again and again."""

    def __init__(self, feeder: Feeder) -> None:
        self.names, self.shapes, self.records = feeder.names, feeder.shapes, feeder.records
        self.batch = feeder.next()
        feeder.close()

    def next(self) -> Sequence[Floats]:
        """The batch."""
        return self.batch

    def state(self) -> Cursor:
        """The beginning, always."""
        return Cursor()

    def restore(self, cursor: Cursor) -> None:
        """There is nothing to go back to."""

    def close(self) -> None:
        """Nothing is open."""


def torch_sides(torch, net, shape, classes):  # type: ignore[no-untyped-def]
    """One training iteration in PyTorch, by memory format."""
    from torch_net import Net

    found = {}
    for label, layout in (("torch", torch.contiguous_format), ("last", torch.channels_last)):
        module = Net(net, {"data": shape, "label": shape[:1]}).to(memory_format=layout)
        optimizer = torch.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, fused=True)
        x = torch.randn(shape).to(memory_format=layout)
        y = torch.full(shape[:1], classes // 2)

        def step(module=module, optimizer=optimizer, x=x, y=y):  # type: ignore[no-untyped-def]
            optimizer.zero_grad()
            module(x, y).backward()
            optimizer.step()

        found[label] = step
    return found


if __name__ == "__main__":
    main()
