"""Recurrent against the net that is written out step by step, and against plain loops."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netrun.config import schema
from netrun.config.upgrade import parse_net
from netrun.config.weights import read_weights
from netrun.errors import ConfigError
from netrun.net import Net

STEPS, STREAMS, INPUTS, CELLS = 5, 3, 4, 2


def layer(name: str, kind: str, bottom: str, top: str, more: str = "") -> str:
    ends = [f'bottom: "{b}"' for b in bottom.split()] + [f'top: "{t}"' for t in top.split()]
    return f'layer {{ name: "{name}" type: "{kind}" {" ".join(ends)} {more} }}\n'


def dense(name: str, bottom: str, top: str, cells: int = CELLS, more: str = "") -> str:
    filler = 'weight_filler { type: "uniform" min: -0.7 max: 0.7 } bias_filler { type: "uniform" min: -0.3 max: 0.3 }'
    return layer(name, "InnerProduct", bottom, top, f"inner_product_param {{ num_output: {cells} {filler} }} {more}")


def inputs(**shapes: tuple[int, ...]) -> str:
    dims = " ".join("shape { " + " ".join(f"dim: {n}" for n in s) + " }" for s in shapes.values())
    tops = " ".join(f'top: "{name}"' for name in shapes)
    return f'force_backward: true layer {{ name: "d" type: "Input" {tops} input_param {{ {dims} }} }}\n'


def recurrent(bottom: str, top: str, body: str, more: str, name: str = "r") -> str:
    return layer(name, "Recurrent", bottom, top, f"recurrent_net_param {{ {more}\n body {{\n{body} }} }}")


def opened(text: str, dtype: str = "float64", device: str = "cpu", phase: int = schema.TRAIN, **more: Any) -> Net:
    message, source = parse_net(text, "net.prototxt")
    return Net(message, phase, source=source, dtype=dtype, device=device, **more)


# Two cells, one on the other; the lower one reads what the upper one gave in the step before.
STACKED = (
    dense("a_x", "x", "a_x") + dense("a_h", "a", "a_h") + dense("a_top", "b", "a_top")
    + layer("a_sum", "Eltwise", "a_x a_h a_top", "a_sum") + layer("a_new", "TanH", "a_sum", "a_new")
    + dense("b_x", "a_new", "b_x") + dense("b_h", "b", "b_h") + layer("b_sum", "Eltwise", "b_x b_h", "b_sum")
    + layer("b_new", "Sigmoid", "b_sum", "b_new") + dense("out", "b_new", "y", 3)
)  # fmt: skip
STATES = f'state {{ name: "a" next: "a_new" dim: {CELLS} }} state {{ name: "b" next: "b_new" dim: {CELLS} }} '


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


def drawn(rng: np.random.Generator, steps: int = STEPS) -> tuple[Any, Any]:
    cont = (rng.random((steps, STREAMS)) > 0.3).astype(float)
    cont[0, 0], cont[2, 1] = 0, 0
    return rng.normal(size=(steps, STREAMS, INPUTS)), cont


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


PLAIN = (
    dense("x", "x", "from_x") + layer("h", "InnerProduct", "h", "from_h", f"inner_product_param {{ bias_term: false "
    f'num_output: {CELLS} weight_filler {{ type: "uniform" min: -0.7 max: 0.7 }} }}')
    + layer("sum", "Eltwise", "from_x from_h", "sum") + layer("new", "TanH", "sum", "new")
)  # fmt: skip


def plain(state: str = "", more: str = "", top: str = "y", bottom: str = "x cont", name: str = "r") -> str:
    text = f'{more} output: "new" state {{ name: "h" next: "new" dim: {CELLS} {state} }}'
    return recurrent(bottom, top, PLAIN, text, name)


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


def test_dropout_draws_a_mask_a_step_or_one_for_all() -> None:
    body = layer("drop", "Dropout", "x", "dropped") + layer("add", "Eltwise", "dropped h", "sum")
    for more, alike in (("", False), ("one_mask: true", True)):
        text = f'{more} state {{ name: "h" next: "sum" dim: 40 }} output: "dropped"'
        with opened(inputs(x=(4, 2, 40)) + recurrent("x", "y", body, text)) as net:
            x = np.ones((4, 2, 40))
            y = np.array(net.forward(x=x)["y"])
            assert set(np.unique(y)) == {0.0, 2.0}
            assert all(np.array_equal(y[0], y[t]) for t in range(1, 4)) == alike
            assert not np.array_equal(y, net.forward(x=x)["y"]), "the next pass has other masks"


def test_masks_inside_the_loop_differ_too() -> None:
    body = layer("add", "Eltwise", "x h", "sum") + layer("drop", "Dropout", "sum", "new")
    with opened(inputs(x=(4, 2, 40)) + recurrent("x", "new", body, 'state { name: "h" next: "new" dim: 40 }')) as net:
        y = np.array(net.forward(x=np.ones((4, 2, 40)))["new"])
        masks = [y[t] != 0 for t in range(4)]
        assert all(0.2 < m.mean() < 0.8 for m in masks)
        assert not any(np.array_equal(masks[0], m) for m in masks[1:])


def test_a_loss_in_the_body_counts_in_every_step() -> None:
    rng = np.random.default_rng(10)
    x, _ = drawn(rng)
    label = rng.integers(0, 2, (STEPS, STREAMS)).astype(float)
    head = inputs(x=x.shape, label=label.shape)
    loss = layer("loss", "SoftmaxWithLoss", "new label", "loss", "loss_weight: 0.5")
    text = f'state {{ name: "h" next: "new" dim: {CELLS} }}'
    unseen = recurrent("x label", "new", PLAIN + loss, text)
    seen = recurrent("x label", "new loss", PLAIN + loss, text)
    outside = recurrent("x", "new", PLAIN, text) + layer(
        "loss", "SoftmaxWithLoss", "new label", "loss", f"softmax_param {{ axis: 2 }} loss_weight: {0.5 * STEPS}"
    )
    with opened(head + unseen) as a, opened(head + seen) as b, opened(head + outside) as c:
        assert b.blobs["loss"].shape == (STEPS,)
        assert a.outputs == ["new"]
        found = []
        for net in (a, b, c):
            for mine, theirs in zip(net.params["r"], a.params["r"], strict=True):
                mine.data[...] = theirs.data
            net.forward(x=x, label=label)
            net.clear_param_diffs()
            net.backward()
            found.append((net.loss, [np.array(p.diff) for p in net.params["r"]]))
        for loss_value, gradients in found[1:]:
            assert loss_value == pytest.approx(found[0][0], rel=1e-12)
            for mine, theirs in zip(gradients, found[0][1], strict=True):
                np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-14)


def test_work_that_needs_no_state_stands_outside_the_loop() -> None:
    with opened(inputs(x=(40, STREAMS, INPUTS), cont=(40, STREAMS)) + recurrent(
        "x cont", "y", STACKED, f'cont: "cont" {STATES}')) as net:  # fmt: skip
        products = [c for c in net.recording.forward if c.op.name == "gemm"]
    assert len(products) == 4 * 40 + 2, "the projections of x and of the output are one product each"


def test_a_net_inside_a_net_inside_a_net() -> None:
    """For each of 3 outer steps a loop over 2 inner steps: h = (h + sum of tanh) twice a step."""
    inner = recurrent(
        "words h",
        "u end",
        layer("add", "Eltwise", "w s", "sum") + layer("t", "TanH", "sum", "u"),
        'input: "w" input: "first" state { name: "s" next: "u" initial: "first" last: "end" }',
        "inner",
    )
    text = 'input: "words" state { name: "h" next: "end" dim: 4 } output: "end"'
    net = inputs(x=(3, 2, 5, 4)) + recurrent("x", "y", inner, text)
    rng = np.random.default_rng(11)
    x = rng.normal(size=(3, 2, 5, 4))
    with pytest.raises(ConfigError, match=r"inner \(Recurrent\): the first value of the state .s. wants the shape 6"):
        opened(net.replace("dim: 2 dim: 5 dim: 4", "dim: 2 dim: 6 dim: 4"))
    with opened(
        inputs(x=(3, 5, 2, 4))
        + recurrent(
            "x",
            "y",
            layer("turn", "Permute", "words", "turned", "permute_param { order: 1 order: 0 order: 2 }")
            + inner.replace('"words"', '"turned"'),
            text,
        )
    ) as made:
        y = made.forward(x=x.transpose(0, 2, 1, 3))["y"]
    h, wanted = np.zeros((5, 4)), []
    for t in range(3):
        for s in range(2):
            h = np.tanh(x[t, s] + h)
        wanted.append(h)
    np.testing.assert_allclose(y, wanted, rtol=1e-12)


def test_weights_go_to_a_file_and_back(tmp_path: Path) -> None:
    net = inputs(x=(STEPS, STREAMS, INPUTS)) + recurrent(
        "x", "y", STACKED, STATES.replace('next: "b_new"', 'filler { value: 0.5 } next: "b_new"')
    )
    with opened(net, seed=1) as one, opened(net, seed=2) as two:
        one.save(tmp_path / "w.caffemodel")
        stored = {x.name: [b.shape for b in x.blobs] for x in read_weights(tmp_path / "w.caffemodel")}
        assert stored["r"] == [b.shape for b in one.params["r"]]
        names = [p.declared.name for p in one.graph.nodes[-1].parameters]
        assert names[:3] == ["a_x.weight", "a_x.bias", "a_h.weight"]
        assert names[-3:] == ["out.weight", "out.bias", "b.initial"]
        assert not np.array_equal(one.params["r"][0].data, two.params["r"][0].data)
        two.load(tmp_path / "w.caffemodel")
        for mine, theirs in zip(one.params["r"], two.params["r"], strict=True):
            np.testing.assert_array_equal(mine.data, theirs.data)
        assert np.all(two.params["r"][-1].data == 0.5)


def test_rates_are_those_of_the_layers_in_the_body() -> None:
    body = PLAIN.replace('name: "h" type', 'name: "h" param { lr_mult: 0 } type')
    more = f'state {{ name: "h" next: "new" dim: {CELLS} filler {{ value: 1 }} param {{ lr_mult: 3 }} }}'
    with opened(inputs(x=(2, 3, 4)) + recurrent("x", "new", body, more)) as net:
        assert [p.lr_mult for p in net.graph.nodes[-1].parameters] == [1, 1, 0, 3]


IN = inputs(x=(STEPS, STREAMS, INPUTS), cont=(STEPS, STREAMS))
HEAD = IN.count("\n") + 1
REFUSED = {
    "a state that is never set": (plain().replace('next: "new"', ""), r"never set\n.*next"),
    "a state that no layer makes": (
        plain().replace('next: "new"', 'next: "newer"'), r'never set: there is no blob "newer".*\n.*mean "new"'),
    "a state that stays": (plain().replace('next: "new"', 'next: "h"'), "never set: no layer of the body changes it"),
    "a state of another shape": (
        plain().replace("dim: 2 ", "dim: 5 "),
        r'the state "h" has the shape 3 5, its next value "new" has 3 2\n.*dim: 2'),
    "a loop without end": (plain(more='static: "x" static: "cont"'), "a loop without end: nothing says how many steps"),
    "a body with a mistake": (
        plain().replace('bottom: "from_h"', 'bottom: "fromh"'), r'sum \(Eltwise\): no blob "fromh" above .*"from_h"'),
    "a blob that the body lacks": (plain().replace('output: "new"', 'output: "knew"'), 'no blob "knew".*mean "new"'),
    "a cont that is no input": (plain(more='cont: "count"'), 'no input "count".*mean "cont"'),
    "param outside": (plain()[:-3] + " param { lr_mult: 2 } }", r"takes no param entries of its own\n.*body"),
    "a data layer inside": (
        recurrent("x", "y", inputs(z=(2, 2)).split("true ")[1] + PLAIN, 'output: "new" state { name: "h" next: "new" '
                  "dim: 2 }"), r"d \(Input\): cannot be part of a body"),
    "statistics": (
        recurrent("x", "new", PLAIN + layer("bn", "BatchNorm", "new", "normed"),
                  'state { name: "h" next: "new" dim: 2 }'),
        r"bn \(BatchNorm\): cannot be part of a body: it changes statistics"),
    "a state inside": (
        recurrent("x", "new", layer("l", "LSTM", "x cont", "l", "recurrent_param { num_output: 2 }"),
                  'state { name: "h" next: "new" dim: 2 }'), r'no blob "cont" above'),
    "no body": (layer("r", "Recurrent", "x", "y", "recurrent_net_param { }"), "has no body"),
    "carried backwards": (plain("carry: true", "reverse: true"), "carry and reverse exclude each other"),
    "carried and given": (plain('carry: true initial: "cont"'), "has both initial and carry"),
    "learned but never started": (plain("carry: true filler { }"), "nothing says when it starts"),
    "two lengths": (
        recurrent("x cont", "new", PLAIN, 'static: "cont" steps: 9 state { name: "h" next: "new" dim: 2 }'),
        r'steps is 9, the inputs have 5\n    bottom "x"   T N \.\.\. = 5 '),
    "an unknown field": (plain(more="steppes: 3"), 'no field "steppes".*mean "steps"'),
    "a missing last": (plain('last: "end"'), 'no top "end"'),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_refused_with_a_place(what: str) -> None:
    text, message = REFUSED[what]
    with pytest.raises(ConfigError, match=message) as caught:
        opened(IN + text)
    problem = caught.value.problems[0]
    assert problem.where is not None
    assert problem.where.line >= HEAD, "the place is in the layer"
    assert problem.where.column > 0


def test_a_python_layer_is_a_step_too() -> None:
    affine = 'python_param { module: "cases.python_layers" layer: "Affine" param_str: "1.5" }'
    tanh = layer("new", "TanH", "sum", "new")
    before = layer("p", "Python", "x", "p", affine) + layer("add", "Eltwise", "p h", "sum") + tanh
    behind = layer("add", "Eltwise", "x h", "sum") + tanh + layer("p", "Python", "new", "out", affine)
    state = f'state {{ name: "h" next: "%s" dim: {INPUTS} }}'
    loop = recurrent("x", "new", before, state % "new")
    after = recurrent("x", "new", behind, state % "out")
    rng = np.random.default_rng(14)
    x, _ = drawn(rng)
    with opened(inputs(x=x.shape) + loop) as one, opened(inputs(x=x.shape) + after) as two:
        for net in (one, two):
            for blob in net.params["r"]:
                blob.data[...] = rng.normal(size=blob.shape)
            y = net.forward(x=x)["new"]
            seed = rng.normal(size=y.shape)
            net.clear_param_diffs()
            net.backward(new=seed)
            slope = np.array(net.params["r"][0].diff)
            ends = []
            for sign in (1, -1):
                net.params["r"][0].data[...] += sign * (1e-6 if sign > 0 else 2e-6)
                ends.append(float((net.forward(x=x)["new"] * seed).sum()))
            assert float(slope.sum()) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5)


LSTM_LINES = """
layer { name: "lstm" type: "Expr" bottom: "x" bottom: "h" bottom: "c" top: "h_new" top: "c_new" expr_param {
  weight { name: "W" shape { dim: 28 dim: 4 } } weight { name: "b" shape { dim: 28 } }
  weight { name: "R" shape { dim: 28 dim: 7 } }
  expr: "i, f, o, g = split(x @ W.T + b + h @ R.T, 4, axis=1)"
  expr: "c_new = sigmoid(f) * c + sigmoid(i) * tanh(g)"
  expr: "h_new = sigmoid(o) * tanh(c_new)" } }
