"""Graphs: which layers are in, outputs and their order, sharing, shapes of the recorded nets, what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases.recorded import GOLDEN, recorded

from netrun.compiler.graph import build
from netrun.compiler.rules import State
from netrun.compiler.splits import name_copies, written_out
from netrun.config import schema
from netrun.config.upgrade import parse_net, parse_solver
from netrun.errors import ConfigError, NetrunError
from netrun.net import Net
from netrun.solver import Solver


def load(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text())


def rule_cases() -> list[Any]:
    return [
        pytest.param(case["prototxt"], state, id=f"{case['name']} {state['phase']} {state['level']} {state['stages']}")
        for case in load("rules.json")
        for state in case["states"]
    ]


@pytest.mark.parametrize(("text", "state"), rule_cases())
def test_rules(text: str, state: dict[str, Any]) -> None:
    net, source = parse_net(text)
    wanted = State(schema.Phase.Value(state["phase"]), state["level"], tuple(state["stages"]))
    graph = build(net, source, wanted)
    assert [[n.name, n.layer.type] for n in graph.nodes] == state["layers"]


@pytest.mark.parametrize("entry", load("invalid.json"), ids=lambda e: e["what"])
def test_what_caffe_refuses_is_refused(entry: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each recorded refusal is one netrun error that names a layer, blob, file or value; and nothing else happens."""
    monkeypatch.chdir(GOLDEN)
    if entry["what"] in WELCOME:
        return
    with pytest.raises(NetrunError) as caught:
        run(entry, str(tmp_path / "s"))
    text = str(caught.value)
    assert len(text.splitlines()) <= 12
    words = set(re.findall(r"[A-Za-z_]\w+", entry["text"] + " " + entry["what"]))
    assert words & set(re.findall(r"\w+", text)), text


def run(entry: dict[str, Any], prefix: str) -> None:
    """Build what the entry holds, and use it once."""
    if entry["kind"] == "net":
        net = Net(parse_net(entry["text"], "broken.prototxt")[0], schema.Phase.Value(entry["phase"]))
        net.forward()
        return
    message, source = parse_solver(entry["text"], "broken.prototxt")
    message.snapshot_prefix = prefix
    with Solver(message, source=source) as solver:
        solver.step(1)


WELCOME = {
    "pooling: stochastic on CPU": "netrun has stochastic pooling on every device",
    "softmax loss: two tops": "the second top is the softmax, as the layer's documentation in Caffe promises",
    "softmax loss: two tops with loss weights": "likewise",
}
"""Recorded refusals of something that works here, and why."""


@pytest.mark.parametrize("what", WELCOME)
def test_what_only_caffe_refuses_works(what: str) -> None:
    entry = next(e for e in load("invalid.json") if e["what"] == what)
    with Net(parse_net(entry["text"])[0], schema.Phase.Value(entry["phase"])) as net:
        found = net.forward()
        assert set(found) == set(net.outputs)
        for value in found.values():
            assert np.isfinite(value).all()


INPUTS = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } }\n'


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        build(*parse_net(INPUTS + text, "net.prototxt"))
    return str(caught.value)


def test_all_problems_at_once() -> None:
    text = refused(
        'layer { name: "a" type: "Convoluton" bottom: "x" top: "a" }\n'
        'layer { name: "b" type: "ReLU" bottom: "a" top: "b" }\n'
        'layer { name: "c" type: "ReLU" bottom: "y" top: "c" }\n'
        'layer { name: "d" type: "Pooling" bottom: "x" top: "d" pooling_param { kernel_size: 2 pad: 2 } }\n'
    )
    assert text.count("net.prototxt:") == 3  # b only suffers from a
    assert 'did you mean "Convolution"' in text
    assert "net.prototxt:4:" in text
    assert "net.prototxt:5:" in text


def test_a_blob_made_later_or_elsewhere_is_explained() -> None:
    text = refused(
        'layer { name: "a" type: "ReLU" bottom: "late" top: "a" }\n'
        'layer { name: "b" type: "ReLU" bottom: "x" top: "late" }\n'
    )
    assert "layer b at line 3 makes it, but comes later" in text
    text = refused(
        'layer { name: "b" type: "ReLU" bottom: "x" top: "late" include { phase: TRAIN } }\n'
        'layer { name: "a" type: "ReLU" bottom: "late" top: "a" }\n'
    )
    assert "not part of the net in phase TEST" in text


