"""Recurrent layers against loops written for one sequence at a time; padding; what they refuse."""

from __future__ import annotations

from itertools import product
from typing import Any

import cases.nets
import numpy as np
import pytest

from netrun.compiler.cost import multiply_adds
from netrun.config import schema
from netrun.errors import ConfigError
from netrun.net import Net

STEPS, SIZE, INPUTS = 7, 4, 3
LENGTHS = (7, 1, 4, 6)
FILL = 'weight_filler { type: "uniform" min: -0.7 max: 0.7 } bias_filler { type: "uniform" min: -0.5 max: 0.5 }'


# ------------------------------------------------------------------------------------------------- an independent loop
def logistic(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def one_way(kind: str, p: dict[str, Any], blobs: list[Any], x: Any, reverse: bool) -> Any:
    """The outputs, T R, of one sequence, T I."""
    weights = list(blobs)
    w, b, r = (weights.pop(0) for _ in range(3))
    size = b.size // {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    peep = weights.pop(0) if p.get("peephole") else np.zeros((3, size))
    proj = weights.pop(0) if p.get("projection") else np.eye(size)
    h, c, outs = np.zeros(r.shape[1]), np.zeros(size), []
    for row in x[::-1] if reverse else x:
        if kind == "RNN":
            h = w @ row + b + r @ h
            h = np.maximum(h, 0) if p.get("activation") == "RELU" else np.tanh(h)
        elif kind == "GRU":
            a, u = w @ row + b, r @ h
            reset, keep = logistic(a[:size] + u[:size]), logistic(a[size : 2 * size] + u[size : 2 * size])
            new = np.tanh(a[2 * size :] + reset * (u[2 * size :] + weights[0]))
            h = keep * h + (1 - keep) * new
        else:
            gates = w @ row + b + r @ h
            i, f, o, g = (gates[n * size : (n + 1) * size] for n in range(4))
            c = logistic(f + peep[1] * c) * c + logistic(i + peep[0] * c) * np.tanh(g)
            h = proj @ (logistic(o + peep[2] * c) * np.tanh(c))
        outs.append(h)
    return np.array(outs[::-1] if reverse else outs)


def whole(kind: str, p: dict[str, Any], blobs: list[Any], x: Any) -> Any:
    """The top of one sequence, from all blobs of the layer."""
    ways, left = 1 + bool(p.get("bidirectional")), list(blobs)
    each = 3 + (kind == "GRU") + bool(p.get("peephole")) + bool(p.get("projection"))
    for _ in range(p.get("num_layers", 1)):
        outs = []
        for way in range(ways):
            outs.append(one_way(kind, p, left[:each], x, bool(way)))
            del left[:each]
        x = np.concatenate(outs, axis=1)
    if kind == "RNN" and p.get("output_layer", "true") == "true":
        x = x @ left[0].T + left[1]
        x = np.maximum(x, 0) if p.get("activation") == "RELU" else np.tanh(x)
    return x


def net_of(kind: str, p: dict[str, Any], *shapes: Any, **more: Any) -> Net:
    fields = " ".join(f"{k}: {str(v).lower() if isinstance(v, bool) else v}" for k, v in p.items())
    body = f"recurrent_param {{ num_output: {SIZE} {fields} {FILL} }}"
    return cases.nets.net_of(kind, body, *shapes, phase=schema.TRAIN, **more)


OPTIONS: list[tuple[str, dict[str, Any]]] = [
    (kind, {k: v for k, v in (("num_layers", layers), ("bidirectional", both)) if v not in (1, False)})
    for kind, layers, both in product(("LSTM", "GRU", "RNN"), (1, 2), (False, True))
]
OPTIONS += [
    ("LSTM", {"peephole": True}),
    ("LSTM", {"projection": 2}),
    ("LSTM", {"peephole": True, "projection": 3, "num_layers": 2, "bidirectional": True}),
    ("RNN", {"activation": "RELU", "bidirectional": True}),
    ("RNN", {"output_layer": "false"}),
    ("RNN", {"output_layer": "false", "activation": "RELU", "num_layers": 3, "bidirectional": True}),
]


@pytest.mark.parametrize("device", ["cpu", "reference"])
@pytest.mark.parametrize(("kind", "p"), OPTIONS, ids=str)
def test_equals_a_loop(kind: str, p: dict[str, Any], device: str) -> None:
    """Padded and unpadded, alone and in a batch; what stands in the padding is no number."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(STEPS, len(LENGTHS), INPUTS)).astype("float32")
    for n, length in enumerate(LENGTHS):
        x[length:, n] = np.nan
    with net_of(kind, p, x.shape, (len(LENGTHS),), device=device) as net:
        blobs = [b.data.astype("float64") for b in net.params["t"]]
        got = np.array(net.forward(x0=x, x1=np.array(LENGTHS))["y0"])
        alone = [whole(kind, p, blobs, x[:length, n].astype("float64")) for n, length in enumerate(LENGTHS)]
        seed = rng.normal(size=got.shape).astype("float32")
        net.clear_param_diffs()
        net.backward(y0=seed)
        slopes, dx = [np.array(b.diff) for b in net.params["t"]], np.array(net.blobs["x0"].diff)
    for n, length in enumerate(LENGTHS):
        np.testing.assert_allclose(got[:length, n], alone[n], 1e-5, 1e-5)
        assert not got[length:, n].any()
        assert not dx[length:, n].any()
    sums = [np.zeros_like(b) for b in blobs]
    for n, length in enumerate(LENGTHS):  # each sequence alone, without padding
        with net_of(kind, p, (length, 1, INPUTS), device=device) as net:
            for blob, value in zip(net.params["t"], blobs, strict=True):
                blob.data[...] = value
            single = net.forward(x0=x[:length, n : n + 1])["y0"]
            np.testing.assert_allclose(single[:, 0], alone[n], 1e-5, 1e-5)
            net.clear_param_diffs()
            net.backward(y0=seed[:length, n : n + 1])
            np.testing.assert_allclose(net.blobs["x0"].diff[:, 0], dx[:length, n], 1e-4, 1e-5)
            for total, blob in zip(sums, net.params["t"], strict=True):
                total += blob.diff
    for ours, total in zip(slopes, sums, strict=True):
        np.testing.assert_allclose(ours, total, 1e-4, 1e-5 * max(1, np.abs(total).max()))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_sequences_one_after_another(kind: str) -> None:
    """cont 0 begins a sequence: both directions stay within it."""
    p = {"bidirectional": True, "num_layers": 2}
    starts = [[0, 3, 4], [0, 5], [0]]
    x, cont = np.random.default_rng(0).normal(size=(STEPS, 3, INPUTS)), np.ones((STEPS, 3))
    for n, begins in enumerate(starts):
        cont[begins, n] = 0
    with net_of(kind, p, x.shape, cont.shape, dtype="float64") as net:
        blobs = [np.array(b.data) for b in net.params["t"]]
        got = net.forward(x0=x, x1=cont)["y0"]
        for n, begins in enumerate(starts):
            for a, b in zip(begins, [*begins[1:], STEPS], strict=True):
                np.testing.assert_allclose(got[a:b, n], whole(kind, p, blobs, x[a:b, n]), 1e-10, 1e-10)


@pytest.mark.parametrize(("kind", "states"), [("LSTM", 2), ("GRU", 1), ("RNN", 1)])
@pytest.mark.parametrize("both", [False, True])
def test_the_last_state_is_that_of_each_sequence(kind: str, states: int, both: bool) -> None:
    p: dict[str, Any] = {"expose_hidden": True, "num_layers": 2, "bidirectional": both}
    if kind == "RNN":
        p["output_layer"] = "false"
    count, x = 2 * (1 + both), np.random.default_rng(0).normal(size=(STEPS, 4, INPUTS))
    zeros = np.zeros((count, 4, SIZE))
    with net_of(kind, p, x.shape, (4,), *[zeros.shape] * states, dtype="float64", tops=1 + states) as net:
        given = {f"x{i + 2}": zeros for i in range(states)}
        found = net.forward(x0=x, x1=np.array(LENGTHS), **given)
        for n, length in enumerate(LENGTHS):
            np.testing.assert_allclose(found["y1"][count - 1 - both, n], found["y0"][length - 1, n, :SIZE], 1e-12)
            if both:
                np.testing.assert_allclose(found["y1"][count - 1, n], found["y0"][0, n, SIZE:], 1e-12)


def test_an_encoder_passes_its_state_on() -> None:
    """state_gradient: the last state of one layer is the first of another, and gradients go all the way."""
    p = {"expose_hidden": True, "state_gradient": True}
    x = np.random.default_rng(0).normal(size=(4, 2, INPUTS))
    state = (1, 2, SIZE)
    with net_of("GRU", p, x.shape, (4, 2), state, dtype="float64", tops=2) as net:
        net.forward(x0=x, x1=np.ones((4, 2)), x2=np.zeros(state))
        net.backward(y0=np.zeros((4, 2, SIZE)), y1=np.ones(state))
        assert net.blobs["x0"].diff[0].any()
        assert net.blobs["x2"].diff.any()
    with net_of("GRU", {"expose_hidden": True}, x.shape, (4, 2), state, dtype="float64", tops=2) as net:
        net.forward(x0=x, x1=np.ones((4, 2)), x2=np.zeros(state))
        net.backward(y0=np.zeros((4, 2, SIZE)), y1=np.ones(state))
        assert not net.blobs["x0"].diff.any()


def test_dropout_acts_between_the_layers_in_training() -> None:
    p = {"num_layers": 2, "dropout_ratio": 0.5}
    x = np.random.default_rng(0).normal(size=(4, 2, INPUTS))
    with net_of("LSTM", p, x.shape) as net:
        first, second = (np.array(net.forward(x0=x)["y0"]) for _ in range(2))
        assert not np.allclose(first, second)
        net.forwards = 0
        np.testing.assert_array_equal(net.forward(x0=x)["y0"], first)


REFUSED: list[tuple[str, dict[str, Any], list[Any], int, str]] = [
    ("GRU", {"peephole": True}, [(3, 2, 4)], 1, "has no peephole; LSTM layers have"),
    ("LSTM", {"output_layer": "false"}, [(3, 2, 4)], 1, "has no output_layer; RNN layers have"),
    ("LSTM", {"num_layers": 0}, [(3, 2, 4)], 1, "num_layers is 0"),
    ("LSTM", {"dropout_ratio": 1, "num_layers": 2}, [(3, 2, 4)], 1, "dropout_ratio is 1"),
    ("LSTM", {"dropout_ratio": 0.5}, [(3, 2, 4)], 1, "num_layers is 1"),
    ("GRU", {"state_gradient": True}, [(3, 2, 4)], 1, "state_gradient needs expose_hidden"),
    ("GRU", {}, [(3, 2, 4), (3,)], 1, "or one length a stream (N)"),
    ("GRU", {"expose_hidden": True, "bidirectional": True}, [(3, 2, 4), (3, 2), (1, 2, SIZE)], 2, "L N D, L = layers"),
    ("GRU", {}, [(3, 2, 4), (3,)], 1, '"   T N ... = 3 2 4'),
    ("GRU", {}, [(3, 2, 4), (2, 3)], 1, '"   T N = 2 3'),
    ("GRU", {"expose_hidden": True}, [(3, 2, 4)], 2, "wants 3 or 4 bottoms, got 1"),
]


@pytest.mark.parametrize(("kind", "p", "shapes", "tops", "text"), REFUSED, ids=str)
def test_refused(kind: str, p: dict[str, Any], shapes: list[Any], tops: int, text: str) -> None:
    with pytest.raises(ConfigError, match="t \\(") as error:
        net_of(kind, p, *shapes, tops=tops)
    assert text in str(error.value)


def test_the_work_of_the_steps_is_counted() -> None:
    with net_of("LSTM", {"projection": 2, "bidirectional": True}, (5, 2, INPUTS)) as net:
        work = sum(multiply_adds(call) for call in net.recording.forward)
    assert work == 2 * 5 * 2 * (4 * SIZE * INPUTS + 4 * SIZE * 2 + SIZE * 2)
