"""The parameters of a net: filled at the start, loaded from a weight file with a report, given back for a snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .compiler.record import Recording
from .compiler.sharing import Parameter
from .config import schema
from .config.weights import LayerWeights, read_weights
from .errors import WeightsError, nearest
from .fillers import fill
from .random import generator
from .session import Memory
from .types import Tensor


def initialise(recording: Recording, memory: Memory, seed: int) -> None:
    """Fill every parameter that has no value in ``memory`` yet; each from a random stream of its own."""
    for parameter, tensor in recording.parameters.items():
        if tensor.name in memory:
            continue
        filler = parameter.declared.filler or schema.FillerParameter()
        rng = generator(seed, "filler", tensor.name)
        memory.write(tensor, fill(filler, tensor.shape, rng, tensor.dtype))


@dataclass
class Report:
    """What loading a weight file did, layer by layer."""

    file: str
    loaded: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    """Layers of the file that the net does not have."""
    untouched: list[str] = field(default_factory=list)
    """Layers of the net that the file does not have: they keep what their fillers gave them."""

    def lines(self) -> list[str]:
        """The report as lines of a log."""
        lines = [f"{self.file}: {len(self.loaded)} layers loaded"]
        if self.ignored:
            lines.append(f"  not in the net: {', '.join(self.ignored)}")
        if self.untouched:
            lines.append(f"  not in the file, left as their fillers made them: {', '.join(self.untouched)}")
        return lines


def load(recording: Recording, memory: Memory, path: str) -> Report:
    """Copy the weights of a file into the layers of the same name.

    Raises:
        WeightsError: a layer's number of blobs or a blob's shape differs. Nothing is changed then.
        UsageError: there is no such file.
    """
    return assign(recording, memory, read_weights(path), str(path))


def assign(recording: Recording, memory: Memory, layers: Sequence[LayerWeights], file: str) -> Report:
    """As :func:`load`, from weights that were read already."""
    report = Report(file)
    nodes = {node.name: node for node in recording.graph.nodes}
    values: list[tuple[Tensor, np.ndarray[Any, Any]]] = []
    seen: set[str] = set()
    for layer in layers:
        node = nodes.get(layer.name)
        if node is None:
            if layer.blobs:
                report.ignored.append(layer.name)
            continue
        seen.add(layer.name)
        if not layer.blobs and not node.parameters:
            continue
        if not layer.blobs and any(p.owner for p in node.parameters):
            continue  # HDF5 files hold shared blobs with their owner only
        values += _match(recording, node.parameters, layer, file)
        report.loaded.append(layer.name)
    for tensor, array in values:
        memory.write(tensor, array.reshape(tensor.shape))
    report.untouched = [n.name for n in recording.graph.nodes if n.parameters and n.name not in seen]
    return report


def _match(
    recording: Recording, parameters: Sequence[Parameter], layer: LayerWeights, file: str
) -> list[tuple[Tensor, np.ndarray[Any, Any]]]:
    if len(layer.blobs) != len(parameters):
        raise WeightsError(
            f"{file}: layer {layer.name} has {len(layer.blobs)} blobs in the file, {len(parameters)} in the net",
            None,
            ["give the layer another name in the net to leave it as its fillers make it"],
        )
    pairs = []
    for i, (parameter, blob) in enumerate(zip(parameters, layer.blobs, strict=True)):
        if not _fits(blob.shape, parameter.spec.shape, layer.legacy):
            raise WeightsError(
                f"{file}: layer {layer.name}, blob {i} ({parameter.declared.name}): the shapes differ",
                None,
                [
                    f"in the file  {' '.join(map(str, blob.shape))}",
                    f"in the net   {' '.join(map(str, parameter.spec.shape))}",
                    "give the layer another name in the net to leave it as its fillers make it",
                ],
            )
        pairs.append((recording.parameters[parameter.owner or parameter], blob))
    return pairs


def _fits(given: Sequence[int], wanted: Sequence[int], legacy: bool) -> bool:
    if tuple(given) == tuple(wanted):
        return True
    # Old files pad every shape in front with ones up to four axes.
    padded = (1,) * (len(given) - len(wanted)) + tuple(wanted)
    return legacy and tuple(given) == padded


def blobs_of(recording: Recording, memory: Memory) -> list[list[np.ndarray[Any, Any]]]:
    """Values of every layer's parameter blobs, node by node; sharers repeat their owner's."""
    cache: dict[Parameter, np.ndarray[Any, Any]] = {}

    def value(parameter: Parameter) -> np.ndarray[Any, Any]:
        owner = parameter.owner or parameter
        if owner not in cache:
            cache[owner] = memory.read(recording.parameters[owner])
        return cache[owner].reshape(parameter.spec.shape)

    return [[value(p) for p in node.parameters] for node in recording.graph.nodes]


def suggest(name: str, known: Iterable[str]) -> str:
    """A hint for a layer name that is not there."""
    return nearest(name, known)
