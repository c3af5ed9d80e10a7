"""Concat without copying: convolutions, pooling and pointwise kernels on a part of a larger tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fakelibs import Cudnn

from layers_cuda.device import Cuda
from layers_cuda.geometry import Cut
from netrun.compiler.plan import plan
from netrun.config import schema
from netrun.config.text import parse
from netrun.kernels import OPS
from netrun.program import Call, Origin, Program
from netrun.solver import Solver
from netrun.types import Spec, Tensor

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


def calls(run: Solver, name: str) -> list[Call]:
    return [c for c in run.sessions[0].program.calls if c.op.name == name]


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
        assert not {"concat", "slice", "split"} & set(ops(run))
        assert parts(run) == [0, 8]
        assert sum("cut" in c.attrs for c in calls(run, "summed")) == 2  # the gradients of both ReLUs
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
        (
            NET.replace('"ReLU" bottom: "b" top: "b"', '"LRN" bottom: "b" top: "n"').replace(
                'bottom: "b" top: "cat"', 'bottom: "n" top: "cat"'
            ),
            None,
        ),
        (NET.replace('bottom: "a" bottom: "b" top: "cat"', 'bottom: "a" bottom: "a" top: "cat"'), None),
        (NET.replace('bottom: "cat" top: "pool"', 'bottom: "a" top: "pool"'), None),
    ],
    ids=["nothing is fused", "off the alignment", "a part of another kernel", "a part twice", "read by another layer"],
)
def test_a_concat_stays(net: str, refuses: Any, make_device: Make) -> None:
    with Solver(solver("FP32", net), device=make_device(cudnn=Cudnn(refuses))) as run:
        assert not parts(run)
        got = losses(run)
    with Solver(solver("FP32", net), device="reference") as run:
        np.testing.assert_allclose(got, losses(run), 1e-5, 1e-6)


BRANCHES = """
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: 2 dim: 3 dim: 8 dim: 8 } shape { dim: 2 }
  data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 1 } } }
