"""Blobs that somebody looked at, on a device whose memory is not the host's: one newest value, whatever its shapes."""

from __future__ import annotations

import numpy as np

from layers_cuda.device import Cuda
from netrun.config.upgrade import parse_net
from netrun.net import Net
from netrun.types import Spec, Tensor
from netrun.visible import Visible


def test_a_copy_of_another_shape_is_out_of_date(device: Cuda) -> None:
    """A batch of another size comes into the same memory: what was looked at before is not sent over it."""
    memory = Visible(device)
    old, new = Tensor("data", Spec((3, 4))), Tensor("data", Spec((2, 5)))
    memory.put(old, memory.array(old), np.ones((3, 4)))
    held = memory.look(old, memory.array(old))
    memory.put(new, memory.array(new), np.full((2, 5), 2.0))
    memory.send()
    memory.renew()
    memory.send()
    assert (memory.read(new) == 2).all()
    assert (held == 1).all()
    memory.look(new, memory.array(new))[...] = 3  # what was written goes along into another shape
    assert (memory.look(old, memory.array(old)).reshape(-1)[:10] == 3).all()


def test_a_top_that_is_a_parameter_has_one_copy(device: Cuda) -> None:
    """What is written into the parameter is not overwritten by what somebody saw of the top."""
    message = """layer { name: "p" type: "Parameter" top: "p" parameter_param { shape { dim: 3 } } }
        layer { name: "twice" type: "Power" bottom: "p" top: "twice" power_param { scale: 2 } }"""
    with Net(parse_net(message, "net")[0], device=device) as net:
        value = net.params["p"][0].data
        for i in range(4):
            value[...] = i
            net.forward()
            assert (net.blobs["p"].data == i).all()
            assert (net.blobs["twice"].data == 2 * i).all()
