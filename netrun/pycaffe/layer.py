"""Layers as pycaffe shows them: the base of layers in Python, and what ``net.layers`` holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..blob import Blob
from ..layers.python_blobs import PythonBlobs


class Layer:
    """The base of a layer in Python, which has the methods ``setup``, ``reshape``, ``forward(bottom, top)`` and
    ``backward(top, propagate_down, bottom)``; without ``backward`` no gradient passes.

    ``param_str`` is the text of the prototxt, ``phase`` caffe.TRAIN or caffe.TEST, ``blobs`` its parameters
    (``add_blob`` in ``setup`` makes one).
    """

    type = "Python"
    param_str: str = ""
    phase: int = 1
    blobs: PythonBlobs

    def __init__(self, layer_param: Any = None) -> None:
        """``layer_param`` is the layer's message; the members are there from ``setup`` on."""

    @property
    def param_str_(self) -> str:
        """An old name of ``param_str``."""
        return self.param_str


class NetLayer:
    """One layer of a net: its type and its parameters."""

    def __init__(self, name: str, type_: str, blobs: Sequence[Blob]) -> None:
        self.name, self.type, self.blobs = name, type_, BlobVec(blobs)

    def __repr__(self) -> str:
        return f"<layer {self.name} ({self.type})>"


class BlobVec(list[Any]):
    """Blobs in order."""


class RawBlobVec(list[Any]):
    """Bottoms or tops in order."""
