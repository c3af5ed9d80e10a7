"""Recurrent against the net that is written out step by step, and against plain loops."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from cases.loops import (
    CELLS,
    INPUTS,
    PLAIN,
    STACKED,
    STATES,
    STEPS,
    STREAMS,
    drawn,
    inputs,
    layer,
    opened,
    plain,
    recurrent,
)


def written_out(body: str, states: dict[str, str], output: str, steps: int = STEPS) -> str:
    """The same net without Recurrent: every step's layers under names of their own, parameters shared by name."""
    text = inputs(x=(steps, STREAMS, INPUTS), cont=(steps, STREAMS), zero=(STREAMS, CELLS))
    for blob, shape in (("x", f"dim: {STREAMS} dim: {INPUTS}"), ("cont", f"dim: {STREAMS}")):
        parts = [f"{blob}_{t}_" for t in range(steps)]
        text += layer(f"{blob}_cut", "Slice", blob, " ".join(parts), "slice_param { axis: 0 }")
        for t, part in enumerate(parts):
            text += layer(f"{blob}_{t}", "Reshape", part, f"{blob}_{t}", f"reshape_param {{ shape {{ {shape} }} }}")
    before = dict.fromkeys(states, "zero")
    for t in range(steps):
        for state in states:
            text += layer(
                f"{state}_{t}", "Scale", f"{before[state]} cont_{t}", f"{state}_{t}", "scale_param { axis: 0 }"
            )
        for line in body.splitlines():
            name = re.findall(r'name: "(\w+)"', line)[0]
            line = re.sub(r'(name|bottom|top): "(\w+)"', rf'\1: "\2_{t}"', line)
            if "InnerProduct" in line:
                line = line[:-2] + f' param {{ name: "{name}.w" }} param {{ name: "{name}.b" }} }}'
            text += line + "\n"
        before = {state: f"{new}_{t}" for state, new in states.items()}
    pieces = []
    for t in range(steps):
        text += layer(
            f"up_{t}", "Reshape", f"{output}_{t}", f"up_{t}", "reshape_param { shape { dim: 1 } num_axes: 0 }"
        )
        pieces.append(f"up_{t}")
    return text + layer("join", "Concat", " ".join(pieces), "result", "concat_param { axis: 0 }")


