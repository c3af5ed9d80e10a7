"""Rows of the recurrent layers, of loops and branches, and of what names sequences."""

from __future__ import annotations

import numpy as np

from cases.layer_case import TEST, TRAIN, classes, fractions, row, x
from cases.values import positive

_WEIGHTS = 'weight_filler { type: "uniform" min: -0.5 max: 0.5 } bias_filler { type: "uniform" min: -0.5 max: 0.5 }'
_CONT = x(3, 2, values=classes(2))
for _kind, _states in (("LSTM", 2), ("RNN", 1)):
    _first = [x(1, 2, 3)] * _states
    row(_kind, "plain", f"recurrent_param {{ num_output: 3 {_WEIGHTS} }}", x(3, 2, 4), _CONT, wants=[0])
    row(_kind, "images", f"recurrent_param {{ num_output: 2 {_WEIGHTS} }}", x(3, 2, 2, 2, 3), _CONT, wants=[0])
    row(_kind, "two axes", f"recurrent_param {{ num_output: 2 {_WEIGHTS} }}", x(3, 2), _CONT, wants=[0])
    row(_kind, "an input that stays", f"recurrent_param {{ num_output: 3 {_WEIGHTS} }}",
        x(3, 2, 4), _CONT, x(2, 5, batch=False), wants=[0, 2])  # fmt: skip
    row(_kind, "state from outside", f"recurrent_param {{ num_output: 3 expose_hidden: true {_WEIGHTS} }}",
        x(3, 2, 4), _CONT, *_first, wants=[0], tops=1 + _states, quiet=(1, 2)[:_states])  # fmt: skip
    row(_kind, "an input that stays, state from outside",
        f"recurrent_param {{ num_output: 3 expose_hidden: true {_WEIGHTS} }}",
        x(3, 2, 4), _CONT, x(2, 5, batch=False), *_first, wants=[0, 2], tops=1 + _states,
        quiet=(1, 2)[:_states])  # fmt: skip
_LENGTHS = x(3, values=lambda rng, dtype, *shape: np.array([4, 1, 3], dtype), batch=False)
_ENDS = x(4, 3, values=classes(2))
for _kind, _states in (("LSTM", 2), ("RNN", 1), ("GRU", 1)):
    for _note, _more in (
        ("bidirectional", "bidirectional: true"), ("a stack", "num_layers: 2"),
        ("a bidirectional stack", "num_layers: 2 bidirectional: true"),
    ):  # fmt: skip
        _body = f"recurrent_param {{ num_output: 2 {_more} {_WEIGHTS} }}"
        row(_kind, f"{_note}, whole sequences", _body, x(4, 3, 2, batch=False))
        row(_kind, f"{_note}, lengths", _body, x(4, 3, 2, batch=False), _LENGTHS, wants=[0], single=False)
        row(_kind, f"{_note}, cont", _body, x(4, 3, 2, batch=False), _ENDS, wants=[0], single=False)
        _count = ("stack" in _note) + 1 << ("bidirectional" in _note)
        _body = f"recurrent_param {{ num_output: 2 expose_hidden: true state_gradient: true {_more} {_WEIGHTS} }}"
        row(_kind, f"{_note}, state from outside", _body, x(4, 3, 2, batch=False), _LENGTHS,
            *[x(_count, 3, 2, batch=False)] * _states, wants=[0, *range(2, 2 + _states)], tops=1 + _states,
            single=False)  # fmt: skip
    _body = f"recurrent_param {{ num_output: 3 num_layers: 2 dropout_ratio: 0.4 {_WEIGHTS} }}"
    row(_kind, "dropout in the stack", _body, x(4, 3, 2, batch=False), phase=TRAIN)
row("GRU", "plain", f"recurrent_param {{ num_output: 3 {_WEIGHTS} }}", x(3, 2, 4), _CONT, wants=[0])
row("GRU", "an input that stays", f"recurrent_param {{ num_output: 3 {_WEIGHTS} }}",
    x(3, 2, 4), _CONT, x(2, 5, batch=False), wants=[0, 2])  # fmt: skip
for _note, _more in (("peephole", "peephole: true"), ("projection", "projection: 2"),
                     ("peephole and projection", "peephole: true projection: 2 num_layers: 2")):  # fmt: skip
    _body = f"recurrent_param {{ num_output: 3 bidirectional: true {_more} {_WEIGHTS} }}"
    row("LSTM", _note, _body, x(4, 3, 2, batch=False), _LENGTHS, wants=[0], single=False)
row("RNN", "no layer behind the state", f"recurrent_param {{ num_output: 3 output_layer: false {_WEIGHTS} }}",
    x(4, 3, 2, batch=False), _LENGTHS, wants=[0], single=False)  # fmt: skip
row("RNN", "relu", f"recurrent_param {{ num_output: 3 activation: RELU {_WEIGHTS} }}", x(4, 3, 2, batch=False))
_IP = "inner_product_param { num_output: 3 weight_filler { type: 'uniform' min: -0.5 max: 0.5 } }".replace("'", '"')
_STEP = (
    f'layer {{ name: "in" type: "InnerProduct" bottom: "x0" top: "in" {_IP} }} '
    f'layer {{ name: "re" type: "InnerProduct" bottom: "h" top: "re" {_IP} }} '
    'layer { name: "sum" type: "Eltwise" bottom: "in" bottom: "re" top: "sum" } '
    'layer { name: "new" type: "TanH" bottom: "sum" top: "y0" } '
)


