"""``caffe.Net``: the members, the arguments and the complaints of pycaffe's, on netrun's net."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..blob import ShapeMismatchError, TypeMismatchError, shape_of
from ..config import schema
from ..errors import DataError
from ..layers.inputs import MemoryData
from ..layers.python import Python
from ..names import Named, NamedLayers, unknown_layer
from ..net import tops
from . import mode
from .batches import Batches
from .callbacks import Callback, Callbacks
from .errors import (
    ArgumentMismatchError,
    InputArraysError,
    MemoryDataWantedError,
    existing,
    named,
    their_own,
    whole,
)
from .layer import BlobVec, NetLayer


class Net(Batches):
    """A net, on the device that this thread chose.

    ``Net(file, phase)``, ``Net(file, weights, phase)``, or with keywords: ``level``, ``stages``, ``weights``.

    Raises:
        MissingFileError: a file is not there (a RuntimeError too).
        ConfigError, WeightsError: a file is wrong; and whatever the layers in Python raise.
    """

    def __init__(
        self,
        network_file: Any,
        *arguments: Any,
        phase: int | None = None,
        level: int = 0,
        stages: Sequence[str] | None = None,
        weights: Any = None,
        **keywords: Any,
    ) -> None:
        given = list(arguments)
        if given and not isinstance(given[0], (int, np.integer)):  # the old form: weights before the phase
            mode.default_log()(
                "Net(file, weights, phase) is the old form of Net(file, phase, weights=...)", "net.py", "W"
            )
            weights = given.pop(0)
        if given:
            phase = given.pop(0)
        if given:
            level = given.pop(0)
        if given:
            stages = given.pop(0)
        if given:
            weights = given.pop(0)
        if given or phase is None:
            raise TypeMismatchError("Net takes (network_file, phase, level=0, stages=None, weights=None)")
        if phase not in (schema.TRAIN, schema.TEST):
            raise ArgumentMismatchError(f"the phase is caffe.TRAIN or caffe.TEST, got {phase!r}")
        net = network_file if isinstance(network_file, schema.NetParameter) else existing(network_file)
        keywords.setdefault("seed", mode.next_seed())
        keywords.setdefault("device", None)
        if keywords["device"] is None:
            keywords["device"] = mode.default_device()
        with their_own():
            super().__init__(
                net,
                int(phase),
                level=whole(level, "level"),
                stages=_stages(stages),
                weights=None if weights is None else existing(weights),
                **keywords,
            )
        self._callbacks = Callbacks()
        self._memory_data: Any = None
        self._views = self._make_views()

    # -------------------------------------------------------------------------------------------------------- looking
    @property
    def _layer_names(self) -> list[str]:
        return self.layer_names

    @property
    def _blob_names(self) -> list[str]:
        return list(self.blobs)

    @property
    def _blobs(self) -> BlobVec:
        return BlobVec(self.blobs.values())

    @property
    def _inputs(self) -> list[int]:
        names = self._blob_names
        return [names.index(name) for name in self.inputs]

    @property
    def _outputs(self) -> list[int]:
        names = self._blob_names
        return [names.index(name) for name in self.outputs]

    def _top_ids(self, layer: int) -> list[int]:
        self._check_span(layer, layer)
        names = self._blob_names
        return [names.index(name) for name in tops(self.graph.nodes[layer])]

    def _bottom_ids(self, layer: int) -> list[int]:
        self._check_span(layer, layer)
        names = self._blob_names
        return [names.index(value.blob) for value in self.graph.nodes[layer].bottoms]

    @property
    def top_names(self) -> OrderedDict[str, list[str]]:
        """Names of the tops by layer."""
        return NamedLayers(super().top_names)

    @property
    def bottom_names(self) -> OrderedDict[str, list[str]]:
        """Names of the bottoms by layer."""
        return NamedLayers(super().bottom_names)

    def _make_views(self) -> list[Any]:
        found = []
        for node in self.graph.nodes:
            blobs = self.params[node.name] if node.parameters else []
            user = node.layer.user if isinstance(node.layer, Python) else None
            found.append(NetLayer(node.name, node.layer.type, blobs) if user is None else user)
        self._bind_users()
        return found

    def _bind_users(self) -> None:
        """Outside of a pass the ``blobs`` of a layer in Python are the net's parameters."""
        for node in self.graph.varying:
            if isinstance(node.layer, Python) and node.parameters:
                node.layer.user.blobs.bind(self.params[node.name])

    @property
    def layers(self) -> list[Any]:
        """The layers in order; of one in Python, the user's own object."""
        return list(self._views)

    @property
    def layer_dict(self) -> OrderedDict[str, Any]:
        """The layers by name."""
        return NamedLayers(zip(self.layer_names, self._views, strict=True))

    @property
    def blob_loss_weights(self) -> Named[float]:
        """The loss weight of every blob."""
        weights: Named[float] = Named((name, 0.0) for name in self.blobs)
        for node in self.graph.nodes:
            for value, weight in zip(node.tops, node.loss_weights, strict=True):
                if value.blob in weights:
                    weights[value.blob] = weight
        return weights

    @property
    def _blob_loss_weights(self) -> list[float]:
        return list(self.blob_loss_weights.values())

    # -------------------------------------------------------------------------------------------------------- running
    def forward(  # type: ignore[override]
        self, blobs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Run the layers from ``start`` to ``end``.

        Args:
            blobs: blobs to return besides the outputs.
            kwargs: values for all inputs of the net.

        Returns:
            The outputs, or the tops of ``end``, and ``blobs`` by name: the blobs' own memory.

        Raises:
            UnknownLayerError, ArgumentMismatchError, ShapeMismatchError (ValueErrors), UnknownBlobError (a KeyError).
        """
        low, high = self.span(start, end)
        wanted = self._wanted(self.outputs if end is None else tops(self.graph.nodes[high]), blobs)
        if kwargs:
            self._fill(kwargs, self.inputs, False)
        self._forward(low, high)
        return {name: self.blobs[name].data for name in wanted}

    def backward(  # type: ignore[override]
        self, diffs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Run backward from layer ``start`` down to ``end``.

        Args:
            diffs: blobs whose gradients to return besides those of the inputs.
            kwargs: gradients of all outputs of the net.

        Returns:
            Gradients of the inputs, or of the bottoms of ``end``, and of ``diffs``, by name.
        """
        low, high = self.span(end, start)
        own = self.inputs if end is None else [value.blob for value in self.graph.nodes[low].bottoms]
        wanted = self._wanted(own, diffs)
        if kwargs:
            self._fill(kwargs, self.outputs, True)
        self._backward(high, low)
        return {name: self.blobs[name].diff for name in wanted}

    def _fill(self, given: Mapping[str, Any], names: Sequence[str], diff: bool) -> None:
        if set(given) != set(names):
            what = (
                "Top diff arguments do not match net outputs"
                if diff
                else "Input blob arguments do not match net inputs"
            )
            raise ArgumentMismatchError(f"{what}: given {', '.join(given)}; the net has {', '.join(names) or 'none'}")
        for name, values in given.items():
            blob = self.blobs[name]
            shape = shape_of(values, f'blob "{name}"')
            if shape[:1] != blob.shape[:1]:
                got, wanted = (" ".join(map(str, s)) or "one number" for s in (shape, blob.shape))
                what = "Diff is not batch sized" if diff else "Input is not batch sized"
                raise ShapeMismatchError(f'{what}: blob "{name}" has the shape {wanted}, the array given has {got}')
            if diff:
                blob.diff = values
            else:
                blob.data = values

    def _forward(self, start: int, end: int) -> float:
        """Run the layers of these numbers, both included; returns what they contribute to the loss."""
        self._check_span(start, end)
        told, clock = self._callbacks, self.forwards
        with their_own():
            if told.listen("forward"):
                told.around("forward", range(start, end + 1), lambda i: self._engine.forward(i, i, clock=clock))
            else:
                self._engine.forward(start, end)
        if self._engine.now.varying:
            self._bind_users()
        return self._engine.loss(start, end) if self.recording.loss is not None else 0.0

    def _backward(self, start: int, end: int) -> None:
        """Run the layers from number ``start`` down to ``end`` backward."""
        self._check_span(end, start)
        told = self._callbacks
        with their_own():
            if told.listen("backward"):
                told.around("backward", range(start, end - 1, -1), lambda i: self._engine.backward(i, i))
            else:
                self._engine.backward(end, start)
        if self._engine.now.varying:
            self._bind_users()

    def run_forward(self) -> None:
        """A whole forward."""
        self._forward(0, len(self.graph.nodes) - 1)

    def run_backward(self) -> None:
        """A whole backward."""
        self._backward(len(self.graph.nodes) - 1, 0)

    def _check_span(self, low: int, high: int) -> None:
        if low < 0 or high >= len(self.graph.nodes):
            raise unknown_layer(f"#{low if low < 0 else high}", self.layer_names)

    # ------------------------------------------------------------------------------------------------------ callbacks
    def before_forward(self, callback: Callback) -> None:
        """Call ``callback(number)`` before every layer's forward."""
        self._callbacks.add("before_forward", callback)

    def after_forward(self, callback: Callback) -> None:
        """Call ``callback(number)`` after every layer's forward."""
        self._callbacks.add("after_forward", callback)

    def before_backward(self, callback: Callback) -> None:
        """Call ``callback(number)`` before every layer's backward."""
        self._callbacks.add("before_backward", callback)

    def after_backward(self, callback: Callback) -> None:
        """Call ``callback(number)`` after every layer's backward."""
        self._callbacks.add("after_backward", callback)

    # ----------------------------------------------------------------------------------------------- data and weights
    def set_input_arrays(self, data: Any, labels: Any) -> None:
        """The records of a net whose first layer is MemoryData.

        Args:
            data: float32 N C H W, N a multiple of the batch size.
            labels: float32, N values.

        Raises:
            MemoryDataWantedError: it begins with another layer, or the arrays are not float32.
            InputArraysError: shapes or counts do not fit. Both are RuntimeErrors too.
        """
        layer = self._engine.feeding.sources.get(self.graph.nodes[0].key) if self.graph.nodes else None
        if not isinstance(layer, MemoryData):
            raise MemoryDataWantedError("set_input_arrays may only be called if the first layer is a MemoryData layer")
        data, labels = np.asarray(data), np.asarray(labels)
        for name, array in (("data", data), ("labels", labels)):
            if array.dtype != np.float32:
                raise MemoryDataWantedError(f"set_input_arrays: {name} must be float32, got {array.dtype}")
        try:
            layer.set_arrays(data, labels)
        except DataError as error:
            raise InputArraysError.of(error.problems) from None

    _set_input_arrays = set_input_arrays

    def copy_from(self, weights: Any) -> None:
        """Copy the weights of a file (.caffemodel or HDF5) into the layers of the same name."""
        self.load(existing(weights))

    def save(self, path: Any, *, hdf5: bool = False) -> None:
        """Write the weights as a .caffemodel."""
        super().save(named(path), hdf5=hdf5)

    def save_hdf5(self, path: Any) -> None:
        """Write the weights as HDF5."""
        super().save(named(path), hdf5=True)

    def load_hdf5(self, path: Any) -> None:
        """Copy the weights of an HDF5 file."""
        self.load(existing(path))


def _stages(stages: Any) -> tuple[str, ...]:
    try:
        given = (stages,) if isinstance(stages, str) else tuple(stages or ())
    except TypeError:
        given = (None,)
    if not all(isinstance(stage, str) for stage in given):
        raise TypeMismatchError(f"stages is a list of names, got {stages!r}")
    return given


__all__ = ["Net"]
