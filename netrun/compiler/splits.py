"""Names for the copies of a blob that several layers read: Caffe's Split layers, added to a finished graph.

Training needs none of them (a blob may be read many times). People who look inside a net find Caffe's names in it, and
the gradient that each reader sends back on its own: so ``netrun.net`` asks for them.
"""

from __future__ import annotations

from ..config import schema
from ..layers.base import Context, layer_type
from .graph import AUTOMATIC, Graph, Node, Value, split_name


def name_copies(graph: Graph) -> Graph:
    """Put a Split layer behind every blob with more than one reader; changes the graph and returns it.

    As in Caffe a ``loss_weight`` that the prototxt gives counts as one more reader: it moves to the first copy, which
    then is an output of the net.
    """
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes.append(node)
        for index, value in enumerate(node.tops):
            given = node.loss_weights[index] if node.message.loss_weight else 0.0
            if value.blob != AUTOMATIC and len(value.readers) + bool(given) > 1:
                nodes.append(_split(graph, node, value, given))
                if given:
                    node.loss_weights[index] = 0.0
    graph.nodes = nodes
    values = [value for node in nodes for value in node.tops if value.blob != AUTOMATIC]
    graph.blobs = {value.blob: value for value in values}
    graph.outputs = sorted(((v.blob, v) for v in values if not v.readers), key=lambda pair: pair[0])
    return graph


def _split(graph: Graph, node: Node, value: Value, weight: float) -> Node:
    parts = len(value.readers) + bool(weight)
    names = [split_name(value, part) for part in range(parts)]
    message = schema.LayerParameter(
        name=names[0].removesuffix("_0"), type="Split", bottom=[value.blob], top=names, loss_weight=[]
    )
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


__all__ = ["name_copies"]
