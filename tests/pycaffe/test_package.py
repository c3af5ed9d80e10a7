"""The package as a whole: its members, its modes, its pictures."""

from __future__ import annotations

import importlib
import struct
import sys
import zlib
from pathlib import Path
from xml.etree import ElementTree

import pytest
from google.protobuf import text_format

import netrun
import netrun.pycaffe as caffe
from netrun.cli import main
from netrun.errors import NetrunError

ROOT = Path(__file__).parents[2]
MEMBERS = """Net SGDSolver NesterovSolver AdaGradSolver RMSPropSolver AdaDeltaSolver AdamSolver NCCL Timer init_log log
set_mode_cpu set_mode_gpu set_device Layer get_solver layer_type_list set_random_seed solver_count set_solver_count
solver_rank set_solver_rank set_multiprocess has_nccl __version__ TRAIN TEST Classifier Detector io layers params
NetSpec to_proto draw coord_map net_spec proto"""


def test_members() -> None:
    assert [name for name in MEMBERS.split() if not hasattr(caffe, name)] == []
    for name in (
        "pycaffe",
        "_caffe",
        "io",
        "classifier",
        "detector",
        "draw",
        "net_spec",
        "coord_map",
        "proto.caffe_pb2",
    ):
        importlib.import_module(f"netrun.pycaffe.{name}")
    assert (caffe.TRAIN, caffe.TEST) == (0, 1)
    assert caffe.__version__ == netrun.__version__


def test_layer_types() -> None:
    assert {"Data", "Convolution", "InnerProduct", "Python"} <= set(caffe.layer_type_list())


def test_messages() -> None:
    pb = caffe.proto.caffe_pb2
    net = text_format.Parse('name: "n" layer { name: "a" type: "ReLU" }', pb.NetParameter())
    assert pb.NetParameter.FromString(net.SerializeToString()).layer[0].type == "ReLU"
    assert pb.TRAIN == 0
    assert pb.PoolingParameter.AVE == 1
    assert pb._LAYERPARAMETER is pb.LayerParameter.DESCRIPTOR
    assert pb.V1LayerParameter.CONVOLUTION
    assert pb.SolverParameter(base_lr=1).base_lr == 1
    with pytest.raises(AttributeError):
        _ = pb.Nothing


def test_nccl_and_timer() -> None:
    assert not caffe.has_nccl()
    with pytest.raises(NetrunError):
        caffe.NCCL.new_uid()
    timer = caffe.Timer()
    timer.start()
    timer.stop()
    assert 0 < timer.ms < 1000


def test_numbers_of_solvers() -> None:
    assert (caffe.solver_count(), caffe.solver_rank()) == (1, 0)
    caffe.set_solver_count(2)
    caffe.set_solver_rank(1)
    caffe.set_multiprocess(True)
    assert (caffe.solver_count(), caffe.solver_rank()) == (2, 1)
    caffe.set_solver_count(1)
    caffe.set_solver_rank(0)
    caffe.set_multiprocess(False)


