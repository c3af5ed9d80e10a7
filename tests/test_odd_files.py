"""Odd but legal files of Caffe users: what each says is what a plain twin says, and every command takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netrun.cli import main
from netrun.config import schema
from netrun.config.upgrade import parse_net, parse_solver
from netrun.net import Net
from netrun.solver import Solver

DATA = """
layer { name: "d" type: "DummyData" top: "x" top: "l" dummy_data_param { shape { dim: 4 dim: 3 dim: 5 dim: 5 }
  shape { dim: 4 } data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 1 } } }
"""
IP = """
layer { name: "ip" type: "InnerProduct" bottom: "c" top: "ip" inner_product_param { num_output: 3
  weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "l" top: "loss" }
"""
V1 = """
name: 'v1' # single quotes } {
layers { name: 'd' type: DUMMY_DATA top: 'x' top: 'l' dummy_data_param: { num: 4 channels: 3 height: 5 width: 5
  num: 4 channels: 1 height: 1 width: 1 data_filler: { type: 'gaussian' } data_filler { value: 1 } }
  include: { phase: 0 } }
layers { name: 'd' type: 32 top: 'x' top: 'l' dummy_data_param { num: 4 channels: 3 height: 5 width: 5
  num: 4 channels: 1 height: 1 width: 1 } include { phase: TEST } }
layers { name: 'c' type: 4 bottom: 'x' top: 'c' convolution_param { num_output: 2; kernel_size: 3,
  weight_filler { type: 'xavier' } engine: CAFFE } blobs_lr: 1. blobs_lr: 2 weight_decay: 1 weight_decay: 0
  param: 'w' param: 'b' }
layers { name: 'ip' type: INNER_PRODUCT bottom: 'c' top: 'ip' inner_product_param { num_output: 3
  weight_filler { type: 'xavier' } } }
layers { name: 'loss' type: 21 bottom: 'ip' bottom: 'l' top: 'loss' loss_weight: 1 }
"""
V1_PLAIN = """
name: "v1"
layer { name: "d" type: "DummyData" top: "x" top: "l" include { phase: TRAIN } dummy_data_param {
  num: 4 num: 4 channels: 3 channels: 1 height: 5 height: 1 width: 5 width: 1 data_filler { type: "gaussian" }
  data_filler { value: 1 } } }
layer { name: "d" type: "DummyData" top: "x" top: "l" include { phase: TEST } dummy_data_param {
  num: 4 num: 4 channels: 3 channels: 1 height: 5 height: 1 width: 5 width: 1 } }
layer { name: "c" type: "Convolution" bottom: "x" top: "c" param { name: "w" lr_mult: 1 decay_mult: 1 }
  param { name: "b" lr_mult: 2 decay_mult: 0 } convolution_param { num_output: 2 kernel_size: 3 engine: CAFFE
  weight_filler { type: "xavier" } } }
layer { name: "ip" type: "InnerProduct" bottom: "c" top: "ip" inner_product_param { num_output: 3
  weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "l" top: "loss" loss_weight: 1 }
"""
PAIRS: dict[str, tuple[str, str]] = {
    "V1, types by number and by name": (V1, V1_PLAIN),
    "strings in pieces, escapes, comments, angle brackets": (
        DATA + r"""
layer: { name: "co" 'n' "v\x31" # comment { "no field"
  type: "Re" 'LU' bottom: "x"
  # another } comment
  top: "\143" relu_param < negative_slope: 1E-1F >, }; """.replace("};", "}") + IP,
        DATA + 'layer { name: "conv1" type: "ReLU" bottom: "x" top: "c" relu_param { negative_slope: 0.1 } }' + IP,
    ),
    "repeated fields in lists and far apart, none of an empty list": (
        DATA + """layer { top: "c" param { lr_mult: 1. } type: "Convolution" convolution_param { kernel_size: 3
          num_output: 4 pad: [1, 0] kernel_size: 2 stride: [ ] weight_filler { type: "msra" } } bottom: "x"
          param { lr_mult: .5e+1 decay_mult: 0 } name: "c" }""" + IP,
        DATA + """layer { name: "c" type: "Convolution" bottom: "x" top: "c" param { lr_mult: 1 }
          param { lr_mult: 5 decay_mult: 0 } convolution_param { num_output: 4 pad: 1 pad: 0 kernel_size: 3
          kernel_size: 2 weight_filler { type: "msra" } } }""" + IP,
    ),
    "enums and truths by number": (
        DATA + """layer { name: "p" type: "Pooling" bottom: "x" top: "p" phase: 0 pooling_param { pool: 1
          kernel_size: 2 engine: 2 } } layer { name: "c" type: "Eltwise" bottom: "p" bottom: "p" bottom: "p" top: "c"
          propagate_down: 1 propagate_down: 0 propagate_down: t eltwise_param { operation: 1 coeff: 1 coeff: -1
          coeff: 0.5 } }""" + IP,
        DATA + """layer { name: "p" type: "Pooling" bottom: "x" top: "p" phase: TRAIN pooling_param { pool: AVE
          kernel_size: 2 engine: CUDNN } }
          layer { name: "c" type: "Eltwise" bottom: "p" bottom: "p" bottom: "p" top: "c"
          propagate_down: true propagate_down: false propagate_down: true eltwise_param { operation: SUM coeff: 1
          coeff: -1 coeff: 0.5 } }""" + IP,
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", PAIRS)
def test_says_what_its_plain_twin_says(what: str) -> None:
    odd, plain = (parse_net(text)[0] for text in PAIRS[what])
    assert odd == plain


SOLVER = """base_lr: 0.01 lr_policy: 'step' gamma: -0.5 stepsize: 2 max_iter: 4 display: 1 momentum: 0.9 test_iter: 1
test_interval: 2 debug_info: 1 solver_mode: 0 solver_type: 1 average_loss: 2 random_seed: 3 iter_size: 2
regularization_type: 'L1' weight_decay: 1e-4 test_state { level: 2 stage: "deep" }
train_state { level: 2 stage: "deep" }
snapshot_prefix: "s" net: "net.prototxt"
"""
NETS = {
    "engines": """
layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 4 kernel_size: 3 axis: 1
  engine: CUDNN force_nd_im2col: true weight_filler { type: "xavier" } } }
