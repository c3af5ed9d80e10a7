"""A layer and a loss written in Python, beside the built-in ones that compute the same."""

from __future__ import annotations

import sys
import tempfile

import numpy as np

import netrun.pycaffe as caffe
from netrun.pycaffe import layers as L


class Softplus(caffe.Layer):
    """y = log(1 + exp(x)), which the built-in layer BNLL computes."""

    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        top[0].data[...] = np.logaddexp(0, bottom[0].data)

    def backward(self, top, propagate_down, bottom):
        if propagate_down[0]:
            bottom[0].diff[...] = top[0].diff / (1 + np.exp(-bottom[0].data))


class EuclideanLoss(caffe.Layer):
    """y = sum of (a - b)^2 / 2 N"""

    def setup(self, bottom, top):
        if len(bottom) != 2:
            raise ValueError("a distance needs two bottoms")

    def reshape(self, bottom, top):
        if bottom[0].count != bottom[1].count:
            raise ValueError("the bottoms must have as many values")
        self.diff = np.zeros_like(bottom[0].data)
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.diff[...] = bottom[0].data - bottom[1].data
        top[0].data[...] = np.sum(self.diff**2) / bottom[0].num / 2

    def backward(self, top, propagate_down, bottom):
        for i, sign in enumerate((1, -1)):
            if propagate_down[i]:
                bottom[i].diff[...] = sign * top[0].diff * self.diff / bottom[i].num


def net(in_python: bool, folder: str) -> caffe.Net:
    """Two inner products with the layer between them and the loss behind."""
    n = caffe.NetSpec()
    n.data, n.target = L.Input(shape=[{"dim": [8, 5]}, {"dim": [8, 3]}], ntop=2)
    filler = {"type": "gaussian", "std": 0.5}
    n.ip1 = L.InnerProduct(n.data, num_output=6, weight_filler=filler)
    if in_python:
        n.act = L.Python(n.ip1, module="python_layer", layer="Softplus")
    else:
        n.act = L.BNLL(n.ip1)
    n.ip2 = L.InnerProduct(n.act, num_output=3, weight_filler=filler)
    if in_python:
        n.loss = L.Python(n.ip2, n.target, module="python_layer", layer="EuclideanLoss", loss_weight=1)
    else:
        n.loss = L.EuclideanLoss(n.ip2, n.target)
    file = f"{folder}/net{in_python}.prototxt"
    with open(file, "w") as stream:
        stream.write(f"force_backward: true\n{n.to_proto()}")
    return caffe.Net(file, caffe.TRAIN)


def main() -> float:
    """Returns the largest difference between the two nets' losses and gradients."""
    sys.modules.setdefault("python_layer", sys.modules[__name__])
    with tempfile.TemporaryDirectory() as folder:
        nets = [net(True, folder), net(False, folder)]
    nets[1].share_with(nets[0])
    rng = np.random.default_rng(0)
    given = {"data": rng.normal(size=(8, 5)), "target": rng.normal(size=(8, 3))}
    losses = [float(one.forward(**given)["loss"].reshape(())) for one in nets]
    for one in nets:
        one.backward()
    pairs = [(nets[0].params[k][0].diff, nets[1].params[k][0].diff) for k in ("ip1", "ip2")]
    pairs += [(nets[0].blobs[k].diff, nets[1].blobs[k].diff) for k in ("data", "target")]
    difference = max(abs(losses[0] - losses[1]), *(float(np.abs(a - b).max()) for a, b in pairs))
    print(f"loss {losses[0]:.6f}; in Python and built in they differ by at most {difference:.2g}")
    return difference


if __name__ == "__main__":
    main()
