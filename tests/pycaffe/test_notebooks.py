"""Notebooks that train with pycaffe, as Caffe's examples do: learning from records, fine-tuning."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import netrun.pycaffe as caffe
from netrun.pycaffe import layers as L
from netrun.pycaffe import params as P
from netrun.pycaffe.proto import caffe_pb2

Write = Callable[..., str]


@pytest.fixture(autouse=True)
def beside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder to write to."""
    monkeypatch.chdir(tmp_path)


def small(source: str, batch: int) -> str:
    n = caffe.NetSpec()
    n.data, n.label = L.Data(
        batch_size=batch, backend=P.Data.LMDB, source=source, transform_param={"scale": 1 / 255}, ntop=2
    )
    n.conv1 = L.Convolution(n.data, kernel_size=3, num_output=6, weight_filler={"type": "xavier"})
    n.pool1 = L.Pooling(n.conv1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.relu1 = L.ReLU(n.pool1, in_place=True)
    n.score = L.InnerProduct(n.relu1, num_output=3, weight_filler={"type": "xavier"})
    n.loss = L.SoftmaxWithLoss(n.score, n.label)
    return str(n.to_proto())


@pytest.fixture
def records(tmp_path: Path) -> str:
    """An LMDB written as scripts do: image i is i everywhere, its label i % 3."""
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(tmp_path / "records"), map_size=10**7) as env, env.begin(write=True) as transaction:
        for i in range(12):
            datum = caffe.io.array_to_datum(np.full((1, 6, 6), 20 * i, np.uint8), i % 3)
            transaction.put(f"{i:08}".encode("ascii"), datum.SerializeToString())
    return str(tmp_path / "records")


def test_the_learning_notebook(records: str, write: Write) -> None:
    write(small(records, 4), "train.prototxt")
    write(small(records, 6), "test.prototxt")
    s = caffe_pb2.SolverParameter()
    s.random_seed = 0xCAFFE
    s.train_net = "train.prototxt"
    s.test_net.append("test.prototxt")
    s.test_interval, s.max_iter, s.type = 500, 10000, "SGD"
    s.test_iter.append(100)
    s.base_lr, s.momentum, s.weight_decay, s.lr_policy, s.gamma, s.power = 0.01, 0.75, 5e-4, "inv", 0.0001, 0.75
    s.snapshot_prefix, s.solver_mode = "small", caffe_pb2.SolverParameter.GPU
    solver = caffe.get_solver(write(str(s), "solver.prototxt"))
    assert [(k, v.data.shape) for k, v in solver.net.blobs.items()][:2] == [("data", (4, 1, 6, 6)), ("label", (4,))]
    assert set(solver.net.forward()) == set(solver.test_nets[0].forward()) == {"loss"}
    losses, scores = np.zeros(30), np.zeros((30, 6, 3))
    for i in range(30):
        solver.step(1)
        losses[i] = solver.net.blobs["loss"].data
        solver.test_nets[0].forward(start="conv1")
        scores[i] = solver.test_nets[0].blobs["score"].data[:6]
        if i % 10 == 0:
            test = solver.test_nets[0]
            test.forward()
            right = sum(test.blobs["score"].data.argmax(1) == test.blobs["label"].data)
            assert 0 <= right <= 6
    assert losses[-5:].mean() < losses[:5].mean()
    assert (scores[0] != scores[-1]).any()
    assert solver.net.params["conv1"][0].diff[:, 0].reshape(2, 3, 3, 3).transpose(0, 2, 1, 3).shape == (2, 3, 3, 3)
    nets = [solver.net, *solver.test_nets]
    del solver
    gc.collect()
    assert all(np.isfinite(net.forward()["loss"]) for net in nets)


def test_the_fine_tuning_notebook() -> None:
    def style(learn_all: bool) -> str:
        learned, frozen = [{"lr_mult": 1, "decay_mult": 1}, {"lr_mult": 2, "decay_mult": 0}], [{"lr_mult": 0}] * 2
        n = caffe.NetSpec()
        n.data = L.DummyData(shape={"dim": [1, 3, 12, 12]}, data_filler={"type": "gaussian"})
        n.label = L.DummyData(shape={"dim": [1]})
        filler = {"weight_filler": {"type": "gaussian", "std": 0.01}, "bias_filler": {"type": "constant", "value": 0.1}}
        n.conv1 = L.Convolution(n.data, kernel_size=3, num_output=4, param=learned if learn_all else frozen, **filler)
        n.relu1 = L.ReLU(n.conv1, in_place=True)
        n.norm1 = L.LRN(n.relu1, local_size=5, alpha=1e-4, beta=0.75)
        n.drop1 = L.Dropout(n.norm1, in_place=True)
        n.__setattr__("fc_new", L.InnerProduct(n.drop1, num_output=5, param=learned, **filler))
        n.probs = L.Softmax(n.fc_new)
        n.loss, n.acc = L.SoftmaxWithLoss(n.fc_new, n.label), L.Accuracy(n.fc_new, n.label)
        with tempfile.NamedTemporaryFile("w", dir=".", delete=False) as stream:
            stream.write(str(n.to_proto()))
        return stream.name

    caffe.Net(style(True), caffe.TRAIN).save("base.caffemodel")
    s = caffe_pb2.SolverParameter(train_net=style(False), base_lr=0.1, lr_policy="fixed", type="SGD")
    with tempfile.NamedTemporaryFile("w", dir=".", delete=False) as stream:
        stream.write(str(s))
    solver = caffe.get_solver(stream.name)
    solver.net.copy_from("base.caffemodel")
    before = {name: blobs[0].data.copy() for name, blobs in solver.net.params.items()}
    found = []
    for _ in range(5):
        solver.step(1)
        found.append([solver.net.blobs[b].data.copy() for b in ("loss", "acc")])
    assert found[-1][0] < found[0][0]
    assert (solver.net.params["conv1"][0].data == before["conv1"]).all()
    assert (solver.net.params["fc_new"][0].data != before["fc_new"]).any()
