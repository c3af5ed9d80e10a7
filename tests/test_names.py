"""Any text may be the name of a layer or of a blob: nets whose names mean something elsewhere do what others do."""

from __future__ import annotations

import json
import re
import sys
import types
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import netrun.pycaffe as caffe
from netrun.cli import main
from netrun.compiler.graph import State, build
from netrun.compiler.record import record
from netrun.compiler.summary import summarize
from netrun.config import schema
from netrun.config.upgrade import parse_net, parse_solver
from netrun.draw import picture, pydot_graph
from netrun.errors import UsageError
from netrun.net import Net
from netrun.net_solver import NetSolver
from netrun.snapshot import restore, write
from netrun.solver import Solver

NAMES = [
    "ip", "ip'", "ip*", "ip''", "ip@2", "", "@2", "(loss)", "(solver)", "clock", "lr", "first pass", "correction",
    "a b/c", "/", "ip.weight", "ip.weight.momentum", "ip.weight.sum", "ip'.diff", "q\"u'o\\te", "line\nend\ttab\r",
    "\x1b[31mred", "größe, 名前", "[0]|{x}<y>$", "$(a)", "-1", "#", "a=b", "conv*'*", ".", "total loss", "(automatic)",
    "s_ip_0_split_0", "ip' from outside", "ip' unused", "~", "ip+", "ip@aBcd16b", "data", "y",
]  # fmt: skip
"""Marks of origins and of what is derived from tensors, names of our own tensors, and signs of every syntax around."""
PLAIN = [f"n{i}" for i in range(len(NAMES))]
COUNT = len(NAMES)


def literal(name: str) -> str:
    """The name as a string of the prototxt."""
    return '"' + "".join(c if c.isalnum() else "".join(f"\\{b:03o}" for b in c.encode()) for c in name) + '"'


def net_text(names: list[str], two: bool = False) -> str:
    """Inner products in a row, each with a layer that works in place, and sums of neighbours; names of layers serve as
    names of blobs, in another order. With ``two`` a layer of each name stands in the net twice."""
    tops = [literal(n) for n in names[3:] + names[:3]]
    text = ['name: "names" force_backward: true']
    text.append(
        'layer { name: "input" type: "DummyData" top: "given" top: "label" dummy_data_param { shape { dim: 3 dim: 4 } '
        'shape { dim: 3 dim: 4 } data_filler { type: "constant" value: 0.7 } data_filler { value: 0.2 } } }'
    )
    below = '"given"'
    for i, (name, top) in enumerate(zip(map(literal, names), tops, strict=True)):
        bottom = below if i % 5 or i == 0 else f'{below[:-1]} sum"'
        if bottom != below:  # this blob is read twice: by the sum, and by the sum's own loss
            text.append(f'layer {{ name: "sum{i}" type: "Eltwise" bottom: {below} bottom: "given" top: {bottom} }}')
        text.append(
            f'layer {{ name: {name} type: "InnerProduct" bottom: {bottom} top: {top} inner_product_param {{ '
            f'num_output: 4 weight_filler {{ type: "constant" value: {0.2 + 0.01 * i:g} }} '
            f"bias_filler {{ value: {0.01 * i:g} }} }} }}"
        )
        text.append(f'layer {{ name: {name} type: "TanH" bottom: {top} top: {top} }}')
        below = top
    text.append(f'layer {{ name: "loss" type: "EuclideanLoss" bottom: {below} bottom: "label" top: "loss" }}')
    return "\n".join(text) + "\n"


def solver_text(folder: Path, names: list[str], more: str = "") -> str:
    folder.mkdir(exist_ok=True)
    (folder / "net.prototxt").write_text(net_text(names))
    text = (
        f'net: "{folder}/net.prototxt" base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.01 max_iter: 6 '
        f'display: 2 test_iter: 1 test_interval: 3 snapshot_prefix: "{folder}/s" {more}'
    )
    (folder / "solver.prototxt").write_text(text)
    return text


