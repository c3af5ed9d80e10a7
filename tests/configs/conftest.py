"""A shape walker for the nets of configs/: independent of netrun's compiler, so that each can catch the other's errors.

It knows the dozen layer types those nets are made of, and nothing of gradients or devices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from netrun.config import schema, text

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
# channels, height, width of the images in each database
SOURCES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "cifar10": (3, 32, 32), "ilsvrc12": (3, 256, 256)}
Shape = tuple[int, ...]


@dataclass
class Walked:
    """What a net comes to in one phase; a blob that is written in place stands under its name once."""

    layers: list[tuple[str, str]] = field(default_factory=list)
    wiring: dict[str, tuple[list[str], list[str]]] = field(default_factory=dict)
    blobs: dict[str, Shape] = field(default_factory=dict)
    params: dict[str, list[Shape]] = field(default_factory=dict)
    statistics: int = 0
    macs: int = 0

    @property
    def learned(self) -> int:
        """The number of learned values; BatchNorm's statistics are not learned."""
        return sum(math.prod(shape) for shapes in self.params.values() for shape in shapes) - self.statistics

    @property
    def outputs(self) -> list[str]:
        """The blobs that nobody reads, by name."""
        read = {b for bottoms, tops in self.wiring.values() for b in bottoms if bottoms != tops}
        return sorted(self.blobs.keys() - read)


def _one(values: Sequence[int], default: int) -> int:
    assert len(values) <= 1, "the nets of configs/ give kernel, stride and pad once, for height and width"
    return values[0] if values else default


def _window(size: int, kernel: int, pad: int, stride: int, round_: Callable[[float], int]) -> int:
    out = round_((size + 2 * pad - kernel) / stride) + 1
    if round_ is math.ceil and pad and (out - 1) * stride >= size + pad:
        out -= 1  # a pooling window must not start in the padding behind the image
    return out


def _data(layer: schema.LayerParameter) -> list[Shape]:
    source = layer.data_param.source
    channels, height, width = SOURCES[source.split("_")[0]]
    crop = layer.transform_param.crop_size
    assert crop <= min(height, width)
    batch = layer.data_param.batch_size
    return [(batch, channels, crop or height, crop or width), (batch,)]


def _learned_layer(walked: Walked, layer: schema.LayerParameter, x: Shape) -> Shape:
    """Shape, parameters and multiply-adds of a layer with weights."""
    weight: Shape
    out: Shape
    if layer.type == "Convolution":
        conv = layer.convolution_param
        kernel, pad, stride = _one(conv.kernel_size, 0), _one(conv.pad, 0), _one(conv.stride, 1)
        assert x[1] % conv.group == 0
        assert conv.num_output % conv.group == 0
        weight = (conv.num_output, x[1] // conv.group, kernel, kernel)
        out = (x[0], conv.num_output, *(_window(size, kernel, pad, stride, math.floor) for size in x[2:]))
        biased = conv.bias_term
    else:
        dense = layer.inner_product_param
        weight = (dense.num_output, math.prod(x[1:]))
        out = (x[0], dense.num_output)
        biased = dense.bias_term
    walked.params[layer.name] = [weight, weight[:1]] if biased else [weight]
    walked.macs += math.prod(weight) * math.prod(out[2:])
    return out


def _tops(walked: Walked, layer: schema.LayerParameter) -> list[Shape]:
    """The shapes of a layer's tops; what it learns is added to ``walked``."""
    bottoms = [walked.blobs[name] for name in layer.bottom]
    match layer.type:
        case "Data":
            return _data(layer)
        case "Input":
            return [tuple(layer.input_param.shape[0].dim)]
        case "Convolution" | "InnerProduct":
            return [_learned_layer(walked, layer, bottoms[0])]
        case "Pooling":
            p, x = layer.pooling_param, bottoms[0]
            round_ = math.floor if p.round_mode == p.FLOOR else math.ceil
            return [(*x[:2], *(_window(size, p.kernel_size, p.pad, p.stride, round_) for size in x[2:]))]
        case "BatchNorm":
            channels = bottoms[0][1]
            walked.params[layer.name] = [(channels,), (channels,), (1,)]
            walked.statistics += 2 * channels + 1
            return bottoms
        case "Scale":
            walked.params[layer.name] = [(bottoms[0][1],)] * (2 if layer.scale_param.bias_term else 1)
            return bottoms
        case "ReLU" | "Dropout" | "LRN" | "Softmax" | "Power":
            return bottoms
        case "Eltwise":
            assert len(set(bottoms)) == 1, f"{layer.name}: the bottoms differ: {bottoms}"
            return bottoms[:1]
        case "Concat":
            assert len({(b[0], *b[2:]) for b in bottoms}) == 1, f"{layer.name}: the bottoms differ: {bottoms}"
            first = bottoms[0]
            return [(first[0], sum(b[1] for b in bottoms), *first[2:])]
        case "SoftmaxWithLoss" | "Accuracy":
            assert bottoms[1] == bottoms[0][:1]
            return [()]
    raise AssertionError(f"{layer.name}: the walker does not know the type {layer.type}")


def walk(path: str, phase: str, batch: int | None = None) -> Walked:
    """The net of one file below configs/ in one phase, with ``batch`` images if given.

    Raises:
        AssertionError: the layers do not fit together.
    """
    net, _ = text.read(CONFIGS / path, schema.NetParameter)
    walked = Walked()
    for layer in net.layer:
        if any(rule.phase != schema.Phase.Value(phase) for rule in layer.include):
            continue
        assert layer.name not in walked.wiring, f"two layers are called {layer.name}"
        shapes = _tops(walked, layer)
        if batch is not None and layer.type in ("Data", "Input"):
            shapes = [(batch, *shape[1:]) for shape in shapes]
        for top, shape in zip(layer.top, shapes, strict=True):
            assert top not in walked.blobs or top in layer.bottom, f"{layer.name} writes {top} a second time"
            walked.blobs[top] = shape
        walked.layers.append((layer.name, layer.type))
        walked.wiring[layer.name] = (list(layer.bottom), list(layer.top))
    return walked


@pytest.fixture(name="walk")
def walk_fixture() -> Callable[..., Walked]:
    """``walk(path below configs/, phase, batch=None)``."""
    return walk
