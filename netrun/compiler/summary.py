"""The table of layers: shapes, parameters and multiply-adds of a graph, without data, memory or a device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..config import schema
from ..errors import printable
from ..program import Origin
from ..types import Shape
from .cost import multiply_adds
from .graph import Graph, Node
from .record import record


@dataclass
class Row:
    """One layer. ``multiply_adds`` are those of the forward pass of a whole batch."""

    name: str
    type: str
    tops: dict[str, Shape]
    parameters: int = 0
    """Learned values that this layer owns; what it shares counts where its owner stands."""
    statistics: int = 0
    """Values of parameter blobs that are not trained, such as running means."""
    shares: list[str] = field(default_factory=list)
    """Layers whose parameters this one uses."""
    multiply_adds: int = 0


@dataclass
class Summary:
    """All layers of a net in one state, and their sums."""

    name: str
    phase: str
    rows: list[Row]
    batch: int
    """Samples of a batch, what the multiply-adds of one of them are divided by."""
    sample: str
    """What one of them is called: image, sequence or sample."""
    blob_bytes: int
    """Bytes of all blobs of a batch, each with memory of its own."""
    parameter_bytes: int

    @property
    def parameters(self) -> int:
        """Learned values of the net."""
        return sum(row.parameters for row in self.rows)

    @property
    def statistics(self) -> int:
        """Values in parameter blobs that are not trained."""
        return sum(row.statistics for row in self.rows)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of the forward pass of one sample."""
        return sum(row.multiply_adds for row in self.rows) // self.batch

    def as_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "name": self.name,
            "phase": self.phase,
            "batch": self.batch,
            "parameters": self.parameters,
            "statistics": self.statistics,
            "parameter_bytes": self.parameter_bytes,
            "multiply_adds_per_image": self.multiply_adds,
            "blob_bytes": self.blob_bytes,
            "layers": [asdict(row) for row in self.rows],
        }

    def __str__(self) -> str:
        """The table and the totals, for a terminal."""
        head = ("layer", "type", "output", "parameters", "multiply-adds")
        body = [self._cells(row) for row in self.rows]
        lines = [f"{self.name or 'net'}, {self.phase}, batch {self.batch}", "", *table([head, *body], right=(3, 4)), ""]
        lines.append(f"{self.parameters:,} parameters ({size_text(self.parameter_bytes)})")
        if self.statistics:
            lines[-1] += f", {self.statistics:,} statistics"
        each = f"{'an' if self.sample == 'image' else 'a'} {self.sample}"
        lines.append(f"{count_text(self.multiply_adds)} multiply-adds {each} ({self.multiply_adds:,})")
        lines.append(f"{size_text(self.blob_bytes)} in the blobs of a batch of {self.batch}")
        return "\n".join(lines)

    def _cells(self, row: Row) -> tuple[str, ...]:
        several = len(row.tops) > 1
        shapes = [f"{blob} {shape_text(s)}" if several else shape_text(s) for blob, s in row.tops.items()]
        owned = f"{row.parameters:,}" if row.parameters else ""
        if row.shares:
            owned = f"of {' '.join(row.shares)}" if not owned else f"{owned} + of {' '.join(row.shares)}"
        work = row.multiply_adds // self.batch
        return (row.name, row.type, ", ".join(shapes), owned, count_text(work) if work else "")


def summarize(graph: Graph) -> Summary:
    """The table of a graph.

    Raises:
        ShapeError: a layer's own class is wrong (its kernels do not fit its shapes).
    """
    work: dict[Origin, int] = {}
    for call in record(graph).forward:
        work[call.origin] = work.get(call.origin, 0) + multiply_adds(call)
    rows = [_row(node, work.get(node.origin, 0)) for node in graph.nodes]
    return Summary(
        graph.name,
        schema.Phase.Name(graph.phase),
        rows,
        batch=graph.batch,
        sample=graph.sample,
        blob_bytes=sum(value.spec.nbytes for value in graph.blobs.values()),
        parameter_bytes=sum(p.spec.nbytes for p in graph.parameters),
    )


def _row(node: Node, work: int) -> Row:
    row = Row(node.name, node.layer.type, {v.blob: v.spec.shape for v in node.tops}, multiply_adds=work)
    for parameter in node.parameters:
        if parameter.owner is not None:
            if parameter.owner.layer not in row.shares:
                row.shares.append(parameter.owner.layer)
        elif parameter.trained:
            row.parameters += parameter.spec.count
        else:
            row.statistics += parameter.spec.count
    return row


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Rows of cells as aligned lines, whatever signs are in them; the columns ``right`` stand flush right."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(cells)).rstrip()
        for cells in (tuple(zip(row, widths, strict=True)) for row in rows)
    ]


def shape_text(shape: Shape) -> str:
    """``64x20x24x24``; a single number is "1"."""
    return "x".join(map(str, shape)) or "1"


def count_text(count: int) -> str:
    """``714.2 M``: millions from a hundred thousand up."""
    return f"{count / 1e6:,.1f} M" if count >= 100_000 else f"{count:,}"


def size_text(nbytes: int) -> str:
    """``233.1 MiB``; small sizes in KiB or bytes."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if nbytes >= scale:
            return f"{nbytes / scale:,.1f} {unit}"
    return f"{nbytes:,} bytes"