def values(solver: Any) -> list[np.ndarray[Any, Any]]:
    training = solver.training
    tensors = [
        t for p in training.recording.parameters for t in (training.recording.parameters[p], *training.history[p])
    ]
    return [solver.memory.read(t) for t in tensors]


def told(log: list[str]) -> list[str]:
    """The first words of the lines of a log, but for what depends on how long things took."""
    return [word for word in (line.split()[0] for line in log if line.strip()) if word != "Waited"]


def same(one: list[Any], other: list[Any]) -> None:
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


MORE = ["", "iter_size: 2 snapshot_diff: true", "debug_info: true clip_gradients: 0.01", "recompute: true"]


@pytest.mark.parametrize("more", MORE)
def test_training_snapshots_and_resuming(more: str, tmp_path: Path) -> None:
    logs: list[list[str]] = [[], []]
    ends = []
    for names, folder, log in ((PLAIN, tmp_path / "plain", logs[0]), (NAMES, tmp_path / "odd", logs[1])):
        text = solver_text(folder, names, more)
        with Solver(parse_solver(text)[0], log=lambda line, *_, log=log: log.append(line)) as solver:
            solver.step(3)
            files = write(solver)
            solver.step(3)
            ends.append([*values(solver), solver.losses[-1]])
        with Solver(parse_solver(text)[0]) as again:
            restore(again, files[1])
            again.step(3)
            same([*values(again), again.losses[-1]], ends[-1])
        with Net(parse_net(net_text(names))[0], schema.TEST) as net:
            report = net.load(files[0])
            assert len(report.loaded) == COUNT, "by their names"
            assert not report.untouched
            ends[-1].append(np.array(net.forward()["loss"]))
    same(*ends)
    assert all(line.isprintable() for line in logs[1][1:]), "nothing breaks a line or reaches the terminal"
    assert told(logs[0]) == told(logs[1])


def test_gradients_whole_and_from_layer_to_layer() -> None:
    found = []
    for names in (PLAIN, NAMES):
        with Net(parse_net(net_text(names))[0], schema.TRAIN) as net:
            net.forward()
            net.backward()
            whole = [np.array(blob.diff) for blobs in net.params.values() for blob in blobs]
            net.clear_param_diffs()
            for end in reversed(range(len(net._engine.graph.nodes))):
                net._engine.backward(end, end)
            same([np.array(blob.diff) for blobs in net.params.values() for blob in blobs], whole)
            blobs = {name: net.blobs[name] for name in (*names, "given")}
            found.append(
                [*whole, *(np.array(b.data) for b in blobs.values()), *(np.array(b.diff) for b in blobs.values())]
            )
    same(*found)


def test_a_solver_of_open_nets(tmp_path: Path) -> None:
    ends = []
    for names, folder in ((PLAIN, tmp_path / "plain"), (NAMES, tmp_path / "odd")):
        with NetSolver(parse_solver(solver_text(folder, names))[0]) as solver:
            solver.step(4)
            ends.append([np.array(blob.data) for blobs in solver.net.params.values() for blob in blobs])
    same(*ends)


def test_pycaffe(tmp_path: Path) -> None:
    solver_text(tmp_path, NAMES)
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TRAIN)
    net.forward()
    net.backward()
    assert set(NAMES) <= set(net.blobs)
    assert set(NAMES) == set(net.params)
    assert [n for n in net._layer_names if n in NAMES] == [n for n in NAMES for _ in range(2)]
    net.save(str(tmp_path / "w.caffemodel"))
    other = caffe.Net(str(tmp_path / "net.prototxt"), str(tmp_path / "w.caffemodel"), caffe.TEST)
    for name in NAMES:
        np.testing.assert_array_equal(other.params[name][0].data, net.params[name][0].data)


