"""A blob in Python: an array to NumPy and DLPack, other shapes, and what it refuses."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import netrun
from netrun.blob import NoCopyError, ShapeMismatchError, TypeMismatchError
from netrun.config.upgrade import parse_net
from netrun.errors import UsageError

TEXT = """layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 4 } }
layer { name: "left" type: "Power" bottom: "data" top: "left" power_param { scale: 5 } }
"""
X = np.array([[1, -2, 3], [-4, 5, -6]], np.float32)


@pytest.fixture
def net() -> netrun.Net:
    return netrun.Net(parse_net(TEXT)[0])


def test_a_blob_is_an_array(net: netrun.Net) -> None:
    net.forward(data=X)
    blob = net.blobs["left"]
    np.testing.assert_array_equal(np.asarray(blob), 5 * X)
    assert np.shares_memory(np.asarray(blob), blob.data)
    assert np.array(blob, dtype=np.float64).dtype == np.float64
    seen = np.from_dlpack(blob)
    assert np.shares_memory(seen, blob.data)
    assert repr(blob) == '<blob "left" 2 3>'
    assert (blob.num, blob.channels, blob.height, blob.count) == (2, 3, 1, 6)


@pytest.mark.parametrize(
    ("values", "error", "said"),
    [
        (np.zeros((3, 3)), ShapeMismatchError, 'blob "left" has the shape 2 3, the array given has 3 3'),
        ("much", TypeMismatchError, "takes numbers of one shape, got str"),
        ([[1, 2, 3], [4]], TypeMismatchError, "takes numbers of one shape, got list"),
        (X + 1j, TypeMismatchError, "takes numbers of one shape, got complex"),
    ],
    ids=["shape", "text", "ragged", "complex"],
)
def test_values_that_do_not_fit_change_nothing(values: Any, error: type[Exception], said: str, net: netrun.Net) -> None:
    blob = net.blobs["left"]
    blob.data, blob.diff = 2, 3
    with pytest.raises(error, match=said):
        blob.data = values
    with pytest.raises(error, match=said):
        blob.diff = values
    assert (blob.data == 2).all()
    assert (blob.diff == 3).all()


def test_values_are_spread_over_a_blob_and_texts_are_read_as_numbers(net: netrun.Net) -> None:
    blob = net.blobs["left"]
    blob.data = [1, 2, 3]
    assert blob.data.tolist() == [[1, 2, 3]] * 2
    blob.data = np.array(["4", "5", "6"], object)
    assert blob.data.tolist() == [[4, 5, 6]] * 2


def test_a_forward_pass_takes_whole_arrays_only(net: netrun.Net) -> None:
    with pytest.raises(ShapeMismatchError, match="it has the shape 2 3, the array given has 3"):
        net.forward(data=X[0])
    with pytest.raises(UsageError, match=r'no blob "lef".*"left"'):
        net.blobs["lef"]


def test_layers_follow_a_reshaped_blob_in_the_next_pass(net: netrun.Net) -> None:
    net.blobs["data"].reshape(5, 3)
    assert net.blobs["data"].shape == (5, 3)
    assert net.blobs["left"].shape == (2, 3)
    assert net.forward(data=np.ones((5, 3)))["left"].tolist() == [[5, 5, 5]] * 5
    assert net.blobs["left"].shape == (5, 3)
    with pytest.raises(ShapeMismatchError, match=r"reshape to \(-1, 3\): no axis can be negative"):
        net.blobs["data"].reshape(-1, 3)
    with pytest.raises(TypeMismatchError, match="reshape wants whole numbers"):
        net.blobs["data"].reshape(2.5, 3)  # type: ignore[arg-type]


def test_a_parameter_keeps_its_values_along_other_axes(net: netrun.Net) -> None:
    weight = net.params["ip"][0]
    weight.data = np.arange(12).reshape(4, 3)
    weight.reshape(1, 1, 4, 3)
    assert weight.shape == (1, 1, 4, 3)
    np.testing.assert_array_equal(weight.data.ravel(), np.arange(12))
    np.testing.assert_allclose(net.forward(data=X)["ip"], X @ np.arange(12).reshape(4, 3).T)
    with pytest.raises(ShapeMismatchError, match="parameter 0 of layer ip cannot be reshaped from 1 1 4 3 to 5 3"):
        weight.reshape(5, 3)


def test_a_blob_outlives_its_net_and_is_not_copied(net: netrun.Net) -> None:
    blobs = list(netrun.Net(parse_net(TEXT)[0]).blobs.values())
    blobs[0].data = X
    np.testing.assert_array_equal(blobs[0].data, X)
    with pytest.raises(NoCopyError, match="cannot be pickled or copied"):
        copy.deepcopy(blobs[0])
    with pytest.raises(NoCopyError, match="cannot be pickled or copied"):
        copy.copy(net)
