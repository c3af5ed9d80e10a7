"""Nets that several tests of the mirror use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

SIMPLE = """name: "simple" force_backward: true
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
  num: 5 channels: 2 height: 3 width: 4 num: 5 channels: 1 height: 1 width: 1
  data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { decay_mult: 1 } param { decay_mult: 0 }
  convolution_param { num_output: 11 kernel_size: 2 pad: 3 weight_filler { type: "gaussian" std: 1 }
    bias_filler { type: "constant" value: 2 } } }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip_blob" inner_product_param { num_output: 13
  weight_filler { type: "gaussian" std: 2.5 } bias_filler { type: "constant" value: -3 } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip_blob" bottom: "label" top: "loss" }
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    """``write(text)``: a file of that text, by name."""
    count = iter(range(100))

    def made(text: str, name: str = "") -> str:
        path = tmp_path / (name or f"net{next(count)}.prototxt")
        path.write_text(text)
        return str(path)

    return made


@pytest.fixture
def simple(write: Callable[[str], str]) -> str:
    """A file with a small net that needs nothing."""
    return write(SIMPLE)