def test_commands(tmp_path: Path, capfd: Any) -> None:
    """Every command that looks at a net works, says each thing on one line, and says as much as for plain names."""
    said: list[dict[str, tuple[int, int]]] = []
    for names, folder in ((PLAIN, tmp_path / "plain"), (NAMES, tmp_path / "odd")):
        solver_text(folder, names)
        net, solver = str(folder / "net.prototxt"), str(folder / "solver.prototxt")
        commands = {
            "check": ["check", net, solver],
            "summary": ["summary", net],
            "json": ["summary", net, "--json"],
            "plan": ["plan", net],
            "plan of training": ["plan", solver],
            "time": ["time", "--model", net, "--iterations", "2", "--device", "null"],
            "train": ["train", "--solver", solver, "--log", "caffe"],
            "test": ["test", "--model", net, "--weights", f"{folder}/s_iter_6.caffemodel", "--iterations", "1"],
            "svg": ["draw", net, f"{folder}/net.svg"],
            "png": ["draw", net, f"{folder}/net.png"],
            "upgrade": ["upgrade", net, f"{folder}/new.prototxt"],
            "expand": ["expand", net, "-o", f"{folder}/plain.prototxt"],
            "gradcheck": ["gradcheck", net, "--layer", names[1]],
        }
        said.append({})
        for what, command in commands.items():
            status = main(command)
            out, err = capfd.readouterr()
            assert status == 0, (what, err)
            assert all(line.replace("\t", "").isprintable() for line in (out + err).split("\n")), what
            waits = sum("Waited" in line for line in err.split("\n"))  # depends on how long things took
            said[-1][what] = out.count("\n"), err.count("\n") - waits
        for copy in ("new.prototxt", "plain.prototxt"):
            assert [x.name for x in parse_net((folder / copy).read_text())[0].layer] == [
                x.name for x in parse_net(net_text(names))[0].layer
            ]
        ElementTree.parse(folder / "net.svg")
    assert said[0] == said[1]


def test_a_row_for_each_layer_of_a_name(tmp_path: Path, capsys: Any) -> None:
    """Two layers of one name have a row each in the tables, with their own work."""
    layers = "".join(
        f'layer {{ name: "same" type: "InnerProduct" bottom: "{b}" top: "{t}" '
        f"inner_product_param {{ num_output: {n} }} }} "
        for b, t, n in (("x", "a", 8), ("a", "b", 2))
    )
    text = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 4 } } } ' + layers
    rows = [row for row in summarize(build(parse_net(text)[0])).rows if row.name == "same"]
    assert [row.multiply_adds for row in rows] == [32, 16]
    (tmp_path / "net.prototxt").write_text(text)
    assert (
        main(["time", "--model", str(tmp_path / "net.prototxt"), "--iterations", "1", "--device", "null", "--json"])
        == 0
    )
    timed = [row for row in json.loads(capsys.readouterr().out)["layers"] if row["name"] == "same"]
    assert len(timed) == 2


def test_hdf5_holds_what_names_allow(tmp_path: Path) -> None:
    """Slashes make groups; what HDF5 has no place for is refused, before training where snapshots are to be HDF5."""
    pytest.importorskip("h5py")
    text = net_text(NAMES)
    fitting = [n for n in NAMES if n and all(p not in ("", ".") for p in n.split("/"))]
    with Net(parse_net(net_text(fitting))[0], seed=1) as first, Net(parse_net(net_text(fitting))[0], seed=2) as second:
        for blobs in first.params.values():
            for blob in blobs:
                blob.data[...] = np.random.default_rng(len(blobs)).random(blob.shape)
        first.save(tmp_path / "w.h5")
        assert len(second.load(tmp_path / "w.h5").loaded) == len(fitting)
        same(
            [b.data for bs in first.params.values() for b in bs], [b.data for bs in second.params.values() for b in bs]
        )
    for names, why in ((["a", "/b", "c"], '"/b" is no path'), (["a", "a/1", "b"], '"a/1" is where the blobs of "a"')):
        with Net(parse_net(net_text(names))[0]) as net, pytest.raises(UsageError, match=re.escape(why)):
            net.save(tmp_path / "x.h5")
        solver = solver_text(tmp_path / "refused", names, "snapshot_format: HDF5")
        with pytest.raises(UsageError, match=re.escape(why)), Solver(parse_solver(solver)[0]) as run:
            run.solve()
    with Net(parse_net(net_text(["a", "a/2", "b"]))[0]) as net:
        net.save(tmp_path / "x.h5")
    assert text


