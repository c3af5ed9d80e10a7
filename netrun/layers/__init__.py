"""The layer types: one file a family. Importing the package registers all of them (netrun.layers.base)."""

from . import (
    activation,
    attention,
    branch,
    conv,
    dense,
    dropout,
    expr,
    filter,
    forks,
    function,
    hdf5,
    host,
    images,
    inputs,
    labelling,
    layer_norm,
    loop,
    loss,
    margin,
    metric,
    multihead,
    norm,
    pixels,
    pool,
    position,
    python,
    recurrent,
    reduce,
    sampled,
    scale,
    sequence_data,
    shape,
)
from .base import Layer
from .context import Context
from .lookup import layer_type

__all__ = [
    "Context", "Layer", "activation", "attention", "branch", "conv", "dense", "dropout", "expr", "filter", "forks",
    "function", "hdf5", "host", "images", "inputs", "labelling", "layer_norm", "layer_type", "loop", "loss", "margin",
    "metric", "multihead", "norm", "pixels", "pool", "position", "python", "recurrent", "reduce", "sampled", "scale",
    "sequence_data", "shape",
]  # fmt: skip
