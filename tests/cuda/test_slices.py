"""Concat without copying: convolutions that write into a part of a larger tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fakelibs import Cudnn

from layers_cuda.device import Cuda
from netrun.config import schema
from netrun.config.text import parse
from netrun.solver import Solver

Make = Callable[..., Cuda]

NET = """
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: 2 dim: 3 dim: 8 dim: 8 } shape { dim: 2 }
  data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 1 } } }
layer { name: "a" type: "Convolution" bottom: "data" top: "a"
  convolution_param { num_output: 8 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "relu_a" type: "ReLU" bottom: "a" top: "a" }
layer { name: "b" type: "Convolution" bottom: "data" top: "b"
  convolution_param { num_output: 16 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "relu_b" type: "ReLU" bottom: "b" top: "b" }
layer { name: "cat" type: "Concat" bottom: "a" bottom: "b" top: "cat" }
layer { name: "pool" type: "Pooling" bottom: "cat" top: "pool" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def solver(precision: str, net: str = NET) -> schema.SolverParameter:
    text = f'net_param {{ {net} }} base_lr: 0.1 lr_policy: "fixed" random_seed: 1 max_iter: 9 precision: {precision}'
    message, _ = parse(text, schema.SolverParameter, "solver")
    return message


def ops(run: Solver) -> list[str]:
    return [c.op.name for c in run.sessions[0].program.calls]


def parts(run: Solver) -> list[int]:
    return [c.attrs["begin"] for c in run.sessions[0].program.calls if c.op.name == "conv" and "begin" in c.attrs]


def losses(run: Solver) -> list[float]:
    found = []
    for _ in range(4):
        run.step(1)
        found.append(run.losses[-1])
    return found


@pytest.mark.parametrize(("precision", "near"), [("FP32", 1e-5), ("TF32", 1e-5), ("BF16", 0.05)])
def test_training_is_the_same_without_the_concat(precision: str, near: float, make_device: Make) -> None:
    library = Cudnn()
    with Solver(solver(precision), device=make_device(cudnn=library)) as run:
        assert "concat" not in ops(run)
        begins = parts(run)
        assert begins == [0, 8]
        got = losses(run)
    with Solver(solver("FP32"), device="reference") as run:
        np.testing.assert_allclose(got, losses(run), near, 1e-6)
    assert "fprop bias relu" in library.executed


def unfused(kind: str, bias: bool, relu: bool, dtype: str) -> bool:
    return relu


@pytest.mark.parametrize(
    ("net", "refuses"),
    [
        (NET, unfused),
        (NET.replace("num_output: 8", "num_output: 7").replace("dim: 8 dim: 8", "dim: 7 dim: 7"), None),
        (NET.replace('bottom: "a" bottom: "b" top: "cat"', 'bottom: "a" bottom: "a" top: "cat"'), None),
        (NET.replace('bottom: "cat" top: "pool"', 'bottom: "a" top: "pool"'), None),
    ],
    ids=["nothing is fused", "off the alignment", "a part twice", "read by another layer"],
)
def test_a_concat_stays(net: str, refuses: Any, make_device: Make) -> None:
    with Solver(solver("FP32", net), device=make_device(cudnn=Cudnn(refuses))) as run:
        assert not parts(run)
        got = losses(run)
    with Solver(solver("FP32", net), device="reference") as run:
        np.testing.assert_allclose(got, losses(run), 1e-5, 1e-6)
