"""What a person reads: broken nets and solvers, and the exact message each gives.

The cases and their messages stand in messages/cases.txt, to be read like a text. After a deliberate change of wording:
``NETRUN_UPDATE_MESSAGES=1 python -m pytest tests/test_messages.py``, then read the difference.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest

import netrun.layers  # noqa: F401  (registers the layer types)
from netrun.compiler.graph import build
from netrun.compiler.rules import State
from netrun.config import schema
from netrun.config.upgrade import parse_net, parse_solver
from netrun.errors import NetrunError
from netrun.net import Net
from netrun.solver import Solver

FILE = Path(__file__).parent / "messages" / "cases.txt"


def cases() -> dict[str, tuple[str, str]]:
    """Title -> (text, message)."""
    found = {}
    for part in FILE.read_text().split("=== ")[1:]:
        title, rest = part.split("\n", 1)
        text, message = rest.split("---\n", 1)
        found[title] = (text, message)
    return found


def message_of(title: str, text: str) -> str:
    """What building it says; empty if nothing is wrong."""
    try:
        if title.startswith("net"):
            build(*parse_net(text, "net.prototxt"), State(schema.TEST))
        else:
            message, source = parse_solver(text, "solver.prototxt")
            with Solver(message, source=source):
                pass
    except NetrunError as error:
        return str(error) + "\n"
    return ""


@pytest.mark.parametrize("title", cases())
def test_message(title: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    text, wanted = cases()[title]
    got = message_of(title, text)
    assert got, f"{title}: nothing was refused"
    if os.environ.get("NETRUN_UPDATE_MESSAGES"):
        whole = FILE.read_text()
        FILE.write_text(whole.replace(f"=== {title}\n{text}---\n{wanted}", f"=== {title}\n{text}---\n{got}"))
    else:
        assert got == wanted


def test_there_are_many() -> None:
    assert len(cases()) >= 40


@pytest.mark.parametrize("seed", range(120))
def test_mutated_nets_never_end_in_a_traceback(seed: int) -> None:
    """A working net with random edits builds and runs, or is refused by a netrun error."""
    rng = random.Random(seed)
    text = (
        'name: "m" layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 9 dim: 9 } } }\n'
        'layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 4 kernel_size: 3 '
        'stride: 2 pad: 1 group: 1 dilation: 1 weight_filler { type: "xavier" } } param { name: "w" lr_mult: 1 } }\n'
        'layer { name: "r" type: "ReLU" bottom: "c" top: "c" relu_param { negative_slope: 0.1 } }\n'
        'layer { name: "p" type: "Pooling" bottom: "c" top: "p" pooling_param { pool: AVE kernel_size: 3 pad: 1 } }\n'
        'layer { name: "n" type: "LRN" bottom: "p" top: "n" lrn_param { local_size: 3 norm_region: WITHIN_CHANNEL } }\n'
        'layer { name: "q" type: "Reshape" bottom: "n" top: "q" reshape_param { shape { dim: 0 dim: -1 } axis: 0 } }\n'
        'layer { name: "s" type: "Slice" bottom: "q" top: "a" top: "b" slice_param { axis: 1 slice_point: 3 } }\n'
        'layer { name: "k" type: "Concat" bottom: "b" bottom: "a" top: "k" concat_param { axis: 1 } }\n'
        'layer { name: "f" type: "InnerProduct" bottom: "k" top: "f" inner_product_param { num_output: 5 axis: 1 } }\n'
        'layer { name: "o" type: "Softmax" bottom: "f" top: "o" softmax_param { axis: 1 } }\n'
    )
    for _ in range(rng.randint(1, 4)):
        kind, at = rng.random(), rng.randrange(len(text))
        digits = [i for i, c in enumerate(text) if c.isdigit()]
        words = text.split(" ")
        if kind < 0.45:
            at = rng.choice(digits)
            text = (
                text[:at]
                + rng.choice(["0", "7", "-1", "3.5", "64", "999", "1e9", "-2147483649", '"a"'])
                + text[at + 1 :]
            )
        elif kind < 0.65:
            i, j = rng.randrange(len(words)), rng.randrange(len(words))
            words[i], words[j] = words[j], words[i]
            text = " ".join(words)
        elif kind < 0.85:
            del words[rng.randrange(len(words))]
            text = " ".join(words)
        else:
            text = text[:at] + rng.choice(["{", "}", '"', ":", "\x00", "é", "#"]) + text[at + 1 :]
    try:
        net, source = parse_net(text, "mutated.prototxt")
        graph = build(net, source)
        if (
            sum(v.spec.count for n in graph.nodes for v in n.tops) < 10**6
            and graph.parameters
            and all(p.spec.count < 10**6 for p in graph.parameters)
        ):
            Net(net).forward(**{v.blob: np.ones(v.spec.shape, np.float32) for v in graph.inputs})
    except NetrunError as refused:
        text = str(refused)
    assert text.strip()
