"""Data layers recorded from Caffe, replayed batch by batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from netrun.config import schema
from netrun.data.open import data_shapes, open_feeder

GOLDEN = Path(__file__).parents[1] / "golden"

CASES = sorted(p.stem for p in (GOLDEN / "data_layers").glob("*.npz") if p.stem != "memory_data")

# Largest difference in levels of an 8-bit pixel: decoders and colour conversions may round differently.
LEVELS = {"jpeg": 1.0}
NEEDS = {"leveldb": "plyvel", "hdf5": "h5py", "hdf5_all": "h5py", "hdf5_one_top": "h5py"}


def layer_of(case: dict[str, Any]) -> schema.LayerParameter:
    net = text_format.Parse(str(case["prototxt"]), schema.NetParameter())
    return net.layer[0]


@pytest.mark.parametrize("name", CASES)
def test_batches_are_those_of_caffe(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with np.load(GOLDEN / "data_layers" / f"{name}.npz") as stored:
        case = dict(stored)
    monkeypatch.chdir(GOLDEN)
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"this needs {NEEDS[name]}, which is not installed")
    layer = layer_of(case)
    phase = getattr(schema, str(case["phase"]))
    scale = layer.transform_param.scale
    level = LEVELS.get(name, 0.0) * scale
    exact = not level and scale == 1 and not layer.transform_param.mean_value and not layer.transform_param.mean_file

    feeder = open_feeder(layer, phase)
    try:
        expected_shapes = [tuple(case[f"setup_shape_{top}"]) for top in layer.top]
        assert feeder.names == tuple(layer.top)
        assert list(feeder.shapes) == expected_shapes
        assert data_shapes(layer, phase) == expected_shapes
        for step in range(int(case["batches"])):
            batch = feeder.next()
            assert len(batch) == len(layer.top)
            for top, got in zip(layer.top, batch, strict=True):
                wanted = case[f"batch{step}_{top}"]
                assert got.shape == wanted.shape
                assert got.dtype == np.float32
                if exact or top == "label":
                    np.testing.assert_array_equal(got, wanted)
                else:
                    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=level + 1e-6 * np.abs(wanted).max())
    finally:
        feeder.close()


def test_all_recorded_kinds_are_replayed() -> None:
    assert len(CASES) == 26