layer { name: "r" type: "ReLU" bottom: "c" top: "c" relu_param { engine: CUDNN } }
layer { name: "s" type: "Sigmoid" bottom: "c" top: "c" sigmoid_param { engine: CUDNN } }
layer { name: "t" type: "TanH" bottom: "c" top: "c" tanh_param { engine: CAFFE } }
layer { name: "n" type: "LRN" bottom: "c" top: "n" lrn_param { engine: CUDNN } }
layer { name: "m" type: "Softmax" bottom: "n" top: "c2" softmax_param { engine: CUDNN axis: -1 } }
layer { name: "z" type: "Silence" bottom: "c2" }
""",
    "levels and stages": """
state { level: 2 stage: "deep" }
layer { name: "r" type: "TanH" bottom: "x" top: "t" include { min_level: 1 } }
layer { name: "r" type: "Sigmoid" bottom: "x" top: "t" include { max_level: 0 } }
layer { name: "c" type: "ReLU" bottom: "t" top: "c" include { phase: TRAIN stage: "deep" not_stage: "flat" }
  include { phase: TEST min_level: 0 max_level: 3 } }
layer { name: "no" type: "AbsVal" bottom: "c" top: "no" exclude { phase: TRAIN } exclude { stage: "deep" } }
""",
    "in place, one after another": """
layer { name: "a" type: "Scale" bottom: "x" top: "c" scale_param { bias_term: true } }
layer { name: "b" type: "ReLU" bottom: "c" top: "c" }
layer { name: "e" type: "ELU" bottom: "c" top: "c" }
layer { name: "f" type: "Dropout" bottom: "c" top: "c" dropout_param { dropout_ratio: 0 } }
layer { name: "g" type: "BatchNorm" bottom: "c" top: "c" param { lr_mult: 0 }
  param { lr_mult: 0 } param { lr_mult: 0 } }
layer { name: "h" type: "Bias" bottom: "c" top: "c" }
layer { name: "i" type: "PReLU" bottom: "c" top: "c" }
layer { name: "k" type: "Exp" bottom: "c" top: "c" exp_param { base: 2 scale: -1 } }
""",
    "read three times, weights of zero": """
layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" inner_product_param { num_output: 4
  weight_filler { type: "xavier" } } }
layer { name: "b" type: "ReLU" bottom: "a" top: "b" }
layer { name: "c" type: "Concat" bottom: "a" bottom: "b" bottom: "a" top: "c" concat_param { concat_dim: 1 } }
layer { name: "aux" type: "EuclideanLoss" bottom: "a" bottom: "b" top: "aux" loss_weight: 0 }
layer { name: "sum" type: "Reduction" bottom: "a" top: "sum" reduction_param { operation: SUMSQ } loss_weight: 1e-3 }
""",
    "shared across shapes, frozen and forced": """
force_backward: true debug_info: true
layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" param { name: "w" share_mode: PERMISSIVE lr_mult: 2 }
  param { name: "b" } inner_product_param { num_output: 75 weight_filler { type: "xavier" } } }
layer { name: "c" type: "InnerProduct" bottom: "a" top: "c" param { name: "w" share_mode: 1 }
  param { name: "b" share_mode: STRICT } inner_product_param { num_output: 75 } }
""",
}


@pytest.mark.parametrize("what", NETS)
def test_every_command_takes_it(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """check, summary, plan, time, train, test; and training changes every weight that may learn, and no other."""
    monkeypatch.chdir(tmp_path)
    text = DATA + NETS[what] + IP
    Path("net.prototxt").write_text(text)
    Path("solver.prototxt").write_text(SOLVER)
    for command in (
        ["check", "solver.prototxt", "net.prototxt"], ["summary", "net.prototxt"], ["plan", "net.prototxt"],
        ["time", "-model", "net.prototxt", "-iterations", "1"], ["train", "-solver", "solver.prototxt"],
        ["test", "-model", "net.prototxt", "-weights", "s_iter_4.caffemodel", "-iterations", "1"],
    ):  # fmt: skip
        status = main(command)
        assert status == 0, (command, capfd.readouterr().err)
    with Net("net.prototxt", schema.TEST) as net, Solver(parse_solver(SOLVER)[0]) as fresh:
        net.load("s_iter_4.caffemodel")
        recording = fresh.training.recording
        for parameter, tensor in recording.parameters.items():
            now = net.params[parameter.layer][parameter.index].data
            assert np.isfinite(now).all()
            moved = not np.array_equal(now, fresh.memory.read(tensor).reshape(now.shape))
            assert moved == (parameter.lr_mult != 0 or not parameter.trained), parameter.key
