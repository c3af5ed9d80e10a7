"""Nets written as programs, as ``caffe.net_spec``: see ``netrun.netspec``."""

from __future__ import annotations

from ..netspec import Function, Layers, NetSpec, Parameters, Top, layers, params, to_proto
from ..netspec import assign as assign_proto

__all__ = ["Function", "Layers", "NetSpec", "Parameters", "Top", "assign_proto", "layers", "params", "to_proto"]
