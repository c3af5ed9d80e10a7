"""Nets of other people's Caffe: what is mapped, what is told, and what --lenient goes on without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cases.recorded import GOLDEN

import netrun.layers  # noqa: F401  (registers the layer types)
from netrun.compiler.graph import build
from netrun.config import forks, schema
from netrun.config.adapt import _CARRIERS
from netrun.config.fields import fields_of
from netrun.config.upgrade import parse_net, parse_solver, read_solver
from netrun.errors import ConfigError
from netrun.layers import Layer
from netrun.layers.lookup import layer_type
from netrun.net import Net

SSD = """name: "ssd"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
layer { name: "conv4_3" type: "Convolution" bottom: "data" top: "conv4_3"
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 engine: MKL2017 } }
layer { name: "norm" type: "Normalize" bottom: "conv4_3" top: "norm"
  norm_param { across_spatial: false scale_filler { type: "constant" value: 20 } channel_shared: false } }
layer { name: "loc" type: "Convolution" bottom: "norm" top: "loc" convolution_param { num_output: 16 kernel_size: 1 } }
layer { name: "perm" type: "Permute" bottom: "loc" top: "perm"
  permute_param { order: 0 order: 2 order: 3 order: 1 } }
layer { name: "flat" type: "Flatten" bottom: "perm" top: "flat" flatten_param { axis: 1 } }
layer { name: "prior" type: "PriorBox" bottom: "norm" bottom: "data" top: "prior"
  prior_box_param { min_size: 30 aspect_ratio: 2 flip: true } }
layer { name: "priors" type: "Concat" bottom: "prior" top: "priors" concat_param { axis: 2 } }
layer { name: "out" type: "DetectionOutput" bottom: "flat" bottom: "priors" top: "boxes"
  detection_output_param { num_classes: 21 nms_param { nms_threshold: 0.45 top_k: 400 } } }
"""


def problems(text: str, lenient: bool = False) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        build(*parse_net(text, "f", lenient))
    return [str(p) for p in caught.value.problems]


def notices(text: str, lenient: bool = False) -> list[str]:
    return parse_net(text, "f", lenient)[1].notices


# ---------------------------------------------------------------------------------------------------------- the table


def test_rows_are_about_fields_that_the_schema_lacks_and_lead_into_ones_it_has() -> None:
    for message, rows in forks.FIELDS.items():
        known = fields_of(getattr(schema, message).DESCRIPTOR).by_name
        for name, row in rows.items():
            assert name not in known, f"{message}.{name} is in the schema"
            assert bool(row.into) == (row.status == "mapped"), f"{message}.{name}"
            assert not row.into or row.into in known, f"{message}.{name}"
            assert row.what or row.into, f"{message}.{name} says nothing"
            for value in row.values.values():
                assert value in known[row.into].choices


def test_types_are_not_ours_and_lead_into_ours() -> None:
    for name, row in forks.TYPES.items():
        assert name not in Layer.registry
        assert (row.into in Layer.registry) if row.into else row.what
    assert Layer.registry.keys() >= _CARRIERS
    assert {forks.SSD, forks.NVIDIA, forks.INTEL, forks.SEGNET} <= set(forks.known_forks())


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("**/*.prototxt")), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_no_field_of_caffe_itself_is_taken_for_a_fork(path: Path) -> None:
    text = path.read_text()
    try:
        found = notices(text) if "base_lr" not in text else parse_solver(text)[1].notices
    except ConfigError as error:
        found = [str(error)]
    assert not [line for line in found if "fork" in line or "'s Caffe" in line]


# ------------------------------------------------------------------------------------------------------------- fields


def test_a_foreign_field_is_told_with_its_fork() -> None:
    text = """name: "n" default_forward_type: FLOAT16
layer { name: "c" type: "Convolution" top: "y" convolution_param { num_output: 1
    conv_algos_override: "1,1,1" } }
