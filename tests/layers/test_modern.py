"""Norms, gates and windows of later nets, against formulas written out with NumPy, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from netrun.config import schema
from netrun.config.upgrade import parse_net
from netrun.errors import ConfigError
from netrun.net import Net

RNG = np.random.default_rng(5)


def run(kind: str, body: str, x: Any, **params: Any) -> Any:
    """The top for that bottom, with parameters set by number (p0, p1, ...)."""
    dims = " ".join(f"dim: {n}" for n in x.shape)
    text = f'''layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }}
        layer {{ name: "t" type: "{kind}" bottom: "x" top: "y" {body} }}'''
    with Net(parse_net(text)[0], schema.TEST, device="reference") as net:
        for name, value in params.items():
            net.params["t"][int(name[1:])].data[...] = value
        return np.array(net.forward(x=x)["y"])


def drawn(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype("float32")


def whitened(x: Any, axes: tuple[int, ...], eps: float) -> Any:
    x = x.astype("float64")
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def near(got: Any, wanted: Any) -> None:
    np.testing.assert_allclose(got, wanted, 1e-5, 1e-5)


def test_layer_norm() -> None:
    x, scale, shift = drawn(3, 4, 5), drawn(4, 5), drawn(4, 5)
    got = run("LayerNorm", "normalization_param { axis: 1 eps: 0.01 }", x, p0=scale, p1=shift)
    near(got, whitened(x, (1, 2), 0.01) * scale + shift)
    near(run("LayerNorm", "", x), whitened(x, (2,), 1e-5))


def test_rms_norm() -> None:
    x, scale = drawn(3, 4, 5), drawn(5)
    root = np.sqrt((x.astype("float64") ** 2).mean(-1, keepdims=True) + 0.5)
    near(run("RMSNorm", "normalization_param { eps: 0.5 }", x, p0=scale), x / root * scale)


def test_group_and_instance_norm() -> None:
    x, scale, shift = drawn(2, 6, 3, 4), drawn(6), drawn(6)
    wide = (1, 6, 1, 1)
    groups = whitened(x.reshape(2, 3, 2, 3, 4), (2, 3, 4), 1e-5).reshape(x.shape)
    got = run("GroupNorm", "normalization_param { groups: 3 }", x, p0=scale, p1=shift)
    near(got, groups * scale.reshape(wide) + shift.reshape(wide))
    near(run("InstanceNorm", "", x), whitened(x, (2, 3), 1e-5))


def test_gelu() -> None:
    x = drawn(4, 5)
    share = np.vectorize(lambda v: 0.5 * (1 + math.erf(v / math.sqrt(2))))(x)
    near(run("GELU", "", x), x * share)
    np.testing.assert_allclose(run("GELU", "gelu_param { approximate: true }", x), x * share, atol=2e-3)


@pytest.mark.parametrize("kind", ["GLU", "SwiGLU"])
def test_gates(kind: str) -> None:
    x = drawn(2, 6, 3)
    a, b = x[:, :3], x[:, 3:]
    gate = 1 / (1 + np.exp(-a))
    near(run(kind, "", x), (gate if kind == "GLU" else a * gate) * b)


@pytest.mark.parametrize("dilation", [1, 2])
def test_causal_convolution_sees_nothing_later(dilation: int) -> None:
    body = f"""convolution_param {{ num_output: 3 kernel_size: 3 dilation: {dilation} causal: true
        weight_filler {{ type: "gaussian" }} }}"""
    x, w = drawn(1, 2, 9), drawn(3, 2, 3)
    y = run("Convolution", body, x, p0=w)
    assert y.shape == (1, 3, 9)
    wanted = np.zeros((3, 9))
    for t in range(9):
        for i in range(3):
            s = t - (2 - i) * dilation
            if s >= 0:
                wanted[:, t] += w[:, :, i] @ x[0, :, s]
    near(y[0], wanted)
    later = x.copy()
    later[..., 5:] += 1
    assert np.array_equal(run("Convolution", body, later, p0=w)[..., :5], y[..., :5])


def test_separable_convolution_is_two_convolutions() -> None:
    x, depth, point, bias = drawn(2, 3, 6), drawn(6, 1, 2), drawn(4, 6, 1), drawn(4)
    body = "convolution_param { num_output: 4 kernel_size: 2 depth_multiplier: 2 }"
    got = run("SeparableConvolution", body, x, p0=depth, p1=point, p2=bias)
    first = run(
        "Convolution", "convolution_param { num_output: 6 kernel_size: 2 group: 3 bias_term: false }", x, p0=depth
    )
    near(got, run("Convolution", "convolution_param { num_output: 4 kernel_size: 1 }", first, p0=point, p1=bias))


def test_pooling_of_clips() -> None:
    x = drawn(1, 2, 4, 4, 6)
    y = run("Pooling", "pooling_param { kernel: [2, 2, 3] step: [2, 2, 3] }", x)
    near(y, x.reshape(1, 2, 2, 2, 2, 2, 2, 3).max((3, 5, 7)))


@pytest.mark.parametrize(
    ("kind", "body", "shape", "message"),
    [
        ("GroupNorm", "", (2, 6, 3), "6 channels cannot be divided into 32 groups"),
        ("InstanceNorm", "", (2, 6), "wants a bottom of N C and spatial axes, got 2 axes"),
        ("LayerNorm", "normalization_param { axis: 3 }", (2, 6), "axis 3 does not exist: the bottom has 2 axes"),
        ("LayerNorm", "normalization_param { eps: -1 }", (2, 6), "eps is -1, and cannot be negative"),
        ("RMSNorm", "normalization_param { shift: true }", (2, 6), "has no shift, only a scale"),
        ("GLU", "", (2, 5), "axis 1 has the length 5, which has no half"),
        ("Convolution", "convolution_param { num_output: 1 kernel_size: 2 pad: 1 causal: true }", (2, 3, 4),
         "has both causal and pad 1 for its time axis"),
        ("Convolution", "convolution_param { num_output: 1 kernel_size: 2 pad_end: 1 causal: true }", (2, 3, 4),
         "has both causal and pad_end"),
        ("Convolution", "convolution_param { num_output: 1 causal: true }", (2, 3),
         "causal is for a bottom with a time axis behind the channels"),
        ("Deconvolution", "convolution_param { num_output: 1 kernel_size: 2 causal: true }", (2, 3, 4),
         "causal is for convolutions, not for their transpose"),
        ("SeparableConvolution", "convolution_param { num_output: 1 kernel_size: 2 group: 3 }", (2, 3, 4),
         "group is 3; the depthwise part has a group for each channel"),
        ("Pooling", "pooling_param { kernel: [1, 2] kernel_size: 2 }", (2, 3, 4, 4), "has both kernel and kernel_size"),
        ("Pooling", "pooling_param { kernel: [1, 2] }", (2, 3, 4, 4, 4),
         "kernel is given 2 times, the bottom has 3 spatial axes"),
    ],
)  # fmt: skip
def test_refusals(kind: str, body: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(kind, body, np.zeros(shape, "float32"))
