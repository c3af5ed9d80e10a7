"""Prints how much longer a forward of LeNet at batch 1 takes through the binding than in the bare session.

A program of its own, so that it can be run with one thread (OMP_NUM_THREADS=1): on a busy machine threads wait for
each other, and that is not what is measured. The least of many calls, taken in turn.
"""

from __future__ import annotations

import time
from pathlib import Path

import netrun.pycaffe as caffe
from netrun.compiler.graph import State, build
from netrun.compiler.record import record
from netrun.config.upgrade import read_net
from netrun.device import open_device
from netrun.params import initialise
from netrun.runner import open_forward
from netrun.session import Memory


def main(rounds: int = 20, goal: float = 1.5) -> None:
    """Stops early when the goal is reached."""
    message, source = read_net(Path(__file__).parents[2] / "configs/mnist/lenet.prototxt")
    message.layer[0].input_param.shape[0].dim[0] = 1
    recording = record(build(message, source, State(caffe.TEST)))
    memory = Memory(open_device("cpu"))
    initialise(recording, memory, 0)
    session = open_forward(recording, memory.device, memory)
    net = caffe.Net(message, caffe.TEST)
    bare = bound = 1e9
    for _ in range(rounds):
        for _ in range(300):
            begun = time.perf_counter()
            session.run()
            between = time.perf_counter()
            net.forward()
            bare = min(bare, between - begun)
            bound = min(bound, time.perf_counter() - between)
        if bound < goal * bare:
            break
    print(f"{bound / bare:.3f} bare {bare * 1e6:.0f} us, bound {bound * 1e6:.0f} us")


if __name__ == "__main__":
    main()