layer { name: "stem" type: "Convolution" bottom: "data" top: "stem"
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "a" type: "Pooling" bottom: "stem" top: "a" pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layer { name: "b" type: "Pooling" bottom: "stem" top: "b" pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layer { name: "c" type: "Convolution" bottom: "stem" top: "c"
  convolution_param { num_output: 4 kernel_size: 2 stride: 2 weight_filler { type: "xavier" } } }
layer { name: "d" type: "Convolution" bottom: "stem" top: "d"
  convolution_param { num_output: 4 kernel_size: 2 stride: 2 weight_filler { type: "xavier" } } }
layer { name: "tanh" type: "TanH" bottom: "d" top: "t" }
layer { name: "cat" type: "Concat" bottom: "a" bottom: "b" bottom: "c" bottom: "t" top: "cat" }
layer { name: "ip" type: "InnerProduct" bottom: "cat" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


@pytest.mark.parametrize(("precision", "near"), [("FP32", 1e-5), ("TF32", 1e-5), ("BF16", 0.05), ("FP16", 0.01)])
@pytest.mark.parametrize("bias", ["", "bias_term: false"])
def test_pooling_pointwise_and_bare_convolutions(bias: str, precision: str, near: float, make_device: Make) -> None:
    """The gradient of a bias reads its part cut out; without one the adjoints of the convolution read it in place."""
    net = BRANCHES.replace("num_output: 4", f"num_output: 4 {bias}")
    with Solver(solver(precision, net), device=make_device()) as run:
        found = ops(run)
        assert "concat" not in found
        cut = {c.op.name for name in set(found) for c in calls(run, name) if "cut" in c.attrs}
        wanted = {"pool_max", "pool_avg", "pool_max_grad", "pool_avg_grad", "pointwise"}
        assert cut == (wanted if bias else wanted | {"summed"})
        adjoints = [c for n in ("conv_grad_x", "conv_grad_w") for c in calls(run, n) if "begin" in c.attrs]
        assert len(adjoints) == (2 if bias else 0)
        assert found.count("slice") == (0 if bias else 1)
        got = losses(run)
    with Solver(solver("FP32", net), device="reference") as run:
        np.testing.assert_allclose(got, losses(run), near, 1e-6)


SLICED = """
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: 2 dim: 3 dim: 6 dim: 6 } shape { dim: 2 }
  data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 1 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 12 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "cut" type: "Slice" bottom: "conv" top: "x" top: "y" top: "z"
  slice_param { axis: AXIS slice_point: 1 slice_point: 3 } }
layer { name: "sx" type: "Sigmoid" bottom: "x" top: "sx" }
layer { name: "sy" type: "TanH" bottom: "y" top: "sy" }
layer { name: "sz" type: "AbsVal" bottom: "z" top: "sz" }
layer { name: "cat" type: "Concat" bottom: "sz" bottom: "sx" bottom: "sy" top: "cat" concat_param { axis: AXIS } }
layer { name: "ip" type: "InnerProduct" bottom: "cat" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


@pytest.mark.parametrize("axis", ["1", "2", "3"])
@pytest.mark.parametrize("precision", ["FP32", "TF32"])
def test_slices_and_concats_along_any_axis(precision: str, axis: str, make_device: Make) -> None:
    """What reads a part of one tensor and writes a part of another at once does one of both in place."""
    net = SLICED.replace("AXIS", axis)
    with Solver(solver(precision, net), device=make_device()) as run:
        got = losses(run)
        assert "concat" not in ops(run)
    with Solver(solver("FP32", net), device="reference") as run:
        np.testing.assert_allclose(got, losses(run), 1e-5, 1e-6)


CUTS = [
    ((2, 6, 5, 5), 1, 8, 1, 2, "float32"),
    ((2, 4, 4, 4), 1, 12, 4, 4, "float32"),
    ((2, 3, 3, 8), 3, 24, 8, 16, "bfloat16"),
    ((3, 4, 5), 0, 9, 2, 5, "float64"),
    ((1, 4, 1, 1), 1, 7, 3, 1, "float32"),
    ((5, 3), 1, 4, 1, 0, "float16"),
]


@pytest.mark.parametrize(("shape", "axis", "size", "first", "second", "dtype"), CUTS, ids=str)
def test_pointwise_on_parts(
    shape: Any, axis: int, size: int, first: int, second: int, dtype: str, device: Cuda
) -> None:
    """A part, a whole array, a number a channel and one for all; into a part. What lies beside it stays."""
    rng = np.random.default_rng(0)
    whole = tuple(size if i == axis else n for i, n in enumerate(shape))
    channel = tuple(n if i == axis else 1 for i, n in enumerate(shape))
    specs = [Spec(whole, dtype), Spec(shape, dtype), Spec(channel, "float32"), Spec((), "float32"), Spec(whole, dtype)]
    values = [rng.integers(-8, 8, s.shape).astype("float32") for s in specs]
    arrays = [device.array(device.allocate(max(s.nbytes, 1)), 0, s) for s in specs]
    for array, value in zip(arrays, values, strict=True):
        device.write(array, value)
    tensors = [Tensor(n, s) for n, s in zip("abcdy", specs, strict=True)]
    cut = Cut(shape, axis, (first, -1, -1, -1, second))
    attrs = {"expr": "a * b + c - d", "cut": cut}
    device.bind(
        Call(OPS["pointwise"], (tuple(tensors[:4]), tensors[4]), attrs, Origin("l")),
        [tuple(arrays[:4]), arrays[4]],
        None,
    )()

    def part(array: Any, begin: int) -> Any:
        return array[tuple(slice(begin, begin + shape[i]) if i == axis else slice(None) for i in range(len(shape)))]

    wanted = values[4].copy()
    part(wanted, second)[...] = part(values[0], first) * values[1] + values[2] - values[3]
    np.testing.assert_array_equal(device.read(arrays[4]).astype("float32"), wanted)


def test_a_part_does_not_lie_over_another_part() -> None:
    """Elements 3 to 7 are read, 0 to 4 of a tensor of the same size are written: in place, one thread would write what
    another still has to read."""
    x, y, z = (Tensor(name, Spec((2, 8))) for name in "xyz")
    cut = {"expr": "tanh(a)", "cut": Cut((2, 5), 1, (3, 0))}
    calls = [Call(OPS["fill"], (x,), {"value": 1}), Call(OPS["pointwise"], ((x,), y), cut)]
    program = Program((*calls, Call(OPS["copy"], (y, z), {})), {}, frozenset({z}))
    assert plan(program).offsets[x] != plan(program).offsets[y]