layer { name: "d" type: "Data" top: "x" transform_param { resize_param { height: 300 width: 300 } } }"""
    assert problems(text) == [
        'f:1:11: a net has no field "default_forward_type": it is of NVIDIA\'s Caffe (the precision it computes in); '
        "--lenient goes on without it",
        'f:3:5: layer c: convolution_param has no field "conv_algos_override": it is of NVIDIA\'s Caffe (how fast it '
        "runs); --lenient goes on without it",
        'f:4:59: layer d: transform_param has no field "resize_param": it is of the SSD fork (images resized on their '
        "way in; resize the records instead), and netrun has nothing of the kind",
    ]


def test_lenient_goes_on_without_what_can_be_ignored_and_says_so() -> None:
    text = """default_forward_type: FLOAT16
layer { name: "x" type: "Input" top: "x" forward_type: FLOAT input_param { shape { dim: 1 } } }"""
    net, source = parse_net(text, "f", lenient=True)
    assert [layer.name for layer in net.layer] == ["x"]
    assert source.notices == [
        "f:1:1: net: default_forward_type is left out: it is of NVIDIA's Caffe (the precision it computes in)",
        "f:2:42: layer: forward_type is left out: it is of NVIDIA's Caffe (the precision it computes in)",
    ]
    assert build(net, source).blobs.keys() == {"x"}


def test_lenient_does_not_go_on_without_what_the_net_depends_on() -> None:
    text = 'layer { name: "d" type: "Data" transform_param { resize_param { height: 3 } distort_param { } } }'
    found = problems(text, lenient=True)
    assert len(found) == 1
    assert "resize_param" in found[0]


def test_an_unknown_field_of_nobody_is_told_as_before() -> None:
    assert (
        'has no field "kernel_sise"; did you mean "kernel_size"?'
        in problems("layer { convolution_param { kernel_sise: 3 } }", lenient=True)[0]
    )


@pytest.mark.parametrize(("word", "value"), [("true", "CEIL"), ("false", "FLOOR"), ("0", "FLOOR")])
def test_ceil_mode_is_round_mode(word: str, value: str) -> None:
    text = f'layer {{ name: "p" type: "Pooling"\n pooling_param {{ kernel_size: 3 ceil_mode: {word} stride: 2 }} }}'
    net, source = parse_net(text, "f")
    pool = net.layer[0].pooling_param
    assert pool.round_mode == schema.PoolingParameter.RoundMode.Value(value)
    assert pool.stride == 2
    assert source.notices == [f"f:2:33: pooling_param: ceil_mode of several forks is read as round_mode: {value}"]
    assert str(source.where("layer", 0, "pooling_param", "round_mode")) == "f:2:33"


def test_holes_are_dilation() -> None:
    net, _ = parse_net("layer { convolution_param { num_output: 1 kernel_size: 3 hole: 2 } }")
    assert list(net.layer[0].convolution_param.dilation) == [2]


def test_a_mapped_field_given_beside_its_own_is_a_second_value() -> None:
    assert "round_mode is given twice" in problems("layer { pooling_param { round_mode: CEIL ceil_mode: true } }")[0]


def test_engines_of_others_are_the_default() -> None:
    net, source = parse_net("layer { lrn_param { engine: MKLDNN } }", "f")
    assert net.layer[0].lrn_param.engine == schema.LRNParameter.DEFAULT
    assert source.notices == ["f:1:29: engine: MKLDNN is of another Caffe, read as DEFAULT"]
    assert "engine wants" in problems("layer { lrn_param { engine: QUICK } }")[0]


def test_solvers_of_forks(tmp_path: Path) -> None:
    file = tmp_path / "s.prototxt"
    file.write_text("base_lr: 1\nrampup_interval: 400 rampup_lr: 0.5 min_lr: 0.1\nsolver_data_type: FLOAT16\n")
    with pytest.raises(ConfigError, match=r"solver_data_type.*--lenient"):
        read_solver(file)
    solver, source = read_solver(file, lenient=True)
    assert (solver.warmup_iter, solver.warmup_start_lr, solver.lenient) == (400, 0.5, True)
    assert len(source.notices) == 3
    with pytest.raises(ConfigError, match=r'"larc": it is of NVIDIA.*type: "LARS" is near'):
        parse_solver("larc: true", "f", lenient=True)


def test_old_forms_have_foreign_fields_too() -> None:
    assert "it is of NVIDIA" in problems("layers { type: RELU forward_type: FLOAT }")[0]


# ------------------------------------------------------------------------------------------------------------- layers


def test_types_that_are_mapped() -> None:
    text = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } }
layer { name: "c" type: "ConvolutionDepthwise" bottom: "x" top: "c" convolution_param { num_output: 3 kernel_size: 3 } }
layer { name: "b" type: "BatchNorm" bottom: "c" top: "b" batch_norm_param { scale_bias: true } }
layer { name: "r" type: "ReLU6" bottom: "b" top: "r" }"""
    net, source = parse_net(text, "f")
    assert [layer.type for layer in net.layer] == ["Input", "DepthwiseConvolution", "BatchNormScale", "Clip"]
    assert source.notices == [
        'f:3:19: layer c: type "ConvolutionDepthwise" is read as "DepthwiseConvolution"',
        'f:4:19: layer b: type "BatchNorm" is read as "BatchNormScale"',
        'f:5:19: layer r: type "ReLU6" is read as "Clip"',
    ]
    graph = build(net, source)
    assert [[p.spec.shape for p in n.parameters] for n in graph.nodes] == [
        [], [(3, 1, 3, 3), (3,)], [(3,), (3,), (1,), (3,), (3,)], []
    ]  # fmt: skip


