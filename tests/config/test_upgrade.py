"""Nets and solvers of every age against what Caffe's own upgrade tools wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from netrun.config import schema, text, upgrade, v1
from netrun.errors import ConfigError

UPGRADE = Path(__file__).parents[1] / "golden" / "upgrade"
NETS = sorted(p for p in UPGRADE.glob("*.old.prototxt") if not p.name.startswith("solver"))
SOLVERS = sorted(UPGRADE.glob("solver*.old.prototxt"))


def new(path: Path) -> Path:
    return path.with_name(path.name.replace(".old.", ".new."))


def problem(content: str) -> str:
    with pytest.raises(ConfigError) as caught:
        upgrade.parse_net(content, "f")
    assert len(caught.value.problems) == 1
    return str(caught.value)


@pytest.mark.parametrize("path", NETS, ids=lambda path: path.name)
def test_nets_become_what_caffe_makes_of_them(path: Path) -> None:
    net, _ = upgrade.read_net(path)
    wanted, source = upgrade.read_net(new(path))
    assert net == wanted
    assert [n for n in source.notices if "not read" not in n] == [], "what is current stays as it is"


@pytest.mark.parametrize("path", SOLVERS, ids=lambda path: path.name)
def test_solvers_become_what_caffe_makes_of_them(path: Path) -> None:
    assert upgrade.read_solver(path)[0] == upgrade.read_solver(new(path))[0]


def test_there_is_a_current_name_for_every_old_type() -> None:
    assert v1.TYPES.keys() == set(schema.V1LayerParameter.LayerType.keys())
    assert v1.type_name(18) == "ReLU"
    assert v1.type_name(999) == ""


def test_positions_survive_v1() -> None:
    _, source = upgrade.read_net(UPGRADE / "v1_mlp.old.prototxt")
    lines = (UPGRADE / "v1_mlp.old.prototxt").read_text().splitlines()

    def at(*path: str | int) -> str:
        where = source.where(*path)
        return lines[where.line - 1][where.column - 1 :]

    assert at("layer", 0, "top", 0).startswith('input: "data"')
    assert at("layer", 0, "input_param", "shape", 0, "dim", 1).startswith("input_dim: 3")
    assert at("layer", 1).startswith('layers { name: "ip1"')
    assert at("layer", 1, "param", 1, "lr_mult").startswith("blobs_lr: 2")
    assert at("layer", 1, "param", 1, "decay_mult").startswith("weight_decay: 0 }"[:15])
    assert at("layer", 1, "inner_product_param", "weight_filler", "type").startswith('type: "xavier"')
    assert at("layer", 5, "type").startswith("type: SOFTMAX")


def test_positions_survive_v0() -> None:
    _, source = upgrade.read_net(UPGRADE / "v0_simple.old.prototxt")
    lines = (UPGRADE / "v0_simple.old.prototxt").read_text().splitlines()

    def at(*path: str | int) -> str:
        where = source.where(*path)
        return lines[where.line - 1][where.column - 1 :]

    assert at("layer", 0, "transform_param", "crop_size").startswith("cropsize: 20")
    assert at("layer", 1, "convolution_param", "kernel_size", 0).startswith("kernelsize: 5")
    assert at("layer", 1, "convolution_param", "pad", 0).startswith("pad: 2"), "written in the padding layer"
    assert at("layer", 1, "bottom", 0).startswith('bottom: "pad1"')
    assert at("layer", 3, "pooling_param", "pool").startswith("pool: AVE")


def test_both_forms_at_once() -> None:
    assert problem("layer { }\nlayers { }") == (
        "f:2:1: the net mixes old layers blocks with current layer blocks (line 1); write layer in all of it"
    )


def test_inputs_without_shapes_are_dropped_with_a_notice() -> None:
    net, source = upgrade.parse_net('input: "a"\nlayer { name: "x" }', "f")
    assert net == schema.NetParameter(layer=[schema.LayerParameter(name="x")])
    assert source.notices == ["f:1:1: input without input_shape or input_dim is not read"]


def test_inputs_whose_shapes_do_not_fit() -> None:
    assert "2 input but 1 input_shape" in problem('input: "a" input: "b" input_shape { dim: 1 }')
    assert "8 input_dim are wanted" in problem('input: "a" input: "b" input_dim: [1, 2, 3, 4]')


def test_layers_after_an_input_keep_their_positions() -> None:
    _, source = upgrade.parse_net('input: "a"\ninput_shape { dim: 1 }\nlayer { }\nlayer {\n top: "t" }', "f")
    assert str(source.where("layer", 0)) == "f:1:1"
    assert str(source.where("layer", 0, "input_param", "shape", 0, "dim", 0)) == "f:2:15"
    assert str(source.where("layer", 2, "top", 0)) == "f:5:2"


def test_batch_norm_with_three_param_entries() -> None:
    three = 'layer { type: "BatchNorm" param { } param { lr_mult: 0 } param { lr_mult: 3 decay_mult: 2 } }'
    net, source = upgrade.parse_net(three)
    assert [(p.lr_mult, p.decay_mult) for p in net.layer[0].param] == [(0, 0)] * 3
    assert len(source.notices) == 1
    two = 'layer { type: "BatchNorm" param { } param { lr_mult: 2 } }'
    assert upgrade.parse_net(two)[0] == text.parse(two, schema.NetParameter)[0]


def test_current_data_layers_do_not_read_their_old_fields_and_say_so() -> None:
    _, source = upgrade.parse_net('layer { name: "d" type: "Data"\n data_param { scale: 2 } }', "f")
    assert source.notices == [
        "f:2:15: layer d: data_param.scale is not read in a layer block; write it into transform_param"
    ]


def test_v0_mistakes() -> None:
    assert problem('layers { layer { name: "c" type: "cnv" } }') == (
        'f:1:28: layer c: there is no layer type "cnv" in the V0 form; did you mean "conv"?'
    )
    padding = 'layers { layer { name: "p" type: "padding" pad: 1 } bottom: "a" top: "p" }\n'
    assert problem(padding + 'layers { layer { name: "r" type: "relu" } bottom: "p" top: "r" }') == (
        "f:2:43: layer r: reads the padding layer p, which only conv and pool can (this is relu)"
    )
    _, source = upgrade.parse_net('layers { layer { name: "r" type: "relu"\nnum_output: 3 } }', "f")
    assert "f:2:1: layer r: num_output means nothing to type relu, dropped" in source.notices


def test_v0_layers_of_every_kind() -> None:
    content = """