def test_log(simple: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    caffe.log("hello there")
    assert "] hello there" in capsys.readouterr().err
    solver = tmp_path / "s.prototxt"
    solver.write_text(f'net: "{simple}" base_lr: 0.01 lr_policy: "fixed" display: 1')
    caffe.get_solver(str(solver))
    assert not capsys.readouterr().err
    caffe.init_log(0)
    caffe.get_solver(str(solver)).step(1)
    assert "solver.cpp" in capsys.readouterr().err
    caffe.init_log(3)


def test_seeds(simple: str) -> None:
    def weights() -> list[float]:
        return [float(caffe.Net(simple, caffe.TEST).params["ip"][0].data[0, 0]) for _ in range(2)]

    caffe.set_random_seed(5)
    first = weights()
    caffe.set_random_seed(5)
    assert weights() == first
    assert first[0] != first[1]


@pytest.mark.parametrize("path", ["digits/net.prototxt", "mnist/lenet.prototxt", "benchmark/alexnet.prototxt"])
def test_pictures(path: str, tmp_path: Path) -> None:
    net = text_format.Parse((ROOT / "configs" / path).read_text(), caffe.proto.caffe_pb2.NetParameter())
    for rankdir in ("LR", "TB", "BT", "RL"):
        root = ElementTree.fromstring(caffe.draw.draw_net(net, rankdir, "svg"))
        texts = [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")]
        assert {layer.name for layer in net.layer} <= set(texts)
        size = float(root.attrib["width"]), float(root.attrib["height"])
        assert (size[0] > size[1]) == (rankdir in ("LR", "RL"))
        for box in list(root.iter("{http://www.w3.org/2000/svg}rect"))[1:]:
            x, y, w, h = (float(box.attrib[k]) for k in ("x", "y", "width", "height"))
            assert 0 <= x <= size[0] - w
            assert 0 <= y <= size[1] - h
    file = tmp_path / "net.png"
    caffe.draw.draw_net_to_file(net, str(file), "TB", phase=caffe.TEST)
    data = file.read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", data[16:24])
    length = struct.unpack(">I", data[33:37])[0]
    assert len(zlib.decompress(data[41 : 41 + length])) == height * (3 * width + 1)
    with pytest.raises(NetrunError, match="rankdir"):
        caffe.draw.draw_net(net, "UP")


def test_the_command_draws_the_same_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, kinds in (("mnist/lenet_train_test", ("svg", "png")), ("imagenet/googlenet/train_val", ("svg",))):
        path = f"{name}.prototxt"
        net = text_format.Parse((ROOT / "configs" / path).read_text(), caffe.proto.caffe_pb2.NetParameter())
        for ext in kinds:
            assert main(["draw", str(ROOT / "configs" / path), f"a.{ext}", "--rankdir", "LR", "--phase", "TRAIN"]) == 0
            caffe.draw.draw_net_to_file(net, f"b.{ext}", "LR", caffe.TRAIN)
            assert (tmp_path / f"a.{ext}").read_bytes() == (tmp_path / f"b.{ext}").read_bytes()
    assert b"LR 1" in caffe.draw.draw_net(net, "TB", "svg", display_lrm=True)
    assert b"LR 1" not in caffe.draw.draw_net(net, "TB", "svg")


GRAPHVIZ = """
class Part:
    def __init__(self, *names, **attributes): self.names, self.attributes, self.parts = names, attributes, []
    def add_node(self, part): self.parts.append(part)
    def add_edge(self, part): self.parts.append(part)
    def create(self, format):
        labels = [part.attributes["label"] for part in self.parts]
        return repr((format, self.attributes["rankdir"], labels)).encode()
Dot = Node = Edge = Part
"""


def test_graphviz_draws_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pydot.py").write_text(GRAPHVIZ)
    (tmp_path / "dot").write_text("#!/bin/sh\n")
    (tmp_path / "dot").chmod(0o755)
    text = 'layer { name: "a|b" type: "ReLU" bottom: "x" top: "y" }'
    net = text_format.Parse(text, caffe.proto.caffe_pb2.NetParameter())
    own = caffe.draw.draw_net(net, "LR", "svg")
    with pytest.raises(NetrunError, match=r"pydot.*netrun-trainer\[draw\]"):
        caffe.draw.get_pydot_graph(net, "LR")
    with pytest.raises(NetrunError, match="pdf needs graphviz"):
        caffe.draw.draw_net(net, "LR", "pdf")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert caffe.draw.draw_net(net, "LR", "svg") == own  # pydot alone does not draw
    monkeypatch.setenv("PATH", str(tmp_path))
    for ext in ("svg", "pdf"):
        made = caffe.draw.draw_net(net, "LR", ext).decode()
        assert f"'{ext}', 'LR'" in made
        assert r"a\\|b\\n(ReLU)" in made
    assert len(caffe.draw.get_pydot_graph(net, "TB").parts) == 5
    monkeypatch.delitem(sys.modules, "pydot")


def test_labels_of_pictures() -> None:
    net = text_format.Parse((ROOT / "configs/mnist/lenet.prototxt").read_text(), caffe.proto.caffe_pb2.NetParameter())
    conv = next(layer for layer in net.layer if layer.type == "Convolution")
    assert caffe.draw.get_edge_label(conv) == "20"
    assert "kernel 5 stride 1 pad 0" in caffe.draw.get_layer_label(conv, "TB")
    for body, told in (
        ("kernel_size: 2 stride: 2", "kernel 2 stride 2 pad 0"),
        ("kernel_h: 2 kernel_w: 3 stride_h: 1 stride_w: 2 pad_h: 1", "kernel 2x3 stride 1x2 pad 1x0"),
        ("kernel: [2, 3, 3] step: [1, 2, 2] padding: 1", "kernel 2x3x3 stride 1x2x2 pad 1"),
        ("global_pooling: true", "kernel all stride 1 pad 0"),
    ):
        pool = text_format.Parse(f'type: "Pooling" pooling_param {{ {body} }}', caffe.proto.caffe_pb2.LayerParameter())
        assert told in caffe.draw.get_layer_label(pool, "TB")
    assert caffe.draw.get_pooling_types_dict()[0] == "MAX"
    assert caffe.draw.choose_color_by_layertype("Pooling") != caffe.draw.choose_color_by_layertype("Convolution")
