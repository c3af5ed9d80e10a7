"""A net in Python: every blob readable and writable, forward and backward, whole or from layer to layer."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .compiler.gradients import backward
from .compiler.graph import Graph, State, build
from .compiler.record import Recording, record
from .config import schema
from .config.source import Source
from .config.upgrade import read_net, upgrade_net
from .device import Device, Step, open_device
from .errors import UsageError, nearest
from .expression import rule
from .params import Report, initialise, load
from .program import Call, Program
from .session import Memory, Session
from .types import Shape, Tensor

_ADD = rule(["g"], ["total"], "total = total + g")


class Blob:
    """A blob or a parameter: ``data`` and ``diff`` are NumPy arrays; on a host device they are the memory itself."""

    def __init__(self, net: Net, data: Tensor, diff: Tensor) -> None:
        self._net, self._data, self._diff = net, data, diff

    @property
    def shape(self) -> Shape:
        """Length of every axis."""
        return self._data.shape

    @property
    def data(self) -> np.ndarray[Any, Any]:
        """The values."""
        return self._net._array(self._data)

    @property
    def diff(self) -> np.ndarray[Any, Any]:
        """The gradient: what the last backward left here, or what the next one shall start from."""
        return self._net._array(self._diff)


class Net:
    """One net in one phase on one device, compiled so that everything in it can be looked at.

    Args:
        net: path of a prototxt, or a NetParameter message.
        phase: schema.TRAIN or schema.TEST.
        weights: path of a .caffemodel or .h5 file.
        level, stages: what the include and exclude rules see besides the phase.
        device: "cpu", "reference", "cuda:0"..., or an open device.
        dtype: "float32" or "float64".
        seed: of fillers and of everything random in the layers.

    Raises:
        ConfigError: the net cannot be built; with every problem found.
        WeightsError, UsageError, DeviceError: as their names say.
    """

    def __init__(
        self,
        net: str | os.PathLike[str] | schema.NetParameter,
        phase: int = schema.TEST,
        *,
        weights: str | os.PathLike[str] | None = None,
        level: int = 0,
        stages: Sequence[str] = (),
        device: str | Device = "cpu",
        dtype: str = "float32",
        seed: int = 0,
        folder: str = "",
        shapes: Mapping[str, Shape] | None = None,
    ) -> None:
        source: Source | None = None
        if isinstance(net, schema.NetParameter):
            message = schema.NetParameter()
            message.CopyFrom(net)
            upgrade_net(message, None)
        else:
            message, source = read_net(net)
            folder = folder or str(Path(net).parent)
        self.device = open_device(device) if isinstance(device, str) else device
        state = State(phase, level, tuple(stages))
        self.graph: Graph = build(message, source, state, dtype=dtype, seed=seed, folder=folder, shapes=shapes)
        self.recording: Recording = record(self.graph)
        self._gradients = self._record_backward()
        self._shared, self._own = Memory(self.device), Memory(self.device)
        initialise(self.recording, self._shared, seed)
        self.session = Session(self._program(), self.device, self._shared, self._own)
        for node in self.graph.nodes:
            for value, weight in zip(node.tops, node.loss_weights, strict=True):
                if weight and value in self._seeds:
                    self.session.write(self._seeds[value], np.full(value.spec.shape, weight))
        self._feeders: dict[str, Any] | None = None
        self.forwards = 0
        """Forward passes so far; what is random in the layers is drawn with the number."""
        self._folder, self._seed = folder, seed
        self._parts: dict[tuple[str, int, int], Step] = {}
        self.blobs: dict[str, Blob] = {name: self._blob(name) for name in self.graph.blobs}
        self.params: dict[str, list[Blob]] = self._parameter_blobs()
        self.report: Report | None = None
        if weights is not None:
            self.report = load(self.recording, self._shared, os.fspath(weights))

    # ---------------------------------------------------------------------------------------------------- compiling
    def _record_backward(self) -> dict[Tensor, Tensor]:
        recording, graph = self.recording, self.graph
        # Which blobs a person may start a backward from: what nobody reads, and what has a loss weight.
        self._seeds = {}
        weighted = {id(v) for n in graph.nodes for v, w in zip(n.tops, n.loss_weights, strict=True) if w}
        for node in graph.nodes:
            for value in node.tops:
                if not value.readers or id(value) in weighted:
                    name = f"{recording.tensors[value].name}' from outside"
                    self._seeds[value] = Tensor(name, value.spec, "control")
        roots = [
            tensor
            for parameter, tensor in recording.parameters.items()
            if parameter.trained and (parameter.lr_mult != 0 or graph.force_backward)
        ]
        if graph.force_backward:
            roots += [recording.tensors[v] for v in graph.inputs]
        self._start = len(recording.recorder.calls)
        seeds = [(recording.tensors[value], seed) for value, seed in self._seeds.items()]
        found = backward(recording.recorder, recording.forward, roots, seeds=seeds)
        self._accumulators = {}
        for parameter, tensor in recording.parameters.items():
            total = Tensor(f"{tensor.name}.diff", tensor.spec, "control")
            self._accumulators[parameter] = total
            if tensor in found and parameter.trained:
                recording.recorder.origin = f"{parameter.layer}'"
                recording.recorder.update([found[tensor]], [total], rule=_ADD)
        return found

    def _program(self) -> Program:
        recording = self.recording
        keeps = {recording.tensors[v] for v in self.graph.blobs.values()}
        keeps.update(g for t, g in self._gradients.items() if t in set(recording.tensors.values()))
        if recording.loss is not None:
            keeps.add(recording.loss)
        return Program(tuple(recording.recorder.calls), recording.feeds, frozenset(keeps))

    def _versions(self, name: str) -> list[Tensor]:
        return [self.recording.tensors[v] for n in self.graph.nodes for v in n.tops if v.blob == name]

    def _blob(self, name: str) -> Blob:
        value = self.graph.blobs[name]
        versions = self._versions(name)
        gradient = self._gradients.get(versions[0])
        if value in self._seeds:
            diff = self._seeds[value]
        elif gradient is not None:
            diff = gradient
        else:
            diff = Tensor(f"{name}' unused", value.spec, "control")
        return Blob(self, versions[-1], diff)

    def _parameter_blobs(self) -> dict[str, list[Blob]]:
        found: dict[str, list[Blob]] = {}
        for node in self.graph.nodes:
            blobs = []
            for parameter in node.parameters:
                owner = parameter.owner or parameter
                shape = parameter.spec.shape
                data, diff = self.recording.parameters[owner], self._accumulators[owner]
                blobs.append(Blob(self, data.view(shape), diff.view(shape)))
            if blobs:
                found[node.name] = blobs
        return found

    def _array(self, tensor: Tensor) -> np.ndarray[Any, Any]:
        array = self.session.array(tensor)
        return array if isinstance(array, np.ndarray) else self.device.read(array)

    # ------------------------------------------------------------------------------------------------------- running
    @property
    def inputs(self) -> list[str]:
        """Blobs that the caller feeds: tops of Input layers."""
        return [v.blob for v in self.graph.inputs if v.producer.layer.type == "Input"]

    @property
    def outputs(self) -> list[str]:
        """Blobs that nobody reads, in alphabetical order."""
        return [name for name, _ in self.graph.outputs]

    @property
    def loss(self) -> float:
        """The total loss of the last forward: sum over tops of loss weight * sum of the elements."""
        return float(self.session.read(self.recording.loss)) if self.recording.loss is not None else 0.0

    def forward(self, start: str | None = None, end: str | None = None, **arrays: Any) -> dict[str, Any]:
        """Run the layers from ``start`` to ``end`` (both included); arrays are put into the blobs of those names first.

        Returns:
            The outputs (or the tops of ``end``) by name.
        """
        for name, value in arrays.items():
            blob = self._known_blob(name)
            if np.shape(value) != blob.shape:
                raise UsageError(f'blob "{name}" has the shape {blob.shape}, the array given has {np.shape(value)}')
            self.session.write(blob._data, value)
        if start is None:
            self._feed(arrays)
        for value in self.graph.inputs:
            first, last = self.recording.tensors[value], self.blobs[value.blob]._data
            if first is not last:  # an in-place layer works on an input
                self.session.write(first, self.session.read(last))
        self.session.write(self.recording.clock, np.int64(self.forwards))
        self.forwards += start is None
        self._part("forward", start, end)()
        names = self._nodes_named(end)[-1].message.top if end is not None else [v.blob for _, v in self.graph.outputs]
        return {name: self.blobs[name].data for name in names}

    def backward(self, start: str | None = None, end: str | None = None, **diffs: Any) -> dict[str, Any]:
        """Run backward from layer ``start`` down to ``end``; diffs are put into those blobs' ``diff`` first.

        Gradients of parameters add to what their ``diff`` holds.

        Returns:
            Gradients of the inputs (or of the bottoms of ``end``) by name, where there are any.
        """
        for name, value in diffs.items():
            self.session.write(self._known_blob(name)._diff, value)
        if start is not None:
            for value in self._nodes_named(start)[0].tops:
                tensor = self.recording.tensors[value]
                gradient, given = self._gradients.get(tensor), self.blobs[value.blob]._diff
                if gradient is not None and gradient is not given:
                    self.session.write(gradient, self.session.read(given))
        self._part("backward", start, end)()
        for value, seed in self._seeds.items():
            first = self._gradients.get(self._versions(value.blob)[0])
            if first is not None and self.recording.tensors[value] is not self._versions(value.blob)[0]:
                self.session.write(seed, self.session.read(first))
        names = self._nodes_named(end)[-1].message.bottom if end is not None else self.inputs
        return {n: self.blobs[n].diff for n in names if self._versions(n)[0] in self._gradients}

    def clear_param_diffs(self) -> None:
        """Set the gradient of every parameter to zero."""
        for total in self._accumulators.values():
            self.session.write(total, np.zeros(total.shape, total.dtype))

    def _feed(self, given: Mapping[str, Any]) -> None:
        if self._feeders is None:
            self._feeders = {
                n.name: n.layer.feeder(folder=n.layer.context.folder, seed=self._seed, stream="net")  # type: ignore[attr-defined]
                for n in self.graph.nodes
                if n.layer.fed and n.layer.type != "Input"
            }
        for node in self.graph.nodes:
            feeder = self._feeders.get(node.name)
            if feeder is not None:
                for value, batch in zip(node.tops, feeder.next(), strict=True):
                    if value.blob not in given:
                        self.session.write(self.recording.tensors[value], batch)

    def _known_blob(self, name: str) -> Blob:
        if name not in self.blobs:
            raise UsageError(f'the net has no blob "{name}"{nearest(name, self.blobs)}')
        return self.blobs[name]

    def _nodes_named(self, name: str) -> list[Any]:
        found = [n for n in self.graph.nodes if n.name == name]
        if not found:
            raise UsageError(f'the net has no layer "{name}"{nearest(name, [n.name for n in self.graph.nodes])}')
        return found

    def _part(self, way: str, start: str | None, end: str | None) -> Step:
        names = [n.name for n in self.graph.nodes]
        if way == "forward":
            low = names.index(self._nodes_named(start)[0].name) if start else 0
            high = names.index(self._nodes_named(end)[-1].name) if end else len(names) - 1
        else:
            high = names.index(self._nodes_named(start)[0].name) if start else len(names) - 1
            low = names.index(self._nodes_named(end)[-1].name) if end else 0
        key = (way, low, high)
        if key not in self._parts:
            wanted = set(names[low : high + 1])
            whole = high == len(names) - 1

            def within(call: Call) -> bool:
                if call.origin.endswith("'") != (way == "backward"):
                    return False
                name = call.origin.rstrip("'")
                return name in wanted or (whole and name not in names)

            self._parts[key] = self.session.part(within)
        return self._parts[key]

    def close(self) -> None:
        """Stop the threads of data layers."""
        for feeder in (self._feeders or {}).values():
            feeder.close()
        self._feeders = None

    def __enter__(self) -> Net:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self.blobs)


__all__ = ["Blob", "Net"]
