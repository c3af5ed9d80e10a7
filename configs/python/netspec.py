"""A net written as a program, and a loop that trains it step by step."""

from __future__ import annotations

import tempfile

from _digits import DIGITS, solver_for

import netrun.pycaffe as caffe
from netrun.pycaffe import layers as L
from netrun.pycaffe import params as P


def net(source: str, batch: int, depth: int = 2) -> str:
    """A convnet of so many stages as prototxt."""
    n = caffe.NetSpec()
    n.data, n.label = L.Data(
        source=source, backend=P.Data.LMDB, batch_size=batch, transform_param={"scale": 1 / 16}, ntop=2
    )
    top = n.data
    for stage in range(1, depth + 1):
        n[f"conv{stage}"] = L.Convolution(
            top, kernel_size=3, pad=1, num_output=16 * stage, weight_filler={"type": "msra"}
        )
        n[f"relu{stage}"] = L.ReLU(n[f"conv{stage}"], in_place=True)
        top = n[f"pool{stage}"] = L.Pooling(n[f"relu{stage}"], kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.score = L.InnerProduct(top, num_output=10, weight_filler={"type": "xavier"})
    n.loss = L.SoftmaxWithLoss(n.score, n.label)
    n.accuracy = L.Accuracy(n.score, n.label)
    return str(n.to_proto())


def main(iterations: int = 60) -> tuple[float, float]:
    """Returns the first and the last loss."""
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/net.prototxt"
        with open(file, "w") as stream:
            stream.write(net(str(DIGITS / "digits_train_lmdb"), 64))
        solver = solver_for(file, folder)
        losses = []
        for i in range(iterations):
            solver.step(1)
            losses.append(float(solver.net.blobs["loss"].data))
            if i % 20 == 0:
                print(f"iteration {i}: loss {losses[-1]:.4f}, accuracy {float(solver.net.blobs['accuracy'].data):.3f}")
    print(f"loss {losses[0]:.4f} at first, {losses[-1]:.4f} at last")
    return losses[0], losses[-1]


if __name__ == "__main__":
    main()
