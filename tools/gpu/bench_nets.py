"""The nets that bench.py measures, recorded for a batch size and a precision, and the values they are fed."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from netrun.compiler.graph import State, build
from netrun.compiler.record import Recording, record
from netrun.config import schema
from netrun.config.text import parse
from netrun.config.upgrade import read_net

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
NETS = {
    "lenet": ("mnist/lenet_train_test.prototxt", 64),
    "cifar10_quick": ("cifar10/quick_train_test.prototxt", 100),
    "alexnet": ("benchmark/alexnet.prototxt", 128),
    "overfeat": ("benchmark/overfeat.prototxt", 128),
    "vgg_a": ("benchmark/vgg_a.prototxt", 64),
    "googlenet": ("benchmark/googlenet.prototxt", 128),
    "resnet50": ("imagenet/resnet50/train_val.prototxt", 256),
    "googlenet_train": ("imagenet/googlenet/train_val.prototxt", 128),
    "lstm": ("", 64),
    "transformer": ("", 32),
}
"""Name -> file in configs/ (or a net of WRITTEN), and the batch size."""

LSTM = """
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 100 dim: {batch} dim: 1024 }} }} }}
layer {{ name: "lstm" type: "LSTM" bottom: "data" top: "lstm"
  recurrent_param {{ num_output: 1024 num_layers: 2 weight_filler {{ type: "xavier" }} }} }}
"""
"""Two layers of 1024 cells over 100 steps."""

TRANSFORMER = """
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: {batch} dim: 512 dim: 768 }} }} }}
layer {{ name: "norm1" type: "LayerNorm" bottom: "data" top: "norm1" }}
layer {{ name: "attention" type: "MultiHeadAttention" bottom: "norm1" top: "attention"
  attention_param {{ num_heads: 12 }} }}
layer {{ name: "sum1" type: "Eltwise" bottom: "data" bottom: "attention" top: "sum1" }}
layer {{ name: "norm2" type: "LayerNorm" bottom: "sum1" top: "norm2" }}
layer {{ name: "up" type: "InnerProduct" bottom: "norm2" top: "up"
  inner_product_param {{ num_output: 3072 axis: 2 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "gelu" type: "GELU" bottom: "up" top: "gelu" }}
layer {{ name: "down" type: "InnerProduct" bottom: "gelu" top: "down"
  inner_product_param {{ num_output: 768 axis: 2 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "sum2" type: "Eltwise" bottom: "sum1" bottom: "down" top: "sum2" }}
"""
"""A block over 512 positions of 768 values, with 12 heads, normalised before each half."""

WRITTEN = {"lstm": LSTM, "transformer": TRANSFORMER}
"""Name -> text of the net."""

SIZES = {"lenet": (1, 28, 28), "cifar10_quick": (3, 32, 32)}
"""One image, where the file does not say it."""


def recorded(name: str, batch: int, precision: str = "FP32", work: str = "train") -> Recording:
    """The net in that precision, with an input of that many images in the place of its data layers.

    A net with phases is taken in that of the work: to run it forward alone is to test it.
    """
    file, _ = NETS[name]
    if name in WRITTEN:
        written, _ = parse(WRITTEN[name].format(batch=batch), schema.NetParameter, name)
        written.precision = precision
        return record(build(written, None, State.of(schema.NetState(phase="TEST")), seed=0))
    message, _ = read_net(str(CONFIGS / file))
    trains = any(rule.phase == schema.TRAIN for layer in message.layer for rule in layer.include)
    fed = [layer for layer in message.layer if layer.type in ("Data", "Input")]
    crop = next((layer.transform_param.crop_size for layer in fed if layer.transform_param.crop_size), 0)
    kept = [layer for layer in message.layer if layer.type not in ("Data", "Input")]
    shape = SIZES.get(name) or (3, crop, crop)
    if not trains:
        old = next(layer for layer in fed if layer.type == "Input").input_param.shape[0].dim
        shape = tuple(old[1:])
    given = schema.LayerParameter(name="data", type="Input", top=["data", "label"] if trains else ["data"])
    given.input_param.shape.add(dim=[batch, *shape])
    if trains:
        given.input_param.shape.add(dim=[batch])
    net = schema.NetParameter()
    net.CopyFrom(message)
    net.precision = precision  # a name, which becomes its number
    del net.layer[:]
    net.layer.extend([given, *kept])
    state = State.of(schema.NetState(phase="TRAIN" if trains and work != "forward" else "TEST"))
    return record(build(net, None, state, seed=0, folder=str((CONFIGS / file).parent)))


def values(recording: Recording) -> dict[str, Any]:
    """Random images and labels."""
    return {name: _random(name == "label", tensor.shape) for name, tensor in recording.feeds.items()}


@lru_cache(maxsize=4)
def _random(labels: bool, shape: tuple[int, ...]) -> Any:
    """The same for every row of a net: the host takes longer to draw them than the GPU to use them."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 10, shape) if labels else rng.standard_normal(shape, np.float32)
