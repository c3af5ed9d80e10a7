"""Everything that was recorded from BVLC Caffe, replayed: one test, one row for every recording.

A row says which files of tests/golden it uses up; a file that no row uses fails the suite. Tolerances are those of
tests/golden/README.md. Replays that are tests in their own right (data layers, upgrades, weights, fillers, the schema)
stand where their packages are tested and are called from here.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import solver_replay
from cases.layers import LAYERS
from cases.recorded import recorded
from cases.replay import replay_dropout, replay_layer, replay_small_net
from cases.zoo import replay_outputs, replay_shapes

from netrun.compiler.graph import State, build
from netrun.config import schema
from netrun.config.upgrade import parse_net, parse_solver
from netrun.errors import NetrunError
from netrun.layers import Layer
from netrun.net import Net
from netrun.solver import Solver

TESTS = Path(__file__).parent
GOLDEN = TESTS / "golden"
DEVICES = ("reference", "cpu")


@dataclass(frozen=True)
class Place:
    """What a replay may want from pytest: a folder of its own, and to stand in another one."""

    tmp: Path
    monkeypatch: pytest.MonkeyPatch


@dataclass(frozen=True)
class Replay:
    """One recording: its name, the files it uses up (globs below tests/golden), and what replays it."""

    name: str
    files: tuple[str, ...]
    run: Callable[[Place], None]


_modules: dict[str, Any] = {}


def borrowed(path: str) -> Any:
    """A test module of another folder, loaded once."""
    if path not in _modules:
        spec = importlib.util.spec_from_file_location(f"replayed_{Path(path).stem}", TESTS / path)
        assert spec is not None
        assert spec.loader is not None
        _modules[path] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(_modules[path])
    return _modules[path]


def files(pattern: str) -> list[Path]:
    """Files of the recording, in order."""
    return sorted(GOLDEN.glob(pattern))


def replays() -> Iterator[Replay]:
    """Every row."""
    for device in DEVICES:
        for function, pattern in (
            (replay_layer, "layers/*.npz"), (replay_small_net, "nets_small/*.npz"),
            (replay_dropout, "dropout_train.npz"),
        ):  # fmt: skip
            for path in files(pattern):
                name = path.relative_to(GOLDEN).as_posix()
                yield Replay(f"{name} {device}", (name,), lambda _, f=function, p=path, d=device: f(p, d))
    for path in files("nets/*.json"):
        yield Replay(f"nets/{path.stem}", (f"nets/{path.name}",), lambda _, p=path: replay_shapes(p))
    for path in files("nets/*_forward.npz"):
        yield Replay(f"nets/{path.stem}", (f"nets/{path.name}",), lambda _, p=path: replay_outputs(p))
    yield from _solvers()
    yield from _data()
    yield from _weights()
    yield from _configs()
    yield Replay("index.json", ("index.json", "README.md"), lambda _: _index())


def _solvers() -> Iterator[Replay]:
    module = solver_replay
    for case in module.CASES:
        for device in DEVICES:
            for start in module.STARTS:
                yield Replay(
                    f"solvers/{case} {device} from {start}", (f"solvers/{case}/*", "solvers/data/*"),
                    lambda at, c=case, s=start, d=device: module.replay_trajectory(c, s, d, at.monkeypatch, at.tmp),
                )  # fmt: skip
    for device in DEVICES:
        yield Replay(
            f"e2e {device}", ("e2e/**/*",), lambda at, d=device: module.replay_end_to_end(d, at.monkeypatch, at.tmp)
        )


def _data() -> Iterator[Replay]:
    layers, memory = borrowed("data/test_golden.py"), borrowed("layers/test_inputs.py")
    for name in layers.CASES:
        yield Replay(
            f"data_layers/{name}", (f"data_layers/{name}.npz", *_sources(name)),
            lambda at, n=name: layers.test_batches_are_those_of_caffe(n, at.monkeypatch),
        )  # fmt: skip
    yield Replay(
        "data_layers/memory_data", ("data_layers/memory_data.npz",), lambda _: memory.test_memory_data_like_caffe()
    )


def _sources(name: str) -> list[str]:
    """The files of data/ that a data layer reads."""
    text = str(recorded(f"data_layers/{name}.npz")["prototxt"])
    named = [p for p in files("data/*") if f"data/{p.name}" in text]
    listed = "\n".join(p.read_text() for p in named if p.suffix == ".txt")
    named += [p for p in files("data/*") if p.name in listed or (p.is_dir() and f"{p.name}/" in text)]
    return [f"data/{p.name}/**/*" if p.is_dir() else f"data/{p.name}" for p in named]


def _weights() -> Iterator[Replay]:
    for path in files("weights/*.caffemodel*"):
        name = f"weights/{path.name}"
        yield Replay(name, (name, "weights/expected.npz", "weights/net.prototxt"), lambda _, p=path: _loaded(p))


def _configs() -> Iterator[Replay]:
    for number, case in enumerate(json.loads((GOLDEN / "rules.json").read_text())):
        yield Replay(f"rules.json {number} {case['name']}", ("rules.json",), lambda _, c=case: _rules(c))
    refused = borrowed("layers/test_refused.py")
    for number, row in enumerate(json.loads((GOLDEN / "invalid.json").read_text())):
        run = refused.test_what_caffe_refuses if row["kind"] == "net" else _refused_solver
        yield Replay(
            f"invalid.json {number} {row['what']}", ("invalid.json",), lambda at, f=run, r=row: _inside(at, f, r)
        )
    upgrade = borrowed("config/test_upgrade.py")
    for paths, function in (
        (upgrade.NETS, upgrade.test_nets_become_what_caffe_makes_of_them),
        (upgrade.SOLVERS, upgrade.test_solvers_become_what_caffe_makes_of_them),
    ):
        for path in paths:
            stem = path.name.removesuffix(".old.prototxt")
            yield Replay(f"upgrade/{stem}", (f"upgrade/{stem}.*",), lambda _, f=function, p=path: f(p))
    fillers, tables = borrowed("test_fillers.py"), borrowed("config/test_schema.py")
    for number, row in enumerate(fillers.ROWS):
        yield Replay(f"fillers.json {number}", ("fillers.json",), lambda _, r=row: fillers.test_like_caffe(r))
    yield Replay("schema.tsv", ("schema.tsv",), lambda _: tables.test_everything_of_caffe_is_there_and_means_the_same())


# -------------------------------------------------------------------------------------------------------- the replays
def _inside(at: Place, function: Callable[[Any], None], row: Any) -> None:
    at.monkeypatch.chdir(GOLDEN)
    function(row)


def _loaded(path: Path) -> None:
    """What a weight file gives, and what it leaves as it was: 9 everywhere."""
    with Net(GOLDEN / "weights" / "net.prototxt") as net:
        for blobs in net.params.values():
            for blob in blobs:
                blob.data[...] = 9
        net.load(path)
        wanted = recorded("weights/expected.npz")
        for layer, blobs in net.params.items():
            for i, blob in enumerate(blobs):
                close = wanted[f"{path.name}::{layer}_{i}"]
                np.testing.assert_allclose(blob.data, close, 1e-6, err_msg=f"{layer} {i}")


def _rules(case: dict[str, Any]) -> None:
    for wanted in case["states"]:
        phase = wanted["phase"] if isinstance(wanted["phase"], int) else schema.Phase.Value(wanted["phase"])
        state = State(phase, wanted["level"], tuple(wanted["stages"]))
        graph = build(parse_net(case["prototxt"])[0], None, state)
        left = [[node.name, node.layer.type] for node in graph.nodes]
        assert left == [layer for layer in wanted["layers"] if layer[1] != "Split"], str(state)


def _refused_solver(row: dict[str, Any]) -> None:
    """Refused before the first step, whenever Caffe notices; the error says where."""

    def run() -> None:
        message, source = parse_solver(row["text"], "solver.prototxt")
        with Solver(message, source=source) as solver:
            solver.step(1)

    with pytest.raises(NetrunError) as error:
        run()
    assert "solver.prototxt" in str(error.value)


def _index() -> None:
    index = json.loads((GOLDEN / "index.json").read_text())
    assert {case["file"] for case in index["layers"]} == {f"layers/{path.name}" for path in files("layers/*.npz")}


ROWS: Sequence[Replay] = list(replays())


@pytest.mark.parametrize("row", [pytest.param(r, id=r.name) for r in ROWS])
def test_replay(row: Replay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row.run(Place(tmp_path, monkeypatch))


def test_nothing_that_was_recorded_is_left_out() -> None:
    used = {path for pattern in {p for row in ROWS for p in row.files} for path in files(pattern) if path.is_file()}
    left = [p.relative_to(GOLDEN).as_posix() for p in sorted(GOLDEN.rglob("*")) if p.is_file() and p not in used]
    assert left == []


# -------------------------------------------------------------------------------------------------- every type there is
NOT_A_TYPE = {"transform_param", "loss_param"}
"""Parameters of LayerParameter that several types share."""
V1_ALONE = {"NONE"}


def test_every_layer_type_of_the_schema_is_there() -> None:
    """Each message of parameters has a type that reads it, each old type has its new one, each type was recorded or
    has rows of its own."""
    known = Layer.registry
    fields = {f.name for f in schema.LayerParameter.DESCRIPTOR.fields if f.name.endswith("_param") and f.number < 10000}
    assert fields - NOT_A_TYPE - {cls.param for cls in known.values()} == set()
    old = borrowed("config/test_upgrade.py").v1.TYPES
    assert {new for name, new in old.items() if name not in V1_ALONE} - set(known) == set()
    assert {path.stem.rsplit("_", 1)[0] for path in files("layers/*.npz")} - set(known) == set()
    refusal = next(row for row in json.loads((GOLDEN / "invalid.json").read_text()) if "known types: " in row["error"])
    listed = refusal["error"].split("known types: ")[1].split(")")[0].split(", ")
    assert len(listed) >= 61
    assert set(listed) - set(known) == set(), "types that Caffe itself lists"
    covered = {case.type for case in LAYERS}
    assert set(listed) - covered == set(), "types without a row in tests/cases"
    for kind in listed:
        formula = (known[kind].__doc__ or "").split("\n\n")[0]
        assert "=" in formula or kind == "Silence", f"{kind} has no docstring with its formula"
