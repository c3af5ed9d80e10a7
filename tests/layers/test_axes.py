"""Every type on every number of axes that its definition allows, on batches of one too; the others are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netrun.config import schema
from netrun.config.upgrade import parse_net
from netrun.errors import ConfigError
from netrun.layers import Layer
from netrun.net import Net

GOLDEN = Path(__file__).parents[1] / "golden"
MOST = 6
LENGTHS = (2, 3, 4, 5, 2, 3)
PLAIN = ("AbsVal", "BNLL", "Dropout", "ELU", "Exp", "Power", "ReLU", "Sigmoid", "Split", "Swish", "TanH", "Threshold")
CONV = 'num_output: 2 kernel_size: 2 weight_filler { type: "uniform" }'
# type: (least axes, text, what the bottoms are besides x)
TABLE: dict[str, tuple[int, str, tuple[str, ...]]] = {
    **dict.fromkeys(PLAIN, (0, "", ())),
    "Accuracy": (1, "accuracy_param { axis: -1 }", ("label",)),
    "ArgMax": (1, "", ()),
    "BatchNorm": (2, "", ()),
    "BatchReindex": (1, "", ("index",)),
    "Bias": (1, "bias_param { axis: -1 }", ()),
    "Clip": (0, "clip_param { min: 0 max: 1 }", ()),
    "Concat": (1, "concat_param { axis: -1 }", ("x",)),
    "ContrastiveLoss": (1, "", ("x", "samples")),
    "Convolution": (2, f"convolution_param {{ {CONV} }}", ()),
    "Crop": (1, "crop_param { axis: -1 }", ("x",)),
    "Deconvolution": (2, f"convolution_param {{ {CONV} }}", ()),
    "Eltwise": (0, "eltwise_param { operation: MAX }", ("x",)),
    "Embed": (0, "embed_param { num_output: 2 input_dim: 9 }", ()),
    "EuclideanLoss": (0, "", ("x",)),
    "Filter": (1, "", ("index",)),
    "Flatten": (1, "flatten_param { axis: 0 }", ()),
    "HingeLoss": (1, "", ("samples",)),
    "Im2col": (2, "convolution_param { kernel_size: 2 }", ()),
    "InfogainLoss": (1, "infogain_loss_param { axis: -1 }", ("label", "matrix")),
    "InnerProduct": (1, "inner_product_param { num_output: 2 axis: -1 }", ()),
    "LRN": (3, "", ()),
    "Log": (0, "log_param { shift: 1 }", ()),
    "MVN": (1, "", ()),
    "MultinomialLogisticLoss": (1, "", ("samples",)),
    "PReLU": (2, "", ()),
    "Pooling": (3, "pooling_param { kernel_size: 2 stride: 2 }", ()),
    "Reduction": (1, "reduction_param { axis: -1 }", ()),
    "Reshape": (0, "reshape_param { shape { dim: -1 } }", ()),
    "SPP": (3, "spp_param { pyramid_height: 1 }", ()),
    "Scale": (1, "scale_param { axis: -1 }", ()),
    "SigmoidCrossEntropyLoss": (0, "", ("x",)),
    "Silence": (0, "", ()),
    "Slice": (1, "slice_param { axis: -1 }", ()),
    "Softmax": (1, "softmax_param { axis: -1 }", ()),
    "SoftmaxWithLoss": (1, "softmax_param { axis: -1 }", ("label",)),
    "Tile": (1, "tile_param { axis: -1 tiles: 2 }", ()),
}
FIXED = {"LSTM", "RNN", "LSTMUnit", "Parameter", "Python", "HDF5Output"}
"""Types whose axes have a meaning each, or that the user's class decides about: their rows say more."""


def test_the_table_is_whole() -> None:
    """Every type that Caffe lists, but those that the host feeds, is here."""
    rows = json.loads((GOLDEN / "invalid.json").read_text())
    refusal = next(row["error"] for row in rows if "known types: " in row["error"])
    listed = set(refusal.split("known types: ")[1].split(")")[0].split(", "))
    assert {kind for kind in listed if not Layer.registry[kind].fed} - FIXED == set(TABLE)


