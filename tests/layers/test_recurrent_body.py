"""What stands in the body of a Recurrent: masks, losses, loops, parameters, and what is refused."""

from __future__ import annotations

from pathlib import Path

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

from netrun.config.weights import read_weights
from netrun.errors import ConfigError


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
