"""``netrun features``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netrun.data.database import open_database
from netrun.data.datum import parse
from netrun.net import Net

Run = Callable[..., Any]


@pytest.fixture(name="trained")
def trained_fixture(run: Run) -> str:
    assert run("train", "--solver", "solver.prototxt").code == 0
    return "out/tiny_iter_8.caffemodel"


def test_the_values_are_those_of_the_net(run: Run, trained: str) -> None:
    result = run("features", "net.prototxt", "--weights", trained, "--blobs", "ip,conv,loss,data", "--batches", "3",
                 "--out", "all.npz")  # fmt: skip
    assert result.code == 0, result.err
    assert result.out.splitlines() == ["all.npz"]
    with np.load("all.npz") as stored:
        found = dict(stored)
    assert {name: v.shape for name, v in found.items()} == {
        "ip": (12, 3), "conv": (12, 5, 4, 4), "loss": (3,), "data": (12, 3, 6, 6),
    }  # fmt: skip
    assert found["conv"].min() == 0  # after the ReLU that works in place
    with Net("net.prototxt", weights=trained) as net:
        for i in range(3):
            net.forward(start="conv", data=found["data"][4 * i : 4 * i + 4])
            np.testing.assert_allclose(found["ip"][4 * i : 4 * i + 4], net.blobs["ip"].data, rtol=1e-5, atol=1e-6)


def test_into_a_database_and_a_folder(run: Run, trained: str) -> None:
    flags = ("features", "--model", "net.prototxt", "--weights", trained, "--blobs", "ip", "--batches", "2")
    assert run(*flags, "--out", "db", "--backend", "lmdb").out.splitlines() == ["db"]
    assert run(*flags).out.splitlines() == ["features/ip.npy"]
    values = np.load("features/ip.npy")
    database = open_database("db")
    assert database.count == len(values) == 8
    key, value = database.read(5)
    record = parse(value)
    assert (key, record.shape) == (b"0000000005", (3, 1, 1))
    np.testing.assert_array_equal(record.values().reshape(-1), values[5])
    database.close()


def test_weights_are_brought_in_as_the_flags_say(run: Run, trained: str, folder: Path) -> None:
    net = (folder / "net.prototxt").read_text().replace('"ip" type', '"renamed" type')
    (folder / "renamed.prototxt").write_text(net)
    flags = ("features", "--weights", trained, "--blobs", "ip", "--batches", "1")
    assert run(*flags, "net.prototxt", "--out", "a").code == 0
    refused = run(*flags, "renamed.prototxt", "--strict", "--out", "b")
    assert (refused.code, "not in the net: ip" in refused.err) == (3, True)
    taken = run(*flags, "renamed.prototxt", "--strict", "--rename", "ip=renamed", "--out", "b")
    assert "renamed: ip -> renamed" in taken.err
    np.testing.assert_array_equal(np.load("a/ip.npy").shape, np.load("b/ip.npy").shape)
    left = run(*flags, "net.prototxt", "--reinit", "ip", "--out", "c")
    assert "as reinit says: ip" in left.err


def test_what_is_refused(run: Run, trained: str, folder: Path) -> None:
    assert "no weights are given" in run("features", "net.prototxt", "--blobs", "ip").err
    flags = ("features", "net.prototxt", "--weights", trained)
    assert "--blobs names no blob" in run(*flags).err
    result = run(*flags, "--blobs", "ipp")
    assert result.code == 2
    assert 'the net has no blob "ipp"; did you mean "ip"?' in result.err
    net = (folder / "net.prototxt").read_text()
    deploy = net[net.index('layer {\n  name: "conv"') : net.index('layer { name: "loss"')]
    shape = "input_param { shape { dim: 1 dim: 3 dim: 6 dim: 6 } }"
    (folder / "deploy.prototxt").write_text(f'layer {{ name: "i" type: "Input" top: "data" {shape} }}\n{deploy}')
    result = run("features", "deploy.prototxt", "--weights", trained, "--blobs", "ip")
    assert result.code == 2
    assert 'nobody feeds the input "data"' in result.err
    assert not (folder / "features").exists()