@pytest.mark.parametrize("device", ["cpu", "reference"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_it_equals_the_net_written_out(dtype: str, device: str) -> None:
    rng = np.random.default_rng(5)
    near = {"rtol": 1e-6, "atol": 1e-12 if dtype == "float64" else 1e-6}
    x, cont = drawn(rng)
    loop = inputs(x=x.shape, cont=cont.shape) + recurrent("x cont", "y", STACKED, f'cont: "cont" {STATES}')
    states = {"a": "a_new", "b": "b_new"}
    with opened(loop, dtype, device) as one, opened(written_out(STACKED, states, "y"), dtype, device) as two:
        names = ["a_x", "a_h", "a_top", "b_x", "b_h", "out"]
        blobs = [blob for name in names for blob in two.params[f"{name}_0"]]
        assert [b.shape for b in one.params["r"]] == [b.shape for b in blobs]
        for mine, theirs in zip(one.params["r"], blobs, strict=True):
            theirs.data[...] = mine.data
        one.forward(x=x, cont=cont)
        two.forward(x=x, cont=cont, zero=np.zeros((STREAMS, CELLS)))
        np.testing.assert_allclose(one.blobs["y"].data, two.blobs["result"].data, **near)
        seed = rng.normal(size=one.blobs["y"].shape)
        for net, top in ((one, "y"), (two, "result")):
            net.clear_param_diffs()
            net.backward(**{top: seed})
        np.testing.assert_allclose(one.blobs["x"].diff, two.blobs["x"].diff, **near)
        for i, (name, mine) in enumerate(zip([n for n in names for _ in "wb"], one.params["r"], strict=True)):
            total = sum(two.params[f"{name}_{t}"][i % 2].diff for t in range(STEPS))
            owner = two.params[f"{name}_0"][i % 2].diff
            written = owner if np.shares_memory(owner, two.params[f"{name}_1"][i % 2].diff) else total
            np.testing.assert_allclose(mine.diff, written, err_msg=f"{name} {i}", **near)


def tanh_loop(x: Any, cont: Any, first: Any, weights: Any, seed: Any) -> tuple[Any, Any, list[Any], Any]:
    """h[t] = tanh(W x[t] + b + R (cont[t] h[t-1])), its last value, the gradients of W, b, R and of x, by hand."""
    w, b, r = weights
    states, seen = [], []
    h = first
    for t in range(len(x)):
        seen.append(cont[t][:, None] * h)
        h = np.tanh(x[t] @ w.T + b + seen[t] @ r.T)
        states.append(h)
    dw, db, dr, dh, dx = np.zeros_like(w), np.zeros_like(b), np.zeros_like(r), np.zeros_like(h), np.zeros_like(x)
    for t in reversed(range(len(x))):
        da = (seed[t] + dh) * (1 - states[t] ** 2)
        dw, db, dr, dx[t] = dw + da.T @ x[t], db + da.sum(0), dr + da.T @ seen[t], da @ w
        dh = cont[t][:, None] * (da @ r)
    return np.array(states), h, [dw, db, dr], dx


def test_truncated_backward_over_two_batches_equals_a_loop_by_hand() -> None:
    rng = np.random.default_rng(6)
    net = inputs(x=(STEPS, STREAMS, INPUTS), cont=(STEPS, STREAMS)) + plain("carry: true", 'cont: "cont"')
    with opened(net) as made:
        weights = [np.array(b.data) for b in made.params["r"]]
        state = np.zeros((STREAMS, CELLS))
        for batch in range(2):
            x, cont = drawn(rng)
            if batch:
                cont[0] = 1  # the second batch goes on where the first one ended
            seed = rng.normal(size=(STEPS, STREAMS, CELLS))
            made.forward(x=x, cont=cont)
            made.clear_param_diffs()
            made.backward(y=seed)
            y, state, gradients, dx = tanh_loop(x, cont, state, weights, seed)
            np.testing.assert_allclose(made.blobs["y"].data, y, rtol=1e-9)
            np.testing.assert_allclose(made.blobs["x"].diff, dx, rtol=1e-9, atol=1e-12)
            for blob, gradient in zip(made.params["r"], gradients, strict=True):
                np.testing.assert_allclose(blob.diff, gradient, rtol=1e-9, atol=1e-12)
        made.reset_states()
        x, cont = drawn(rng)
        cont[...] = 1
        made.forward(x=x, cont=cont)
        y, *_ = tanh_loop(x, cont, np.zeros((STREAMS, CELLS)), weights, x[..., :CELLS])
        np.testing.assert_allclose(made.blobs["y"].data, y, rtol=1e-9)


def test_without_carry_every_batch_begins_anew() -> None:
    rng = np.random.default_rng(7)
    with opened(inputs(x=(STEPS, STREAMS, INPUTS)) + plain(bottom="x")) as net:
        x, _ = drawn(rng)
        first = np.array(net.forward(x=x)["y"])
        np.testing.assert_array_equal(net.forward(x=x)["y"], first)


def test_the_other_way_is_the_same_loop_over_reversed_streams() -> None:
    """A stream of steps 0..1 and one of 2..4: run backwards, the state passes from 4 to 2, and from 1 to 0."""
    rng = np.random.default_rng(8)
    x = rng.normal(size=(STEPS, STREAMS, INPUTS))
    cont = np.ones((STEPS, STREAMS))
    cont[0], cont[2] = 0, 0
    head = inputs(x=x.shape, cont=cont.shape)
    with opened(head + plain("", 'cont: "cont" reverse: true')) as back, opened(head + plain("", 'cont: "cont"')) as on:
        for mine, theirs in zip(on.params["r"], back.params["r"], strict=True):
            mine.data[...] = theirs.data
        y = np.array(back.forward(x=x, cont=cont)["y"])
        turned = np.ones_like(cont)
        turned[0], turned[3] = 0, 0
        np.testing.assert_allclose(y, on.forward(x=x[::-1], cont=turned)["y"][::-1], rtol=1e-12)


def test_first_and_last_values_join_two_loops_into_one() -> None:
    """Three steps and then two, through last and initial, are five steps: forward and backward."""
    rng = np.random.default_rng(9)
    x, _ = drawn(rng)
    shared = 'param { name: "w" } param { name: "b" }'
    body = PLAIN.replace('name: "x" type: "InnerProduct"', f'name: "x" {shared} type: "InnerProduct"')
    body = body.replace('name: "h" type: "InnerProduct"', 'name: "h" param { name: "r" } type: "InnerProduct"')
    begin = f'output: "new" state {{ name: "h" next: "new" last: "end" dim: {CELLS} }}'
    go_on = 'input: "x" input: "s" output: "new" state { name: "h" next: "new" last: "last" initial: "s" }'
    early = recurrent("x", "y end", body, begin, "early")
    late = recurrent("z end", "w last", body, go_on, "late")
    whole = inputs(x=x.shape) + plain(bottom="x")
    with opened(inputs(x=(3, *x.shape[1:]), z=(2, *x.shape[1:])) + early + late) as parts, opened(whole) as one:
        assert parts.graph.nodes[1].parameters[0] is parts.graph.nodes[2].parameters[0].owner
        for mine, theirs in zip(parts.params["early"], one.params["r"], strict=True):
            mine.data[...] = theirs.data
        parts.forward(x=x[:3], z=x[3:])
        one.forward(x=x)
        y = np.concatenate([parts.blobs["y"].data, parts.blobs["w"].data])
        np.testing.assert_allclose(y, one.blobs["y"].data, rtol=1e-12)
        np.testing.assert_allclose(parts.blobs["last"].data, y[-1], rtol=1e-12)
        seed = rng.normal(size=y.shape)
        parts.clear_param_diffs()
        one.clear_param_diffs()
        parts.backward(y=seed[:3], w=seed[3:], last=np.zeros((STREAMS, CELLS)))
        one.backward(y=seed)
        gradient = np.concatenate([parts.blobs["x"].diff, parts.blobs["z"].diff])
        np.testing.assert_allclose(gradient, one.blobs["x"].diff, rtol=1e-9)
        for mine, theirs in zip(parts.params["early"], one.params["r"], strict=True):
            np.testing.assert_allclose(mine.diff, theirs.diff, rtol=1e-9, atol=1e-12)
