"""netrun's side of a benchmark: a net read, given another batch, compiled and filled with random numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from netrun.cli.timing import forward_backward
from netrun.compiler.graph import build
from netrun.compiler.record import record
from netrun.compiler.rules import State
from netrun.config import schema
from netrun.config.upgrade import read_net
from netrun.device import Device, open_device
from netrun.params import initialise
from netrun.runner import forward_program
from netrun.session import Memory, Session
from netrun.types import Numerics


def net_for(path: str, batch: int) -> tuple[schema.NetParameter, dict[str, tuple[int, ...]]]:
    """The net with its Input layers' first axis set, and the shapes of its inputs."""
    message, _ = read_net(path)
    shapes = {}
    for layer in message.layer:
        if layer.type == "Input":
            for top, shape in zip(layer.top, layer.input_param.shape, strict=False):
                shape.dim[0] = batch
                shapes[top] = tuple(shape.dim)
    return message, shapes


def session(message: schema.NetParameter, way: str, device: Device | None = None, precision: str = "FP32") -> Session:
    """A session of the net's forward pass (way="forward") or of both passes ("both"), inputs and seeds set."""
    device = device or open_device("cpu")
    recording = record(build(message, None, State(schema.TEST if way == "forward" else schema.TRAIN, 0, ())))
    program = forward_program(recording) if way == "forward" else forward_backward(recording)
    program = replace(program, numerics=Numerics(precision))
    memory = Memory(device)
    initialise(recording, memory, seed=0)
    made = Session(program, device, memory, frozen=way == "forward")
    generator = np.random.default_rng(0)

    def noise(shape: Any) -> Any:
        return generator.standard_normal(shape).astype("float32")

    for tensor in program.feeds.values():
        made.write(tensor, noise(tensor.shape))
    for tensor in made.program.tensors():
        if tensor.name.endswith("' given"):
            made.write(tensor, noise(tensor.shape))
    for tensor in made.program.tensors():  # running statistics of an untrained net are 0: use those of noise
        if tensor.kind == "statistic":
            made.write(tensor, np.ones(tensor.shape))
    return made
