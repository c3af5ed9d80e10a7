"""Whole nets of configs/ with made-up weights: the outputs Caffe computed (tests/golden/README.md, nets/)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netrun.config.upgrade import read_net
from netrun.net import Net

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "nets"
ROWS = [
    ("mnist/lenet.prototxt", "mnist__lenet__TEST"),
    ("cifar10/quick.prototxt", "cifar10__cifar10_quick__TEST"),
    pytest.param("imagenet/alexnet/deploy.prototxt", "bvlc_alexnet__deploy__TEST", marks=pytest.mark.slow),
    ("imagenet/googlenet/deploy.prototxt", "bvlc_googlenet__deploy__TEST"),
]


def made_up(number: int, shape: tuple[int, ...], scale: float) -> Any:
    """The values of parameter blob (or 10000 + input) ``number``: a hash of the place, within +-scale."""
    words = np.arange(int(np.prod(shape)), dtype=np.uint32) * np.uint32(2654435761)
    words += np.uint32((number + 1) * 40503 & 0xFFFFFFFF)
    for _ in range(2):
        words ^= words >> np.uint32(16)
        words *= np.uint32(0x45D9F3B)
    words ^= words >> np.uint32(16)
    return ((words / 2.0**32 - 0.5) * 2 * scale).astype(np.float32).reshape(shape)


@pytest.mark.parametrize(("path", "name"), ROWS)
def test_outputs(path: str, name: str) -> None:
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    with np.load(GOLDEN / f"{name}_forward.npz") as file:
        wanted = {key.removeprefix("out_"): file[key] for key in file.files}
    message, _ = read_net(ROOT / "configs" / path)
    shapes = {blob: tuple(golden["blobs"][blob]) for blob in golden["inputs"]}
    with Net(message, shapes=shapes) as net:
        for number, blob in enumerate(b for blobs in net.params.values() for b in blobs):
            spread = (3 / (blob.data.size / blob.shape[0])) ** 0.5 if len(blob.shape) > 1 else 0.1
            blob.data[...] = made_up(number, blob.shape, spread)
        inputs = {blob: made_up(10000 + i, shapes[blob], 1) for i, blob in enumerate(golden["inputs"])}
        net.forward(**inputs)
        # Every blob roughly, first to last: the first that deviates names the layer to blame.
        for blob, (mean, largest, deviation) in golden["forward_stats"].items():
            if blob in net.blobs:  # and no copy that Caffe's Split layers made
                data = net.blobs[blob].data
                got = [data.mean(dtype=np.float64), np.abs(data).max(), data.std(dtype=np.float64)]
                np.testing.assert_allclose(got, [mean, largest, deviation], 1e-3, 1e-5 * largest, err_msg=blob)
        assert set(wanted) == set(net.outputs)
        for key, value in wanted.items():
            np.testing.assert_allclose(net.blobs[key].data, value, 0, 1e-5 * np.abs(value).max(), err_msg=key)
