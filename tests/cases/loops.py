"""Nets with loops, as texts."""

from __future__ import annotations

from typing import Any

import numpy as np

from netrun.config import schema
from netrun.config.upgrade import parse_net
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


PLAIN = (
    dense("x", "x", "from_x") + layer("h", "InnerProduct", "h", "from_h", f"inner_product_param {{ bias_term: false "
    f'num_output: {CELLS} weight_filler {{ type: "uniform" min: -0.7 max: 0.7 }} }}')
    + layer("sum", "Eltwise", "from_x from_h", "sum") + layer("new", "TanH", "sum", "new")
)  # fmt: skip


def plain(state: str = "", more: str = "", top: str = "y", bottom: str = "x cont", name: str = "r") -> str:
    text = f'{more} output: "new" state {{ name: "h" next: "new" dim: {CELLS} {state} }}'
    return recurrent(bottom, top, PLAIN, text, name)


# Two cells, one on the other; the lower one reads what the upper one gave in the step before.
STACKED = (
    dense("a_x", "x", "a_x") + dense("a_h", "a", "a_h") + dense("a_top", "b", "a_top")
    + layer("a_sum", "Eltwise", "a_x a_h a_top", "a_sum") + layer("a_new", "TanH", "a_sum", "a_new")
    + dense("b_x", "a_new", "b_x") + dense("b_h", "b", "b_h") + layer("b_sum", "Eltwise", "b_x b_h", "b_sum")
    + layer("b_new", "Sigmoid", "b_sum", "b_new") + dense("out", "b_new", "y", 3)
)  # fmt: skip
STATES = f'state {{ name: "a" next: "a_new" dim: {CELLS} }} state {{ name: "b" next: "b_new" dim: {CELLS} }} '


def drawn(rng: np.random.Generator, steps: int = STEPS) -> tuple[Any, Any]:
    cont = (rng.random((steps, STREAMS)) > 0.3).astype(float)
    cont[0, 0], cont[2, 1] = 0, 0
    return rng.normal(size=(steps, STREAMS, INPUTS)), cont
