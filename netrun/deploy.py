"""From the net one trains to the net one uses: data, losses and scores go, an Input and a Softmax come."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .compiler.rules import State, is_included
from .config import schema
from .config.upgrade import read_net
from .device import Device
from .errors import ConfigError, NetrunError, UsageError
from .layers.base import Layer
from .layers.context import Context
from .layers.lookup import layer_type
from .net import Net
from .types import Shape

ENDINGS = {"SoftmaxWithLoss": "Softmax", "SigmoidCrossEntropyLoss": "Sigmoid", "InfogainLoss": "Softmax"}
"""What gives the scores that a loss computes inside."""


def load(
    net: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    *,
    device: str | Device = "cpu",
    shape: Sequence[int] | None = None,
    stages: Sequence[str] = (),
    lenient: bool = False,
    precision: str | None = None,
    deterministic: bool = False,
) -> Net:
    """A net ready to use, of a prototxt for training or for use, with its weights.

    Args:
        shape: of the input, N C H W; what the data layer says by default, with a batch of one.
        lenient: go on without what other people's Caffe has and netrun lacks.
        precision, deterministic: as of ``netrun.Net``.

    Raises:
        UsageError: a file is missing, or nothing tells the shape of the input. ConfigError, WeightsError.
    """
    message, _ = read_net(net, lenient)
    folder = str(Path(net).parent)
    if any(_is_data(layer) for layer in message.layer):
        message = deploy(message, folder=folder, shape=shape, stages=stages)
        shape = None
    shapes = None
    if shape is not None:
        inputs = [top for layer in message.layer if layer.type == "Input" for top in layer.top]
        shapes = {inputs[0]: tuple(shape)} if inputs else None
    return Net(
        message,
        schema.TEST,
        weights=weights,
        device=device,
        folder=folder,
        shapes=shapes,
        stages=stages,
        precision=precision,
        deterministic=deterministic,
    )


def deploy(
    net: schema.NetParameter, *, folder: str = "", shape: Sequence[int] | None = None, stages: Sequence[str] = ()
) -> schema.NetParameter:
    """The deploy net of a net for training (in the current form), as a message.

    Data layers become an Input named as their first top, which keeps transform_param; labels and all that needs them
    go, and with them branches that only lead to side losses. The scores of the main loss, the one with the largest
    weight, come out of a layer ``prob``; those of several with the same weight out of ``<name of the loss>_prob`` each.

    Raises:
        UsageError: nothing tells the shape of the input.
    """
    state = State(schema.TEST, 0, tuple(stages))
    layers = [layer for layer in net.layer if is_included(layer, state, lambda *_: None)]
    result = schema.NetParameter(name=net.name)
    for field in ("precision", "deterministic"):
        if net.HasField(field):
            setattr(result, field, getattr(net, field))
    main = _main_losses(layers)
    gone: set[str] = set()
    goal: list[str] = []
    sources: dict[str, schema.LayerParameter] = {}
    for layer in layers:
        if _is_data(layer):
            gone.update(layer.top[1:])
            _put_input(result, layer)
            sources[layer.top[0]] = layer
        elif layer.name in main and _is_loss(layer):
            goal += _put_ending(result, layer, layers, gone, len(main) > 1)
        elif _is_loss(layer) or layer.type in ("Accuracy", "Silence", "HDF5Output") or gone & set(layer.bottom):
            gone.update(set(layer.top) - set(layer.bottom))
        else:
            kept = result.layer.add()
            kept.CopyFrom(layer)
            for name in ("include", "exclude", "loss_weight"):
                kept.ClearField(name)
    if main:
        _prune(result, set(goal))
    for layer in result.layer:
        if layer.type == "Input" and layer.name in sources:
            found = shape or _shape_of(sources[layer.name], state, folder)
            layer.input_param.shape.add().dim.extend(found)
    return result


def _is_data(layer: schema.LayerParameter) -> bool:
    cls = Layer.registry.get(layer.type)
    source = cls is not None and (cls.fed or layer.type == "Python")
    return layer.type != "Input" and not layer.bottom and bool(layer.top) and source


def _is_loss(layer: schema.LayerParameter) -> bool:
    cls = Layer.registry.get(layer.type)
    return layer.type.endswith("Loss") or (cls is not None and cls.loss)


def _main_losses(layers: Sequence[schema.LayerParameter]) -> list[str]:
    """Names of the losses with the largest weight."""
    weights = {
        layer.name: layer.loss_weight[0] if layer.loss_weight else 1.0
        for layer in layers
        if _is_loss(layer) and layer.bottom
    }
    return [name for name, weight in weights.items() if weight == max(weights.values())]


def _put_input(result: schema.NetParameter, layer: schema.LayerParameter) -> None:
    made = result.layer.add(name=layer.top[0], type="Input", top=layer.top[:1])
    made.transform_param.CopyFrom(layer.transform_param)
    made.transform_param.ClearField("mirror")
    if layer.type == "ImageData" and layer.image_data_param.new_height:  # predict scales images to it
        made.image_data_param.new_height = layer.image_data_param.new_height
        made.image_data_param.new_width = layer.image_data_param.new_width


def _shape_of(layer: schema.LayerParameter, state: State, folder: str) -> Shape:
    """The shape of one sample of a data layer, from its source if it is there, else from the crop."""
    try:
        made = layer_type(layer.type)(layer, Context(phase=state.phase, folder=folder))
        spec = made.configure([])[0]
        return (1, *spec.shape[1:])
    except NetrunError as error:
        p = layer.transform_param
        if p.crop_size:
            return (1, len(p.mean_value) or (1 if p.force_gray else 3), p.crop_size, p.crop_size)
        raise UsageError(
            f"nothing tells the shape of the input of {layer.name} ({layer.type}): its data cannot be read",
            None,
            [
                str(error).partition("\n")[0],
                "give it: shape=(1, 3, 224, 224), or --input-shape 1,3,224,224 on the command line",
            ],
        ) from None


def _put_ending(
    result: schema.NetParameter,
    loss: schema.LayerParameter,
    layers: Sequence[schema.LayerParameter],
    gone: set[str],
    several: bool,
) -> list[str]:
    """Put the layer of a loss's scores; returns the name of the blob that they are in, if they are there."""
    gone.update(loss.top)
    kind, scores = ENDINGS.get(loss.type), loss.bottom[0]
    if kind is None or scores in gone:
        return [] if scores in gone else [scores]
    for layer in (*layers, *result.layer):
        if layer.type == kind and layer.bottom[:1] == [scores] and layer.top[:1] != [scores]:
            return list(layer.top[:1])  # the net has it already, or another loss of the same scores asked for it
    names = {layer.name for layer in result.layer} | {top for layer in result.layer for top in layer.top}
    wanted = () if several else ("prob",)
    name = next(n for n in (*wanted, f"{loss.name}_prob", f"{loss.name}_prob_2") if n not in names)
    ending = result.layer.add(name=name, type=kind, bottom=[scores], top=[name])
    if kind == "Softmax" and loss.HasField("softmax_param"):
        ending.softmax_param.CopyFrom(loss.softmax_param)
    return [name]


def _prune(result: schema.NetParameter, goal: set[str]) -> None:
    """Drop branches that only led to losses and scores that are gone."""
    needed, kept = set(goal), []
    for layer in reversed(result.layer):
        if needed & set(layer.top):
            needed.update(layer.bottom)
            kept.append(layer)
    if not kept:
        raise ConfigError(f"the net {result.name}: nothing leads from its data to its loss")
    layers = [schema.LayerParameter.FromString(layer.SerializeToString()) for layer in reversed(kept)]
    del result.layer[:]
    result.layer.extend(layers)


__all__ = ["deploy", "load"]
