"""The filters of the first layer and what they make of a digit, as one picture."""

from __future__ import annotations

import sys
import tempfile

import numpy as np
from _digits import DIGITS, train

import netrun.pycaffe as caffe
from netrun.draw_png import picture_of


def tiles(planes: np.ndarray, side: int = 6, gap: int = 1) -> np.ndarray:
    """Planes N H W, each scaled to 0..1 and its pixels drawn large, in a square of tiles."""
    low, high = planes.min((1, 2), keepdims=True), planes.max((1, 2), keepdims=True)
    planes = (planes - low) / np.maximum(high - low, 1e-9)
    across = int(np.ceil(np.sqrt(len(planes))))
    planes = np.pad(planes, ((0, across**2 - len(planes)), (0, gap), (0, gap)), constant_values=1)
    height, width = planes.shape[1:]
    square = (
        planes.reshape(across, across, height, width).transpose(0, 2, 1, 3).reshape(across * height, across * width)
    )
    return square.repeat(side, 0).repeat(side, 1)


def main(out: str = "filters.png") -> str:
    """Writes the picture; returns its name."""
    with tempfile.TemporaryDirectory() as folder:
        net = caffe.Net(str(DIGITS / "net.prototxt"), train(folder), caffe.TEST)
    net.forward()
    filters = tiles(net.params["conv1"][0].data[:, 0], side=12)
    features = tiles(net.blobs["conv1"].data[0], side=6)
    height = max(len(filters), len(features))
    parts = [np.pad(p, ((0, height - len(p)), (0, 12)), constant_values=1) for p in (filters, features)]
    levels = 255 * np.concatenate(parts, axis=1)
    with open(out, "wb") as stream:
        stream.write(picture_of(np.repeat(levels[..., np.newaxis], 3, axis=2)))
    print(out)
    return out


if __name__ == "__main__":
    main(*sys.argv[1:])
