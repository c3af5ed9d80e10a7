"""What a net in Python is built from, again and again: for other shapes of its inputs, for another device."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .compiler.graph import Graph, Node, State, build
from .config import schema
from .config.source import Source
from .config.upgrade import read_net, upgrade_net
from .errors import UsageError, nearest
from .layers.base import Layer
from .types import Shape


@dataclass
class Recipe:
    """Everything that a net is built from, so that it can be built again for other shapes or another device."""

    message: schema.NetParameter
    source: Source | None = None
    state: State = field(default_factory=State)
    dtype: str = "float32"
    seed: int = 0
    folder: str = ""
    stream: str = "net"
    threads: int | None = None

    @classmethod
    def read(
        cls,
        net: str | os.PathLike[str] | schema.NetParameter,
        state: State,
        source: Source | None = None,
        *,
        folder: str = "",
        **settings: Any,
    ) -> Recipe:
        """The recipe of a net in a file, or of a message, which is copied.

        Args:
            source: where the fields of a message stood, if it is in the current form; without one it is upgraded.
            folder: what relative file names are looked up in; the file's own by default.

        Raises:
            ConfigError: the net does not parse.
        """
        if isinstance(net, schema.NetParameter):
            message = schema.NetParameter()
            message.CopyFrom(net)
            if source is None:
                upgrade_net(message, None)
        else:
            message, source = read_net(net)
            folder = folder or str(Path(net).parent)
        return cls(message, source, state, folder=folder, **settings)

    def graph(self, shapes: Mapping[str, Shape], before: Graph | None = None) -> Graph:
        """The graph, with other shapes for the tops of Input and DummyData layers.

        Args:
            before: an earlier graph of the same net; what its layers carry in Python goes on.
        """
        message = _with_shapes(self.message, shapes) if shapes else self.message
        layers: dict[int, Layer] = {}
        for node in before.nodes if before is not None else ():
            layers.setdefault(node.position, node.layer)  # a Split layer behind it has the same position
        return build(
            message,
            self.source,
            self.state,
            dtype=self.dtype,
            seed=self.seed,
            folder=self.folder,
            before=layers,
        )


def phase_named(given: int | str) -> int:
    """The number of a phase, given by number or name.

    Raises:
        UsageError: there is no such phase.
    """
    known: dict[int | str, int] = {"TRAIN": schema.TRAIN, "TEST": schema.TEST}
    known |= {schema.TRAIN: schema.TRAIN, schema.TEST: schema.TEST}
    if given not in known:
        raise UsageError(f'phase wants "TRAIN" or "TEST", got {given!r}')
    return known[given]


def precision_named(name: str) -> Any:
    """The number of a precision.

    Raises:
        UsageError: there is none of that name.
    """
    known = schema.Precision.keys()
    if name.upper() not in known:
        raise UsageError(f'there is no precision "{name}"{nearest(name.upper(), known)} (known: {", ".join(known)})')
    return schema.Precision.Value(name.upper())


def constant_tops(node: Node) -> dict[int, float]:
    """Tops of a DummyData layer that are constant, and their value."""
    if node.layer.type != "DummyData":
        return {}
    fillers = list(node.message.dummy_data_param.data_filler) or [schema.FillerParameter()]
    every = fillers * len(node.tops) if len(fillers) == 1 else fillers
    return {i: filler.value for i, filler in enumerate(every) if filler.type == "constant"}


def _with_shapes(net: schema.NetParameter, shapes: Mapping[str, Shape]) -> schema.NetParameter:
    """A net whose Input and DummyData layers make tops of these shapes."""
    changed = schema.NetParameter()
    changed.CopyFrom(net)
    for layer in changed.layer:
        if layer.type not in ("Input", "DummyData") or not any(top in shapes for top in layer.top):
            continue
        p: Any = layer.input_param if layer.type == "Input" else layer.dummy_data_param
        given = [tuple(shape.dim) for shape in p.shape]
        if layer.type == "DummyData" and not given:
            old = zip(p.num, p.channels, p.height, p.width, strict=False)
            given = [tuple(row) for row in old]
            for name in ("num", "channels", "height", "width"):
                p.ClearField(name)
        del p.shape[:]
        for i, top in enumerate(layer.top):
            default = given[min(i, len(given) - 1)] if given else ()
            p.shape.add().dim.extend(shapes.get(top, default))
    return changed


__all__ = ["Recipe", "constant_tops", "phase_named", "precision_named"]
