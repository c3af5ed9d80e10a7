"""``netrun time --data``: how fast the data layers of a net deliver, with nobody but them at work."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

from ..compiler.graph import Graph
from ..compiler.summary import table
from ..errors import UsageError
from ..runner import label_ranges, open_layer
from . import results

AHEAD = 8
"""Batches that are thrown away first: those a feeder may have made ahead while nobody measured."""


@dataclass
class Delivery:
    """What one data layer delivered. ``batch``: records in a batch."""

    layer: str
    type: str
    batch: int
    batches: int
    seconds: float

    @property
    def records(self) -> float:
        """Records a second."""
        return self.batch * self.batches / self.seconds


def run(graph: Graph, args: argparse.Namespace) -> int:
    """Measure, print; returns the exit code.

    Raises:
        UsageError: no layer of the net reads data.
        DataError: a source is missing or damaged.
    """
    found = measure(graph, args.iterations)
    if args.json:
        rows = [{"name": d.layer, "type": d.type, "batch_size": d.batch, "batches": d.batches,
                 "batch_ms": d.seconds * 1e3 / d.batches, "records_per_second": d.records} for d in found]  # fmt: skip
        results.print_json({"layers": rows})
        return 0
    cells = [("layer", "type", "batch size", "ms a batch", "records/s")]
    for d in found:
        cells.append((d.layer, d.type, str(d.batch), f"{d.seconds * 1e3 / d.batches:.4g}", f"{d.records:,.0f}"))
    print("\n".join(table(cells, right=(2, 3, 4))))
    return 0


def measure(graph: Graph, batches: int) -> list[Delivery]:
    """Take batches from each data layer in turn, as fast as it makes them."""
    ranges = label_ranges(graph)
    found = []
    for node in graph.nodes:
        feeder = open_layer(node, 0, "train", None, ranges) if node.layer.fed else None
        if feeder is None:
            continue
        try:
            for _ in range(AHEAD):
                feeder.next()
            start = time.perf_counter()
            for _ in range(batches):
                delivered = feeder.next()
            seconds = time.perf_counter() - start
        finally:
            feeder.close()
        size = len(delivered[0]) if delivered and delivered[0].ndim else 1
        found.append(Delivery(node.name, node.layer.type, size, batches, seconds))
    if not found:
        raise UsageError(f'no layer of "{graph.name or "the net"}" reads data', None,
                         ["its inputs are given by whoever runs it"])  # fmt: skip
    return found