layers { layer { name: "i" type: "images" source: "s" batchsize: 2 shuffle_images: true new_height: 5 new_width: 6 }
  top: "x" }
layers { layer { name: "p" type: "pool" pad: 1 kernelsize: 3 } bottom: "x" top: "p" }
layers { layer { name: "w" type: "window_data" det_fg_threshold: 0.25 det_crop_mode: "square" } top: "w" }
layers { layer { name: "d" type: "dropout" dropout_ratio: 0.25 } bottom: "p" top: "p" }
layers { layer { name: "h" type: "hdf5_output" hdf5_output_param { file_name: "f" } } bottom: "p" }
layers { name: "v1" type: RELU bottom: "p" top: "p" }
"""
    wanted = """
layer { name: "i" type: "ImageData" top: "x"
  image_data_param { source: "s" batch_size: 2 shuffle: true new_height: 5 new_width: 6 } }
layer { name: "p" type: "Pooling" bottom: "x" top: "p" pooling_param { pad: 1 kernel_size: 3 } }
layer { name: "w" type: "WindowData" top: "w" window_data_param { fg_threshold: 0.25 crop_mode: "square" } }
layer { name: "d" type: "Dropout" bottom: "p" top: "p" dropout_param { dropout_ratio: 0.25 } }
layer { name: "h" type: "HDF5Output" bottom: "p" hdf5_output_param { file_name: "f" } }
layer { name: "v1" type: "ReLU" bottom: "p" top: "p" }
"""
    assert upgrade.parse_net(content)[0] == upgrade.parse_net(wanted)[0]


def test_solver_type() -> None:
    solver, source = upgrade.parse_solver("base_lr: 1\nsolver_type: ADAGRAD", "f")
    assert (solver.type, solver.HasField("solver_type")) == ("AdaGrad", False)
    assert str(source.where("type")) == "f:2:1"
    assert source.notices == ['f:2:1: solver_type: ADAGRAD is read as type: "AdaGrad"']
    with pytest.raises(ConfigError, match="f:1:1: solver_type is the old form of type"):
        upgrade.parse_solver('solver_type: SGD type: "SGD"', "f")


def test_nets_inside_a_solver_are_upgraded_too() -> None:
    solver, source = upgrade.parse_solver('net_param {\n layers { name: "r" type: RELU\n top: "t" } }', "f")
    assert solver.net_param.layer[0].type == "ReLU"
    assert str(source.where("net_param", "layer", 0, "top", 0)) == "f:3:2"
    assert len(source.notices) == 1


def test_upgrading_messages_without_positions() -> None:
    net, _ = text.parse((UPGRADE / "v0_simple.old.prototxt").read_text(), schema.NetParameter)
    notices = upgrade.upgrade_net(net)
    assert net == upgrade.read_net(UPGRADE / "v0_simple.new.prototxt")[0]
    assert notices == ["<net>: the net is in the oldest form (V0, layers { layer { } }) and was upgraded"]
    both = schema.NetParameter(layer=[schema.LayerParameter()], layers=[schema.V1LayerParameter()])
    with pytest.raises(ConfigError, match="<net>: the net mixes"):
        upgrade.upgrade_net(both)
