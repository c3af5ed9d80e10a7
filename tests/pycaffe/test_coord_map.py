"""caffe.coord_map: how blobs lie over each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import netrun.pycaffe as caffe
from netrun.errors import NetrunError
from netrun.pycaffe import layers as L
from netrun.pycaffe.coord_map import AxisMismatchException, compose, coord_map_from_to, crop, inverse


def spec(ks: Any = 3, stride: Any = 1, pad: Any = 0, pool: int = 2, dstride: Any = 2, dpad: Any = 0) -> Any:
    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": [2, 1, 100, 100]})
    n.aux = L.Input(shape={"dim": [2, 1, 20, 20]})
    n.conv = L.Convolution(n.data, num_output=10, kernel_size=ks, stride=stride, pad=pad)
    n.pool = L.Pooling(n.conv, kernel_size=pool, stride=pool, pad=0)
    n.deconv = L.Deconvolution(n.pool, convolution_param={"num_output": 10, "kernel_size": 4, "stride": dstride, "pad": dpad})  # fmt: skip # noqa: E501
    return n


def test_convolution_pooling_deconvolution() -> None:
    n = spec()
    axis, scale, shift = coord_map_from_to(n.deconv, n.data)
    assert axis == 1
    np.testing.assert_array_equal(scale, 1)
    np.testing.assert_array_equal(shift, [0])
    axis, scale, shift = coord_map_from_to(n.conv, n.data)
    np.testing.assert_array_equal(shift, [1])
    padded = spec(pad=2)
    np.testing.assert_array_equal(coord_map_from_to(padded.conv, padded.data)[2], [-1])


def test_what_passes_through() -> None:
    n = spec()
    top = L.ReLU(L.BatchNorm(L.Dropout(n.conv)))
    assert all(
        np.array_equal(a, b)
        for a, b in zip(coord_map_from_to(top, n.data), coord_map_from_to(n.conv, n.data), strict=True)
    )


def test_crop() -> None:
    n = spec(pad=1, dpad=0)
    assert (crop(n.deconv, n.data).fn.params["crop_param"]) == {"axis": 2, "offset": [1]}
    assert crop(n.deconv, n.data).fn.type_name == "Crop"
    inner = crop(n.deconv, n.data)
    np.testing.assert_array_equal(coord_map_from_to(inner, n.data)[2], [0])
    rect = spec(ks=[3, 5], pad=[1, 2])
    assert crop(rect.deconv, rect.data).fn.params["crop_param"]["offset"] == [1, 1]


def test_complaints() -> None:
    n = spec()
    far = L.Convolution(n.aux, num_output=1, kernel_size=1)
    smaller = L.Convolution(n.data, num_output=1, kernel_size=5)
    n.ip = L.InnerProduct(n.conv, num_output=3)
    for kind, act in (
        (RuntimeError, lambda: coord_map_from_to(n.deconv, far)),
        (RuntimeError, lambda: coord_map_from_to(n.ip, n.data)),
        (AssertionError, lambda: crop(n.pool, n.data)),
        (AssertionError, lambda: crop(smaller, n.data)),
        (AxisMismatchException, lambda: compose((1, 1, 0), (2, 1, 0))),
    ):
        with pytest.raises(kind) as caught:
            act()
        assert isinstance(caught.value, NetrunError)
    assert compose(inverse((1, 2, 3)), (1, 2, 3)) == (1, 1, 0)
