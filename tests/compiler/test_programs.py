"""Programs as texts: what a net compiles to, call by call. A change here is a change of what every device runs.

After a deliberate change: ``NETRUN_UPDATE_PROGRAMS=1 python -m pytest tests/compiler/test_programs.py``, then read the
difference.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from google.protobuf import text_format

import netrun.layers  # noqa: F401  (registers the layer types)
from netrun.compiler.graph import build
from netrun.compiler.passes import drop_unread, elide_copies
from netrun.compiler.plan import plan
from netrun.compiler.record import record
from netrun.compiler.rules import State
from netrun.config import schema
from netrun.config.upgrade import parse_net
from netrun.program import Program
from netrun.runner import forward_program
from netrun.training import compile_training

FOLDER = Path(__file__).parent / "programs"

DATA = 'layer { name: "d" type: "Input" top: "x" top: "y" input_param { shape { DIMS } shape { dim: 4 } } }\n'
IMAGES = DATA.replace("DIMS", "dim: 4 dim: 3 dim: 8 dim: 8")
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "y" top: "loss" }\n'
IP = 'layer { name: "ip" type: "InnerProduct" bottom: "BOTTOM" top: "ip" inner_product_param { num_output: 5 } }\n'

NETS = {
    "plain": (
        IMAGES + 'layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 6 '
        "kernel_size: 3 } }\n"
        'layer { name: "r" type: "ReLU" bottom: "c" top: "c" }\n'
        'layer { name: "p" type: "Pooling" bottom: "c" top: "p" pooling_param { kernel_size: 2 stride: 2 } }\n'
        + IP.replace("BOTTOM", "p")
        + LOSS,
        "momentum: 0.9 weight_decay: 0.001",
    ),
    "fan_out_and_batch_norm": (
        IMAGES
        + 'layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 3 kernel_size: 3 '
        "pad: 1 bias_term: false } }\n"
        'layer { name: "bn" type: "BatchNorm" bottom: "c" top: "c" }\n'
        'layer { name: "sc" type: "Scale" bottom: "c" top: "c" scale_param { bias_term: true } }\n'
        'layer { name: "sum" type: "Eltwise" bottom: "c" bottom: "x" top: "sum" }\n'
        'layer { name: "two" type: "Concat" bottom: "sum" bottom: "c" top: "two" }\n'
        'layer { name: "flat" type: "Flatten" bottom: "two" top: "flat" }\n' + IP.replace("BOTTOM", "flat") + LOSS,
        "momentum: 0.9",
    ),
    "recurrent": (
        'layer { name: "d" type: "Input" top: "x" top: "cont" top: "t" input_param { shape { dim: 3 dim: 2 dim: 4 } '
        "shape { dim: 3 dim: 2 } shape { dim: 3 dim: 2 dim: 5 } } }\n"
        'layer { name: "rnn" type: "Recurrent" bottom: "x" bottom: "cont" top: "y" recurrent_net_param { cont: "cont" '
        'state { name: "h" next: "new" dim: 5 carry: true } output: "new" body {\n'
        + IP.replace("BOTTOM", "x")
        + IP.replace("BOTTOM", "h").replace('"ip"', '"re"')
        + 'layer { name: "sum" type: "Eltwise" bottom: "ip" bottom: "re" top: "sum" }\n'
        'layer { name: "new" type: "TanH" bottom: "sum" top: "new" } } } }\n'
        'layer { name: "l" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "l" }\n',
        "",
    ),
    "attention": (
        'layer { name: "d" type: "Input" top: "x" top: "n" top: "t" input_param { shape { dim: 2 dim: 3 dim: 4 } '
        "shape { dim: 2 } shape { dim: 2 dim: 3 dim: 4 } } }\n"
        'layer { name: "pos" type: "PositionEncoding" bottom: "x" top: "p" }\n'
        'layer { name: "att" type: "MultiHeadAttention" bottom: "p" bottom: "n" top: "y" attention_param { '
        "num_heads: 2 causal: true bias_term: false } }\n"
        'layer { name: "l" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "l" }\n',
        "",
    ),
    "shared_clipped_and_summed": (
        IMAGES + 'layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" inner_product_param { num_output: 3 } '
        'param { name: "w" } '
        'param { name: "b" lr_mult: 0 } }\n'
        'layer { name: "b" type: "InnerProduct" bottom: "x" top: "b" inner_product_param { num_output: 3 } '
        'param { name: "w" } '
        'param { name: "b" } }\n'
        'layer { name: "l" type: "EuclideanLoss" bottom: "a" bottom: "b" top: "l" loss_weight: 0.5 }\n',
        'type: "Adam" clip_gradients: 2 iter_size: 2 weight_decay: 0.1',
    ),
    "formulas": (
        DATA.replace("DIMS", "dim: 4 dim: 6")
        + 'layer { name: "cell" type: "Expr" bottom: "x" top: "h" top: "c" param { lr_mult: 1 } param { lr_mult: 0 } '
        'expr_param {\n  expr: "z = x @ w + b; i, o, g = split(z, 3, axis=1)" '
        'expr: "c = sigmoid(i) * tanh(g); sigmoid(o) * tanh(c), c"\n'
        '  weight { name: "w" sizes: "size(x, 1), 15" filler { type: "xavier" } } '
        'weight { name: "b" shape { dim: 15 } } } }\n'
        'layer { name: "focal" type: "Expr" bottom: "h" bottom: "c" bottom: "y" top: "loss" loss_weight: 1\n'
        '  expr_param { expr: "q = pick(softmax(h + c), y); mean(-(1 - q)^2 * log(q))" } }\n',
        "momentum: 0.9",
    ),
}


def text_of(program: Program) -> str:
    small = drop_unread(elide_copies(program)[0])
    layout = plan(small)
    return f"{small}\n-- {layout.arena} bytes planned, {layout.naive} naive, {layout.held} held\n"


def compiled(name: str) -> str:
    net, solver_text = NETS[name]
    message, source = parse_net(net)
    solver = schema.SolverParameter()
    text_format.Parse(solver_text + ' base_lr: 0.1 lr_policy: "fixed"', solver)
    training = compile_training(build(message, source, State(schema.TRAIN)), solver)
    parts = [f"# {part}\n{text_of(p)}" for part, p in zip(("step", "update"), training.programs, strict=False)]
    test = record(build(*parse_net(net), State(schema.TEST)))
    return "\n".join([*parts, f"# test\n{text_of(forward_program(test))}"])


@pytest.mark.parametrize("name", NETS)
def test_program(name: str) -> None:
    file = FOLDER / f"{name}.txt"
    got = compiled(name)
    if os.environ.get("NETRUN_UPDATE_PROGRAMS"):
        file.write_text(got)
    assert got == file.read_text()
