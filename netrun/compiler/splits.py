"""Names for the copies of a blob that several layers read: Caffe's Split layers, added to a finished graph.

Training needs none of them (a blob may be read many times). People who look inside a net find Caffe's names in it, and
the gradient that each reader sends back on its own: so ``netrun.net`` asks for them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ..config import schema
from ..layers.context import Context
from ..layers.lookup import layer_type
from .graph import Graph, Node, Value, split_name


def name_copies(graph: Graph) -> Graph:
    """Put a Split layer behind every blob with more than one reader; changes the graph and returns it.

    As in Caffe a ``loss_weight`` that the prototxt gives counts as one more reader: it moves to the first copy, which
    then is an output of the net.
    """
    nodes: list[Node] = []
    taken = {value.blob for node in graph.nodes for value in node.tops}
    for node in graph.nodes:
        nodes.append(node)
        for index, value in enumerate(node.tops):
            given = node.loss_weights[index] if node.message.loss_weight else 0.0
            if not value.hidden and len(value.readers) + bool(given) > 1:
                nodes.append(_split(graph, node, value, given, taken))
                if given:
                    node.loss_weights[index] = 0.0
    graph.nodes = nodes
    values = [value for node in nodes for value in node.tops if not value.hidden]
    graph.blobs = {value.blob: value for value in values}
    graph.outputs = sorted(((v.blob, v) for v in values if not v.readers), key=lambda pair: pair[0])
    return graph


def _split(graph: Graph, node: Node, value: Value, weight: float, taken: Collection[str]) -> Node:
    parts = len(value.readers) + bool(weight)
    names = [split_name(value, part) for part in range(parts)]
    name = names[0].removesuffix("_0")
    while any(copy in taken for copy in names):  # somebody's own blob is called so
        names = [f"{copy}@2" for copy in names]
    message = schema.LayerParameter(name=name, type="Split", bottom=[value.blob], top=names, loss_weight=[])
    context = Context(phase=graph.phase, dtype=value.spec.dtype)
    split = Node(node.position, layer_type("Split")(message, context), [value])
    split.layer.configure([value.spec])
    split.tops = [Value(name, value.spec, split, i) for i, name in enumerate(names)]
    split.loss_weights = [weight, *[0.0] * (parts - 1)]
    for copy, (reader, bottom) in zip(split.tops[bool(weight) :], value.readers, strict=True):
        reader.bottoms[bottom] = copy
        copy.readers.append((reader, bottom))
    value.readers = [(split, 0)]
    return split


def written_out(graph: Graph) -> Iterator[tuple[schema.LayerParameter, Node | None]]:
    """Every layer as Caffe puts it into a weight file, with what it fills in when it sets a net up.

    That is: the phase, the weight of a loss, the three frozen ``param`` of a BatchNorm, and the Split layers, with the
    names that their copies give to the bottoms. The node is None for a Split that the graph does without.
    """
    for node in graph.nodes:
        message = schema.LayerParameter(phase=schema.Phase.Name(graph.phase))
        message.MergeFrom(node.message)
        del message.blobs[:]
        del message.bottom[:]
        message.bottom.extend(_read_name(value, node, i) for i, value in enumerate(node.bottoms))
        if node.layer.loss and not message.loss_weight:
            message.loss_weight.append(1.0)
        if message.type == "BatchNorm":
            for _ in range(len(node.layer.blobs) - len(message.param)):
                message.param.add().lr_mult = 0
        copied = []
        for value in node.tops:
            names, given = _copies(value, node)
            if names:
                split = schema.LayerParameter(phase=schema.Phase.Name(message.phase))
                split.name, split.type = names[0].removesuffix("_0"), "Split"
                split.bottom.append(value.blob)
                split.top.extend(names)
                if given:
                    split.loss_weight.extend([given, *[0.0] * (len(names) - 1)])
                    del message.loss_weight[:]
                copied.append(split)
        yield message, node
        yield from ((split, None) for split in copied)


def _copies(value: Value, node: Node) -> tuple[list[str], float]:
    """Names of the copies of a blob and the loss weight that moves to the first; none if one reader is all it has."""
    given = node.loss_weights[value.index] if node.message.loss_weight else 0.0
    parts = len(value.readers) + bool(given)
    if node.layer.type == "Split" or value.hidden or parts < 2:
        return [], 0.0
    return [split_name(value, part) for part in range(parts)], given


def _read_name(value: Value, reader: Node, bottom: int) -> str:
    """The name under which a bottom is read: the blob's, or that of its copy for this reader."""
    names, given = _copies(value, value.producer)
    at = next((i for i, (node, k) in enumerate(value.readers) if node is reader and k == bottom), 0)
    return names[at + bool(given)] if names else value.blob


__all__ = ["name_copies", "written_out"]