def test_shared_parameters() -> None:
    ip = (
        'layer {{ name: "{0}" type: "InnerProduct" bottom: "x" top: "{0}" param {{ name: "w" {2} }} '
        "inner_product_param {{ num_output: {1} bias_term: false }} }}\n"
    )
    assert "has another shape" in refused(ip.format("a", 4, "") + ip.format("b", 5, ""))
    assert "lr_mult differ: 3 here, 2 there" in refused(
        ip.format("a", 4, "lr_mult: 2") + ip.format("b", 4, "lr_mult: 3")
    )
    assert "decay_mult is inf, and has to be a finite number" in refused(ip.format("a", 4, "decay_mult: inf"))
    graph = build(*parse_net(INPUTS + ip.format("a", 4, "") + ip.format("b", 4, "lr_mult: 3")))
    assert [(p.key, p.lr_mult) for p in graph.parameters] == [("a.weight", 3.0)]


def test_outputs_are_alphabetical_and_know_split_names() -> None:
    net = (
        'layer { name: "z" type: "ReLU" bottom: "x" top: "z" loss_weight: 2 }\n'
        'layer { name: "b" type: "Sigmoid" bottom: "z" top: "b" }\n'
        'layer { name: "a" type: "TanH" bottom: "x" top: "a" }\n'
    )
    assert [name for name, _ in build(*parse_net(INPUTS + net)).outputs] == ["a", "b", "z_z_0_split_0"]


def test_an_empty_net_is_a_net() -> None:
    assert build(schema.NetParameter()).nodes == []


def test_a_loss_layer_without_a_top_counts_all_the_same() -> None:
    loss = 'layer { name: "l" type: "EuclideanLoss" bottom: "x" bottom: "y" TOP }'
    text = INPUTS + 'layer { name: "y" type: "Power" bottom: "x" top: "y" power_param { scale: 2 } }' + loss
    nets = [Net(parse_net(text.replace("TOP", top))[0]) for top in ('top: "l"', "")]
    x = np.arange(96, dtype=np.float32).reshape(2, 3, 4, 4)
    for net in nets:
        net.forward(x=x)
    assert nets[0].loss == nets[1].loss > 0
    assert (nets[0].outputs, nets[1].outputs) == (["l"], [])


@pytest.mark.parametrize("path", sorted((GOLDEN / "nets_small").glob("*.npz")), ids=lambda path: path.stem)
def test_weight_files_name_the_layers_that_caffe_writes(path: Path) -> None:
    """With its Split layers and the names of their copies, in both nets: the one to train and the one to look into."""
    case = recorded(path)
    wanted = [
        (str(name), str(kind), bottoms, tops)
        for name, kind, bottoms, tops in zip(
            case["layer_names"], case["layer_types"], json.loads(str(case["bottoms"])), json.loads(str(case["tops"])),
            strict=True,
        )
    ]  # fmt: skip
    message, state = parse_net(str(case["prototxt"]))[0], State(schema.Phase.Value(str(case["phase"])))
    for graph in (build(message, None, state), name_copies(build(message, None, state))):
        found = [m for m, _ in written_out(graph)]
        assert [(m.name, m.type, list(m.bottom), list(m.top)) for m in found] == wanted
        assert {m.phase for m in found} == {state.phase}
        assert all(m.loss_weight for m in found if m.type.endswith("Loss"))


def test_stages_of_the_net_itself_count() -> None:
    """A net says in ``state`` which of its stages are on; phase and level are those of whoever opens it."""
    text = INPUTS + (
        'layer { name: "a" type: "ReLU" bottom: "x" top: "a" include { stage: "deep" } }\n'
        'layer { name: "b" type: "ReLU" bottom: "x" top: "b" include { not_stage: "deep" } }\n'
        'layer { name: "c" type: "ReLU" bottom: "x" top: "c" include { stage: "deep" stage: "wide" } }\n'
        'layer { name: "d" type: "ReLU" bottom: "x" top: "d" include { phase: TRAIN } }\n'
        'layer { name: "e" type: "ReLU" bottom: "x" top: "e" include { min_level: 1 } }\n'
    )
    own = 'state { phase: TRAIN level: 2 stage: "deep" }'
    for begin, state, wanted in (
        ("", State(schema.TEST), "b"), (own, State(schema.TEST), "a"), (own, State(schema.TRAIN), "ad"),
        (own, State(schema.TEST, 1, ("wide",)), "ace"),
    ):  # fmt: skip
        found = [name for name, _ in build(*parse_net(text + begin), state).outputs]
        assert "".join(name for name in found if name in "abcde") == wanted


def test_layers_of_one_name_have_keys_of_their_own() -> None:
    names = ["a", "a", "a@2", "a", "b"]
    layers = "".join(
        f'layer {{ name: "{name}" type: "ReLU" bottom: "x" top: "t{i}" }}\n' for i, name in enumerate(names)
    )
    graph = build(*parse_net(INPUTS + layers))
    found = [node.key for node in graph.nodes[-5:]]
    assert [node.name for node in graph.nodes[-5:]] == names
    assert found == ["a", "a@2", "a@2@2", "a@3", "b"]