def test_no_two_tensors_have_one_name() -> None:
    """Memory is found by the names of tensors, whatever layers and blobs are called."""
    recording = record(build(parse_net(net_text(NAMES))[0], state=State(schema.TRAIN)))
    tensors = {t.root for call in recording.forward for t in call.tensors()} | {recording.clock}
    assert len({t.name for t in tensors}) == len(tensors)


def test_blobs_of_layers_within_layers_and_beside_them() -> None:
    """A blob "in.weight" of layer "loop" and a blob "weight" of layer "loop.in" are two."""
    text = """
    layer { name: "data" type: "Input" top: "x" input_param { shape { dim: 2 dim: 1 dim: 3 } } }
    layer { name: "loop" type: "Recurrent" bottom: "x" top: "y" recurrent_net_param { output: "h"
      state { name: "h0" next: "h" dim: 3 }
      body {
        layer { name: "in" type: "InnerProduct" bottom: "x" top: "a" inner_product_param { num_output: 3
          bias_term: false weight_filler { type: "constant" value: 1 } } }
        layer { name: "add" type: "Eltwise" bottom: "a" bottom: "h0" top: "h" } } } }
    layer { name: "loop.in" type: "InnerProduct" bottom: "x" top: "z" inner_product_param { num_output: 3 axis: 2
      bias_term: false weight_filler { type: "constant" value: 2 } } }
    """
    with Net(parse_net(text)[0], schema.TEST) as net:
        found = net.forward(x=np.ones((2, 1, 3)))
        np.testing.assert_array_equal(net.params["loop"][0].data, np.ones((3, 3)))
        np.testing.assert_array_equal(net.params["loop.in"][0].data, np.full((3, 3), 2))
        np.testing.assert_array_equal(found["z"], np.full((2, 1, 3), 6))


def test_a_blob_that_is_called_like_a_copy_of_another() -> None:
    text = """force_backward: true
    layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 } } }
    layer { name: "a" type: "Power" bottom: "x" top: "a" power_param { scale: 2 } }
    layer { name: "own" type: "Power" bottom: "x" top: "a_a_0_split_0" power_param { scale: 5 } }
    layer { name: "b" type: "Power" bottom: "a" top: "b" power_param { scale: 3 } }
    layer { name: "c" type: "Eltwise" bottom: "a" bottom: "b" bottom: "a_a_0_split_0" top: "c" }
    """
    with Net(parse_net(text)[0], schema.TRAIN) as net:
        net.forward(x=np.array([1, 2]))
        assert net.blobs["a_a_0_split_0"].data.tolist() == [5, 10]
        assert net.blobs["c"].data.tolist() == [13, 26]
        net.backward(c=np.ones(2))
        assert net.blobs["x"].diff.tolist() == [13, 13]


class _Graph:
    """Keeps what pydot would write."""

    def __init__(self, *args: Any, **more: Any) -> None:
        self.texts = [str(a) for a in args] + [str(more[k]) for k in ("label",) if k in more]
        self.parts: list[_Graph] = []

    def add_node(self, part: _Graph) -> None:
        self.parts.append(part)

    add_edge = add_node


def test_strings_of_dot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quoted string of the dot language ends where it should, and two names are two boxes."""
    fake: Any = types.ModuleType("pydot")
    fake.Dot = fake.Node = fake.Edge = _Graph
    monkeypatch.setitem(sys.modules, "pydot", fake)
    made = pydot_graph(picture(parse_net(net_text([*NAMES, 'a"', "a'", "\\"]))[0]), "LR")
    texts = [text for part in (made, *made.parts) for text in part.texts]
    assert len(texts) > 3 * COUNT
    for text in texts:
        assert re.fullmatch(r'"(?:[^"\\\n]|\\.)*"', text), text
    nodes = [part.texts[0] for part in made.parts if len(part.texts) == 2]
    assert len(set(nodes)) == len(nodes)
