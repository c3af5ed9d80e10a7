"""Small databases and layers for the tests of netrun.data."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from netrun.config import schema
from netrun.data.datum import pack
from netrun.data.open import open_feeder
from netrun.data.write import key_of, write_lmdb

MakeDb = Callable[..., Path]
MakeLayer = Callable[..., schema.LayerParameter]
LabelsOf = Callable[..., list[int]]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Every feeder and pool of a test must be gone when it ends."""
    yield
    left = [t.name for t in threading.enumerate() if t.name.startswith("netrun-")]
    assert not left


@pytest.fixture
def make_db(tmp_path: Path) -> MakeDb:
    """make_db(count, shape): raw records; all pixels of record i are i (mod 251) + their flat position, label i."""

    def make(
        count: int = 7, shape: tuple[int, int, int] = (1, 4, 5), name: str = "db", label: Callable[[int], int] = int
    ) -> Path:
        ramp = np.arange(int(np.prod(shape)))
        records = (
            (key_of(i), pack(shape, ((ramp + i % 251) % 256).astype(np.uint8).tobytes(), label(i)))
            for i in range(count)
        )
        write_lmdb(tmp_path / name, records)
        return tmp_path / name

    return make


@pytest.fixture
def make_layer() -> MakeLayer:
    """make_layer(source, batch, data="...", transform="..."): a Data layer; the strings are prototxt."""

    def make(
        source: Path | str, batch: int = 3, data: str = "", transform: str = "", label: bool = True
    ) -> schema.LayerParameter:
        text = f"""name: "input" type: "Data" top: "data" {'top: "label"' if label else ""}
            data_param {{ source: "{source}" batch_size: {batch} backend: LMDB {data} }}
            transform_param {{ {transform} }}"""
        return text_format.Parse(text, schema.LayerParameter())

    return make


@pytest.fixture
def labels_of() -> LabelsOf:
    """labels_of(layer, batches, **options): what the label top of a feeder in TRAIN brings."""

    def read(layer: schema.LayerParameter, batches: int, **options: Any) -> list[int]:
        feeder = open_feeder(layer, schema.TRAIN, **options)
        try:
            return [int(v) for _ in range(batches) for v in feeder.next()[1]]
        finally:
            feeder.close()

    return read