def shapes_of(kind: str, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    classes = shape[-1] if shape else 1
    of = {"x": shape, "label": shape[:-1], "samples": shape[:1], "index": shape[:1], "matrix": (classes, classes)}
    return [shape, *(of[what] for what in TABLE[kind][2])]


def ran(kind: str, shape: tuple[int, ...], device: str) -> list[Any]:
    """Tops and gradients."""
    shapes = shapes_of(kind, shape)
    inputs = []
    for i, s in enumerate(shapes):
        dims = " ".join(f"dim: {n}" for n in s)
        inputs.append(f'layer {{ name: "x{i}" type: "Input" top: "x{i}" input_param {{ shape {{ {dims} }} }} }}')
    bottoms = " ".join(f'bottom: "x{i}"' for i in range(len(shapes)))
    top = "" if kind == "Silence" else 'top: "y"'
    text = "\n".join([*inputs, f'layer {{ name: "t" type: "{kind}" {bottoms} {top} {TABLE[kind][1]} }}'])
    with Net(parse_net("force_backward: true\n" + text)[0], schema.TEST, device=device) as net:
        rng = np.random.default_rng(len(shape))
        given: dict[str, Any] = {"x0": 0.1 + rng.random(shape)}
        for i, what in enumerate(TABLE[kind][2], 1):
            given[f"x{i}"] = rng.random(shapes[i]) if what in ("x", "matrix") else np.zeros(shapes[i])
        net.forward(**given)
        if kind == "Filter":  # nothing was selected
            net.forward(x1=np.ones(shapes[1]))
        net.backward(**({"y": np.ones(net.blobs["y"].shape)} if top else {}))
        found = [net.blobs["y"].data.copy()] if top else []
        return [*found, net.blobs["x0"].diff.copy(), *(b.diff.copy() for b in net.params.get("t", []))]


@pytest.mark.parametrize("one", [False, True], ids=["batch", "one sample"])
@pytest.mark.parametrize(("kind", "rank"), [(kind, rank) for kind in TABLE for rank in range(MOST + 1)])
def test_axes(kind: str, rank: int, one: bool) -> None:
    shape = LENGTHS[:rank]
    if one and shape:
        shape = (1, *shape[1:])
    if rank < TABLE[kind][0]:
        with pytest.raises(ConfigError) as error:
            ran(kind, shape, "reference")
        assert f"t ({kind}): " in str(error.value)
        return
    for wanted, found in zip(ran(kind, shape, "reference"), ran(kind, shape, "cpu"), strict=True):
        assert np.isfinite(wanted).all()
        np.testing.assert_allclose(found, wanted, 1e-5, 1e-6)


EMPTY = [
    ("Convolution", "convolution_param { num_output: 1 kernel_size: 4 }", (1, 1, 3, 3)),
    ("Convolution", "convolution_param { num_output: 1 kernel_size: 1 kernel_size: 5 }", (1, 1, 9, 4)),
    ("Im2col", "convolution_param { kernel_size: 3 dilation: 2 }", (1, 1, 4, 9)),
    ("Deconvolution", "convolution_param { num_output: 1 kernel_size: 2 pad: 1 }", (1, 1, 1, 9)),
    ("Pooling", "pooling_param { kernel_size: 4 }", (1, 1, 3, 3)),
    ("Pooling", "pooling_param { kernel_size: 4 stride: 2 round_mode: FLOOR }", (1, 1, 3, 3)),
    ("SPP", "spp_param { pyramid_height: 3 }", (1, 1, 5, 5)),
]


@pytest.mark.parametrize(("kind", "body", "shape"), EMPTY)
def test_empty_spatial_edges(kind: str, body: str, shape: tuple[int, ...]) -> None:
    """Nothing is left of an axis: the message names layer, sizes and bottom."""
    dims = " ".join(f"dim: {n}" for n in shape)
    text = f"""layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }}
        layer {{ name: "t" type: "{kind}" bottom: "x" top: "y" {body} }}"""
    with pytest.raises(ConfigError) as error:
        Net(parse_net(text)[0])
    assert f"t ({kind}): " in str(error.value)
    assert f'bottom "x"   N C H W = {" ".join(map(str, shape))}' in str(error.value)


@pytest.mark.parametrize("axis", range(4))
def test_an_axis_of_nothing(axis: int) -> None:
    shape = [2, 3, 4, 5]
    shape[axis] = 0
    dims = " ".join(f"dim: {n}" for n in shape)
    with pytest.raises(ConfigError, match="at least 1"):
        Net(parse_net(f'layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }}')[0])
