"""What the Python binding costs: LeNet's forward at batch 1 through ``net.forward()`` against the bare session.

    python tools/bench/binding.py [--device cpu] [--rounds 2000]

Prints microseconds per forward, the best of blocks of 50, and the ratio; ends with status 1 if it is above 1.5.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import netrun
import netrun.pycaffe as caffe
from netrun.compiler.graph import build
from netrun.compiler.record import record
from netrun.config.upgrade import read_net
from netrun.device import open_device
from netrun.params import initialise
from netrun.runner import forward_program
from netrun.session import Memory, Session

LENET = Path(__file__).resolve().parents[2] / "configs" / "mnist" / "lenet.prototxt"
LIMIT, BLOCK = 1.5, 50
SHAPE = (1, 1, 28, 28)


def bare(device: str, fed: bool = False) -> Callable[[], object]:
    """The compiled forward pass and nothing else, on packed weights as the nets have them; ``fed``: with an image."""
    message, source = read_net(LENET)
    recording = record(build(message, source, shapes={"data": SHAPE}))
    opened = open_device(device)
    memory = Memory(opened)
    initialise(recording, memory, 0)
    session = Session(forward_program(recording), opened, memory, frozen=True)
    image = {"data": np.ones(SHAPE, np.float32)}
    session.feed(image)

    def run() -> None:
        if fed:
            session.feed(image)
        session.run()
        opened.synchronize()

    return run


def bindings(device: str) -> dict[str, Callable[[], object]]:
    """``forward()`` of both nets, with and without an array."""
    image = np.ones(SHAPE, np.float32)
    net = netrun.Net(LENET, shapes={"data": SHAPE}, device=device)
    mirror = caffe.Net(str(LENET), caffe.TEST, shapes={"data": SHAPE}, device=device)
    return {
        "netrun.Net.forward()": net.forward,
        "netrun.Net.forward(data=image)": lambda: net.forward(data=image),
        "caffe.Net.forward()": mirror.forward,
        "caffe.Net.forward(data=image)": lambda: mirror.forward(data=image),
    }


def best(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds a call of each, measured in turns, so that a busy moment hits all of them."""
    found = dict.fromkeys(runs, float("inf"))
    for run in runs.values():
        for _ in range(BLOCK):
            run()
    for _ in range(max(1, rounds // BLOCK)):
        for name, run in runs.items():
            begun = time.perf_counter()
            for _ in range(BLOCK):
                run()
            found[name] = min(found[name], (time.perf_counter() - begun) / BLOCK)
    return found


def main() -> int:
    """Measure and print; 1 if the binding is too slow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=2000)
    args = parser.parse_args()
    bases = {"session.run()": bare(args.device), "session.feed(data=image), run()": bare(args.device, fed=True)}
    found = best({**bases, **bindings(args.device)}, args.rounds)
    ratios = {}
    for name, seconds in found.items():
        ratios[name] = seconds / found[list(bases)["image" in name]]
        print(f"{name:32} {seconds * 1e6:9.1f} us   {ratios[name]:5.2f} x")
    return int(max(ratios.values()) > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
