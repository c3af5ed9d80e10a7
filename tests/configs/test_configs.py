"""Every prototxt of configs/ parses, says what it is, and fits the files beside it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import text_format

from netrun.config import schema, text
from netrun.config.lexer import tokenize
from netrun.config.scope import is_extended

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
FILES = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.prototxt"))
SOLVERS = [name for name in FILES if name.endswith("solver.prototxt")]
NETS = [name for name in FILES if name not in SOLVERS]
TEST_IMAGES = {"digits": 360, "expr": 360, "mnist": 10_000, "cifar10": 10_000, "imagenet": 50_000}
TRAIN_IMAGES = {"digits": 1437, "expr": 1437, "mnist": 60_000, "cifar10": 50_000, "imagenet": 1_281_167}


IMAGE_SOLVERS = [name for name in SOLVERS if name.split("/")[0] in TEST_IMAGES]


def solver(name: str) -> schema.SolverParameter:
    return text.read(CONFIGS / name, schema.SolverParameter)[0]


def net(name: str) -> schema.NetParameter:
    return text.read(CONFIGS / name, schema.NetParameter)[0]


def data_layers(name: str) -> dict[str, schema.LayerParameter]:
    """The Data layers of a net by phase."""
    layers = [layer for layer in net(name).layer if layer.type == "Data"]
    return {schema.Phase.Name(layer.include[0].phase): layer for layer in layers}


def named() -> set[str]:
    """The configs that READMEs and solvers name, with the rows of the tables of imagenet and benchmark."""
    found = {os.path.normpath(Path(name).parent / solver(name).net) for name in SOLVERS if solver(name).net}
    for readme in CONFIGS.rglob("README.md"):
        folder, words = readme.parent.relative_to(CONFIGS), readme.read_text(encoding="utf-8")
        files = re.findall(r"[\w./]+\.prototxt", words)
        rows = re.findall(r"^\| (\w+)", words, re.MULTILINE)[1:]
        if folder.name == "imagenet":  # "each folder holds" the files without one
            each = [file for file in files if "/" not in file]
            files = [file for file in files if "/" in file] + [f"{row}/{file}" for row in rows for file in each]
        if folder.name == "benchmark":
            files += [f"{row}.prototxt" for row in rows]
        for file in files:
            whole = file.startswith("configs/")
            found.add(file.removeprefix("configs/") if whole else os.path.normpath(folder / file))
    return found


def test_all_are_there() -> None:
    """What is named exists, and what exists is named."""
    assert named() == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_parses_as_protobuf_parses_it(name: str) -> None:
    kind = schema.SolverParameter if name in SOLVERS else schema.NetParameter
    content = (CONFIGS / name).read_text(encoding="utf-8")
    read = text.read(CONFIGS / name, kind)[0]
    if is_extended(tokenize(content)):  # in the config language: what it is written as is plain
        content = text.write(read)
    assert read == text_format.Parse(content, kind())


@pytest.mark.parametrize("name", FILES)
def test_says_what_it_is(name: str) -> None:
    lines = (CONFIGS / name).read_text(encoding="utf-8").split("\n")
    head = [line for line in lines[: lines.index("")] if line.startswith("#")]
    assert len(head) == lines.index("")
    assert sum(line.startswith("# Source: ") for line in head) == 1
    assert sum(line.startswith("# Result: ") for line in head) == 1
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("name", NETS)
def test_net_is_in_current_syntax(name: str) -> None:
    read = net(name)
    assert read.name
    assert read.layer
    assert not read.layers
    assert not read.input


@pytest.mark.parametrize("name", NETS)
def test_names_are_unique_in_a_phase(name: str) -> None:
    for phase in (schema.TRAIN, schema.TEST):
        names = [layer.name for layer in net(name).layer if all(rule.phase == phase for rule in layer.include)]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", [name for name in NETS if "deploy" not in name and "infer" not in name])
def test_weights_start_different(name: str) -> None:
    """The default filler is zero, from which a hidden layer never moves; deploy and infer nets get others."""
    layers = [layer for layer in net(name).layer if layer.type in ("Convolution", "InnerProduct")]
    fillers = [
        (x.convolution_param if x.type == "Convolution" else x.inner_product_param).weight_filler for x in layers
    ]
    if any(layer.type in ("Data", "Python", "SequenceData") for layer in net(name).layer) or name.startswith(
        "benchmark/"
    ):
        assert {filler.type for filler in fillers} <= {"xavier", "msra", "gaussian"}
    else:
        assert {filler.type for filler in fillers} == {"constant"}


@pytest.mark.parametrize("name", IMAGE_SOLVERS)
def test_solver_fits_its_net(name: str) -> None:
    read = solver(name)
    dataset = name.split("/")[0]
    beside = (CONFIGS / name).parent / read.net
    assert os.path.dirname(read.net) == ""
    data = data_layers(beside.relative_to(CONFIGS).as_posix())
    assert set(data) == {"TRAIN", "TEST"}
    assert read.test_iter[0] * data["TEST"].data_param.batch_size == TEST_IMAGES[dataset]
    assert read.test_interval > 0
    epochs = 6 if read.lr_policy == "one_cycle" else 9
    assert read.max_iter * read.iter_size * data["TRAIN"].data_param.batch_size > epochs * TRAIN_IMAGES[dataset]
    for layer in data.values():
        assert layer.data_param.backend == schema.DataParameter.LMDB
        assert os.path.dirname(layer.data_param.source) == ("../digits" if dataset == "expr" else "")
    # training and testing see the same values, but for the crop's place and the mirror
    train, test = (data[phase].transform_param for phase in ("TRAIN", "TEST"))
    assert not test.mirror
    assert (train.scale, train.mean_file, train.crop_size) == (test.scale, test.mean_file, test.crop_size)
    assert list(train.mean_value) == list(test.mean_value)


@pytest.mark.parametrize("name", IMAGE_SOLVERS)
def test_solver_is_complete(name: str) -> None:
    read = solver(name)
    assert read.type == "SGD"
    assert read.random_seed >= 0
    assert os.path.dirname(read.snapshot_prefix) == "", "weights land in the working directory"
    wanted = {
        "inv": ["gamma", "power"],
        "poly": ["power"],
        "one_cycle": [],
        "step": ["gamma", "stepsize"],
        "multistep": ["gamma"],
    }[read.lr_policy]
    assert all(read.HasField(field) for field in ["base_lr", "momentum", "weight_decay", "max_iter", *wanted])
    steps = list(read.stepvalue)
    assert (read.lr_policy == "multistep") == bool(steps)
    assert steps == sorted(steps)
    assert all(step < read.max_iter for step in [*steps, read.stepsize])


def test_no_two_solvers_write_the_same_weights() -> None:
    prefixes = [solver(name).snapshot_prefix for name in SOLVERS]
    assert len(set(prefixes)) == len(prefixes)


def test_lenet_solver_is_the_classic_one() -> None:
    read = solver("mnist/solver.prototxt")
    assert (read.lr_policy, read.max_iter, read.test_iter[0], read.test_interval) == ("inv", 10000, 100, 500)
    assert (read.display, read.snapshot, read.solver_mode) == (100, 5000, schema.SolverParameter.CPU)
    got = [read.base_lr, read.momentum, read.weight_decay, read.gamma, read.power]
    assert got == pytest.approx([0.01, 0.9, 0.0005, 0.0001, 0.75])


def test_auxiliary_losses_of_googlenet_count_three_tenths() -> None:
    losses = [x for x in net("imagenet/googlenet/train_val.prototxt").layer if x.type == "SoftmaxWithLoss"]
    weights = {layer.top[0]: list(layer.loss_weight) for layer in losses}
    assert weights == {"loss1/loss1": pytest.approx([0.3]), "loss2/loss1": pytest.approx([0.3]), "loss3/loss3": []}


def test_every_folder_is_in_the_table() -> None:
    table = (CONFIGS / "README.md").read_text(encoding="utf-8")
    for folder in {os.path.dirname(name) for name in FILES}:
        assert f"[{folder}]({folder}/" in table
    for folder in {name.split("/")[0] for name in FILES}:
        assert (CONFIGS / folder / "README.md").is_file()


def test_large_nets_are_what_their_generator_writes() -> None:
    tool = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "make_nets.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert (tool.returncode, tool.stdout, tool.stderr) == (0, "", "")
