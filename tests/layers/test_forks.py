"""Values of the layer types of forks, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from netrun.config import schema
from netrun.config.upgrade import parse_net
from netrun.errors import ConfigError
from netrun.net import Net

RNG = np.random.default_rng(2)


def run(text: str, *bottoms: Any, phase: int = schema.TEST, parameters: tuple[Any, ...] = ()) -> tuple[Any, Net]:
    """The top of one layer in float64, and its net."""
    layers = []
    for i, b in enumerate(bottoms):
        shape = " ".join(f"dim: {n}" for n in b.shape)
        layers.append(f'layer {{ name: "x{i}" type: "Input" top: "x{i}" input_param {{ shape {{ {shape} }} }} }}')
    names = " ".join(f'bottom: "x{i}"' for i in range(len(bottoms)))
    layers.append(f'layer {{ name: "t" top: "y" {names} {text} }}')
    net = Net(parse_net("\n".join(layers))[0], phase, dtype="float64")
    for blob, value in zip(net.params.get("t", []), parameters, strict=False):
        blob.data[...] = value
    return net.forward(**{f"x{i}": b for i, b in enumerate(bottoms)})["y"], net


def normal(*shape: int) -> Any:
    return RNG.standard_normal(shape)


def test_permute() -> None:
    x = normal(2, 3, 4, 5)
    y, _ = run('type: "Permute" permute_param { order: 0 order: 2 order: 3 order: 1 }', x)
    np.testing.assert_array_equal(y, x.transpose(0, 2, 3, 1))
    y, _ = run('type: "Permute" permute_param { order: 2 }', x)
    np.testing.assert_array_equal(y, x.transpose(2, 0, 1, 3))


def test_normalize() -> None:
    x, scale = normal(2, 3, 4, 5), np.array([1.0, 2, 3])
    text = 'type: "Normalize" norm_param { across_spatial: false channel_shared: false }'
    y, _ = run(text, x, parameters=(scale,))
    wanted = x / np.sqrt((x**2).sum(1, keepdims=True) + 1e-10) * scale.reshape(1, 3, 1, 1)
    np.testing.assert_allclose(y, wanted, 1e-9)
    y, net = run('type: "Normalize"', x, parameters=(5,))
    np.testing.assert_allclose(y, 5 * x / np.sqrt((x**2).sum((1, 2, 3), keepdims=True)), 1e-9)
    assert net.params["t"][0].shape == ()


def test_depthwise_is_a_convolution_with_as_many_groups() -> None:
    x, w, b = normal(2, 3, 6, 5), normal(6, 1, 3, 3), normal(6)
    body = "num_output: 6 kernel_size: 3 stride: 2 pad: 1"
    y, net = run(f'type: "DepthwiseConvolution" convolution_param {{ {body} }}', x, parameters=(w, b))
    wanted, _ = run(f'type: "Convolution" convolution_param {{ {body} group: 3 }}', x, parameters=(w, b))
    np.testing.assert_allclose(y, wanted, 1e-12)
    assert net.params["t"][0].shape == (6, 1, 3, 3)
    with pytest.raises(ConfigError, match="group is 2"):
        run(f'type: "DepthwiseConvolution" convolution_param {{ {body} group: 2 }}', x)


def test_axpy() -> None:
    a, x, y = normal(2, 3, 1, 1), normal(2, 3, 4, 5), normal(2, 3, 4, 5)
    z, _ = run('type: "Axpy"', a, x, y)
    np.testing.assert_allclose(z, a * x + y, 1e-12)


def test_shuffle_channel() -> None:
    x = normal(2, 6, 3)
    y, _ = run('type: "ShuffleChannel" shuffle_channel_param { group: 2 }', x)
    np.testing.assert_array_equal(y, x[:, [0, 3, 1, 4, 2, 5]])
    with pytest.raises(ConfigError, match="has to divide the channels, 6"):
        run('type: "ShuffleChannel" shuffle_channel_param { group: 4 }', x)


def test_upsample() -> None:
    x = normal(2, 3, 2, 4)
    y, _ = run('type: "Upsample" upsample_param { scale: 3 }', x)
    np.testing.assert_array_equal(y, x.repeat(3, 2).repeat(3, 3))


def test_smooth_l1_loss() -> None:
    x, t, inside, outside = normal(4, 3), normal(4, 3), RNG.random((4, 3)), RNG.random((4, 3))
    y, _ = run('type: "SmoothL1Loss" smooth_l1_loss_param { sigma: 2 }', x, t, inside, outside)
    d = inside * (x - t)
    each = np.where(np.abs(d) < 0.25, 2 * d**2, np.abs(d) - 0.125)
    np.testing.assert_allclose(y, (outside * each).sum() / 4, 1e-12)
    y, _ = run('type: "SmoothL1Loss"', x, t)
    d = np.abs(x - t)
    np.testing.assert_allclose(y, np.where(d < 1, d**2 / 2, d - 0.5).sum() / 4, 1e-12)


def standard(x: Any, mean: Any, variance: Any, eps: float) -> Any:
    wide = (1, -1, *(1,) * (x.ndim - 2))
    return (x - np.reshape(mean, wide)) / np.sqrt(np.reshape(variance, wide) + eps)


def test_batch_norm_of_nvidia_has_its_scale_inside() -> None:
    x, scale, bias = normal(4, 3, 2), normal(3), normal(3)
    text = 'type: "BatchNorm" batch_norm_param { scale_bias: true moving_average_fraction: 0.9 }'
    fresh = (np.zeros(3), np.zeros(3), 0)
    y, net = run(text, x, phase=schema.TRAIN, parameters=(*fresh, scale, bias))
    wanted = standard(x, x.mean((0, 2)), x.var((0, 2)), 1e-5) * scale.reshape(1, 3, 1) + bias.reshape(1, 3, 1)
    np.testing.assert_allclose(y, wanted, 1e-9)
    assert [b.shape for b in net.params["t"]] == [(3,), (3,), (1,), (3,), (3,)]
    np.testing.assert_allclose(net.params["t"][0].data, x.mean((0, 2)), 1e-9)
    y, _ = run(text, x, parameters=([1.0, 2, 3], [4.0, 5, 6], 2, scale, bias))
    wanted = standard(x, [0.5, 1, 1.5], [2, 2.5, 3], 1e-5) * scale.reshape(1, 3, 1) + bias.reshape(1, 3, 1)
    np.testing.assert_allclose(y, wanted, 1e-9)


def test_bn_keeps_plain_running_means() -> None:
    x, slope, bias = normal(4, 3, 2, 2), normal(1, 3, 1, 1), normal(1, 3, 1, 1)
    mean, variance = normal(1, 3, 1, 1), RNG.random((1, 3, 1, 1)) + 1
    given = (slope, bias, mean, variance)
    batch = x.mean((0, 2, 3)), x.var((0, 2, 3))
    y, net = run('type: "BN" bn_param { momentum: 0.75 }', x, phase=schema.TRAIN, parameters=given)
    np.testing.assert_allclose(y, slope * standard(x, *batch, 1e-5) + bias, 1e-9)
    np.testing.assert_allclose(net.params["t"][2].data.reshape(-1), 0.75 * mean.reshape(-1) + 0.25 * batch[0], 1e-9)
    np.testing.assert_allclose(net.params["t"][3].data.reshape(-1), 0.75 * variance.reshape(-1) + 0.25 * batch[1], 1e-9)
    wanted = slope * standard(x, mean, variance, 1e-5) + bias
    for text, phase in (("", schema.TEST), ("bn_param { frozen: true }", schema.TRAIN)):
        y, net = run(f'type: "BN" {text}', x, phase=phase, parameters=given)
        np.testing.assert_allclose(y, wanted, 1e-9)
        np.testing.assert_array_equal(net.params["t"][2].data, mean)


@pytest.mark.parametrize(
    ("size", "wanted", "text"),
    [
        ((4, 3), (7, 5), "height: 7 width: 5"),
        ((4, 3), (10, 7), "zoom_factor: 3"),
        ((7, 8), (3, 3), "shrink_factor: 3"),
        ((7, 8), (5, 5), "shrink_factor: 3 zoom_factor: 2"),
        ((6, 7), (6, 8), "height: 6 width: 8 pad_beg: -1 pad_end: -2"),
        ((5, 5), (1, 5), "height: 1 width: 5"),
    ],
)
def test_interp_is_linear_between_pixels_with_corners_on_corners(
    size: tuple[int, int], wanted: tuple[int, int], text: str
) -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, *size))
    shape = " ".join(f"dim: {n}" for n in x.shape)
    net = f"""layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {shape} }} }} }}
      layer {{ name: "i" type: "Interp" bottom: "x" top: "y" interp_param {{ {text} }} }}"""
    with Net(parse_net(net)[0], dtype="float64") as built:
        got = np.array(built.forward(x=x)["y"])
    cut = x[:, :, 1:-2, 1:-2] if "pad" in text else x
    rows = [np.linspace(0, n - 1, m) if m > 1 else np.zeros(1) for n, m in zip(cut.shape[2:], wanted, strict=True)]
    taller = np.apply_along_axis(lambda line: np.interp(rows[0], np.arange(len(line)), line), 2, cut)
    np.testing.assert_allclose(got, np.apply_along_axis(
        lambda line: np.interp(rows[1], np.arange(len(line)), line), 3, taller), 1e-6, 1e-6)  # fmt: skip


def test_the_bn_of_segnet_is_told_from_that_of_pspnet() -> None:
    x = np.random.default_rng(1).standard_normal((3, 2, 4))
    text = """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 3 dim: 2 dim: 4 } } }
      layer { name: "b" type: "BN" bottom: "x" top: "y" bn_param { %s scale_filler { type: "constant" value: 3 }
        shift_filler { type: "constant" value: 0.5 } } }"""
    normal = (x - x.mean((0, 2), keepdims=True)) / x.std((0, 2), keepdims=True)
    for mode, wanted in (("", normal), ("bn_mode: INFERENCE", x)):
        with Net(parse_net(text % mode)[0], schema.TEST) as net:
            assert [blob.shape for blob in net.params["b"]] == [(1, 2, 1), (1, 2, 1)]
            np.testing.assert_allclose(net.forward(x=x)["y"], 3 * wanted + 0.5, 1e-5, 1e-5)
