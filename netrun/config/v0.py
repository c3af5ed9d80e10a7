"""The oldest form of a net, ``layers { layer { name type ... } bottom top }`` (V0), made into V1."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import ConfigError, nearest
from . import schema
from .source import Mark, Source

_TYPES = {
    "accuracy": "ACCURACY",
    "bnll": "BNLL",
    "concat": "CONCAT",
    "conv": "CONVOLUTION",
    "data": "DATA",
    "dropout": "DROPOUT",
    "euclidean_loss": "EUCLIDEAN_LOSS",
    "flatten": "FLATTEN",
    "hdf5_data": "HDF5_DATA",
    "hdf5_output": "HDF5_OUTPUT",
    "im2col": "IM2COL",
    "images": "IMAGE_DATA",
    "infogain_loss": "INFOGAIN_LOSS",
    "innerproduct": "INNER_PRODUCT",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MULTINOMIAL_LOGISTIC_LOSS",
    "pool": "POOLING",
    "relu": "RELU",
    "sigmoid": "SIGMOID",
    "softmax": "SOFTMAX",
    "softmax_loss": "SOFTMAX_LOSS",
    "split": "SPLIT",
    "tanh": "TANH",
    "window_data": "WINDOW_DATA",
}

# The block that holds the parameters of a type in V1.
_BLOCKS = {
    "concat": "concat_param",
    "conv": "convolution_param",
    "data": "data_param",
    "dropout": "dropout_param",
    "hdf5_data": "hdf5_data_param",
    "hdf5_output": "hdf5_output_param",
    "images": "image_data_param",
    "infogain_loss": "infogain_loss_param",
    "innerproduct": "inner_product_param",
    "lrn": "lrn_param",
    "pool": "pooling_param",
    "window_data": "window_data_param",
}

# V0 field -> (its name in the block of the type, the types that have it).
_FIELDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "num_output": ("num_output", ("conv", "innerproduct")),
    "biasterm": ("bias_term", ("conv", "innerproduct")),
    "weight_filler": ("weight_filler", ("conv", "innerproduct")),
    "bias_filler": ("bias_filler", ("conv", "innerproduct")),
    "pad": ("pad", ("conv", "pool")),
    "kernelsize": ("kernel_size", ("conv", "pool")),
    "group": ("group", ("conv",)),
    "stride": ("stride", ("conv", "pool")),
    "pool": ("pool", ("pool",)),
    "dropout_ratio": ("dropout_ratio", ("dropout",)),
    "local_size": ("local_size", ("lrn",)),
    "alpha": ("alpha", ("lrn",)),
    "beta": ("beta", ("lrn",)),
    "k": ("k", ("lrn",)),
    "source": ("source", ("data", "hdf5_data", "images", "window_data", "infogain_loss")),
    "batchsize": ("batch_size", ("data", "hdf5_data", "images", "window_data")),
    "rand_skip": ("rand_skip", ("data", "images")),
    "shuffle_images": ("shuffle", ("images",)),
    "new_height": ("new_height", ("images",)),
    "new_width": ("new_width", ("images",)),
    "concat_dim": ("concat_dim", ("concat",)),
    "det_fg_threshold": ("fg_threshold", ("window_data",)),
    "det_bg_threshold": ("bg_threshold", ("window_data",)),
    "det_fg_fraction": ("fg_fraction", ("window_data",)),
    "det_context_pad": ("context_pad", ("window_data",)),
    "det_crop_mode": ("crop_mode", ("window_data",)),
}
_TRANSFORM = {"scale": "scale", "meanfile": "mean_file", "cropsize": "crop_size", "mirror": "mirror"}
_KEPT = ("name", "blobs", "blobs_lr", "weight_decay")


def type_name(kind: str) -> str:
    """The V1 name of a V0 layer type; NONE for one that stands for none."""
    return _TYPES.get(kind, "NONE")


def is_v0(net: schema.NetParameter) -> bool:
    """Whether a net holds layers in the V0 form."""
    return any(layer.HasField("layer") for layer in net.layers)


def to_v1(net: schema.NetParameter, source: Source, say: Callable[[str], None]) -> None:
    """Rewrite V0 layers as V1 in place; padding layers dissolve into the layers that read them.

    Args:
        net: the net.
        source: its positions; they move along.
        say: called with a sentence for every field that means nothing in its layer and is dropped.

    Raises:
        ConfigError: an unknown type, or a padding layer that feeds something else than a convolution or pooling.
    """
    _dissolve_padding(net, source)
    marks: list[Mark] = []
    layers: list[schema.V1LayerParameter] = []
    for index, old in enumerate(net.layers):
        mark = source.root.child("layers", index)
        if old.HasField("layer"):
            new = schema.V1LayerParameter(bottom=old.bottom, top=old.top)
            moved = Mark(mark.at)
            for name in ("bottom", "top"):
                moved.put(name, mark.all(name))
            _convert(old.layer, mark.child("layer"), new, moved, source, say)
            old, mark = new, moved
        layers.append(old)
        marks.append(mark)
    _replace(net, layers)
    source.root.fields["layers"] = marks


def _replace(net: schema.NetParameter, layers: list[schema.V1LayerParameter]) -> None:
    copies = schema.NetParameter(layers=layers)
    del net.layers[:]
    net.layers.MergeFrom(copies.layers)


def _convert(
    v0: schema.V0LayerParameter,
    mark: Mark,
    v1: schema.V1LayerParameter,
    moved: Mark,
    source: Source,
    say: Callable[[str], None],
) -> None:
    kind = v0.type
    if v0.HasField("type"):
        if kind not in _TYPES:
            what = f'layer {v0.name}: there is no layer type "{kind}" in the V0 form{nearest(kind, _TYPES)}'
            raise ConfigError(what, source.at(mark.child("type").at))
        v1.MergeFrom(schema.V1LayerParameter(type=_TYPES[kind]))
        moved.put("type", mark.all("type"))
    for field, value in v0.ListFields():
        name = field.name
        if name == "type":
            continue
        path: tuple[str, ...]
        if name in _KEPT:
            path = (name,)
        elif name in _TRANSFORM:
            path = ("transform_param", _TRANSFORM[name])
        elif name in _FIELDS and kind in _FIELDS[name][1]:
            path = (_BLOCKS[kind], _FIELDS[name][0])
        elif name == "hdf5_output_param" and kind == "hdf5_output":
            path = (name,)
        else:
            say(f"{source.at(mark.child(name).at)}: layer {v0.name}: {name} means nothing to type {kind}, dropped")
            continue
        target, place = v1, moved
        for block in path[:-1]:
            target = getattr(target, block)
            place = place.fields.setdefault(block, [Mark(mark.at)])[0]
        _assign(target, path[-1], value)
        place.put(path[-1], mark.all(name))


def _assign(message: object, name: str, value: object) -> None:
    """Give a field its value, whether it is plain, repeated or a message."""
    here = getattr(message, name)
    if hasattr(here, "CopyFrom"):
        here.CopyFrom(value)
    elif hasattr(here, "MergeFrom"):
        if isinstance(value, (int, float, str)):
            here.append(value)  # one value before, a list now: the pad of a convolution
        else:
            here.MergeFrom(value)
    else:
        setattr(message, name, value)


def _dissolve_padding(net: schema.NetParameter, source: Source) -> None:
    """Let convolutions and poolings pad for themselves what padding layers padded for them."""
    writer: dict[str, tuple[schema.V1LayerParameter, Mark]] = {}
    kept: list[schema.V1LayerParameter] = []
    marks: list[Mark] = []
    for index, layer in enumerate(net.layers):
        mark = source.root.child("layers", index)
        for i, bottom in enumerate(layer.bottom):
            padding, pads = writer.get(bottom, (None, mark))
            if padding is None or padding.layer.type != "padding":
                continue
            if layer.layer.type not in ("conv", "pool"):
                what = (
                    f"layer {layer.layer.name}: reads the padding layer {padding.layer.name}, "
                    f"which only conv and pool can (this is {layer.layer.type or 'no V0 layer'})"
                )
                raise ConfigError(what, source.at(mark.child("bottom", i).at))
            if len(padding.bottom) != 1:
                what = f"layer {padding.layer.name}: padding wants one bottom, got {len(padding.bottom)}"
                raise ConfigError(what, source.at(mark.at))
            layer.layer.pad = padding.layer.pad
            mark.child("layer").fields["pad"] = [pads.child("layer").child("pad")]
            layer.bottom[i] = padding.bottom[0]
        for top in layer.top:
            writer[top] = layer, mark
        if layer.layer.type != "padding":
            kept.append(layer)
            marks.append(mark)
    _replace(net, kept)
    source.root.fields["layers"] = marks
