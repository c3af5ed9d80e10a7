"""Attention against loops over every sequence, query and key; padding, caches, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from cases.attention_loops import (
    GAUSS,
    LENGTHS,
    RNG,
    SEES,
    dot,
    drawn,
    first,
    multihead,
    near,
    opened,
    outcome,
    text_of,
    weighted,
    weights,
)

from netrun.compiler.graph import State, build
from netrun.config import schema
from netrun.config.upgrade import parse_net
from netrun.cpu import dnnl
from netrun.errors import ConfigError, DataError
from netrun.net import Net

LIBRARY = dnnl.library()
HALVES = pytest.param("cpu", "BF16", marks=pytest.mark.skipif(
    LIBRARY is None or not LIBRARY.multiplies_halves, reason="this processor does not multiply bfloat16, or no oneDNN"
))  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- definitions
WAYS = pytest.mark.parametrize("way", SEES)
BOTH = pytest.mark.parametrize(("device", "major"), [("reference", False), ("cpu", True), ("cpu", False)])


@WAYS
@BOTH
def test_dot_product(way: str, device: str, major: bool) -> None:
    fields, seen = SEES[way]
    query, key, value = drawn(4, 5, 3), drawn(4, 5, 3), drawn(4, 5, 2)
    given = [first(major, x) for x in (query, key, value)] + ([LENGTHS] if way in ("lengths", "both") else [])
    body = f"attention_param {{ {fields} time_major: {str(major).lower()} }}"
    with opened("DotProductAttention", body, *given, tops=2, device=device) as net:
        y, p = outcome(net, *given)
    wanted = dot(query, key, value, 3**-0.5, seen)
    near(first(major, y), wanted[0])
    near(p, wanted[1])


def test_dot_product_of_single_queries_and_masks() -> None:
    query, key, value = drawn(2, 3), drawn(2, 4, 3), drawn(2, 4, 3)
    with opened("DotProductAttention", "attention_param { scale: 1 }", query, key, value, tops=2) as net:
        y, p = outcome(net, query, key, value)
    wanted = dot(query[:, None], key, value, 1, lambda *_: True)
    near(y, wanted[0][:, 0])
    near(p, wanted[1][:, 0])
    query, mask = drawn(2, 3, 3), (RNG.random((2, 3, 4)) < 0.5).astype("float32")
    mask[1, 2] = 0
    body = "attention_param { learned_scale: true scale: 0.5 }"
    with opened("DotProductAttention", body, query, key, value, mask, tops=2) as net:
        assert net.params["t"][0].data == 0.5
        y, p = outcome(net, query, key, value, mask)
    wanted = dot(query, key, value, 0.5, lambda n, i, j: bool(mask[n, i, j]))
    near(y, wanted[0])
    near(p, wanted[1])
    assert not y[1, 2].any()
    assert not p[1, 2].any()


@WAYS
@BOTH
def test_additive(way: str, device: str, major: bool) -> None:
    fields, seen = SEES[way]
    query, memory = drawn(4, 5, 3), drawn(4, 5, 2)
    given = [first(major, query), first(major, memory)] + ([LENGTHS] if way in ("lengths", "both") else [])
    body = f"attention_param {{ num_output: 6 {fields} time_major: {str(major).lower()} {GAUSS} }}"
    with opened("AdditiveAttention", body, *given, tops=2, device=device) as net:
        y, p = outcome(net, *given)
        w, u, b, v = weights(net)

    def score(n: int, i: int, j: int) -> float:
        return float(sum(v[0, a] * math.tanh(w[a] @ query[n, i] + u[a] @ memory[n, j] + b[a]) for a in range(6)))

    wanted = weighted(score, memory, 5, seen)
    near(first(major, y), wanted[0])
    near(p, wanted[1])


@WAYS
@BOTH
@pytest.mark.parametrize("rotary", [False, True])
def test_multihead(way: str, device: str, major: bool, rotary: bool) -> None:
    fields, seen = SEES[way]
    x = drawn(4, 5, 8)
    given = [first(major, x), *([LENGTHS] if way in ("lengths", "both") else [])]
    turns = "rotary: true rotary_base: 100" if rotary else ""
    body = f"attention_param {{ num_heads: 2 {fields} {turns} time_major: {str(major).lower()} {GAUSS} }}"
    with opened("MultiHeadAttention", body, *given, tops=2, device=device) as net:
        y, p = outcome(net, *given)
        x = np.where(np.arange(5)[None, :, None] < LENGTHS[:, None, None], x, 0) if len(given) > 1 else x
        wanted = multihead(x, x, weights(net), 2, seen, 100 if rotary else 0)
    if len(given) > 1:  # what comes out behind a length is 0
        wanted[0][np.arange(5)[None] >= LENGTHS[:, None]] = 0
    near(first(major, y), wanted[0])
    near(p, wanted[1])


def test_multihead_over_a_memory() -> None:
    x, memory = drawn(4, 2, 6), drawn(4, 5, 3)
    body = f"attention_param {{ num_heads: 3 key_size: 2 value_size: 4 num_output: 5 {GAUSS} }}"
    with opened("MultiHeadAttention", body, x, memory, LENGTHS) as net:
        near(outcome(net, x, memory, LENGTHS)[0], multihead(x, memory, weights(net), 3, SEES["lengths"][1])[0])
    mask = (RNG.random((4, 3, 2, 5)) < 0.6).astype("float32")
    with opened("MultiHeadAttention", body, x, memory, mask, tops=2) as net:
        shown = outcome(net, x, memory, mask)[1]
    assert not shown[mask == 0].any()
    near(shown.sum(-1), mask.any(-1))


# -------------------------------------------------------------------------------------------------------------- padding
KINDS = {
    "DotProductAttention": ("", lambda: [drawn(4, 2, 3), drawn(4, 5, 3), drawn(4, 5, 2)], [1, 2]),
    "AdditiveAttention": (f"num_output: 3 {GAUSS}", lambda: [drawn(4, 2, 3), drawn(4, 5, 3)], [1]),
    "MultiHeadAttention": (f"num_heads: 2 {GAUSS}", lambda: [drawn(4, 5, 4)], [0]),
    "MultiHeadAttention memory": (f"num_heads: 2 {GAUSS}", lambda: [drawn(4, 2, 4), drawn(4, 5, 4)], [1]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_padding_is_never_looked_at(kind: str, device: str) -> None:
    """With no numbers at all behind the lengths everything is as before, and no gradient gets there; a sequence in a
    batch is as it is alone, without padding."""
    fields, make, padded = KINDS[kind]
    kind, body, given = kind.split()[0], f"attention_param {{ {fields} }}", make()
    behind = np.arange(5)[None] >= LENGTHS[:, None]
    found = []
    with opened(kind, body, *given, LENGTHS, device=device) as net:
        seed = drawn(*net.blobs["y0"].shape)
        blobs = weights(net) if "t" in net.params else []
        for filling in (0.0, np.nan):
            for i in padded:
                given[i][behind] = filling
            y = outcome(net, *given, LENGTHS)[0]
            net.clear_param_diffs()
            net.backward(y0=seed)
            diffs = [np.array(net.blobs[f"x{i}"].diff) for i in range(len(given))]
            found.append([y, *diffs, *(np.array(blob.diff) for blob in net.params.get("t", []))])
            for i in padded:
                assert not diffs[i][behind].any()
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)
    for n, length in enumerate(LENGTHS.astype(int)):
        if not length:
            bias = blobs[-1] if kind.startswith("Multi") and len(given) > 1 else 0
            near(found[0][0][n], np.zeros_like(found[0][0][n]) + bias)
            continue
        alone = [x[n : n + 1, :length] if i in padded else x[n : n + 1] for i, x in enumerate(given)]
        with opened(kind, body, *alone, device=device) as net:
            for blob, value in zip(net.params.get("t", []), blobs, strict=True):
                blob.data[...] = value
            y = outcome(net, *alone)[0]
            near(found[0][0][n : n + 1, : y.shape[1]], y)


# ----------------------------------------------------------------------------------------------------------- low scores
@pytest.mark.parametrize("score", [-29990.0, -40000.0, -1e9, -1e30])
@pytest.mark.parametrize("how", ["lengths", "mask", "causal"])
@pytest.mark.parametrize(("device", "precision"), [("reference", "FP32"), ("cpu", "FP32"), HALVES])
def test_what_is_hidden_never_beats_a_low_score(score: float, how: str, precision: str, device: str) -> None:
    """Everything that is seen has one very low score: its weights are equal all the same, and the rest has none."""
    steps = 4
    query, key = np.ones((1, steps, 1), "float32"), np.full((1, steps, 1), score, "float32")
    value = np.arange(1, steps + 1, dtype="float32").reshape(1, steps, 1)
    seen = np.tril(np.ones((steps, steps), bool)) if how == "causal" else np.arange(steps)[None].repeat(steps, 0) < 2
    more = {"lengths": [np.full(1, 2, "float32")], "mask": [seen[None].astype("float32")], "causal": []}[how]
    body = f"attention_param {{ scale: 1 {'causal: true' if how == 'causal' else ''} }}"
    text = f"precision: {precision}\n" + text_of("DotProductAttention", body, query, key, value, *more)
    with Net(parse_net(text)[0], schema.TEST, device=device) as net:
        found = outcome(net, query, key, value, *more)[0]
        net.clear_param_diffs()
        net.backward(y0=np.ones_like(found))
        slope = np.array(net.blobs["x2"].diff)[0, :, 0]
    wanted = [value[0, row, 0].mean() for row in seen]
    np.testing.assert_allclose(found[0, :, 0], wanted, rtol=1e-6 if precision == "FP32" else 8e-3)
    shares = (seen / seen.sum(1, keepdims=True)).sum(0)
    np.testing.assert_allclose(slope, shares, rtol=1e-6 if precision == "FP32" else 8e-3)


# ---------------------------------------------------------------------------------------------------------------- cache
@pytest.mark.parametrize("blocks", [[1] * 6, [3, 1, 2], [6]])
@pytest.mark.parametrize("extra", ["", "rotary: true", "time_major: true"])
def test_a_cache_sees_what_a_causal_layer_sees(blocks: list[int], extra: str) -> None:
    x, major = drawn(2, 6, 8), "time_major" in extra
    with opened("MultiHeadAttention", f"attention_param {{ num_heads: 2 causal: true {extra} {GAUSS} }}",
                first(major, x)) as net:  # fmt: skip
        wanted = outcome(net, first(major, x))[0]
        blobs = weights(net)
    at, cached = 0, None
    parts = []
    for count in blocks:
        part = first(major, x[:, at : at + count])
        body = f"attention_param {{ num_heads: 2 cache: 7 {extra} }}"
        if cached is None:
            cached = opened("MultiHeadAttention", body, part)
            for blob, value in zip(cached.params["t"], blobs, strict=True):
                blob.data[...] = value
        else:
            cached.reshape(x0=part.shape)
        parts.append(first(major, outcome(cached, part)[0]))
        at += count
    assert cached is not None
    near(np.concatenate(parts, axis=1), first(major, wanted))
    cached.close()


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_a_cache_begins_anew_where_cont_says(device: str) -> None:
    x, starts = drawn(2, 6, 4), {0: [0, 0], 2: [1, 0], 5: [0, 1]}
    with opened("MultiHeadAttention", f"attention_param {{ cache: 5 rotary: true {GAUSS} }}", x[:, :1], np.ones(2),
                device=device) as net:  # fmt: skip
        got = np.concatenate([outcome(net, x[:, t : t + 1], np.array(starts.get(t, [1, 1]), "float32"))[0]
                              for t in range(6)], axis=1)  # fmt: skip
        blobs = weights(net)
    for n, low, high in ((0, 0, 5), (0, 5, 6), (1, 0, 2), (1, 2, 6)):
        part = x[n : n + 1, low:high]
        near(got[n : n + 1, low:high], multihead(part, part, blobs, 1, SEES["causal"][1], 10000)[0])


def test_a_cache_that_is_full_is_an_error() -> None:
    x = drawn(2, 1, 4)
    with opened("MultiHeadAttention", "attention_param { cache: 2 }", x) as net:
        outcome(net, x)
        outcome(net, x)
        with pytest.raises(DataError, match=r"2 .*is not in 0\.\.1"):
            outcome(net, x)
        net.reset_states()
        outcome(net, x)


# ------------------------------------------------------------------------------------------------------------ in a loop
def test_additive_attention_as_the_step_of_a_loop() -> None:
    """A decoder: h = tanh(A x + B context(h before)); the memory's share is computed once for all steps."""
    text = f"""force_backward: true
        layer {{ name: "x" type: "Input" top: "x" top: "m" top: "n" input_param {{ shape {{ dim: 3 dim: 2 dim: 4 }}
          shape {{ dim: 5 dim: 2 dim: 3 }} shape {{ dim: 2 }} }} }}
        layer {{ name: "t" type: "Recurrent" bottom: "x" bottom: "m" bottom: "n" top: "h_t" recurrent_net_param {{
          static: "m" static: "n" state {{ name: "h" next: "h_t" dim: 4 }} body {{
            layer {{ name: "look" type: "AdditiveAttention" bottom: "h" bottom: "m" bottom: "n" top: "c"
              attention_param {{ num_output: 6 time_major: true {GAUSS} }} }}
            layer {{ name: "step" type: "Expr" bottom: "x" bottom: "c" top: "h_t" expr_param {{
              expr: "tanh(x + c @ B)" weight {{ name: "B" shape {{ dim: 3 dim: 4 }} filler {{ type: "xavier" }} }} }} }}
          }} }} }}"""
    x, memory, lengths = drawn(3, 2, 4), drawn(5, 2, 3), np.array([2, 5], "float32")
    with Net(parse_net(text)[0], schema.TEST) as net:
        calls = [c for c in net.recording.forward if c.op.name == "gemm" and 6 in c.writes()[0].shape]
        assert len(calls) == 3 + 1, "three steps of W q, and U m once"
        got = np.array(net.forward(x=x, m=memory, n=lengths)["h_t"])
        w, u, b, v, back = weights(net)
    h = np.zeros((2, 4))
    for t in range(3):
        now = h

        def score(n: int, _: int, j: int, now: Any = now) -> float:
            return float(v[0] @ np.tanh(w @ now[n] + u @ memory[j, n] + b))

        context, _ = weighted(score, memory.transpose(1, 0, 2), 1, lambda n, i, j: j < lengths[n])
        h = np.tanh(x[t] + context[:, 0] @ back)
        near(got[t], h)