def _loop(body: str, more: str = "", state: str = "dim: 3") -> str:
    return f'recurrent_net_param {{ {more} state {{ name: "h" next: "y0" {state} }} body {{ {body} }} }}'


row("Recurrent", "plain", _loop(_STEP), x(3, 2, 4))
row("Recurrent", "cont and what lives on", _loop(_STEP, 'cont: "x1"', "dim: 3 carry: true"), x(3, 2, 4), _CONT,
    wants=[0])  # fmt: skip
row("Recurrent", "the other way", _loop(_STEP, 'cont: "x1" reverse: true'), x(3, 2, 4), _CONT, wants=[0])
row("Recurrent", "a learned first value", _loop(_STEP, 'cont: "x1"', 'dim: 3 filler { value: 0.3 } last: "y1"'),
    x(3, 2, 4), _CONT, wants=[0], tops=2)  # fmt: skip
row("Recurrent", "a first value from outside, an input that stays", _loop(
    _STEP + 'layer { name: "add" type: "Eltwise" bottom: "x2" bottom: "y0" top: "y1" eltwise_param { operation: PROD } '
    "}", 'static: "x2"', 'initial: "x1" last: "y2"'), x(3, 2, 4), x(2, 3, batch=False), x(2, 3, batch=False),
    tops=3)  # fmt: skip
row("Recurrent", "no input but a first value", _loop(_STEP.replace('"x0"', '"h"'), "steps: 3", 'initial: "x0"'),
    x(2, 3))  # fmt: skip
row("Recurrent", "masks", _loop(
    _STEP.replace('top: "y0"', 'top: "y"') + 'layer { name: "drop" type: "Dropout" bottom: "y" top: "y0" } '
), x(3, 2, 4), phase=TRAIN)  # fmt: skip
_THEN = 'then { layer { name: "t" type: "TanH" bottom: "x1" top: "y0" } } '
row("If", "the first branch", f"if_param {{ {_THEN} "
    f'otherwise {{ layer {{ name: "o" type: "InnerProduct" bottom: "x1" top: "y0" {_IP} }} }} }}',
    x(1, values=positive, batch=False), x(2, 3), wants=[1])  # fmt: skip
row("While", "one step", 'while_param { condition: "go" max_steps: 1 '
    'state { name: "s" next: "y0" initial: "x0" last: "y0" } body { '
    f'layer {{ name: "ip" type: "InnerProduct" bottom: "s" top: "z" {_IP} }} '
    'layer { name: "t" type: "TanH" bottom: "z" top: "y0" } '
    'layer { name: "go" type: "Reduction" bottom: "y0" top: "go" reduction_param { axis: 1 } } } }',
    x(2, 3))  # fmt: skip
row("LSTMUnit", "plain", "", x(1, 3, 2), x(1, 3, 8), x(1, 3, values=classes(2)), wants=[0, 1], tops=2)
row("LSTMUnit", "fractions of a memory", "", x(2, 3), x(2, 12), x(2, values=fractions), wants=[0, 1], tops=2)

_TRUTH = x(2, 3, values=lambda rng, dtype, *shape: np.array([[1, 2, 2], [3, -1, -1]], dtype)[: shape[0]], batch=False)
_STEPS = x(2, values=lambda rng, dtype, *shape: np.array([6, 4], dtype), batch=False)
_FEW = f"num_output: 9 num_sampled: 4 {_WEIGHTS}"
for _phase in (TRAIN, TEST):
    _when = "TRAIN" if _phase == TRAIN else "TEST"
    row("SampledSoftmaxLoss", f"plain, {_when}", f"sampled_softmax_param {{ {_FEW} }}",
        x(5, 3), x(5, values=classes(9)), wants=[0], phase=_phase)  # fmt: skip
    row("SampledSoftmaxLoss", f"all alike, ignored labels, {_when}",
        f"sampled_softmax_param {{ distribution: UNIFORM {_FEW} }} loss_param {{ ignore_label: 2 }}",
        x(4, 2, 3), x(4, 2, values=classes(9)), wants=[0], phase=_phase)  # fmt: skip
row("CTCLoss", "plain", "", x(6, 2, 5, batch=False), _TRUTH, wants=[0], single=False)
row("CTCLoss", "steps of each, a blank behind", "ctc_param { blank: 4 }", x(6, 2, 5, batch=False), _TRUTH, _STEPS,
    wants=[0], single=False)  # fmt: skip
row("CTCLoss", "all lengths, each loss", "loss_param { normalization: NONE }", x(6, 2, 5, batch=False), _TRUTH, _STEPS,
    x(2, values=lambda rng, dtype, *shape: np.array([2, 1], dtype), batch=False), wants=[0], tops=2,
    single=False)  # fmt: skip
row("CTCDecode", "plain", "", x(6, 2, 3, batch=False), wants=[], tops=2, single=False)
row("CTCDecode", "steps of each", "ctc_param { blank: 2 }", x(6, 2, 3, batch=False), _STEPS, wants=[], single=False)
row("EditDistance", "plain", "", x(2, 4, values=classes(3)), x(2, 3, values=classes(3)), wants=[], tops=2)
row("EditDistance", "lengths", "", x(2, 4, values=classes(3)), x(2, 3, values=classes(3)), x(2, values=classes(4)),
    x(2, values=classes(4)), wants=[])  # fmt: skip
row("Perplexity", "plain", "", x(4, 5), x(4, values=classes(5)), wants=[])
row("Perplexity", "ignored labels", "loss_param { ignore_label: 2 } softmax_param { axis: 2 }", x(3, 2, 5),
    x(3, 2, values=classes(5)), wants=[])  # fmt: skip
