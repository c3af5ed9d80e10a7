"""Net surgery: the inner products of a trained classifier become convolutions, so that it slides over larger images."""

from __future__ import annotations

import tempfile

import numpy as np
from _digits import DIGITS, train

import netrun
import netrun.pycaffe as caffe
from netrun.pycaffe import layers as L


def sliding(size: int) -> str:
    """The digits net with convolutions in place of inner products, for images of that size."""
    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": [1, 1, size, size]})
    n.conv1 = L.Convolution(n.data, num_output=32, kernel_size=3, pad=1)
    n.relu1 = L.ReLU(n.conv1, in_place=True)
    n.pool1 = L.Pooling(n.relu1, kernel_size=2, stride=2)
    n.conv2 = L.Convolution(n.pool1, num_output=64, kernel_size=3, pad=1)
    n.relu2 = L.ReLU(n.conv2, in_place=True)
    n.pool2 = L.Pooling(n.relu2, kernel_size=2, stride=2)
    n["ip1-conv"] = L.Convolution(n.pool2, num_output=128, kernel_size=2)
    n.relu3 = L.ReLU(n["ip1-conv"], in_place=True)
    n["ip2-conv"] = L.Convolution(n.relu3, num_output=10, kernel_size=1)
    n.prob = L.Softmax(n["ip2-conv"])
    return str(n.to_proto())


def main() -> float:
    """Returns how far the map's only score lies from the classifier's, on an image of the usual size."""
    with tempfile.TemporaryDirectory() as folder:
        weights = train(folder)
        classifier = netrun.load(DIGITS / "net.prototxt", weights)
        small, large = (caffe.Net(_written(folder, size), caffe.TEST, weights=weights) for size in (8, 24))
        for net in (small, large):
            for name in ("ip1", "ip2"):
                target = net.params[f"{name}-conv"]
                target[0].data.flat = classifier.params[name][0].data.flat  # the same numbers, as filters
                target[1].data[...] = classifier.params[name][1].data
        image = np.random.default_rng(0).random((1, 1, 8, 8)).astype(np.float32)
        wanted = classifier.forward(data=image)["prob"]
        found = small.forward(data=image)["prob"]
        scores = large.forward(data=np.tile(image, (1, 1, 3, 3)))["prob"]
        difference = float(np.abs(found.reshape(-1) - wanted.reshape(-1)).max())
        print(f"one score for 8x8: differs by {difference:.2g}; for 24x24 a map of {scores.shape[2]}x{scores.shape[3]}")
        return difference


def _written(folder: str, size: int) -> str:
    name = f"{folder}/sliding{size}.prototxt"
    with open(name, "w") as stream:
        stream.write(sliding(size))
    return name


if __name__ == "__main__":
    main()
