"""What brings a net in Python its data: the feeders of its data layers, and the tops that are filled once."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from .compiler.graph import Graph, Node
from .compiler.record import Recording
from .data.feeder import Feeder
from .forms import Form
from .layers.feeders import DummyFeeder
from .layers.inputs import MemoryData
from .recipe import Recipe, constant_tops
from .runner import fit, label_ranges, open_layer
from .types import Spec, Tensor


class Feeding:
    """The data layers of one net, whatever shapes its inputs have.

    Args:
        graph: the net as first built.
        put: writes the value of a tensor.
    """

    def __init__(self, recipe: Recipe, graph: Graph, put: Callable[[Tensor, Any], None]) -> None:
        self.recipe, self._put = recipe, put
        self.feeders: dict[str, Feeder] | None = None
        """By the keys of their layers; None until they are asked for."""
        self.sources: dict[str, Any] = {node.key: node.layer for node in graph.nodes if node.layer.fed}
        """The data layers as first built, by their keys: arrays that a person gave a layer are with that one."""

    def open(self, graph: Graph) -> dict[str, Feeder]:
        """The feeders of the data layers, opened when first asked for.

        Raises:
            DataError: a source is missing or damaged.
        """
        if self.feeders is None:
            self.feeders = {}
        ranges = label_ranges(graph)
        for node in graph.nodes:
            if node.layer.fed and node.key not in self.feeders and node.layer.type != "Input":
                first = Node(node.position, self.sources.get(node.key, node.layer), tops=node.tops)
                source = first if isinstance(first.layer, MemoryData) else node
                feeder = open_layer(source, self.recipe.seed, self.recipe.stream, self.recipe.threads, ranges)
                if feeder is not None:
                    self.feeders[node.key] = feeder
        return self.feeders

    def feed(self, form: Form, low: int, high: int, given: Collection[str]) -> None:
        """Write the next batch of the data layers ``low`` to ``high``, both included.

        Args:
            given: tops that keep what the caller put into them.

        Raises:
            DataError: a layer has nothing to give, or a batch that the net cannot follow.
        """
        nodes = [n for i, n in form.fed if low <= i <= high]
        if not nodes:
            return
        recording, feeders = form.whole.recording, self.feeders
        if feeders is None or any(n.key not in feeders for n in nodes):
            feeders = self.open(recording.graph)
        there = [(node, feeders[node.key]) for node in nodes if node.key in feeders]
        brought = [(n, [recording.tensors[value] for value in n.tops], feeder.next()) for n, feeder in there]
        fit(form.bound, brought)
        for node, tensors, batches in brought:
            constant = constant_tops(node)
            for value, tensor, batch in zip(node.tops, tensors, batches, strict=True):
                if value.blob not in given and value.index not in constant:
                    self._put(tensor, batch)

    def fill_constants(self, recording: Recording, filled: Collection[tuple[str, Spec]] = ()) -> None:
        """Fill the constant tops of DummyData: once, as in Caffe, so what a person writes there afterwards stays as
        long as they keep their shape.

        Args:
            filled: names and shapes of those that are filled already.
        """
        for node in recording.graph.nodes:
            constant = constant_tops(node)
            for value in node.tops:
                if value.index in constant and (value.blob, value.spec) not in filled:
                    self._put(recording.tensors[value], np.full(value.spec.shape, constant[value.index]))

    def reshaped(self, recording: Recording, before: Collection[tuple[str, Spec]]) -> None:
        """Go over to other shapes.

        Args:
            before: names and shapes of the blobs until now.
        """
        if self.feeders is not None:  # those of DummyData are made for one shape
            self.feeders = {key: f for key, f in self.feeders.items() if not isinstance(f, DummyFeeder)}
        self.fill_constants(recording, before)

    def close(self) -> None:
        """Stop the threads of the feeders; whoever asks again opens new ones."""
        feeders, self.feeders = self.feeders or {}, None
        for feeder in feeders.values():
            feeder.close()


__all__ = ["Feeding"]
