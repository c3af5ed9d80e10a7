"""Feeders of Data layers: order, shuffling, resuming, and letting go."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from netrun.config import schema
from netrun.data.datum import pack
from netrun.data.feeder import Cursor
from netrun.data.open import open_feeder
from netrun.data.write import write_lmdb
from netrun.errors import DataError

MakeDb = Callable[..., Path]
MakeLayer = Callable[..., schema.LayerParameter]
LabelsOf = Callable[..., list[int]]
TRAIN, TEST = schema.TRAIN, schema.TEST


def test_runs_on_across_the_end_without_a_gap(make_db: MakeDb, make_layer: MakeLayer, labels_of: LabelsOf) -> None:
    layer = make_layer(make_db(7), 3)
    assert labels_of(layer, 8) == [i % 7 for i in range(24)]
    assert labels_of(layer, 8, threads=0) == [i % 7 for i in range(24)]


def test_a_batch_may_be_larger_than_the_source(make_db: MakeDb, make_layer: MakeLayer, labels_of: LabelsOf) -> None:
    assert labels_of(make_layer(make_db(2), 7), 2) == [0, 1] * 7


def test_records_come_in_the_order_of_the_bytes_of_their_keys(
    tmp_path: Path, make_layer: MakeLayer, labels_of: LabelsOf
) -> None:
    write_lmdb(tmp_path / "db", [(str(i).encode(), pack((1, 1, 1), b"x", i)) for i in range(12)])
    assert labels_of(make_layer(tmp_path / "db", 12), 1) == [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]


def test_shuffling_is_a_new_permutation_every_epoch(
    make_db: MakeDb, make_layer: MakeLayer, labels_of: LabelsOf
) -> None:
    layer = make_layer(make_db(50), 8, data="shuffle: true")
    seen = labels_of(layer, 25)
    epochs = [seen[i : i + 50] for i in range(0, 200, 50)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert seen == labels_of(layer, 25)
    assert seen == labels_of(layer, 25, threads=0)
    assert seen != labels_of(layer, 25, seed=1)
    assert seen != labels_of(layer, 25, stream="other")


def test_rand_skip_starts_somewhere_and_keeps_the_order(
    make_db: MakeDb, make_layer: MakeLayer, labels_of: LabelsOf
) -> None:
    layer = make_layer(make_db(20), 5, data="rand_skip: 15")
    starts = set()
    for seed in range(12):
        seen = labels_of(layer, 4, seed=seed)
        assert seen == [(seen[0] + i) % 20 for i in range(20)]
        starts.add(seen[0])
    assert len(starts) > 3
    assert max(starts) < 15


@pytest.mark.parametrize("threads", [None, 0])
@pytest.mark.parametrize("phase", [TRAIN, TEST])
def test_resuming_is_exact(threads: int | None, phase: int, make_db: MakeDb, make_layer: MakeLayer) -> None:
    layer = make_layer(
        make_db(23, (3, 9, 8)), 5, data="shuffle: true rand_skip: 9", transform="crop_size: 4 mirror: true scale: 0.5"
    )
    straight = open_feeder(layer, phase, seed=5)
    wanted = [straight.next() for _ in range(20)]
    assert straight.state() == Cursor(100, 100)
    straight.close()

    first = open_feeder(layer, phase, seed=5, threads=threads)
    for batch in wanted[:7]:
        np.testing.assert_array_equal(first.next()[0], batch[0])
    cursor = first.state()
    assert cursor == Cursor(35, 35)  # what was read ahead does not count
    first.close()

    second = open_feeder(layer, phase, seed=5, threads=threads)
    second.next()
    second.restore(cursor)
    assert second.state() == cursor
    for batch in wanted[7:]:
        for got, expected in zip(second.next(), batch, strict=True):
            np.testing.assert_array_equal(got, expected)
    second.restore(Cursor())
    np.testing.assert_array_equal(second.next()[0], wanted[0][0])
    with pytest.raises(DataError, match="position -1"):
        second.restore(Cursor(-1, 0))
    second.close()
    assert len({batch[0].tobytes() for batch in wanted}) == 20


def test_what_comes_does_not_depend_on_the_size_of_the_batch(make_db: MakeDb, make_layer: MakeLayer) -> None:
    db, both = make_db(11, (1, 6, 6)), []
    for size, count in ((2, 12), (8, 3)):
        layer = make_layer(db, size, data="shuffle: true", transform="crop_size: 3 mirror: true")
        feeder = open_feeder(layer, TRAIN, seed=2)
        both.append(np.concatenate([feeder.next()[0] for _ in range(count)]))
        feeder.close()
    np.testing.assert_array_equal(both[0], both[1])


def test_without_random_decisions_no_draws_are_counted(make_db: MakeDb, make_layer: MakeLayer) -> None:
    feeder = open_feeder(make_layer(make_db(), 3), TRAIN)
    feeder.next()
    assert feeder.state() == Cursor(3, 0)
    feeder.close()


def test_batches_belong_to_the_caller(make_db: MakeDb, make_layer: MakeLayer) -> None:
    feeder = open_feeder(make_layer(make_db(3), 3), TEST)
    first = feeder.next()
    first[0][...] = -1
    assert feeder.next()[0].min() >= 0
    feeder.close()


@pytest.mark.parametrize("batches", [0, 1])
@pytest.mark.parametrize("threads", [None, 0])
def test_a_closed_feeder_says_so(batches: int, threads: int | None, make_db: MakeDb, make_layer: MakeLayer) -> None:
    feeder = open_feeder(make_layer(make_db(), 3), TRAIN, threads=threads)
    for _ in range(batches):
        feeder.next()
    feeder.close()
    feeder.close()
    with pytest.raises(DataError, match="was closed"):
        feeder.next()


def test_a_forgotten_feeder_goes_away(make_db: MakeDb, make_layer: MakeLayer) -> None:
    before = threading.active_count()
    feeder = open_feeder(make_layer(make_db(), 3), TRAIN)
    feeder.next()
    gone = weakref.ref(feeder)
    assert threading.active_count() > before
    del feeder
    gc.collect()
    assert gone() is None, "its thread holds on to what it fills, not to the feeder"
    until = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_both_phases_read_one_folder(make_db: MakeDb, make_layer: MakeLayer) -> None:
    layer = make_layer(make_db(), 3)
    feeders = [open_feeder(layer, phase) for phase in (TRAIN, TEST, TEST)]
    assert len({feeder.next()[0].tobytes() for feeder in feeders}) == 1
    for feeder in feeders:
        assert feeder.records == 7
        feeder.close()
