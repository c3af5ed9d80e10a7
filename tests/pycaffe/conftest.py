"""Nets that several tests of the mirror use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import netrun.pycaffe as caffe

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


DEPLOY = """force_backward: true
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 dim: 6 dim: 6 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 2 kernel_size: 3
  weight_filler { type: "gaussian" std: 0.5 } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "sum" type: "Reduction" bottom: "conv" top: "sum" reduction_param { axis: 1 } }
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


@pytest.fixture
def deployed(write: Callable[[str], str]) -> str:
    """A file with a net for use."""
    return write(DEPLOY)


@pytest.fixture
def net(simple: str) -> Any:
    """The small net, with labels."""
    made = caffe.Net(simple, caffe.TRAIN)
    made.blobs["label"].data[...] = np.random.default_rng(1).integers(13, size=made.blobs["label"].data.shape)
    return made
