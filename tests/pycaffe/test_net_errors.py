"""caffe.Net used wrongly: one error, of the kind that scripts for Caffe catch."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import netrun.pycaffe as caffe
from netrun.errors import NetrunError

Write = Callable[..., str]


def test_wrong_use_is_told(net: Any, simple: str, deployed: str, tmp_path: Path) -> None:
    deploy = caffe.Net(deployed, caffe.TEST)
    cases: list[tuple[type[Exception], str, Callable[[], Any]]] = [
        (RuntimeError, "nowhere.prototxt", lambda: caffe.Net("nowhere.prototxt", caffe.TEST)),
        (RuntimeError, "gone.caffemodel", lambda: caffe.Net(simple, caffe.TEST, weights="gone.caffemodel")),
        (RuntimeError, "gone.solver", lambda: caffe.get_solver("gone.solver")),
        (KeyError, 'no blob "conv1".*"conv"', lambda: net.blobs["conv1"]),
        (KeyError, "conf", lambda: net.params["conf"]),
        (KeyError, 'no blob "x"', lambda: net.forward(blobs=["x"])),
        (ValueError, 'no layer "ipp".*"ip"', lambda: net.forward(end="ipp")),
        (ValueError, "no layer", lambda: net.backward(start="nobody")),
        (Exception, "do not match net inputs", lambda: deploy.forward(dat=np.zeros((4, 3, 6, 6)))),
        (Exception, "not batch sized", lambda: deploy.forward(data=np.zeros((3, 3, 6, 6)))),
        (ValueError, "4 3 6 6.*4 3 6 5", lambda: deploy.forward(data=np.zeros((4, 3, 6, 5)))),
        (TypeError, "takes numbers", lambda: deploy.forward(data=np.full((4, 3, 6, 6), "x"))),
        (Exception, "do not match net outputs", lambda: deploy.backward(conv=np.zeros((4, 2, 4, 4)))),
        (ValueError, "negative", lambda: deploy.blobs["data"].reshape(-1, 3)),
        (TypeError, "whole numbers", lambda: deploy.blobs["data"].reshape("a")),
        (TypeError, "network_file, phase", lambda: caffe.Net(simple)),
    ]
    for kind, text, act in cases:
        with pytest.raises(kind, match=f"(?s){text}") as caught:
            act()
        assert isinstance(caught.value, NetrunError), text
    net.forward()


def test_odd_values_and_arguments_are_told(net: Any, deployed: str) -> None:
    """Whatever a script hands over, the error is netrun's, of the kind that scripts catch; the net goes on."""
    deploy = caffe.Net(deployed, caffe.TEST)
    file = deployed
    shape = (4, 3, 6, 6)
    ones = np.ones(shape, np.float32)
    wanted = deploy.forward(data=ones)["sum"].copy()
    cases: list[tuple[type[Exception], str, Callable[[], Any]]] = [
        (TypeError, "complex128", lambda: deploy.forward(data=ones.astype(complex))),
        (TypeError, "datetime64", lambda: deploy.forward(data=np.zeros(shape, "datetime64[s]"))),
        (TypeError, "takes numbers", lambda: deploy.forward(data=np.zeros(shape, [("a", "f4")]))),
        (TypeError, "different lengths", lambda: deploy.forward(data=[[1, 2], [3]])),
        (TypeError, "takes numbers", lambda: deploy.forward(data=np.full(shape, object()))),
        (ValueError, "batch sized", lambda: deploy.forward(data=np.float32(3))),
        (ValueError, "batch sized", lambda: deploy.forward(data=None)),
        (ValueError, 'no layer "3"', lambda: deploy.forward(start=3)),
        (KeyError, 'no blob "0"', lambda: deploy.blobs[0]),
        (KeyError, 'no layer "cnov".*"conv"', lambda: deploy.layer_dict["cnov"]),
        (KeyError, 'no layer "cnov".*"conv"', lambda: deploy.top_names["cnov"]),
        (ValueError, "no layer", lambda: deploy._bottom_ids(99)),
        (TypeError, "name of a file", lambda: caffe.Net(3, caffe.TEST)),
        (TypeError, "level", lambda: caffe.Net(file, caffe.TEST, level="a")),
        (TypeError, "stages", lambda: caffe.Net(file, caffe.TEST, stages=3)),
        (TypeError, "name of a file", lambda: deploy.save(None)),
        (TypeError, "wants a net", lambda: deploy.share_with(3)),
        (TypeError, "whole numbers", lambda: deploy.blobs["data"].reshape(2.5, 3)),
        (TypeError, "wants a function", lambda: deploy.before_forward(3)),
        (TypeError, "seed", lambda: caffe.set_random_seed("a")),
        (TypeError, "GPU", lambda: caffe.set_device("a")),
        (TypeError, "name of a file", lambda: caffe.get_solver(3)),
        (ValueError, "one number", lambda: deploy.forward_all(data=3)),
        (ValueError, "resize_image", lambda: caffe.io.resize_image(np.zeros((3, 3)), (5, 5))),
        (ValueError, "resize_image", lambda: caffe.io.resize_image(np.zeros((3, 3, 3)), (0, 5))),
        (ValueError, "oversample", lambda: caffe.io.oversample([], (9, 9))),
        (OSError, "written", lambda: caffe.draw.draw_net_to_file(caffe.NetSpec().to_proto(), "/nowhere/a.svg")),
        (TypeError, "pickled", lambda: pickle.dumps(deploy)),
        (TypeError, "pickled", lambda: copy.deepcopy(deploy.blobs["data"])),
    ]
    for kind, text, act in cases:
        with pytest.raises(kind, match=text) as caught:
            act()
        assert isinstance(caught.value, NetrunError), text
    np.testing.assert_array_equal(deploy.forward(data=ones)["sum"], wanted)
    assert deploy.forward(blobs="conv", data=ones.tolist()).keys() == {"sum", "conv"}
    assert deploy.forward(start="sum", end="conv").keys() == {"conv"}  # nothing runs, as in pycaffe


MEMORY = """layer { name: "m" type: "MemoryData" top: "data" top: "label"
  memory_data_param { batch_size: 2 channels: 1 height: 2 width: 2 } }"""


@pytest.mark.parametrize(
    ("data", "labels"),
    [((4, 2, 2), 4), ((4, 2, 2, 2), 4), ((4, 1, 3, 2), 4), ((4, 1, 2, 2), 6), ((3, 1, 2, 2), 3)],
)
def test_arrays_that_do_not_fit_are_runtime_errors(write: Write, data: Any, labels: int) -> None:
    net = caffe.Net(write(MEMORY), caffe.TEST)
    with pytest.raises(RuntimeError) as caught:
        net.set_input_arrays(np.zeros(data, np.float32), np.zeros(labels, np.float32))
    assert isinstance(caught.value, NetrunError)
    net.set_input_arrays(np.ones((2, 1, 2, 2), np.float32), np.zeros((2, 1, 1, 1), np.float32))
    assert net.forward()["data"].all()
