"""The old form of a net, ``layers { type: CONVOLUTION blobs_lr: 1 ... }`` (V1), made into the current one."""

from __future__ import annotations

from . import schema
from .source import Mark, Source

TYPES = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "ELTWISE": "Eltwise",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SLICE": "Slice",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "TANH": "TanH",
    "THRESHOLD": "Threshold",
    "WINDOW_DATA": "WindowData",
}
"""The current name of every V1 layer type."""

# Data layers whose parameters once held what transform_param holds now.
TRANSFORMED = {"DATA": "data_param", "IMAGE_DATA": "image_data_param", "WINDOW_DATA": "window_data_param"}
TRANSFORM_FIELDS = ("scale", "mean_file", "crop_size", "mirror")

# V1 lists with one entry for each parameter blob -> the field of ParamSpec that holds it now.
_PARAM_LISTS = {
    "param": "name",
    "blob_share_mode": "share_mode",
    "blobs_lr": "lr_mult",
    "weight_decay": "decay_mult",
}


def type_name(number: int) -> str:
    """The current name of a V1 layer type; "" for a number that stands for none."""
    known = schema.V1LayerParameter.LayerType
    return TYPES[known.Name(number)] if number in known.values() else ""


def move_transform(layer: schema.V1LayerParameter, mark: Mark) -> bool:
    """Move scale, mean_file, crop_size and mirror of a data layer into its transform_param; whether there were any."""
    block = TRANSFORMED.get(schema.V1LayerParameter.LayerType.Name(layer.type)) if layer.HasField("type") else None
    if block is None:
        return False
    old, found = getattr(layer, block), False
    for name in TRANSFORM_FIELDS:
        if old.HasField(name):
            setattr(layer.transform_param, name, getattr(old, name))
            old.ClearField(name)
            place = mark.fields.setdefault("transform_param", [Mark(mark.child(block).at)])[0]
            place.fields[name] = mark.child(block).take(name) or [Mark(mark.at)]
            found = True
    return found


def to_current(net: schema.NetParameter, source: Source) -> None:
    """Rewrite the ``layers`` of a net (V1, with nothing of V0 left) as ``layer``, in place; positions move along."""
    marks = source.root.take("layers")
    for index, old in enumerate(net.layers):
        mark = marks[index] if index < len(marks) else Mark()
        source.root.put("layer", [_convert(old, mark, net.layer.add())])
    net.ClearField("layers")


def _convert(old: schema.V1LayerParameter, mark: Mark, new: schema.LayerParameter) -> Mark:
    moved = Mark(mark.at)
    known = schema.LayerParameter.DESCRIPTOR.fields_by_name
    for field, value in old.ListFields():
        name = field.name
        if name == "type":
            new.type = type_name(old.type)
        elif name in _PARAM_LISTS:
            for i, one in enumerate(value):
                while len(new.param) <= i:
                    new.param.add()
                    moved.put("param", [Mark(mark.child(name, i).at)])
                setattr(new.param[i], _PARAM_LISTS[name], one)
                moved.child("param", i).put(_PARAM_LISTS[name], [mark.child(name, i)])
            continue
        elif name not in known:
            continue
        elif field.message_type is not None and not hasattr(value, "add"):
            getattr(new, name).CopyFrom(value)
        elif hasattr(value, "MergeFrom"):
            getattr(new, name).MergeFrom(value)
        else:
            setattr(new, name, value)
        moved.put(name, mark.all(name))
    return moved