# -------------------------------------------------------------------------------------------------------------- refused
_X = np.zeros((2, 4, 6))
REFUSED = [
    ("DotProductAttention", "", [_X, np.zeros((2, 4, 5)), _X], ["one length D", 'bottom "x1"   N T D = 2 4 5']),
    ("DotProductAttention", "", [_X, _X, np.zeros((2, 3, 6))], ["a value for each key"]),
    ("DotProductAttention", "", [np.zeros(3), _X, _X], ["a query of 3 axes", "got 1"]),
    ("DotProductAttention", "causal: true", [_X, np.zeros((2, 3, 6)), np.zeros((2, 3, 6))], ["causal", "4 and 3"]),
    ("DotProductAttention", "", [_X, _X, _X, np.zeros(3)], ["lengths or a mask", "N = 2"]),
    ("DotProductAttention", "time_major: true", [_X, _X, np.zeros((2, 3, 6))], ['"x2"   T N D = 2 3 6']),
    ("DotProductAttention", "", [_X, _X, _X, np.zeros((2, 4, 3))], ["N Tq Tk = 2 4 4", '"x3"   shape = 2 4 3']),
    ("DotProductAttention", "num_heads: 2", [_X, _X, _X], ["has no num_heads", "learned_scale"]),
    ("DotProductAttention", "dropout_ratio: 1", [_X, _X, _X], ["dropout_ratio is 1"]),
    ("DotProductAttention", "scale: inf", [_X, _X, _X], ["scale is inf"]),
    ("AdditiveAttention", "", [_X, _X], ["has no num_output"]),
    ("AdditiveAttention", "num_output: 3", [_X, np.zeros((3, 4, 6))], ["as many memories"]),
    ("AdditiveAttention", "num_output: 3 rotary: true", [_X, _X], ["has no rotary"]),
    ("MultiHeadAttention", "num_heads: 4", [_X], ["6 values", "4 heads", "key_size"]),
    ("MultiHeadAttention", "num_heads: 0", [_X], ["num_heads is 0"]),
    ("MultiHeadAttention", "key_size: 0", [_X], ["key_size is 0"]),
    ("MultiHeadAttention", "num_heads: 2 rotary: true", [_X], ["pairs", "key_size is 3"]),
    ("MultiHeadAttention", "rotary_base: -1", [_X], ["rotary_base is -1"]),
    ("MultiHeadAttention", "", [_X, np.zeros((3, 4, 6))], ["as many memories"]),
    ("MultiHeadAttention", "", [_X, np.zeros((2, 2))], ["lengths or a mask", "got 2 axes"]),
    ("MultiHeadAttention", "", [_X, np.zeros(2), np.zeros(2)], ["3 bottoms"]),
    ("MultiHeadAttention", "cache: 0", [_X], ["cache is 0"]),
    ("MultiHeadAttention", "cache: 3", [_X], ["4 steps", "keeps 3"]),
    ("MultiHeadAttention", "cache: 8", [_X, _X], ["with cache", "cont (N = 2)"]),
    ("MultiHeadAttention", 'weight_filler { type: "glorot" }', [_X], ["glorot"]),
]


@pytest.mark.parametrize(("kind", "fields", "bottoms", "words"), REFUSED, ids=lambda v: v if isinstance(v, str) else "")
def test_refused(kind: str, fields: str, bottoms: list[Any], words: list[str]) -> None:
    body = f"attention_param {{ {fields} }}" if fields else ""
    net, source = parse_net(text_of(kind, body, *bottoms), "net.prototxt")
    with pytest.raises(ConfigError) as error:
        build(net, source, State(schema.TRAIN))
    message = str(error.value)
    assert message.startswith("net.prototxt:")
    assert f"t ({kind})" in message
    for word in words:
        assert word in message, message
