"""Decoding: greedy, beams against all sequences there are, states that go with their beams, several inputs at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from netrun.beam import Hypothesis
from netrun.config import schema
from netrun.config.upgrade import parse_net
from netrun.decode import Decoder
from netrun.errors import DataError, UsageError
from netrun.net import Net

TOKENS, LONGEST, START, STOP = 4, 4, 3, 0

MIDDLE = {
    "attention": 'layer { name: "mix" type: "MultiHeadAttention" bottom: "e" top: "h" attention_param { num_heads: 2 '
    "rotary: true WAY time_major: true } }",
    "positions": 'layer { name: "pos" type: "PositionEncoding" bottom: "e" top: "p" position_encoding_param { learned: '
    "true max_length: 4 CARRY time_major: true } } "
    'layer { name: "mix" type: "MultiHeadAttention" bottom: "p" top: "h" attention_param { WAY time_major: true } }',
    "recurrent": 'layer { name: "mix" type: "Recurrent" bottom: "e" top: "h" recurrent_net_param { state { name: "s" '
    'next: "h" dim: 8 CARRY } body { layer { name: "step" type: "Expr" bottom: "e" bottom: "s" top: "h" expr_param { '
    'expr: "tanh(e + s @ R)" weight { name: "R" shape { dim: 8 dim: 8 } filler { type: "gaussian" } } } } } } }',
    "lstm": 'layer { name: "mix" type: "LSTM" bottom: "e" CONT top: "h" recurrent_param { num_output: 8 '
    'weight_filler { type: "gaussian" } } }',
}


def language_model(kind: str, steps: int) -> Net:
    """Scores of the next token, T N; with one step the net carries what it has seen."""
    one = steps == 1
    middle = MIDDLE[kind].replace("WAY", "cache: 4" if one else "causal: true")
    middle = middle.replace("CARRY", "carry: true" if one else "").replace("CONT", 'bottom: "on"' if one else "")
    ones = ""
    if one and kind == "lstm":
        ones = 'layer { name: "on" type: "Expr" bottom: "e" top: "on" expr_param { expr: "e[:, :, 0] * 0 + 1" } }'
    text = f"""layer {{ name: "in" type: "Input" top: "target" input_param {{ shape {{ dim: {steps} dim: 1 }} }} }}
        layer {{ name: "e" type: "Embed" bottom: "target" top: "e" embed_param {{ input_dim: {TOKENS} num_output: 8
          bias_term: false weight_filler {{ type: "gaussian" }} }} }}
        {ones} {middle}
        layer {{ name: "next" type: "InnerProduct" bottom: "h" top: "scores" inner_product_param {{ num_output: {TOKENS}
          axis: 2 weight_filler {{ type: "gaussian" }} }} }}"""
    return Net(parse_net(text)[0], schema.TEST, seed=5)


TRANSLATE = f"""layer {{ name: "in" type: "Input" top: "target" top: "source" top: "length" input_param {{
    shape {{ dim: 1 dim: {LONGEST} }} shape {{ dim: 1 dim: 5 }} shape {{ dim: 1 }} }} }}
  layer {{ name: "m" type: "Embed" bottom: "source" top: "m" embed_param {{ input_dim: 7 num_output: 6
    weight_filler {{ type: "gaussian" }} }} }}
  layer {{ name: "e" type: "Embed" bottom: "target" top: "e" embed_param {{ input_dim: {TOKENS} num_output: 6
    weight_filler {{ type: "gaussian" }} }} }}
  layer {{ name: "self" type: "MultiHeadAttention" bottom: "e" top: "s" attention_param {{ causal: true
    rotary: true }} }}
  layer {{ name: "look" type: "MultiHeadAttention" bottom: "s" bottom: "m" bottom: "length" top: "h" attention_param {{
    num_heads: 2 weight_filler {{ type: "gaussian" }} }} }}
  layer {{ name: "next" type: "InnerProduct" bottom: "h" top: "scores" inner_product_param {{ num_output: {TOKENS}
    axis: 2 weight_filler {{ type: "gaussian" }} }} }}"""


def decoder(kind: str, steps: int = LONGEST, **rest: Any) -> Decoder:
    return Decoder(language_model(kind, steps), start=START, stop=STOP, time_major=True, **rest)


def log_softmax(x: Any) -> Any:
    x = np.asarray(x, "float64")
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def everything(net: Net, prompt: tuple[int, ...], written: int, penalty: float = 0) -> list[tuple[float, Any]]:
    """Every sequence there is with its score, the best first."""

    def all_of_them() -> Iterator[tuple[int, ...]]:
        others = [t for t in range(TOKENS) if t != STOP]
        for length in range(written):
            yield from ((*t, STOP) for t in itertools.product(others, repeat=length))
        yield from itertools.product(others, repeat=written)

    found = []
    net.reshape(target=(LONGEST, 1))
    for tail in all_of_them():
        rows = np.zeros((LONGEST, 1))
        known = (*prompt, *tail)[:LONGEST]
        rows[: len(known), 0] = known
        logs = log_softmax(net.forward(target=rows)["scores"])[:, 0]
        total = sum(logs[len(prompt) - 1 + i, token] for i, token in enumerate(tail))
        kept = tail[:-1] if tail[-1] == STOP else tail
        found.append((total / ((5 + len(tail)) / 6) ** penalty, kept))
    return sorted(found, key=lambda pair: -pair[0])


def same(found: list[Hypothesis], wanted: list[tuple[float, Any]]) -> None:
    assert [h.tokens for h in found] == [tokens for _, tokens in wanted]
    np.testing.assert_allclose([h.score for h in found], [score for score, _ in wanted], 1e-5, 1e-5)


@pytest.mark.parametrize("penalty", [0.0, 1.0, -0.5])
@pytest.mark.parametrize("prompt", [(START,), (START, 2)])
def test_a_large_beam_finds_the_best_of_all(penalty: float, prompt: tuple[int, ...]) -> None:
    searching = decoder("attention")
    written = LONGEST - len(prompt) + 1
    found = searching(prompts=[prompt], beam=120, n_best=9, length_penalty=penalty)[0]
    same(found, everything(searching.net, prompt, written, penalty)[:9])
    searching.net.close()


def test_a_beam_of_one_takes_the_best_token_each_time() -> None:
    searching = decoder("attention")
    net = searching.net
    for first in range(1, TOKENS):
        found = searching(prompts=[(first,)])[0][0]
        known, total = [first], 0.0
        while len(known) <= LONGEST:
            rows = np.zeros((LONGEST, 1))
            rows[: len(known), 0] = known
            logs = log_softmax(net.forward(target=rows)["scores"])[len(known) - 1, 0]
            known.append(int(logs.argmax()))
            total += logs.max()
            if known[-1] == STOP:
                break
        assert found.ended == (known[-1] == STOP)
        assert found.tokens == tuple(known[1:-1] if found.ended else known[1:])
        assert found.score == pytest.approx(total, rel=1e-5)
    net.close()


@pytest.mark.parametrize("kind", MIDDLE)
@pytest.mark.parametrize("beam", [1, 3, 20])
def test_step_by_step_is_as_all_at_once(kind: str, beam: int) -> None:
    whole, stepped = decoder(kind), decoder(kind, 1)
    for name, blobs in whole.net.params.items():
        for mine, theirs in zip(stepped.net.params[name], blobs, strict=True):
            mine.data[...] = theirs.data
    prompts = [(START,), (START, 1), (2, 2, 1), (START,)]
    most = 2  # as many as fit behind the longest prompt
    a, b = (d(prompts=prompts, beam=beam, n_best=beam, max_length=most) for d in (whole, stepped))
    for ours, theirs in zip(b, a, strict=True):
        same(ours, [(h.score, h.tokens) for h in theirs])
    again = stepped(prompts=prompts, beam=beam, n_best=beam, max_length=most)
    assert again == b, "states begin anew"
    whole.net.close()
    stepped.net.close()


def test_what_a_net_carries_counts_from_the_start_where_all_tokens_come_again() -> None:
    with language_model("attention", LONGEST) as net, language_model("attention", 1) as one:
        wanted = Decoder(net, start=START, time_major=True)(prompts=[(START,)] * 2, beam=3, n_best=3)
        for name, blobs in net.params.items():
            for mine, theirs in zip(one.params[name], blobs, strict=True):
                mine.data[...] = theirs.data
        one.reshape(target=(LONGEST, 1))
        found = Decoder(one, start=START, time_major=True)(prompts=[(START,)] * 2, beam=3, n_best=3)
    for ours, theirs in zip(found, wanted, strict=True):
        same(ours, [(h.score, h.tokens) for h in theirs])


@pytest.mark.parametrize("beam", [1, 4])
def test_a_batch_is_as_its_inputs_one_by_one(beam: int) -> None:
    rng = np.random.default_rng(3)
    source, length = rng.integers(0, 7, (5, 5)), np.array([5, 2, 1, 4, 3])
    with Net(parse_net(TRANSLATE)[0], schema.TEST, seed=2) as net:
        runs: list[list[str]] = []
        searching = Decoder(net, start=START, stop=STOP)
        assert searching.others == ["source", "length"]
        found = searching({"source": source, "length": length}, beam=beam, n_best=beam, length_penalty=0.6)
        for n in range(5):
            alone = searching({"source": source[n : n + 1], "length": length[n : n + 1]}, beam=beam, n_best=beam,
                              length_penalty=0.6)[0]  # fmt: skip
            same(alone, [(h.score, h.tokens) for h in found[n]])
            runs.append([str(h.tokens) for h in alone])
    assert len({runs[n][0] for n in range(5)}) > 1, "they are different inputs"


def test_behind_a_softmax_it_is_the_same() -> None:
    text = TRANSLATE + 'layer { name: "p" type: "Softmax" bottom: "scores" top: "p" softmax_param { axis: 2 } }'
    given = {"source": np.array([[1, 2, 3, 4, 5]]), "length": np.array([4])}
    with Net(parse_net(text)[0], schema.TEST, seed=2) as net:
        a, b = (Decoder(net, scores=name, start=START)(given, beam=4, n_best=4)[0] for name in ("scores", "p"))
    same(a, [(h.score, h.tokens) for h in b])


def test_no_input_gives_nothing() -> None:
    with language_model("lstm", LONGEST) as net:
        assert Decoder(net, time_major=True)(prompts=[]) == []


# -------------------------------------------------------------------------------------------------------------- refused
MADE = [
    ({"tokens": "targets"}, ['no input "targets"', 'did you mean "target"', "its inputs: target, source, length"]),
    ({"scores": "score"}, ['no blob "score"', 'did you mean "scores"']),
    ({"scores": "m"}, ['blob "m"', "1 5 6", "1 4"]),
    ({"tokens": "length", "scores": "m"}, ["a score for each token"]),
    ({"start": 9}, ["start is token 9", "0..3"]),
    ({"stop": -1}, ["stop is token -1"]),
]
CALLED = [
    ({"beam": 0}, ["beam is 0"]),
    ({"n_best": 2}, ["n_best 2", "at most beam"]),
    ({"max_length": 9}, ["max_length is 9", "room for 4 tokens", "4 can be written"]),
    ({"prompts": [(3, 1, 2, 1, 1)]}, ["nothing can be written", "5 of them given"]),
    ({"prompts": [()]}, ["empty"]),
    ({"prompts": [(7,)]}, ["token 7", "0..3"]),
    ({"prompts": [(1,), (1,)]}, ['the prompts 2, "source" 1']),
    ({"inputs": {"length": [1]}}, ['nothing is given for the input "source"']),
    ({"inputs": {"sauce": [1]}}, ['no input "sauce"', "did you mean", "source, length"]),
    ({"inputs": {"source": [1, 2], "length": [1]}}, ['"source" has 2 axes', "has 1"]),
    ({"inputs": {"source": np.ones((2, 5)), "length": [1]}}, ['"source" 2, "length" 1']),
]


@pytest.mark.parametrize(("given", "words"), MADE, ids=str)
def test_refused_when_made(given: dict[str, Any], words: list[str]) -> None:
    with Net(parse_net(TRANSLATE)[0], schema.TEST) as net, pytest.raises(UsageError) as error:
        Decoder(net, **given)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(("given", "words"), CALLED, ids=str)
def test_refused_when_called(given: dict[str, Any], words: list[str]) -> None:
    usual = {"inputs": {"source": np.ones((1, 5)), "length": [1]}}
    with Net(parse_net(TRANSLATE)[0], schema.TEST) as net, pytest.raises(UsageError) as error:
        Decoder(net, start=START)(**{**usual, **given})
    for word in words:
        assert word in str(error.value)


def test_a_net_that_carries_nothing_cannot_go_step_by_step() -> None:
    text = TRANSLATE.replace(f"dim: {LONGEST}", "dim: 1", 1)
    with Net(parse_net(text)[0], schema.TEST) as net, pytest.raises(UsageError, match="carries anything"):
        Decoder(net)


def test_no_start_and_no_prompts() -> None:
    with Net(parse_net(TRANSLATE)[0], schema.TEST) as net, pytest.raises(UsageError, match="no start token"):
        Decoder(net)({"source": np.ones((1, 5)), "length": [1]})


def test_a_source_the_net_does_not_know_is_an_error_of_the_data() -> None:
    with Net(parse_net(TRANSLATE)[0], schema.TEST) as net, pytest.raises(DataError, match="index 9"):
        Decoder(net, start=START)({"source": np.full((1, 5), 9), "length": [1]})
