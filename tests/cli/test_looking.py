"""Commands that look without running: check, summary, plan, devices, explain."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from netrun.kernels import OPS
from netrun.net import Net

CONFIGS = Path(__file__).parents[2] / "configs"


# -------------------------------------------------------------------------------------------------------------- check
def test_check_accepts_nets_and_solvers(run: Any) -> None:
    found = run("check", "solver.prototxt", "net.prototxt")
    assert found.code == 0
    assert found.err == ""
    first, second = found.out.splitlines()
    assert re.fullmatch(r"solver.prototxt: ok \(solver; net.prototxt phase TRAIN: 5 layers; .* TEST: 6 layers\)", first)
    assert re.fullmatch(r"net.prototxt: ok \(net; phase TRAIN: 5 layers; phase TEST: 6 layers\)", second)


def test_check_tells_every_mistake_of_every_file_once(run: Any, folder: Path) -> None:
    net = (folder / "net.prototxt").read_text()
    net = net.replace('type: "ReLU"', 'type: "RelU"').replace("kernel_size: 3", "kernel_size: 30")
    (folder / "net.prototxt").write_text(net)
    (folder / "bad.prototxt").write_text('net: "net.prototxt"\nlr_policy: "stepp"\nbase_lr: x\n')
    solver = (folder / "solver.prototxt").read_text().replace('"inv"', '"inw"')
    (folder / "solver.prototxt").write_text(solver)
    found = run("check", "solver.prototxt", "bad.prototxt", "nowhere.prototxt")
    assert found.code == 2
    assert found.out == ""
    for text in (
        'there is no lr_policy "inw"; did you mean "inv"?',
        'there is no layer type "RelU"; did you mean "ReLU"?',
        "kernel 30x30 does not fit its input",
        "bad.prototxt:3:10: base_lr wants a number, got x",
        "there is no file nowhere.prototxt",
    ):
        assert found.err.count(text) == 1, text


def test_check_tells_the_mistakes_of_the_kind_that_a_file_is(run: Any, folder: Path) -> None:
    (folder / "net.prototxt").write_text('layer { nam: "x" typ: "y" }\nlayer { name: "z" type: "ReLU" foo: 1 }\n')
    (folder / "solver.prototxt").write_text('net: "x"\nbase_rl: 1\nmax_itr: 2\n')
    found = run("check", "net.prototxt", "solver.prototxt")
    assert found.code == 2
    assert [line.partition(" ")[0] for line in found.err.splitlines()] == [
        "net.prototxt:1:9:", "net.prototxt:1:18:", "net.prototxt:2:32:",
        "solver.prototxt:2:1:", "solver.prototxt:3:1:",
    ]  # fmt: skip
    assert "is wanted" not in found.err


def test_check_warns_of_blocks_that_the_type_does_not_read(run: Any, folder: Path) -> None:
    (folder / "net.prototxt").write_text("""
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 4 } } }
        layer { name: "a" type: "LayerNorm" bottom: "x" top: "a" norm_param { eps: 0.1 } }
        layer { name: "b" type: "ReLU" bottom: "a" top: "b" relu_param { } dropout_param { dropout_ratio: 0.1 } }
        layer { name: "c" type: "DepthwiseConvolution" bottom: "b" top: "c"
                convolution_param { kernel_size: 1 num_output: 4 } }""")
    found = run("check", "net.prototxt")
    assert found.code == 0
    assert found.err.splitlines() == [
        "warning: net.prototxt:3:66: a (LayerNorm): norm_param is not read by this type, normalization_param is",
        "warning: net.prototxt:4:76: b (ReLU): dropout_param is not read by this type",
    ]


def test_check_warns_of_files_that_are_not_there(run: Any, folder: Path) -> None:
    (folder / "data.prototxt").write_text("""
        layer { name: "d" type: "Data" top: "data" top: "label"
                transform_param { crop_size: 8 mean_file: "mean.binaryproto" }
                data_param { source: "no_lmdb" batch_size: 2 } }
        layer { name: "s" type: "Silence" bottom: "data" bottom: "label" }""")
    (folder / "solver.prototxt").write_text(
        'net: "data.prototxt" base_lr: 1 lr_policy: "fixed" weights: "old.caffemodel"'
    )
    found = run("check", "solver.prototxt")
    assert found.code == 0
    assert [line.startswith("warning: ") for line in found.err.splitlines()] == [True] * 3
    for name in ("no_lmdb", "mean.binaryproto", "old.caffemodel"):
        assert found.err.count(f"{name} is not there") == 1
    assert "phase TRAIN: 2 layers" in found.out


def test_check_says_when_only_the_data_would_tell_the_shapes(run: Any, folder: Path) -> None:
    (folder / "data.prototxt").write_text(
        'layer { name: "d" type: "Data" top: "data" data_param { source: "no_lmdb" batch_size: 2 } }'
    )
    found = run("check", "data.prototxt")
    assert found.code == 0
    assert "phase TRAIN: not checked, its data would tell the shapes" in found.out


def test_check_of_a_net_for_one_phase(run: Any, folder: Path) -> None:
    (folder / "train.prototxt").write_text("""
        layer { name: "d" type: "DummyData" top: "x" dummy_data_param { shape { dim: 2 } } include { phase: TRAIN } }
        layer { name: "s" type: "Silence" bottom: "x" }""")
    found = run("check", "train.prototxt")
    assert (found.code, found.out) == (0, "train.prototxt: ok (net; phase TRAIN: 2 layers)\n")


def test_check_as_json(run: Any, folder: Path) -> None:
    (folder / "bad.prototxt").write_text('name: "x"\nlayer { nam: "y" }\n')
    found = run("check", "--json", "bad.prototxt", "net.prototxt")
    assert found.code == 2
    bad, good = json.loads(found.out)
    assert (bad["ok"], good["ok"]) == (False, True)
    assert (bad["errors"][0]["line"], bad["errors"][0]["column"]) == (2, 9)
    assert 'did you mean "name"' in bad["errors"][0]["message"]


def test_check_takes_less_than_a_second(run: Any) -> None:
    paths = sorted(map(str, CONFIGS.rglob("*.prototxt")))
    start = time.process_time()
    assert run("check", *paths).code == 0
    assert time.process_time() - start < len(paths) * 0.5


# ------------------------------------------------------------------------------------------------------------ summary
@pytest.mark.parametrize(
    ("path", "parameters", "work"),
    [
        ("benchmark/alexnet.prototxt", 61_100_840, 714_188_480),
        ("benchmark/googlenet.prototxt", 6_998_552, 1_582_671_872),
        ("benchmark/vgg_a.prototxt", 132_863_336, 7_609_090_048),
        ("imagenet/resnet50/deploy.prototxt", 25_557_032, 3_857_973_248),
        ("mnist/lenet.prototxt", 431_080, 2_293_000),
    ],
)
def test_summary_of_known_nets(run: Any, path: str, parameters: int, work: int) -> None:
    found = json.loads(run("summary", str(CONFIGS / path), "--json").out)
    assert found["parameters"] == parameters
    assert found["multiply_adds_per_image"] == work


def test_summary_prints_a_table(run: Any) -> None:
    found = run("summary", "net.prototxt")
    assert found.code == 0
    rows = {line.split()[0]: line.split()[1:] for line in found.out.splitlines() if line}
    assert rows["conv"] == ["Convolution", "4x5x4x4", "140", f"{5 * 16 * 27:,}"]
    assert rows["ip"] == ["InnerProduct", "4x3", "243", "240"]
    assert rows["dummy"] == ["DummyData", "data", "4x3x6x6,", "label", "4"]
    assert "accuracy" not in rows
    assert "383 parameters (1.5 KiB)\n" in found.out
    assert "accuracy" in run("summary", "net.prototxt", "--phase", "test").out


@pytest.mark.parametrize(
    ("path", "batch", "sample"),
    [
        ("text/tagger.prototxt", 32, "a sequence"),  # T N: the batch is the second axis
        ("loops/adding.prototxt", 64, "a sequence"),  # what a layer in Python makes
        ("clips/net.prototxt", 32, "a sample"),
        ("mnist/lenet.prototxt", 1, "an image"),
    ],
)
def test_summary_knows_the_batch(run: Any, path: str, batch: int, sample: str) -> None:
    found = run("summary", str(CONFIGS / path)).out
    assert f", batch {batch}\n" in found
    assert f" multiply-adds {sample} (" in found


def test_summary_of_a_solver_is_its_training_net(run: Any) -> None:
    assert run("summary", "solver.prototxt").out == run("summary", "net.prototxt").out


def test_summary_with_other_shapes(run: Any) -> None:
    found = json.loads(run("summary", "net.prototxt", "--json", "--input-shape", "data=2,3,8,8").out)
    tops = {name: shape for layer in found["layers"] for name, shape in layer["tops"].items()}
    assert (found["batch"], tops["conv"], tops["label"]) == (2, [2, 5, 6, 6], [2])
    refused = run("summary", "net.prototxt", "--input-shape", "dat=2,3,8,8")
    assert 'has no input "dat"; did you mean "data"?' in refused.err
    assert run("summary", "net.prototxt", "--input-shape", "data=2,x").code == 2


def test_summary_counts_shared_parameters_once(run: Any, folder: Path) -> None:
    (folder / "shared.prototxt").write_text("""
        layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 4 } } }
        layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" param { name: "w" } param { name: "b" }
                inner_product_param { num_output: 4 } }
        layer { name: "c" type: "InnerProduct" bottom: "a" top: "c" param { name: "w" } param { name: "b" }
                inner_product_param { num_output: 4 } }""")
    found = run("summary", "shared.prototxt")
    assert "20 parameters" in found.out
    assert re.search(r"^c +InnerProduct +2x4 +of a +16$", found.out, re.MULTILINE)


# --------------------------------------------------------------------------------------------------------------- plan
def test_plan_prints_one_call_a_line(run: Any) -> None:
    found = run("plan", "solver.prototxt")
    assert found.code == 0
    title, *calls, memory = found.out.splitlines()
    assert re.fullmatch(r"# tiny: iteration, (\d+) calls, device null", title)
    assert int(re.findall(r"\d+", title)[0]) == len(calls)
    kinds = [re.match(r" *\d+  \S+ +.* <- (\w+)", line) for line in calls]
    assert {kind[1] for kind in kinds if kind} <= set(OPS)
    assert all(kinds)
    origins = [line.split()[1] for line in calls]
    assert {"conv", "conv'", "conv*", "ip", "ip'", "ip*"} <= set(origins)
    naive, planned = (int(n.replace(",", "")) for n in re.findall(r"([\d,]+) (?:bytes naive|planned)", memory))
    assert 0 < planned < naive


def test_plan_of_a_net_is_its_forward_pass(run: Any) -> None:
    found = json.loads(run("plan", "net.prototxt", "--json", "--phase", "TEST").out)
    (program,) = found["programs"]
    assert program["name"] == "forward"
    assert program["calls"] <= program["calls_recorded"]
    assert program["total_bytes"] >= program["held_bytes"] + program["planned_bytes"]


def test_plan_with_iter_size_has_an_update_of_its_own(run: Any, folder: Path) -> None:
    (folder / "two.prototxt").write_text((folder / "solver.prototxt").read_text() + "iter_size: 2")
    out = run("plan", "two.prototxt").out
    assert "# tiny: pass, " in out
    assert "# tiny: update, after 2 passes, " in out


# ------------------------------------------------------------------------------------------------- devices and explain
def test_devices(run: Any) -> None:
    found = run("devices")
    assert found.code == 0
    names = [line.split()[0] for line in found.out.splitlines() if line[:1].strip()]
    assert names[:3] == ["cpu", "reference", "null"]
    assert names[3].startswith("cuda")
    facts = json.loads(run("device_query", "--json").out)
    assert facts["cpu"]["cores"] >= 1
    assert {"cpu", "reference", "null"} <= set(facts["devices"])


def test_explain(run: Any) -> None:
    assert "number 5" in run("explain", "SolverParameter.base_lr").out
    norm = run("explain", "GroupNorm").out
    assert norm.startswith("GroupNorm\n    y = scale[c] * (x - mean)")
    assert "normalization_param { ... } in the layer" in norm
    assert "\nNormalizationParameter\n" in norm
    assert "\n    groups " in norm
    assert run("explain", "Silence").out.startswith("Silence\n    no y: ")  # a type without parameters


READ_A_NET = {
    "check": (), "summary": (), "plan": (), "draw": (), "time": ("--iterations", "1"),
    "test": ("--iterations", "1", "--weights", "w"), "features": ("--batches", "1", "--blobs", "ip", "--weights", "w"),
}  # fmt: skip


@pytest.mark.parametrize("command", READ_A_NET)
def test_every_command_that_reads_a_net_can_be_lenient(command: str, run: Any, folder: Path) -> None:
    """A field of a fork that the net stands without: told with its fork, and passed over where that is asked for."""
    net = (folder / "net.prototxt").read_text().replace('"relu" type', '"relu" forward_type: FLOAT16 type')
    (folder / "fork.prototxt").write_text(net)
    with Net("net.prototxt") as opened:
        opened.save("w")
    refused = run(command, "fork.prototxt", *READ_A_NET[command])
    assert refused.code == 2
    assert "it is of NVIDIA's Caffe" in refused.err + refused.out
    accepted = run(command, "fork.prototxt", "--lenient", *READ_A_NET[command])
    assert accepted.code == 0, accepted.err
