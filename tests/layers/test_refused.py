"""What a layer refuses: the text says layer, type, what was got and what was wanted, at the place in the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from netrun.compiler.graph import State, build
from netrun.config import schema
from netrun.config.upgrade import parse_net
from netrun.errors import ConfigError, NetrunError

GOLDEN = Path(__file__).parents[1] / "golden"
RECORDED = [r for r in json.loads((GOLDEN / "invalid.json").read_text()) if r["kind"] == "net"]
NETRUN_CAN = {
    "pooling: stochastic on CPU", "softmax loss: two tops", "softmax loss: two tops with loss weights",
}  # fmt: skip
"""What Caffe refuses and netrun computes."""


def graph(text: str, phase: int = schema.TRAIN) -> Any:
    net, source = parse_net(text, "net.prototxt")
    return build(net, source, State(phase))


@pytest.mark.parametrize("row", RECORDED, ids=lambda r: r["what"])
def test_what_caffe_refuses(row: dict[str, Any]) -> None:
    if row["what"] in NETRUN_CAN:
        assert graph(row["text"]).nodes
        return
    with pytest.raises(NetrunError) as error:
        graph(row["text"])
    assert "net.prototxt:" in str(error.value)


def one(kind: str, body: str, *shapes: tuple[int, ...], tops: int = 1) -> str:
    inputs = [
        f'layer {{ name: "x{i}" type: "Input" top: "x{i}" input_param {{ shape {{ {dims(shape)} }} }} }}'
        for i, shape in enumerate(shapes)
    ]
    ends = "".join(f' bottom: "x{i}"' for i in range(len(shapes))) + "".join(f' top: "y{i}"' for i in range(tops))
    return "\n".join([*inputs, f'layer {{ name: "t" type: "{kind}"{ends}', body, "}"])


def dims(shape: tuple[int, ...]) -> str:
    return " ".join(f"dim: {n}" for n in shape)


IMAGE = (2, 4, 9, 9)
REFUSED = [
    ("Convolution", "convolution_param { num_output: 2 kernel_size: 11 }", [IMAGE], ["kernel 11x11", "H, W >= 11"]),
    (
        "Convolution",
        "convolution_param { num_output: 2 kernel_size: 5 dilation: 3 }",
        [IMAGE],
        ["kernel 5x5 with dilation 3x3", "H, W >= 13"],
    ),
    ("Convolution", "convolution_param { kernel_size: 3 }", [IMAGE], ["num_output: 32"]),
    ("Convolution", "convolution_param { num_output: 2 }", [IMAGE], ["no kernel_size", "kernel_h and kernel_w"]),
    ("Convolution", "convolution_param { num_output: 2 kernel_h: 3 }", [IMAGE], ["kernel_h but no kernel_w"]),
    ("Convolution", "convolution_param { num_output: 2 kernel_size: 3 stride: 0 }", [IMAGE], ["stride is 0"]),
    ("Convolution", "convolution_param { num_output: 2 kernel_size: 3 group: 0 }", [IMAGE], ["group is 0"]),
    ("Convolution", "convolution_param { num_output: 3 kernel_size: 3 group: 2 }", [IMAGE], ["num_output (3)", "2 gr"]),
    ("Convolution", "convolution_param { num_output: 2 kernel_size: 3 axis: 4 }", [IMAGE], ["axis 4", "4 axes"]),
    ("Convolution", "convolution_param { num_output: 2 kernel_h: 1 kernel_w: 1 }", [(2, 3, 4)], ["kernel_h", "1"]),
    ("Convolution", "convolution_param { num_output: 2 kernel_size: 1 }", [(2, 3, 4), (2, 3, 5)], ["same shape"], 2),
    ("Deconvolution", "convolution_param { num_output: 2 kernel_size: 1 pad: 5 }", [IMAGE], ["pad 5x5", "-1x-1"]),
    ("Pooling", "pooling_param { kernel_size: 12 }", [IMAGE], ["kernel 12x12", "N C H W = 2 4 9 9"]),
    ("Pooling", "pooling_param { kernel_size: 2 pool: AVE }", [IMAGE], ["second top", "MAX"], 2),
    ("Pooling", "pooling_param { global_pooling: true pad: 1 }", [IMAGE], ["global_pooling", "pad: 0"]),
    ("Pooling", "pooling_param { kernel_size: 3 pad_h: 1 }", [IMAGE], ["pad_h but no pad_w"]),
    ("Pooling", "pooling_param { pool: STOCHASTIC kernel_size: 2 pad: 1 }", [IMAGE], ["stochastic", "pad"]),
    ("SPP", "spp_param { pyramid_height: 5 }", [IMAGE], ["bins", "pyramid_height"]),
    ("SPP", "", [IMAGE], ["no pyramid_height"]),
    ("InnerProduct", "inner_product_param { axis: 4 num_output: 1 }", [IMAGE], ["axis 4"]),
    ("InnerProduct", "", [IMAGE], ["num_output: 10"]),
    ("InnerProduct", 'inner_product_param { num_output: 1 weight_filler { type: "glorot" } }', [IMAGE], ["glorot"]),
    ("Embed", "embed_param { num_output: 3 }", [(4,)], ["no input_dim"]),
    ("ReLU", "relu_param { negative_slope: nan }", [IMAGE], ["negative_slope", "finite"]),
    ("PReLU", "", [(3,)], ["at least 2 axes"]),
    ("Exp", "exp_param { base: -2 }", [IMAGE], ["base is -2", "-1 stands for e"]),
    ("Log", "log_param { base: 1 }", [IMAGE], ["base is 1"]),
    ("Power", "power_param { power: -1 scale: 0 }", [IMAGE], ["scale is 0", "0 ^ -1"]),
    ("Dropout", "dropout_param { dropout_ratio: 1 }", [IMAGE], ["dropout_ratio is 1", "0 to 1"]),
    ("LRN", "lrn_param { local_size: 4 }", [IMAGE], ["local_size: 5"]),
    ("BatchNorm", "", [(3,)], ["at least 2 axes", "got 1"]),
    ("BatchNorm", "param { lr_mult: 0 } param { decay_mult: 0 }", [IMAGE], ["param 1 (variance)", "lr_mult 1"]),
    ("BatchNorm", "batch_norm_param { eps: -1 }", [IMAGE], ["eps is -1"]),
    ("Scale", "scale_param { axis: 3 num_axes: 2 }", [IMAGE], ["num_axes 2", "beyond"]),
    ("Scale", "", [IMAGE, (5,)], ["second bottom", "axis 1", "x1"]),
    ("Concat", "", [(2, 3), (3, 3)], ["along axis 1 only", "x0", "x1"]),
    ("Slice", "slice_param { slice_point: 3 slice_point: 9 }", [(2, 6)], ["rise", "3, 9", "below 6"], 3),
    ("Reshape", "reshape_param { shape { dim: 5 dim: -1 } }", [(2, 3)], ["6 values", "by 5"]),
    ("Reshape", "reshape_param { shape { dim: 5 } }", [(2, 3)], ["5 values", "the bottom 6"]),
    ("Reshape", "reshape_param { axis: 4 }", [(2, 3)], ["axis 4"]),
    ("Flatten", "flatten_param { end_axis: 3 }", [(2, 3)], ["end_axis 3"]),
    ("Flatten", "flatten_param { axis: 3 end_axis: 1 }", [IMAGE], ["end_axis 1", "before axis 3"]),
    ("Tile", "", [(2, 3)], ["tiles is 0"]),
    ("Crop", "crop_param { axis: 1 offset: 2 }", [(2, 4), (2, 3)], ["offset 2", "length 3", "4 long"]),
    ("BatchReindex", "", [(2, 4), (2, 3)], ["one axis of indices"]),
    ("Eltwise", "eltwise_param { operation: PROD coeff: 1 coeff: 1 }", [(2,), (2,)], ["coeff", "SUM"]),
    ("Eltwise", "eltwise_param { coeff: 1 }", [(2,), (2,)], ["1 coeff", "2 bottoms"]),
    ("Reduction", "reduction_param { axis: 2 }", [(2, 3)], ["axis 2"]),
    ("SoftmaxWithLoss", "", [(4, 3), (5,)], ["4 labels", "got 5"]),
    ("InfogainLoss", "loss_param { normalize: true }", [(4, 3), (4,), (3, 3)], ["normalize"]),
    ("InfogainLoss", "", [(4, 3), (4,), (3, 2)], ["3 x 3", "got 6"]),
    ("SigmoidCrossEntropyLoss", "", [(4, 3), (4, 2)], ["as many targets"]),
    ("EuclideanLoss", "", [(4, 3), (3, 4)], ["as many targets"]),
    ("HingeLoss", "", [(4, 3), (3,)], ["one label for each sample"]),
    ("HingeLoss", "", [(4, 3), (1, 4)], ["one label for each sample", "shape = 1 4"]),
    ("EuclideanLoss", "loss_weight: 1 loss_weight: 1", [(4, 3), (4, 3)], ["2 times", "1 tops"]),
    ("EuclideanLoss", "loss_weight: nan", [(4, 3), (4, 3)], ["loss_weight is nan", "finite"]),
    ("InnerProduct", "inner_product_param { num_output: 2 } blobs { data: 1 }", [(4, 3)], ["1 blobs", "2 parameter"]),
    (
        "InnerProduct",
        "inner_product_param { num_output: 2 bias_term: false } blobs { data: 1 }",
        [(4, 3)],
        ["weight needs 6 values, got 1"],
    ),
    ("ContrastiveLoss", "", [(4, 3), (4, 2), (4,)], ["pairs"]),
    ("Accuracy", "accuracy_param { top_k: 4 }", [(4, 3), (4,)], ["top_k is 4", "1 to 3"]),
    ("ArgMax", "argmax_param { top_k: 4 axis: 1 }", [(4, 3)], ["top_k is 4"]),
    ("Input", "", [], ["no shape", "input_param"]),
    ("Input", "input_param { shape { dim: 0 } }", [], ["shape 0", "at least 1"]),
    ("Parameter", "", [], ["no shape"]),
    ("DummyData", "dummy_data_param { num: 2 channels: 3 }", [], ["go together", "num, channels"]),
    ("DummyData", 'dummy_data_param { shape { dim: 2 } data_filler { type: "gausian" } }', [], ['"gaussian"']),
    ("MemoryData", "memory_data_param { batch_size: 2 height: 3 width: 3 }", [], ["no channels"], 2),
]


@pytest.mark.parametrize("row", REFUSED, ids=lambda r: f"{r[0]} {' '.join(r[1].split())}"[:70])
def test_message(row: tuple[Any, ...]) -> None:
    kind, body, shapes, words, *tops = row
    with pytest.raises(ConfigError) as error:
        graph(one(kind, body, *shapes, tops=tops[0] if tops else 1))
    message = str(error.value)
    assert message.startswith(f"net.prototxt:{len(shapes) + 1}:") or f"net.prototxt:{len(shapes) + 2}:" in message
    assert f"t ({kind}): " in message
    for word in words:
        assert word in message, message


def test_a_bad_filler_is_found_where_it_stands() -> None:
    body = 'inner_product_param {\n num_output: 2\n bias_filler { type: "guassian" } }'
    with pytest.raises(ConfigError) as error:
        graph(one("InnerProduct", body, IMAGE))
    assert str(error.value).startswith("net.prototxt:5:2: t (InnerProduct): bias: there is no filler type")
    assert 'did you mean "gaussian"' in str(error.value)


IN_PLACE = [
    ('layer { name: "f" type: "Flatten" bottom: "x" top: "x" }', 'f (Flatten): cannot be in place: "x"'),
    ('layer { name: "f" type: "Reshape" bottom: "x" top: "x" reshape_param { shape { dim: -1 } } }', "cannot be in"),
    ('layer { name: "f" type: "Split" bottom: "x" top: "x" top: "y" }', "cannot be in place"),
    ('layer { name: "p" type: "Power" bottom: "x" top: "p" } layer { name: "f" type: "ReLU" bottom: "x" top: "x" }',
     'f (ReLU): changes "x" in place, but layer p reads it too'),
    ('layer { name: "f" type: "Eltwise" bottom: "x" bottom: "x" top: "x" }', "layer f reads it too"),
    ('layer { name: "p" type: "Power" bottom: "x" top: "p" loss_weight: 1 } '
     'layer { name: "f" type: "ReLU" bottom: "p" top: "p" }', "but layer p gives it a loss_weight"),
    ('layer { name: "f" type: "Pooling" bottom: "x" top: "x" pooling_param { kernel_size: 2 } }', "becomes 2x3x3x3"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "words"), IN_PLACE)
def test_in_place(text: str, words: str) -> None:
    """What would overwrite values that somebody needs; Caffe refuses the first six, and computes nonsense in the
    last."""
    x = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } }'
    with pytest.raises(ConfigError) as error:
        graph(f"{x} {text}")
    assert words in str(error.value)
    assert "a name of its own" in str(error.value)


def test_an_error_points_at_the_field() -> None:
    with pytest.raises(ConfigError) as error:
        graph(one("Convolution", "convolution_param {\n  num_output: 2\n  kernel_size: 11 }", IMAGE))
    assert str(error.value) == (
        "net.prototxt:5:3: t (Convolution): kernel 11x11 does not fit its input\n"
        '    bottom "x0"   N C H W = 2 4 9 9, from layer x0 at line 1\n'
        "    needs H, W >= 11, or more pad"
    )
