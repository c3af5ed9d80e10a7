"""Weights brought into a net: what is reported, what is refused, and files beyond the limit of protobuf."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases.recorded import GOLDEN, recorded

from netrun.compiler.graph import build
from netrun.compiler.record import Recording, record
from netrun.config import schema, weights
from netrun.config.upgrade import parse_net, parse_solver
from netrun.config.weights import read_weights, write_weights
from netrun.device import open_device
from netrun.errors import UsageError, WeightsError
from netrun.net import Net
from netrun.net_solver import NetSolver
from netrun.params import LoadOptions, Report, initialise, load
from netrun.session import Memory
from netrun.solver import Solver

WEIGHTS = GOLDEN / "weights"
ALL = ["plain", "double", "with_diff", "v1_legacy"]


def net(**sizes: int) -> Recording:
    """Inner products in a row, by name, each with that many outputs."""
    text = ['layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }']
    bottom = "x"
    for name, count in sizes.items():
        text.append(
            f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" '
            f'inner_product_param {{ num_output: {count} weight_filler {{ type: "constant" value: 7 }} }} }}'
        )
        bottom = name
    return record(build(*parse_net("\n".join(text))))


def stored(path: Path, **sizes: int) -> Path:
    """A weight file with the layers of ``net``; the weights of layer number i are all i + 1."""
    layers, blobs, width = [], {}, 3
    for i, (name, count) in enumerate(sizes.items()):
        layers.append(schema.LayerParameter(name=name, type="InnerProduct"))
        blobs[i] = [np.full((count, width), i + 1, np.float32), np.full(count, i + 1, np.float32)]
        width = count
    write_weights(path, "n", layers, blobs)
    return path


def bring(recording: Recording, path: Path, **options: Any) -> tuple[Report, dict[str, float]]:
    """Load; the report, and the first weight of every layer."""
    memory = Memory(open_device("cpu"))
    initialise(recording, memory, 0)
    report = load(recording, memory, str(path), LoadOptions.of(schema.LoadParameter(**options)))
    return report, {
        t.name.partition(".")[0]: float(memory.read(t).reshape(-1)[0])
        for p, t in recording.parameters.items()
        if p.index == 0
    }


def test_the_report_names_everything(tmp_path: Path) -> None:
    file = stored(tmp_path / "w.caffemodel", a=4, old=5, extra=2)
    report, values = bring(net(a=4, b=5, c=6), file)
    assert values == {"a": 1, "b": 7, "c": 7}
    assert report.lines() == [
        f"{file}: 1 layers loaded",
        "  not in the net: old, extra",
        "  not in the file, left as their fillers made them: b, c",
        "  old of the file has the shapes of b: --rename old=b would load it",
    ]


PARTLY_SHARED = """layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
  layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" param { name: "w" }
    inner_product_param { num_output: 3 weight_filler { type: "xavier" } bias_filler { type: "uniform" } } }
  layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" param { name: "w" }
    inner_product_param { num_output: 3 bias_filler { type: "uniform" } } }"""


def test_hdf5_leaves_a_shared_blob_with_its_owner_and_keeps_the_numbers_of_the_others(tmp_path: Path) -> None:
    """As Caffe writes it: the group of b holds blob 1 alone, and its own bias comes back from there."""
    h5py = pytest.importorskip("h5py")
    message, _ = parse_net(PARTLY_SHARED)
    with Net(message, seed=1) as first, Net(message, seed=2) as second:
        first.save(tmp_path / "w.h5")
        with h5py.File(tmp_path / "w.h5") as root:
            assert {name: sorted(root["data"][name]) for name in root["data"]} == {
                "in": [],
                "a": ["0", "1"],
                "b": ["1"],
            }
        second.load(tmp_path / "w.h5")
        for layer, blobs in first.params.items():
            for ours, theirs in zip(second.params[layer], blobs, strict=True):
                np.testing.assert_array_equal(ours.data, theirs.data)
        apart, _ = parse_net(PARTLY_SHARED.replace('name: "w"', ""))
        with Net(apart) as net, pytest.raises(WeightsError, match="layer b has 1 blobs in the file, 2 in the net"):
            net.load(tmp_path / "w.h5")


@pytest.mark.parametrize(("name", "why"), [('name: "a"', 'two with parameters are called "a"'), ("", "has none")])
def test_layers_of_one_name_get_their_weights_back_in_order(tmp_path: Path, name: str, why: str) -> None:
    text = PARTLY_SHARED.replace('name: "w"', "").replace('name: "b"', name).replace('name: "a"', name)
    message, _ = parse_net(text)
    with Net(message, seed=1) as first, Net(message, seed=2) as second:
        first.save(tmp_path / "w.caffemodel")
        second.load(tmp_path / "w.caffemodel")
        x = np.ones((2, 3), np.float32)
        np.testing.assert_array_equal(first.forward(x=x)["b"], second.forward(x=x)["b"])
        pytest.importorskip("h5py")
        with pytest.raises(UsageError, match=why):
            first.save(tmp_path / "w.h5")
        assert not (tmp_path / "w.h5").exists()


def test_rename_and_reinit(tmp_path: Path) -> None:
    file = stored(tmp_path / "w.caffemodel", a=4, old=5, fc8=1000)
    report, values = bring(net(a=4, b=5, fc8=10), file, rename=["old=b"], reinit=["fc*"])
    assert values == {"a": 1, "b": 2, "fc8": 7}
    assert (report.loaded, report.renamed) == (["a", "b"], {"b": "old"})
    assert (report.ignored, report.untouched, report.reinitialised) == ([], [], ["fc8"])
    assert "  renamed: old -> b" in report.lines()
    assert "  left as their fillers made them, as reinit says: fc8" in report.lines()


def test_one_layer_of_the_file_may_serve_several(tmp_path: Path) -> None:
    file = stored(tmp_path / "w.caffemodel", a=3)
    report, values = bring(net(a=3, b=3), file, rename=["a=b"])
    assert values == {"a": 1, "b": 1}
    assert report.loaded == ["a", "b"]


def test_strict_tells_all_and_changes_nothing(tmp_path: Path) -> None:
    file = stored(tmp_path / "w.caffemodel", a=4, old=5)
    with pytest.raises(WeightsError) as caught:
        bring(net(a=4, b=5), file, strict=True)
    assert [p.what for p in caught.value.problems] == [
        f"{file}: strict loading, but not in the net: old",
        f"{file}: strict loading, but not in the file: b",
    ]
    assert "--rename old=b" in str(caught.value)
    report, _ = bring(net(a=4, b=5), file, strict=True, rename=["old=b"])
    assert report.loaded == ["a", "b"]
    report, values = bring(net(a=4, old=6), file, strict=True, reinit=["old"])
    assert (report.loaded, values) == (["a"], {"a": 1, "old": 7})


def test_every_blob_that_does_not_fit_is_told(tmp_path: Path) -> None:
    file = stored(tmp_path / "w.caffemodel", a=4, b=5)
    recording, memory = net(a=9, b=6), Memory(open_device("cpu"))
    initialise(recording, memory, 0)
    with pytest.raises(WeightsError) as caught:
        load(recording, memory, str(file))
    assert len(caught.value.problems) == 2
    assert str(caught.value.problems[0]) == (
        f"{file}: layer a, blob 0 (weight): the shapes differ\n"
        "    in the file  4 3\n    in the net   9 3\n    --reinit a leaves the layer as its fillers make it"
    )
    assert all(memory.read(t).max() in (0, 7) for t in recording.parameters.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rename": ["a"]}, 'a layer is renamed by "old=new"'),
        ({"rename": ["a=b", "c=b"]}, "layer b cannot take the weights of both a and c"),
        ({"rename": ["aa=a"]}, 'w.caffemodel has no layer "aa"; did you mean "a"?'),
        ({"rename": ["a=bb"]}, 'the net has no layer "bb"; did you mean "b"?'),
        ({"reinit": ["fc9"]}, 'no layer of the net is called "fc9"; did you mean "fc8"?'),
    ],
)
def test_options_that_name_nothing(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = stored(tmp_path / "w.caffemodel", a=4, fc8=2)
    with pytest.raises(UsageError) as caught:
        bring(net(a=4, b=5, fc8=2), file, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ALL)
def test_files_of_caffe_are_loaded_and_reported(name: str) -> None:
    """What Caffe wrote, in every layout, gives the recorded values; old shapes are reported as reshaped."""
    opened = Net(WEIGHTS / "net.prototxt", weights=WEIGHTS / f"{name}.caffemodel")
    assert opened.report is not None
    assert opened.report.ignored == []
    assert opened.report.untouched == (
        ["bn", "sc", "pr", "ip_t"] if name == "v1_legacy" else []
    )  # V1 has no such types
    assert bool(opened.report.reshaped) == (name == "v1_legacy")
    if opened.report.reshaped:
        assert any("reshaped from the old form" in line for line in opened.report.lines())
    values = {f"{layer}_{i}": b.data for layer, blobs in opened.params.items() for i, b in enumerate(blobs)}
    wanted = recorded("weights/expected.npz")
    for layer in opened.report.loaded:
        for i in range(len(opened.params[layer])):
            np.testing.assert_allclose(values[f"{layer}_{i}"], wanted[f"{name}.caffemodel::{layer}_{i}"], 1e-6)


SOLVER = """
net_param {
  layer { name: "d" type: "DummyData" top: "x" top: "t" dummy_data_param {
    shape { dim: 4 dim: 3 } shape { dim: 4 dim: 2 }
    data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 1 } } }
  layer { name: "a" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 2
    weight_filler { type: "xavier" } } }
  layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }
}
random_seed: 4 max_iter: 3 lr_policy: "fixed" base_lr: 0.05
"""


def test_a_solver_loads_as_its_fields_say(tmp_path: Path) -> None:
    file = stored(tmp_path / "w.caffemodel", old=2)
    message, _ = parse_solver(f'{SOLVER} weights: "{file}" load {{ strict: true rename: "old=a" }}')
    lines: list[str] = []
    with Solver(message, log=lambda text, *_: lines.append(text)) as solver:
        tensor = next(iter(solver.training.recording.parameters.values()))
        np.testing.assert_array_equal(solver.memory.read(tensor), np.ones((2, 3)))
    assert "  renamed: old -> a" in lines
    with (
        pytest.raises(WeightsError, match="strict loading"),
        Solver(parse_solver(f'{SOLVER} weights: "{file}" load {{ strict: true }}')[0]),
    ):
        pass


def test_several_files_need_not_all_hold_what_is_renamed(tmp_path: Path) -> None:
    one, two = stored(tmp_path / "1.caffemodel", old=2), stored(tmp_path / "2.caffemodel", other=9)
    message, _ = parse_solver(f'{SOLVER} weights: "{one},{two}" load {{ rename: "old=a" }}')
    with Solver(message) as solver:
        tensor = next(iter(solver.training.recording.parameters.values()))
        np.testing.assert_array_equal(solver.memory.read(tensor), np.ones((2, 3)))


@pytest.mark.parametrize("kind", [Solver, NetSolver])
@pytest.mark.parametrize("more", ["", "iter_size: 2", 'type: "Nesterov" momentum: 0.9 weight_decay: 0.1'])
def test_snapshot_diff_saves_what_was_subtracted(kind: type[Solver], more: str, tmp_path: Path) -> None:
    """Caffe writes the diffs after the update has turned the gradients into steps."""
    message, _ = parse_solver(f'{SOLVER} {more} snapshot_diff: true snapshot_prefix: "{tmp_path / "s"}"')
    with kind(message) as solver:
        solver.step(2)
        before = [solver.memory.read(t).copy() for t in solver.training.recording.parameters.values()]
        solver.step(1)
        after = [solver.memory.read(t) for t in solver.training.recording.parameters.values()]
        file, _ = solver.snapshot()
    diffs = read_weights(file)[1].diffs
    for old, new, diff in zip(before, after, diffs, strict=True):
        assert diff is not None
        assert np.abs(diff).max() > 0
        np.testing.assert_allclose(old - new, diff, 1e-3, 1e-6)


# ------------------------------------------------------------------------------------------- beyond 2 GiB, made small


def test_a_protobuf_file_beyond_the_limit_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "LIMIT", 500)
    with pytest.raises(UsageError) as caught:
        stored(tmp_path / "w.caffemodel", a=100)
    assert "write HDF5 (snapshot_format: HDF5" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["SGD", "AdaDelta"])
def test_snapshots_beyond_the_limit_become_hdf5(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2 x 3 weights and 2 biases are 32 bytes; the history of AdaDelta is twice that."""
    pytest.importorskip("h5py")
    monkeypatch.setattr(weights, "LIMIT", 40)
    lines: list[str] = []
    message, _ = parse_solver(f'{SOLVER} type: "{kind}" snapshot_prefix: "{tmp_path / "s"}"')
    with Solver(message, log=lambda text, *_: lines.append(text)) as solver:
        solver.solve()
    told = [line for line in lines if "larger than 2 GiB: they are written as HDF5" in line]
    ending = ".h5" if kind == "AdaDelta" else ""
    assert len(told) == bool(ending)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"s_iter_3.caffemodel{ending}",
        f"s_iter_3.solverstate{ending}",
    ]
    with Solver(message) as solver:
        solver.restore(str(tmp_path / f"s_iter_3.solverstate{ending}"))
        assert solver.iteration == 3


def test_too_large_without_h5py_is_told_before_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(weights, "LIMIT", 10)
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    message, _ = parse_solver(f'{SOLVER} snapshot_prefix: "{tmp_path / "s"}"')
    with Solver(message) as solver:
        with pytest.raises(UsageError, match="h5py"):
            solver.solve()
        assert solver.iteration == 0
