"""Damaged nets: whatever a random change makes of a recorded net, it runs or is refused with an error of netrun's."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest

from netrun.compiler.graph import State, build
from netrun.config import schema
from netrun.config.upgrade import parse_net
from netrun.errors import NetrunError
from netrun.layers import Layer
from netrun.net import Net

GOLDEN = Path(__file__).parents[1] / "golden"
NUMBERS = (
    "-1", "0", "1", "2", "7", "-2", "100", "4294967295", "4294967296", "-2147483648", "1e30", "nan", "inf", "-inf",
    "0.5", "1e-45", "true", '"x"', "99999999999999999999", "",
)  # fmt: skip
WORDS = ('"x"', '"y"', '""', '"t"', '"label"', '"Convolution"', '"\\000"', '"xavier"')
FIELDS = (
    "loss_weight: 1", "loss_weight: nan", "propagate_down: true", "propagate_down: false", "param { lr_mult: 0 }",
    'param { name: "w" }', 'bottom: "x"', 'top: "z"', 'top: "x"', "phase: TEST", "include { phase: TEST }",
    "blobs { shape { dim: 2 } data: 1 data: 2 }", "loss_param { ignore_label: 1 normalization: NONE }",
    "softmax_param { axis: -1 }", "inner_product_param { num_output: 3 axis: 0 }", "transform_param { scale: 2 }",
    'option { key: "a" value: "b" }', 'param { share_mode: PERMISSIVE name: "w" }',
    "recurrent_param { num_output: 2 expose_hidden: true }",
)  # fmt: skip
SMALL = 100_000
"""Numbers in a net that is run here."""


def texts() -> list[str]:
    """Every net of the recording, also the refused ones."""
    found = []
    for pattern in ("layers/*.npz", "nets_small/*.npz"):
        for path in sorted(GOLDEN.glob(pattern)):
            with np.load(path) as case:
                found.append(str(case["prototxt"]))
    rows = json.loads((GOLDEN / "invalid.json").read_text())
    return found + [row["text"] for row in rows if row["kind"] == "net"]


def mutated(rng: random.Random, text: str) -> str:
    """The text with one to three changes: another number, word, type or field, something left out or repeated."""
    for _ in range(rng.randint(1, 3)):
        tokens = re.findall(r'"[^"]*"|[\w.+-]+|[{}:]|\s+', text)
        numbers = [i for i, token in enumerate(tokens) if re.fullmatch(r"[-\d.e+]+", token)]
        words = [i for i, token in enumerate(tokens) if token.startswith('"')]
        types = list(re.finditer(r'type: "(\w*)"', text))
        how = rng.choice(("number", "number", "word", "less", "more", "field", "type"))
        if how == "field" and types:
            at = rng.choice(types).end()
            text = f"{text[:at]} {rng.choice(FIELDS)}{text[at:]}"
            continue
        if how == "type" and types:
            old = rng.choice(types)
            text = text[: old.start(1)] + rng.choice(sorted(Layer.registry)) + text[old.end(1) :]
            continue
        at = rng.randrange(len(tokens))
        if how == "number" and numbers:
            tokens[rng.choice(numbers)] = rng.choice(NUMBERS)
        elif how == "word" and words:
            tokens[rng.choice(words)] = rng.choice(WORDS)
        elif how == "less":
            del tokens[at : at + rng.randint(1, 6)]
        else:
            start = rng.randrange(len(tokens))
            tokens[at:at] = tokens[start : start + rng.randint(1, 8)]
        text = "".join(tokens)
    return text


def run(text: str, phase: int) -> None:
    """Read it, build it and, if it is small, run it both ways."""
    message, source = parse_net(text, "net.prototxt")
    graph = build(message, source, State(phase))
    specs = [v.spec for v in graph.blobs.values()] + [p.spec for p in graph.parameters]
    if sum(spec.count for spec in specs) > SMALL:
        return
    with Net(message, phase, device="reference", source=source) as net:
        rng = np.random.default_rng(1)
        net.forward(**{name: rng.integers(0, 3, net.blobs[name].shape) for name in net.inputs})
        net.backward()


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_net_runs_or_is_refused(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng, known = random.Random(seed), texts()
    refused: dict[str, str] = {}
    for _ in range(250):
        text = mutated(rng, rng.choice(known))
        try:
            run(text, rng.choice((schema.TRAIN, schema.TEST)))
        except NetrunError as error:
            refused[text] = str(error)
    assert 50 < len(refused) < 250
    assert [text for text, error in refused.items() if not error.strip() or "forward() fails" in error] == []