def test_relu6_stops_at_six() -> None:
    text = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 3 } } }'
    net = Net(parse_net(f'{text} layer {{ name: "r" type: "ReLU6" bottom: "x" top: "y" }}')[0])
    np.testing.assert_array_equal(net.forward(x=np.array([-1, 2, 9.0]))["y"], [0, 2, 6])


def test_a_foreign_type_is_told_with_its_fork() -> None:
    with pytest.raises(ConfigError, match='layer r: there is no layer type "ROIPooling": it is of the Fast R-CNN fork'):
        layer_type("ROIPooling", None, "r")
    with pytest.raises(ConfigError, match='no layer type "Convolutoin"; did you mean "Convolution"'):
        layer_type("Convolutoin")


def test_a_net_of_the_ssd_fork() -> None:
    found = problems(SSD)
    assert [line.partition(": it is")[0] for line in found] == [
        'f:12:3: layer prior: a layer has no field "prior_box_param"',
        'f:15:3: layer out: a layer has no field "detection_output_param"',
    ]
    assert "which netrun lacks); --lenient goes on if the net stands without" in found[0]


def test_lenient_leaves_out_layers_that_the_net_stands_without() -> None:
    net, source = parse_net(SSD, "f", lenient=True)
    graph = build(net, source)
    assert [n.name for n in graph.nodes] == ["data", "conv4_3", "norm", "loc", "perm", "flat"]
    assert [name for name, _ in graph.outputs] == ["flat"]
    assert source.notices[-3:] == [
        "f:11:1: layer prior is left out: type PriorBox is of the SSD fork",
        "f:13:1: layer priors is left out: type PriorBox is of the SSD fork",
        "f:14:1: layer out is left out: type DetectionOutput is of the SSD fork",
    ]
    assert str(source.where("layer", 5, "flatten_param")) == "f:10:65"


def test_lenient_refuses_where_the_net_does_not_stand() -> None:
    before = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } }\n'
    middle = before + 'layer { name: "i" type: "Resample" bottom: "x" top: "i" resample_param { height: 8 } }\n'
    assert problems(middle + 'layer { name: "r" type: "ReLU" bottom: "i" top: "r" }', lenient=True) == [
        "f:3:1: layer r (ReLU) needs i, which is not made: type Resample is of the FlowNet fork; "
        "the net does not stand without it"
    ]
    data = 'layer { name: "d" type: "AnnotatedData" top: "x" }\nlayer { name: "r" type: "ReLU" bottom: "x" top: "r" }'
    assert 'there is no layer type "AnnotatedData"' in problems(data, lenient=True)[0]
    loss = before + 'layer { name: "l" type: "MultiBoxLoss" bottom: "x" top: "l" }'
    assert 'there is no layer type "MultiBoxLoss": it is of the SSD fork' in problems(loss, lenient=True)[0]


def test_a_blob_that_another_layer_makes_again_is_there() -> None:
    text = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "i" type: "Resample" bottom: "x" top: "y" }
layer { name: "y" type: "Input" top: "y" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "r" type: "ReLU" bottom: "y" top: "r" }"""
    assert [layer.name for layer in parse_net(text, "f", lenient=True)[0].layer] == ["x", "y", "r"]
