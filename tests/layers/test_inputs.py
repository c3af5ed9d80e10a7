"""Layers that bring data in, through a net: Data, DummyData, MemoryData, Input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netrun.config import schema
from netrun.config.upgrade import parse_net
from netrun.errors import DataError
from netrun.layers.inputs import DummyData, MemoryData
from netrun.net import Net

GOLDEN = Path(__file__).parents[1] / "golden"
DUMMY = """layer { name: "d" type: "DummyData" top: "a" top: "b" dummy_data_param {
    shape { dim: 3 } shape { dim: 2 dim: 2 } data_filler { value: 2.5 } data_filler { type: "uniform" } } }"""


def layer(text: str) -> Any:
    with Net(parse_net(text)[0], device="reference") as net:
        return net.graph.nodes[0].layer


def test_dummy_data_draws_random_tops_anew_and_constants_once() -> None:
    with Net(parse_net(DUMMY)[0], device="reference") as net:
        first = {name: np.array(value) for name, value in net.forward().items()}
        second = net.forward()
        np.testing.assert_array_equal(first["a"], [2.5, 2.5, 2.5])
        np.testing.assert_array_equal(second["a"], first["a"])
        assert (second["b"] != first["b"]).all()


def test_dummy_data_goes_on_where_it_stopped() -> None:
    made = layer(DUMMY)
    assert isinstance(made, DummyData)
    straight = made.feeder(seed=4)
    batches = [straight.next() for _ in range(3)]
    resumed = made.feeder(seed=4)
    resumed.next()
    again = made.feeder(seed=4)
    again.restore(resumed.state())
    for got, wanted in zip(again.next(), batches[1], strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert (made.feeder(seed=5).next()[1] != batches[0][1]).all()
    batches[0][0][...] = 0  # a batch belongs to the caller
    np.testing.assert_array_equal(again.next()[0], [2.5, 2.5, 2.5])


def test_memory_data_like_caffe() -> None:
    with np.load(GOLDEN / "data_layers" / "memory_data.npz") as file:
        case = dict(file)
    made = layer(str(case["prototxt"]))
    assert isinstance(made, MemoryData)
    made.set_arrays(case["in_data"], case["in_label"])
    feeder = made.feeder()
    assert feeder.names == ("data", "label")
    assert feeder.records == len(case["in_data"])
    for i in range(int(case["batches"])):
        data, label = feeder.next()
        np.testing.assert_array_equal(data, case[f"batch{i}_data"])
        np.testing.assert_array_equal(label, case[f"batch{i}_label"].reshape(-1))
    made.set_arrays(case["in_data"][2:], case["in_label"][2:])
    np.testing.assert_array_equal(feeder.next()[0], case["in_data"][2:4])


def test_memory_data_refuses_what_does_not_fit() -> None:
    made = layer("""layer { name: "m" type: "MemoryData" top: "x" top: "y"
        memory_data_param { batch_size: 2 channels: 1 height: 2 width: 3 } }""")
    with pytest.raises(DataError, match="set_arrays"):
        made.feeder().next()
    for data, labels, words in (
        (np.zeros((4, 1, 3, 2)), np.zeros(4), "1 2 3"),
        (np.zeros((4, 1, 2, 3)), np.zeros(3), "4 records and 3 labels"),
        (np.zeros((3, 1, 2, 3)), np.zeros(3), "no multiple of batch_size 2"),
        (np.zeros((0, 1, 2, 3)), np.zeros(0), "got 0 records"),
    ):
        with pytest.raises(DataError, match=words):
            made.set_arrays(data, labels)


def test_data_reads_a_database() -> None:
    text = f"""layer {{ name: "d" type: "Data" top: "data" top: "label" transform_param {{ scale: 0.5 }}
        data_param {{ source: "{GOLDEN / "data" / "lmdb_raw"}" backend: LMDB batch_size: 3 }} }}
        layer {{ name: "p" type: "Power" bottom: "data" top: "y" power_param {{ scale: 2 }} }}"""
    with Net(parse_net(text)[0], schema.TEST, device="reference") as net:
        y = net.forward()["y"]
        assert net.blobs["data"].shape[0] == 3
        assert net.blobs["label"].shape == (3,)
        np.testing.assert_array_equal(y, np.rint(y))
        assert y.max() > 1


def test_one_input_shape_serves_all_tops() -> None:
    text = 'layer { name: "i" type: "Input" top: "a" top: "b" input_param { shape { dim: 2 dim: 3 } } }'
    with Net(parse_net(text)[0], device="reference") as net:
        assert net.inputs == ["a", "b"]
        assert net.blobs["b"].shape == (2, 3)


def test_memory_data_takes_arrays_as_they_are() -> None:
    """A transform_param does not keep a net from running; it has no effect, and that is told."""
    text = """layer { name: "m" type: "MemoryData" top: "x" top: "t" transform_param { scale: 2 }
      memory_data_param { batch_size: 2 channels: 1 height: 1 width: 3 } }"""
    with Net(parse_net(text)[0]) as net:
        layer = net.graph.nodes[0].layer
        assert isinstance(layer, MemoryData)
        with pytest.warns(UserWarning, match="transform_param has no effect"):
            layer.set_arrays(np.ones((2, 1, 1, 3)), [0, 1])
        net.forward()
        np.testing.assert_array_equal(net.blobs["x"].data, np.ones((2, 1, 1, 3)))
