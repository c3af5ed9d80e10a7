"""Pictures of nets, as ``caffe.draw``: see ``netrun.draw``."""

from __future__ import annotations

import os
from typing import Any

from .. import draw as _draw
from ..config import schema
from ..config.upgrade import upgrade_net
from ..errors import UsageError, missing_extra
from .proto import caffe_pb2


class UnwritableError(UsageError, OSError):
    """The file of a picture cannot be written."""


LAYER_STYLE_DEFAULT = {"shape": "record", "fillcolor": _draw.FILL["layer"], "style": "filled"}
NEURON_LAYER_STYLE = {"shape": "record", "fillcolor": _draw.FILL["neuron"], "style": "filled"}
BLOB_STYLE = {"shape": "octagon", "fillcolor": _draw.FILL["blob"], "style": "filled"}


def get_pooling_types_dict() -> dict[int, str]:
    """Names of the pooling methods by number."""
    return {number: name for name, number in schema.PoolingParameter.PoolMethod.items()}


def get_edge_label(layer: Any) -> str:
    """What stands at the arrow to a layer's tops."""
    return _draw.edge_label(layer)


def get_layer_label(layer: Any, rankdir: str, display_lrm: bool = False) -> str:
    """What stands in a layer's box."""
    separator = " " if rankdir in ("TB", "BT") else "\\n"
    return separator.join(_draw.layer_lines(layer, rates=display_lrm))


def get_layer_lr_mult(layer: Any) -> float:
    """The factor of a layer's learning rate: that of its first parameter, or of the layer's type."""
    return _draw.learning_rate(layer)


def choose_color_by_layertype(layertype: str) -> str:
    """The colour of a layer's box."""
    return _draw.FILL.get(layertype, _draw.FILL["layer"])


def _current(caffe_net: Any) -> schema.NetParameter:
    net = schema.NetParameter()
    net.ParseFromString(caffe_net.SerializePartialToString())
    upgrade_net(net, None)
    return net


def get_pydot_graph(
    caffe_net: Any, rankdir: str, label_edges: bool = True, phase: int | None = None, display_lrm: bool = False
) -> Any:
    """The picture as a graph of pydot.

    Raises:
        UsageError: pydot is not installed.
    """
    graph = _draw.pydot_graph(_draw.picture(_current(caffe_net), phase, label_edges, rates=display_lrm), rankdir)
    if graph is None:
        raise missing_extra("get_pydot_graph (draw_net does without)", "pydot", "draw")
    return graph


def draw_net(
    caffe_net: Any, rankdir: str, ext: str = "png", phase: int | None = None, display_lrm: bool = False
) -> bytes:
    """A net's picture as the bytes of a file.

    Args:
        caffe_net: a NetParameter.
        rankdir: "LR", "TB", "RL" or "BT".
        ext: "png", "svg", or what else graphviz knows where it is there.
        phase: leave out the layers that are not part of the net then.
        display_lrm: write the factor of its learning rate into every layer's box.

    Raises:
        UsageError: an unknown direction or format.
    """
    return _draw.draw(_current(caffe_net), ext, rankdir, phase, rates=display_lrm)


def draw_net_to_file(
    caffe_net: Any,
    filename: str | os.PathLike[str],
    rankdir: str = "LR",
    phase: int | None = None,
    display_lrm: bool = False,
) -> None:
    """As ``draw_net``, into a file whose ending says the format."""
    name = os.fspath(filename)
    made = draw_net(caffe_net, rankdir, os.path.splitext(name)[1].lstrip(".") or "png", phase, display_lrm)
    try:
        with open(name, "wb") as stream:
            stream.write(made)
    except OSError as error:
        raise UnwritableError(f"{name} cannot be written: {error.strerror or error}") from None


__all__ = [
    "BLOB_STYLE",
    "LAYER_STYLE_DEFAULT",
    "NEURON_LAYER_STYLE",
    "caffe_pb2",
    "choose_color_by_layertype",
    "draw_net",
    "draw_net_to_file",
    "get_edge_label",
    "get_layer_label",
    "get_layer_lr_mult",
    "get_pooling_types_dict",
    "get_pydot_graph",
]