"""


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_an_lstm_in_expr_lines_equals_the_layer(device: str) -> None:
    """Three batches, each going on where the one before ended: values and gradients, in float32."""
    rng = np.random.default_rng(12)
    states = " ".join(f'state {{ name: "{s}" next: "{s}_new" dim: 7 carry: true }}' for s in "hc")
    loop = recurrent("x cont", "h_new", LSTM_LINES, f'cont: "cont" {states}')
    layer_text = layer("r", "LSTM", "x cont", "h_new", "recurrent_param { num_output: 7 }")
    head = inputs(x=(9, STREAMS, INPUTS), cont=(9, STREAMS))
    near = {"rtol": 1e-5, "atol": 1e-5}
    with opened(head + loop, "float32", device) as mine, opened(head + layer_text, "float32", device) as theirs:
        assert [b.shape for b in mine.params["r"]] == [b.shape for b in theirs.params["r"]]
        for a, b in zip(mine.params["r"], theirs.params["r"], strict=True):
            a.data[...] = rng.uniform(-0.5, 0.5, a.shape)
            b.data[...] = a.data
        for _ in range(3):
            x, cont = rng.normal(size=(9, STREAMS, INPUTS)), (rng.random((9, STREAMS)) > 0.2).astype(float)
            seed = rng.normal(size=(9, STREAMS, 7))
            for net in (mine, theirs):
                net.forward(x=x, cont=cont)
                net.clear_param_diffs()
                net.backward(h_new=seed)
            np.testing.assert_allclose(mine.blobs["h_new"].data, theirs.blobs["h_new"].data, **near)
            np.testing.assert_allclose(mine.blobs["x"].diff, theirs.blobs["x"].diff, **near)
            for a, b in zip(mine.params["r"], theirs.params["r"], strict=True):
                np.testing.assert_allclose(a.diff, b.diff, rtol=1e-5, atol=3e-5)
