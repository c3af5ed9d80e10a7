"""Layers in Python, and what is written to HDF5: the host's own steps."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netrun.config import schema
from netrun.config.upgrade import parse_net
from netrun.errors import ConfigError, DataError
from netrun.net import Net
from netrun.solver import Solver

X = """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 } } }"""


def python(layer: str, ends: str, param_str: str = "", more: str = "") -> str:
    return (
        f'layer {{ name: "p" type: "Python" {ends} {more} python_param {{ module: "cases.python_layers" '
        f'layer: "{layer}" param_str: "{param_str}" }} }}'
    )


def net_of(text: str, phase: int = schema.TEST, **more: Any) -> Net:
    return Net(parse_net("force_backward: true " + text)[0], phase, **more)


def losses_of(text: str, iterations: int, rate: float) -> list[float]:
    """The loss of every iteration of a training."""
    message = schema.SolverParameter(lr_policy="fixed", base_lr=rate, max_iter=iterations, snapshot_after_train=False)
    message.net_param.CopyFrom(parse_net(text)[0])
    losses: list[float] = []
    with Solver(message) as solver:
        solver.on_iteration.append(lambda _, loss: losses.append(loss))
        solver.solve()
    return losses


ENDS = 'bottom: "x" top: "y"'


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_parameters_and_gradients(device: str) -> None:
    x = np.arange(12, dtype="float32").reshape(4, 3)
    with net_of(X + python("Affine", ENDS, "0.5"), device=device) as net:
        scale, bias = net.params["p"]
        assert float(scale.data[0]) == 2
        bias.data[...] = [1, 2, 3]
        np.testing.assert_array_equal(net.forward(x=x)["y"], 2 * x + [0.5, 1, 1.5])
        dy = np.ones((4, 3), "float32")
        for times in (1, 2):  # parameter gradients add up
            net.backward(y=dy)
            np.testing.assert_array_equal(scale.diff, [times * x.sum()])
            np.testing.assert_array_equal(bias.diff, [times * 2] * 3)
            np.testing.assert_array_equal(net.blobs["x"].diff, 2 * dy)


def test_in_place() -> None:
    x = np.ones((4, 3), "float32")
    with net_of(X + python("Affine", 'bottom: "x" top: "x"', "0")) as net:
        np.testing.assert_array_equal(net.forward(x=x)["x"], 2 * x)


def test_in_place_bottom_and_top_are_one_blob() -> None:
    text = """layer { name: "ip" type: "Power" bottom: "x" top: "y" }"""
    text += python("InPlace", 'bottom: "y" top: "y"') + 'layer { name: "z" type: "Power" bottom: "y" top: "z" }'
    with net_of(X + text) as net:
        for rows in (4, 2):
            net.reshape(x=(rows, 3))
            x = np.array([[1, -1, 2]] * rows, "float32")
            np.testing.assert_array_equal(net.forward(x=x)["z"], 2 * x)
            net.backward(z=np.full((rows, 3), 5))
            np.testing.assert_array_equal(net.blobs["x"].diff, [[10, 5, 10]] * rows)


def test_tops_change_their_shape_and_the_object_lives_on() -> None:
    after = 'layer { name: "r" type: "Reduction" bottom: "y" top: "z" }'
    with net_of(python("Rows", 'top: "y"') + after) as net:
        for i in range(4):
            net.forward()
            assert net.blobs["y"].shape == (1 + i, 3)
            assert float(net.blobs["z"].data) == (1 + i) * 3 * (i + 10)
    with net_of(python("Rows", 'top: "y"'), schema.TRAIN) as net:
        assert not net.forward()["y"].any()


def test_a_loss_in_python_trains() -> None:
    text = """layer { name: "d" type: "DummyData" top: "x" top: "t" dummy_data_param { shape { dim: 4 dim: 3 }
        shape { dim: 4 dim: 2 } data_filler { type: "gaussian" } data_filler { value: 1.5 } } }
        layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 2 } }"""
    text += python("Distance", 'bottom: "ip" bottom: "t" top: "loss"', more="loss_weight: 1")
    losses = losses_of(text, 60, 0.1)
    assert losses[0] == pytest.approx(2.25)
    assert losses[-1] < 0.01 * losses[0]


def test_the_module_is_found_beside_the_prototxt(tmp_path: Path) -> None:
    (tmp_path / "a_layer_of_mine.py").write_text(
        "class Twice:\n"
        "    def setup(self, bottom, top): pass\n"
        "    def reshape(self, bottom, top): top[0].reshape(bottom[0].num, bottom[0].channels)\n"
        "    def forward(self, bottom, top): top[0].data[:] = 2 * bottom[0].data\n"
    )
    net = X + 'layer { name: "p" type: "Python" bottom: "x" top: "y" python_param { '
    (tmp_path / "net.prototxt").write_text(net + 'module: "a_layer_of_mine" layer: "Twice" } }')
    before = list(sys.path)
    with Net(tmp_path / "net.prototxt") as opened:
        np.testing.assert_array_equal(opened.forward(x=np.ones((4, 3)))["y"], np.full((4, 3), 2))
    assert sys.path == before
    del sys.modules["a_layer_of_mine"]


@pytest.mark.parametrize("where", ["setup", "reshape", "forward", "backward"])
def test_an_exception_names_the_layer_and_the_users_line(where: str) -> None:
    def run() -> None:
        with net_of(X + python("Broken", ENDS, where)) as net:
            net.forward(x=np.ones((4, 3)))
            net.backward()

    with pytest.raises(ConfigError) as error:
        run()
    text = str(error.value)
    assert f"p (Python): Broken.{where} fails: RuntimeError: out of luck" in text
    assert "python_layers.py:" in text
    assert isinstance(error.value.__cause__, RuntimeError)


def test_forward_may_reshape_its_tops() -> None:
    """As sources and proposals of detection nets do: how much there is, they know in forward."""
    text = X + python("Late", 'bottom: "x" top: "y" top: "n"', more="loss_weight: 0 loss_weight: 0")
    text += """layer { name: "ip" type: "InnerProduct" bottom: "y" top: "ip" inner_product_param { num_output: 2
        weight_filler { value: 1 type: "constant" } } }
        layer { name: "sum" type: "Reduction" bottom: "ip" top: "sum" }"""
    with net_of(text, schema.TRAIN) as net:
        for rows in (2, 1, 3, 3, 2):
            x = np.zeros((4, 3), "float32")
            x[:rows] = rows
            found = net.forward(x=x)
            assert net.blobs["y"].shape == (rows, 3)
            assert float(found["sum"]) == 2 * 3 * rows * rows
            assert float(found["n"].reshape(())) == rows
            net.clear_param_diffs()
            net.backward(sum=1.0)
            np.testing.assert_array_equal(net.blobs["x"].diff, np.where(x > 0, 2, 0))
            np.testing.assert_array_equal(net.params["ip"][0].diff, np.full((2, 3), rows * rows))
            found = net.forward(start="ip")
            assert float(found["sum"]) == 2 * 3 * rows * rows
        assert net.recording.graph.nodes[1].layer.user.calls == 5


def test_a_source_may_reshape_in_forward_while_a_solver_trains() -> None:
    text = (
        python("LateSource", 'top: "x" top: "t"')
        + """layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
        inner_product_param { num_output: 1 } }
        layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "t" top: "loss" }"""
    )
    losses = losses_of(text, 120, 0.05)
    assert losses[-1] < 0.01 * losses[0]


def test_what_is_written_in_reshape_is_there_in_forward_and_a_bottom_may_be_written() -> None:
    with net_of(X + python("Broken", 'bottom: "x" top: "y"', "write")) as net:
        net.forward(x=np.zeros((4, 3)))
        np.testing.assert_array_equal(net.blobs["y"].data, np.full((4, 3), 5))
        np.testing.assert_array_equal(net.blobs["x"].data, np.ones((4, 3)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('module: "no_such_module_here" layer: "A"', 'no Python module "no_such_module_here"'),
        ('module: "cases.python_layers" layer: "A"', 'no class "A"'),
        ('module: "cases.python_layers"', "has no layer"),
        ('layer: "A"', "has no module"),
        ('module: "cases.python_layers" layer: "Unfinished"', "no method setup"),
        ('module: "cases.python_layers" layer: "Half"', "no method reshape, forward"),
    ],
)
def test_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        net_of(X + f'layer {{ name: "p" type: "Python" bottom: "x" top: "y" python_param {{ {text} }} }}')


OUT = """layer { name: "l" type: "Input" top: "l" input_param { shape { dim: 4 } } }
    layer { name: "o" type: "HDF5Output" bottom: "x" bottom: "l" hdf5_output_param { file_name: "%s" } }"""


def test_hdf5_output_is_there_whole_when_the_net_is_closed(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    file = tmp_path / "out.h5"
    file.write_text("old")
    x = np.arange(12, dtype="float32").reshape(4, 3)
    with net_of(X + OUT % file) as net:
        for i in range(3):
            net.forward(x=x + i, l=np.arange(4) + 10 * i)
        assert file.read_text() == "old"
    with h5py.File(file) as written:
        assert sorted(written) == ["data", "label"]
        assert written["data"].dtype == np.float32
        np.testing.assert_array_equal(written["data"], np.concatenate([x, x + 1, x + 2]))
        np.testing.assert_array_equal(written["label"], np.concatenate([np.arange(4) + 10 * i for i in range(3)]))
    assert [p.name for p in tmp_path.iterdir()] == ["out.h5"]


def test_hdf5_output_that_cannot_be_written(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    with net_of(X + OUT % (tmp_path / "absent" / "out.h5")) as net, pytest.raises(DataError, match="absent"):
        net.forward(x=np.ones((4, 3)), l=np.ones(4))
    with pytest.raises(ConfigError, match="file_name"):
        net_of(X + OUT % "")


def test_infogain_matrix_from_a_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    gain, x = rng.random((3, 3)).astype("float32"), rng.normal(size=(4, 3))
    file = tmp_path / "gain.binaryproto"
    file.write_bytes(schema.BlobProto(num=1, channels=1, height=3, width=3, data=gain.ravel()).SerializeToString())
    text = (
        X
        + """layer { name: "l" type: "Input" top: "l" input_param { shape { dim: 4 } } }
        layer { name: "t" type: "InfogainLoss" bottom: "x" bottom: "l" top: "y"
          infogain_loss_param { source: "%s" } }"""
    )
    p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    labels = np.array([0, 2, 1, 1])
    with net_of(text % file, dtype="float64") as net:
        y = net.forward(x=x, l=labels)["y"]
        assert float(y) == pytest.approx(-(gain[labels] * np.log(p)).sum() / 4, rel=1e-6)
    for content, words in ((b"\xff\xff", "no BlobProto"), (b"", "got 0")):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=words):
            net_of(text % file)
    with pytest.raises(ConfigError, match="cannot be read"):
        net_of(text % (tmp_path / "absent"))
