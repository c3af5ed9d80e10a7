"""Nets written as programs, as ``caffe.net_spec``: see ``netrun.netspec``."""

from __future__ import annotations

from ..netspec import Function, Layers, NetSpec, Parameters, Top, blocks, layers, params, to_proto
from ..netspec import assign as assign_proto
from .proto import caffe_pb2


def param_name_dict() -> dict[str, str]:
    """The field of LayerParameter for each type that has one, without "_param"."""
    return {name: field.removesuffix("_param") for name, field in blocks().items()}


__all__ = [
    "Function",
    "Layers",
    "NetSpec",
    "Parameters",
    "Top",
    "assign_proto",
    "caffe_pb2",
    "layers",
    "param_name_dict",
    "params",
    "to_proto",
]
