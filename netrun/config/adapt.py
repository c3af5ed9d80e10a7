"""Brings nets of other people's Caffe to what netrun has (the table: ``forks.py``), and leaves out what it lacks."""

from __future__ import annotations

from importlib.metadata import entry_points

from ..errors import ConfigError, Problem
from . import schema
from .forks import TYPES
from .source import Source

_CARRIERS = frozenset({"Concat", "Crop", "Flatten", "Permute", "Reshape", "Silence", "Slice", "Split", "Tile"})
"""Types that only move values: what reads nothing but the tops of a layer that is left out goes with it."""


def adapt(net: schema.NetParameter, source: Source, lenient: bool) -> list[str]:
    """Give layers of forks the types that netrun has for them, in place; ``lenient``: leave out those it lacks.

    A layer is left out only if the net still stands: nothing but layers that are left out too may read its tops, and it
    is neither a source of data nor a loss.

    Returns:
        One sentence for each change.

    Raises:
        ConfigError: a layer that stays needs one that would be left out.
    """
    notices = []
    for index, layer in enumerate(net.layer):
        new = _own_type(layer)
        if new:
            where = source.where("layer", index, "type")
            notices.append(f'{where}: layer {layer.name}: type "{layer.type}" is read as "{new}"')
            layer.type = new
    return notices + (_leave_out(net, source) if lenient else [])


def _own_type(layer: schema.LayerParameter) -> str:
    """The type that a layer gets, with the parameters it then needs; "" if it keeps its own."""
    row = TYPES.get(layer.type)
    if layer.type == "ReLU6":
        layer.clip_param.min, layer.clip_param.max = 0, 6
    batch_norm = layer.batch_norm_param
    fillers = batch_norm.HasField("scale_filler") or batch_norm.HasField("bias_filler")
    if layer.type == "BatchNorm" and (batch_norm.scale_bias or fillers):
        return "BatchNormScale"
    segnet = ("bn_mode", "scale_filler", "shift_filler")
    if layer.type == "BN" and any(layer.bn_param.HasField(name) for name in segnet):
        return "SegNetBN"
    return row.into if row is not None else ""


def _leave_out(net: schema.NetParameter, source: Source) -> list[str]:
    offered = {entry.name for entry in entry_points(group="netrun.layers")}
    gone: dict[str, str] = {}  # blob -> why it is not there
    notices, kept, problems = [], [], []
    for index, layer in enumerate(net.layer):
        where = source.where("layer", index)
        row = TYPES.get(layer.type)
        lost = [blob for blob in layer.bottom if blob in gone]
        foreign = row is not None and layer.type not in offered
        if foreign and layer.bottom and not layer.type.endswith("Loss"):
            assert row is not None
            reason = f"type {layer.type} is of {row.fork}"
        elif lost and len(lost) == len(layer.bottom) and layer.type in _CARRIERS:
            reason = gone[lost[0]]
        else:
            if lost and not foreign:
                what = f"layer {layer.name} ({layer.type}) needs {lost[0]}, which is not made: {gone[lost[0]]}"
                problems.append(Problem(f"{what}; the net does not stand without it", where))
            kept.append(index)
            for top in layer.top:
                gone.pop(top, None)
            continue
        notices.append(f"{where}: layer {layer.name} is left out: {reason}")
        gone.update(dict.fromkeys(layer.top, reason))
    if problems:
        raise ConfigError.of(problems)
    if len(kept) < len(net.layer):
        layers = [net.layer[i] for i in kept]
        rest = schema.NetParameter(layer=layers)
        marks = source.root.take("layer")
        del net.layer[:]
        net.layer.MergeFrom(rest.layer)
        source.root.put("layer", [marks[i] for i in kept if i < len(marks)])
    return notices
