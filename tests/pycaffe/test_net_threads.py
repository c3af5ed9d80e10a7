"""caffe.Net in threads and processes, and what the binding costs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

import netrun
import netrun.pycaffe as caffe
from netrun.errors import NetrunError


def test_the_binding_costs_little() -> None:
    """LeNet at batch 1 takes at most 1.5 times as long as in the bare session that keeps only its outputs."""
    program = Path(__file__).with_name("overhead.py")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    found = subprocess.run([sys.executable, program], env=env, capture_output=True, text=True, check=True).stdout
    assert float(found.split()[0]) < 1.5, found


def test_threads_do_not_share_a_mode(simple: str) -> None:
    found: dict[str, Any] = {}

    def other() -> None:
        caffe.set_mode_gpu()
        caffe.set_device(63)
        try:
            caffe.Net(simple, caffe.TEST)
        except NetrunError as error:
            found["gpu"] = str(error)
        caffe.set_mode_cpu()
        found["cpu"] = caffe.Net(simple, caffe.TEST).device.name

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert found["cpu"] == "cpu"
    assert "cuda" in found["gpu"]
    assert caffe.Net(simple, caffe.TEST).device.name == "cpu"


def test_nets_on_different_devices_at_once_and_one_net_in_many_threads(deployed: str) -> None:
    file, data = deployed, np.random.default_rng(3).random((4, 3, 6, 6), np.float32)
    one = caffe.Net(file, caffe.TEST)
    one.save(f"{file}.caffemodel")
    wanted = one.forward(data=data)["sum"].copy()
    wrong: list[Any] = []

    def own_net(device: str) -> None:
        try:
            net = netrun.Net(file, weights=f"{file}.caffemodel", device=device)
            for i in range(10):
                net.reshape(data=(1 + i % 3, 3, 6, 6))
                net.reshape(data=(4, 3, 6, 6))
                np.testing.assert_allclose(net.forward(data=data)["sum"], wanted, 1e-5, 1e-5)
                net.backward(sum=np.ones(4))
        except Exception as error:
            wrong.append((device, error))

    def same_net() -> None:
        try:
            for _ in range(50):
                one.forward(data=data)
                one.blobs["conv"].data.sum()
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=own_net, args=(device,)) for device in ("cpu", "reference", "cpu", "reference")]
    threads += [threading.Thread(target=same_net) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    np.testing.assert_array_equal(one.forward(data=data)["sum"], wanted)


def test_nets_run_in_several_threads(deployed: str) -> None:
    file, data = deployed, np.random.default_rng(3).random((4, 3, 6, 6), np.float32)
    nets = [caffe.Net(file, caffe.TEST) for _ in range(3)]
    wanted = [net.forward(data=data)["sum"].copy() for net in nets]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(50):
            if (nets[i].forward(data=data)["sum"] != wanted[i]).any():
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
