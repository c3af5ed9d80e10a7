"""debug_info: the mean absolute value of every blob, gradient and parameter, layer by layer, in Caffe's wording."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import printable

if TYPE_CHECKING:
    from .solver import Solver


def report(solver: Solver) -> None:
    """Log the last pass of the training net (compiled with everything kept)."""
    training, session = solver.training, solver.runners[0].session
    recording = training.recording

    def mean(array: Any) -> float:
        return float(np.abs(array).mean(dtype=np.float64)) if array.size else 0.0

    for node in recording.graph.nodes:
        name = printable(node.name)
        for value in node.tops:
            amount = mean(session.read(recording.tensors[value]))
            solver.log(f"    [Forward] Layer {name}, top blob {printable(value.blob)} data: {amount:g}", "net.cpp:593")
        for i, parameter in enumerate(node.parameters):
            amount = mean(solver.memory.read(recording.parameters[parameter.owner or parameter]))
            solver.log(f"    [Forward] Layer {name}, param blob {i} data: {amount:g}", "net.cpp:605")
    for node in reversed(recording.graph.nodes):
        name = printable(node.name)
        for value in node.bottoms:
            gradient = training.gradients.get(recording.tensors[value])
            if gradient is not None:
                amount = mean(session.read(gradient))
                solver.log(
                    f"    [Backward] Layer {name}, bottom blob {printable(value.blob)} diff: {amount:g}", "net.cpp:621"
                )
        for i, parameter in enumerate(node.parameters):
            gradient = training.gradients.get(recording.parameters[parameter.owner or parameter])
            if gradient is not None:
                amount = mean(session.read(gradient))
                solver.log(f"    [Backward] Layer {name}, param blob {i} diff: {amount:g}", "net.cpp:632")
    _norms(solver)


def _norms(solver: Solver) -> None:
    training, session = solver.training, solver.runners[0].session
    sums = np.zeros(4)
    for tensor in training.recording.parameters.values():
        data = solver.memory.read(tensor).astype(np.float64)
        gradient = training.gradients.get(tensor)
        diff = session.read(gradient).astype(np.float64) if gradient is not None else np.zeros(1)
        sums += [np.abs(data).sum(), np.abs(diff).sum(), (data**2).sum(), (diff**2).sum()]
    first, second = f"({sums[0]:g}, {sums[1]:g})", f"({sums[2] ** 0.5:g}, {sums[3] ** 0.5:g})"
    text = f"    [Backward] All net params (data, diff): L1 norm = {first}; L2 norm = {second}"
    solver.log(text, "net.cpp:721", "E")
