"""A net in Python: every blob readable and writable, forward and backward, whole or from layer to layer.

with Net("configs/mnist/lenet.prototxt", weights="lenet_iter_10000.caffemodel") as net:
    net.forward(data=images)
    net.blobs["conv1"].data          # what it holds; write into it and go on: net.forward(start="pool1")
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from .blob import Blob, TypeMismatchError, not_copied
from .compiler.graph import Graph, Node, State
from .compiler.record import Recording
from .config import schema
from .config.source import Source
from .device import Device, open_device
from .engine import Engine
from .errors import UsageError
from .forms import shared_pairs
from .names import Named, NamedParameters, unknown_layer
from .params import LoadOptions, Report, load
from .predict import Images, Predictor
from .recipe import Recipe, phase_named, precision_named
from .session import Session
from .snapshot import save_weights
from .types import Shape
from .visible import Visible


class Net:
    """One net in one phase on one device, compiled so that everything in it can be looked at.

    Args:
        net: path of a prototxt, or a NetParameter message.
        phase: schema.TRAIN or schema.TEST, or their names.
        weights: path of a .caffemodel or .h5 file.
        level, stages: what the include and exclude rules see besides the phase.
        device: "cpu", "reference", "cuda:0"..., or an open device.
        dtype: "float32" or "float64".
        seed: of fillers and of everything random in the layers.
        folder: what relative file names are looked up in besides the working directory; the file's own by default.
        shapes: other shapes for inputs, by name.
        shared: memory of the parameters, if another net has them already.
        stream: names the net where the random numbers of its data layers come from.
        threads: as many at most decode images.
        precision: "FP32", "TF32", "BF16" or "FP16", whatever the net says (``netrun explain Precision``).
        deterministic: the same bits in every run, also if the net does not ask for it.

    Raises:
        ConfigError: the net cannot be built; with every problem found.
        WeightsError, UsageError, DeviceError: as their names say.
    """

    def __init__(
        self,
        net: str | os.PathLike[str] | schema.NetParameter,
        phase: int | str = schema.TEST,
        *,
        weights: str | os.PathLike[str] | None = None,
        level: int = 0,
        stages: Sequence[str] = (),
        device: str | Device = "cpu",
        dtype: str = "float32",
        seed: int = 0,
        folder: str = "",
        shapes: Mapping[str, Shape] | None = None,
        shared: Visible | None = None,
        stream: str = "net",
        threads: int | None = None,
        precision: str | None = None,
        deterministic: bool = False,
        source: Source | None = None,
    ) -> None:
        recipe = Recipe.read(
            net,
            State(phase_named(phase), level, tuple(stages)),
            source,
            dtype=dtype,
            seed=seed,
            folder=folder,
            stream=stream,
            threads=threads,
        )
        if precision:
            recipe.message.precision = precision_named(precision)
        if deterministic:
            recipe.message.deterministic = True
        opened = open_device(device) if isinstance(device, str) else device
        self._engine = Engine(recipe, opened, shapes or {}, shared)
        weakref.finalize(self, Engine.close, self._engine)
        self.blobs: Named[Blob] = Named()
        """Blobs by name, in the order in which they are made; Caffe's names also for copies that several layers read
        (``ip2_ip2_0_split_0``)."""
        self.params: Named[list[Blob]] = NamedParameters()
        """Parameter blobs by layer."""
        for name in self.graph.blobs:
            self.blobs[name] = Blob(self._engine, ("blob", name, 0), f'blob "{name}"')
        for node in self.graph.nodes:
            if node.parameters and node.name not in self.params:
                self.params[node.name] = [
                    Blob(
                        self._engine, ("param", node.name, i), f"parameter {i} ({p.declared.name}) of layer {node.name}"
                    )
                    for i, p in enumerate(node.parameters)
                ]
        self.report: Report | None = None
        """What loading the last weight file did."""
        self._predictor: Predictor | None = None
        self._name: str | None = None
        if weights is not None:
            self.load(weights)

    # -------------------------------------------------------------------------------------------------------- looking
    @property
    def name(self) -> str:
        """The net's name: the prototxt's, until it is given another."""
        return self.graph.name if self._name is None else self._name

    @name.setter
    def name(self, name: str) -> None:
        self._name = name

    @property
    def phase(self) -> int:
        """schema.TRAIN or schema.TEST."""
        return self.graph.phase

    @property
    def device(self) -> Device:
        """Where it runs."""
        return self._engine.device

    @property
    def graph(self) -> Graph:
        """The layers, connected."""
        return self._engine.graph

    @property
    def recording(self) -> Recording:
        """The layers as calls."""
        return self._engine.recording

    @property
    def session(self) -> Session:
        """The compiled program on the device."""
        self._engine.recall(shown=True)
        return self._engine.now.session

    @property
    def memory(self) -> Visible:
        """Where the parameters are; give it to another net as ``shared``."""
        self._engine.recall(shown=True)
        return self._engine.shared

    @property
    def forwards(self) -> int:
        """Forward passes so far; what is random in the layers is drawn with the number."""
        return self._engine.forwards

    @forwards.setter
    def forwards(self, number: int) -> None:
        self._engine.forwards = number

    @property
    def layer_names(self) -> list[str]:
        """Names of the layers in order, with the Split layers that Caffe would put in."""
        return [node.name for node in self.graph.nodes]

    @property
    def inputs(self) -> list[str]:
        """Blobs that the caller feeds: tops of Input layers."""
        return [v.blob for v in self.graph.inputs if v.producer.layer.type == "Input"]

    @property
    def outputs(self) -> list[str]:
        """Blobs that nobody reads, in alphabetical order."""
        return [name for name, _ in self.graph.outputs]

    @property
    def top_names(self) -> dict[str, list[str]]:
        """Names of the tops by layer."""
        return {node.name: tops(node) for node in self.graph.nodes}

    @property
    def bottom_names(self) -> dict[str, list[str]]:
        """Names of the bottoms by layer."""
        return {node.name: [v.blob for v in node.bottoms] for node in self.graph.nodes}

    @property
    def loss(self) -> float:
        """The total loss of the last whole forward: sum over tops of loss weight * sum of the elements."""
        loss = self.recording.loss
        return float(self._engine.value(loss)) if loss is not None else 0.0

    # -------------------------------------------------------------------------------------------------------- running
    def forward(self, start: str | None = None, end: str | None = None, **arrays: Any) -> dict[str, Any]:
        """Run the layers from ``start`` to ``end`` (both included); arrays are put into the blobs of those names first.

        Returns:
            The outputs (or the tops of ``end``) by name. On a host device they are the blobs' own memory.

        Raises:
            UsageError: there is no such layer or blob, or an array has another shape.
            DataError: a data layer has nothing to give.
        """
        for name, value in arrays.items():
            self.blobs[name].put(value)
        low, high = self.span(start, end)
        self._engine.forward(low, high, frozenset(arrays))
        names = self.outputs if end is None else tops(self.graph.nodes[high])
        return {name: self.blobs[name].data for name in names}

    def backward(self, start: str | None = None, end: str | None = None, **diffs: Any) -> dict[str, Any]:
        """Run backward from layer ``start`` down to ``end``; diffs are put into those blobs' ``diff`` first.

        Gradients of parameters add to what their ``diff`` holds.

        Returns:
            Gradients of the inputs (or of the bottoms of ``end``) by name, where there are any.
        """
        for name, value in diffs.items():
            self.blobs[name].put(value, diff=True)
        low, high = self.span(end, start)
        self._engine.backward(low, high)
        names = self.inputs if end is None else [v.blob for v in self.graph.nodes[low].bottoms]
        gradients = self._engine.now.whole.gradients
        known = {v.blob for n in self.graph.nodes for v in n.tops if self.recording.tensors[v] in gradients}
        return {name: self.blobs[name].diff for name in names if name in known}

    def run_forward(self) -> None:
        """A whole forward, nothing returned."""
        self._engine.forward(0, len(self.graph.nodes) - 1)

    def run_backward(self) -> None:
        """A whole backward, nothing returned."""
        self._engine.backward(0, len(self.graph.nodes) - 1)

    def span(self, first: str | None, last: str | None) -> tuple[int, int]:
        """Numbers of the layers ``first`` and ``last``; the ends of the net without them.

        Raises:
            UnknownLayerError: there is no such layer.
        """
        numbers = self._engine.numbers
        for name in (first, last):
            if name is not None and name not in numbers:
                raise unknown_layer(name, self.layer_names)
        low = 0 if first is None else numbers[first]
        return low, len(self.graph.nodes) - 1 if last is None else numbers[last]

    def clear_param_diffs(self) -> None:
        """Set the gradient of every parameter to zero."""
        for total in self._engine.now.whole.accumulators.values():
            self._engine.put(total, np.zeros(total.shape, total.dtype))

    def reset_states(self) -> None:
        """Let every recurrent layer forget: what is carried from forward to forward is as at the start."""
        for tensor in self.recording.states.values():
            self.session.write(tensor, self.recording.initial.get(tensor, np.zeros(tensor.shape)))

    def reshape(self, **shapes: Sequence[int]) -> None:
        """Settle all shapes now, after ``blob.reshape``; ``reshape(data=(1, 3, 300, 400))`` does both.

        Raises:
            ConfigError: a layer cannot have these shapes; the net stays as it was.
        """
        for name, shape in shapes.items():
            self.blobs[name].reshape(*shape)
        self._engine.settle()

    def predict(self, images: Images, *, batch: int | None = None) -> Any:
        """The net's output for images that are prepared as the config says (transform_param of the input layer).

        Args:
            images: one (a path, a PIL image, an array H W or H W C with colours in the order R, G, B), a list of them,
                or an array N H W C. Arrays C H W are taken as they stand in databases (B, G, R).
            batch: images at a time; the net's own batch by default.

        Returns:
            The output's row for one image, an array of rows for several; a dict by name if there are several outputs.

        Raises:
            UsageError, DataError: the net has more than one input, an image cannot be read.
        """
        return self.predictor.run(self, images, batch)

    @property
    def predictor(self) -> Predictor:
        """How ``predict`` prepares images."""
        if self._predictor is None:
            self._predictor = Predictor(self._engine.recipe.message, self._engine.recipe.folder, self.inputs)
        return self._predictor

    # -------------------------------------------------------------------------------------------------------- weights
    def load(self, weights: str | os.PathLike[str], options: LoadOptions | None = None) -> Report:
        """Copy the weights of a file into the layers of the same name, or as ``options`` say.

        Raises:
            UsageError: there is no such file. WeightsError: it is damaged or does not fit; nothing is changed then.
        """
        self._engine.recall()
        memory = self._engine.shared
        memory.send()
        self.report = load(self.recording, memory, os.fspath(weights), options, self._engine.shown)
        memory.renew()
        return self.report

    def save(self, path: str | os.PathLike[str], *, hdf5: bool = False) -> None:
        """Write the weights as a .caffemodel, or as HDF5 (also if the name ends in .h5), that Caffe reads."""
        name, memory = os.fspath(path), self._engine.shared
        memory.send()
        shapes = self._engine.shown
        save_weights(name, self.recording, memory, hdf5 or name.endswith(".h5"), shapes=shapes)

    def share_with(self, other: Net) -> None:
        """Use the parameters of the other net, the very same memory, in all layers of the same name.

        Raises:
            UsageError: the nets are on different devices, or on a GPU that was opened twice.
            ShapeMismatchError: a layer's parameters differ in shape.
        """
        if not isinstance(other, Net):
            raise TypeMismatchError(f"share_with wants a net, got {type(other).__name__}")
        if self.device is not other.device:
            if self.device.name != other.device.name:
                raise UsageError(f"nets share parameters on one device only: {self.device.name}, {other.device.name}")
            if self.device.ahead:  # each has a stream of its own, and would not wait for the other
                raise UsageError(f"nets that share parameters on {self.device.name} have to be on one open device")
        for own, theirs in shared_pairs(self.recording, other.recording):
            self.memory.adopt(own, other.memory, theirs)
        self._engine.rebind()

    # -------------------------------------------------------------------------------------------------------- keeping
    def to(self, device: str | Device) -> Net:
        """Move the net with all its values to another device; returns the net."""
        opened = open_device(device) if isinstance(device, str) else device
        if opened.name != self.device.name or not isinstance(device, str):
            self._engine.move(opened)
        return self

    def close(self) -> None:
        """Stop the threads of data layers, finish the files that layers write."""
        self._engine.close()

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        not_copied(self)

    def __enter__(self) -> Net:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self.blobs)

    def __repr__(self) -> str:
        phase = schema.Phase.Name(self.phase)
        return f"<Net {self.name or '(no name)'}: {len(self.graph.nodes)} layers, {phase}, on {self.device.name}>"


def tops(node: Node) -> list[str]:
    """Names of a layer's tops."""
    return list(node.message.top)


__all__ = ["Blob", "Net"]
