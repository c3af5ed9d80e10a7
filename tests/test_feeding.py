"""Data layers of a net in Python: opened late, fed layer by layer, constants filled once."""

from __future__ import annotations

import numpy as np

import netrun
from netrun.config.upgrade import parse_net

TEXT = """layer { name: "d" type: "DummyData" top: "x" top: "c" dummy_data_param {
    shape { dim: 2 dim: 3 } shape { dim: 2 } data_filler { type: "uniform" min: 1 max: 2 } data_filler { value: 4 } } }
  layer { name: "e" type: "DummyData" top: "y" dummy_data_param { shape { dim: 3 } data_filler { type: "gaussian" } } }
  layer { name: "s" type: "Silence" bottom: "x" bottom: "c" bottom: "y" }"""


def net() -> netrun.Net:
    return netrun.Net(parse_net(TEXT)[0], seed=3)


def test_nothing_is_open_before_the_first_pass() -> None:
    with net() as one:
        feeding = one._engine.feeding
        assert feeding.feeders is None
        assert one.blobs["c"].data.tolist() == [4, 4]
        one.forward(start="e", end="e")
        assert feeding.feeders is not None
        assert sorted(feeding.feeders) == ["d", "e"]


def test_what_was_given_and_what_was_written_into_constants_stays() -> None:
    with net() as one:
        one.blobs["c"].data = 7
        one.forward(x=np.full((2, 3), 5))
        assert (one.blobs["x"].data == 5).all()
        assert one.blobs["c"].data.tolist() == [7, 7]
        one.forward()
        assert (one.blobs["x"].data <= 2).all()


def test_only_a_constant_of_another_shape_is_filled_again() -> None:
    for name, shape, wanted in (("x", (5, 3), [7, 7]), ("c", (4,), [4, 4, 4, 4])):
        with net() as one:
            one.forward()
            one.blobs["c"].data = 7
            one.blobs[name].reshape(*shape)
            one.forward()
            assert one.blobs[name].shape == shape
            assert one.blobs["c"].data.tolist() == wanted
            assert (one.blobs["x"].data >= 1).all()


def test_data_begins_anew_after_closing_and_with_another_seed() -> None:
    with net() as one:
        batches = [one.forward(end="d")["x"].copy() for _ in range(2)]
        one.close()
        again = one.forward(end="d")["x"].copy()
        one._engine.reseed(4)
        other = one.forward(end="d")["x"].copy()
    assert (batches[0] != batches[1]).any()
    np.testing.assert_array_equal(again, batches[0])
    assert (other != again).any()
