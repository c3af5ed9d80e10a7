"""Rows of layers that are formulas: type Expr, and Python layers that say their forward pass alone."""

from __future__ import annotations

from typing import Any

from cases.layer_case import Bottom, classes, fractions, row, x
from cases.values import distinct, positive


def expr(note: str, text: str, *bottoms: Bottom, weights: str = "", **rest: Any) -> None:
    """Add a row of type Expr. The bottoms are x0, x1 ..."""
    row("Expr", note, f'expr_param {{ expr: "{text}" {weights} }}', *bottoms, **rest)


def weight(name: str, *shape: int) -> str:
    """A weight of an Expr layer."""
    dims = " ".join(f"dim: {n}" for n in shape)
    return f'weight {{ name: "{name}" shape {{ {dims} }} filler {{ type: "gaussian" std: 0.5 }} }}'


expr("as in the README", "x0 * sigmoid(x1) + 0.1 * mean(x0, axis=1)", x(2, 3, 4), x(2, 3, 4))
expr("a bottom of another rank", "x0 * (x1 + 2)", x(2, 3, 4), x(4, batch=False))
expr(
    "leading axes of length 1",
    "x0[None] * tanh(x1) + x0 * x0[None, None] * size(x1, 1)",
    x(3),
    x(1, 3, batch=False),
    single=False,
)
expr("functions", "tanh(x0) + sin(x0) * cos(x0) - erf(x0) + gelu(x0) + silu(x0) + softplus(x0) + relu(x0, 0.1) "
     "+ elu(x0)",
     x(2, 3, 4))  # fmt: skip
expr("functions of positive numbers", "log(x0) + sqrt(x0) + x0^1.5 + log1p(x0) + expm1(x0) + 2^-x0 + 1/x0 + square(x0)",
     x(2, 3, 4, values=positive))  # fmt: skip
expr("no gradient in tests and steps", "x0 * (x0 > 0 and x0 < 0.6 or not x0 >= -1) + floor(x0) + ceil(x0) + trunc(x0)",
     x(2, 3, values=distinct))  # fmt: skip
expr("choices", "where(x0 > x1, x0, 2 * x1) + max(x0, x1) * min(x0, x1, 0.011) + clip(x0, -0.1, 0.1) "
     "+ abs(x1) + sign(x0)",
     x(3, 5, values=distinct), x(3, 5))  # fmt: skip
expr("reductions", "sum(x0, axis=-1) * max(x0, axis=[0, 2]) + var(x0) - min(x0, axis=1, keepdims=1) + std(x0, axis=2)",
     x(2, 3, 4, values=distinct))  # fmt: skip
expr(
    "reductions to fewer axes",
    "m = mean(x0, axis=[1, 2], keepdims=0); m * sum(x0^2) + max(m)",
    x(3, 2, 4),
    single=False,
)
expr("a sum over what is not there", "sum(x0 * 0 + x1, axis=1)", x(2, 3, 4), x(4, batch=False))
expr("Huber, a scalar", "mean(where(abs(x0 - x1) < 0.5, 0.5 * (x0 - x1)^2, 0.5 * abs(x0 - x1) - 0.125))",
     x(4, 3), x(4, 3, values=distinct))  # fmt: skip
expr("focal loss", "q = pick(softmax(x0, axis=1), x1); mean(-(1 - q)^2 * log(q))",
     x(4, 5), x(4, values=classes(5)), wants=[0])  # fmt: skip
expr("focal loss of tests", "p = sigmoid(x0); mean(-x1 * (1 - p)^2 * log(p) - (1 - x1) * p^2 * log(1 - p))",
     x(4, 3), x(4, 3, values=fractions))  # fmt: skip
expr(
    "cross-entropy of maps",
    "sum(-pick(log_softmax(x0, axis=1), x1))",
    x(2, 4, 3),
    x(2, 3, values=classes(4)),
    wants=[0],
)
expr("softmax by hand", "e = exp(x0 - max(x0, axis=1)); e / sum(e, axis=1) * x1", x(3, 4, values=distinct), x(3, 4))
expr(
    "normalised",
    "normalize(x0, axis=[1, 2], eps=0.001) * g + b",
    x(2, 3, 4),
    weights=weight("g", 3, 1) + weight("b", 4),
)
expr("an LSTM cell", "z = x0 @ w.T + x1 @ r.T + b; i, f, o, g = split(z, 4, axis=1);"
     "c = sigmoid(f) * x2 + sigmoid(i) * tanh(g); sigmoid(o) * tanh(c), c", x(3, 4), x(3, 2), x(3, 2), tops=2,
     weights=weight("w", 8, 4) + 'weight { name: "r" sizes: "4 * size(x1, 1), size(x1, 1)" filler { type: "xavier" } }'
     + weight("b", 8))  # fmt: skip
expr("parts with gaps", "x0[:, 0] * x0[:, 2] + x0[:, 4:6][:, 0] * x0[..., -1]", x(3, 8))
expr("parts that overlap", "x0[:, 0:3] * x0[:, 1:4] + x0[0][1:] + x0[-1, 0]", x(3, 4), single=False)
expr("products", "a = x0 @ x1.T; a @ x1 + matmul(x1.T, a)[:, None, :2][:, 0, ..., 0:1][:, 1:] + dot(x0, v)[..., None]",
     x(2, 3, 3), x(3, 3, batch=False), weights=weight("v", 3), single=False)  # fmt: skip
expr(
    "batches of products",
    "softmax(x0 @ transpose(x1, 0, 1, 3, 2) / sqrt(size(x0, -1))) @ x1",
    x(2, 2, 3, 4),
    x(2, 2, 5, 4),
)
expr("a batch of one", "x0 @ x1", x(2, 3, 4), x(1, 4, 2, batch=False))
expr("shapes", "h = reshape(x0, size(x0, 0), -1); "
     "concat(h, stack(h[:, 0], h[:, 1], axis=1), axis=1) * broadcast(s, size(h, 0), 14)",
     x(2, 3, 4), weights=weight("s", 14))  # fmt: skip
expr(
    "rows of a table",
    "take(table, x0) * x1",
    x(4, 3, values=classes(5)),
    x(4, 3, 2),
    wants=[1],
    weights=weight("table", 5, 2),
)
expr("a constant part", "stop(x0) + onehot(x1, 3) * pi", x(4, 3), x(4, values=classes(3)), wants=[])
expr("tops by name", "y1 = x0 + w; y0 = y1 * x0; y2 = x0", x(4, 3), tops=3, weights=weight("w", 3))
expr("in0 and names", "in0 * b + b", x(4, 3), x(4, 3), weights='input: "a" input: "b"')
expr("a large expression", "h = x0; " + "h = gelu(h) + h * x0; " * 6 + "h", x(2, 3))
expr("the same top twice and a number", "x0, x0, 3", x(2, 3), tops=3)

_MODULE = 'module: "cases.forward_layers"'
for _class, _note, _bottoms, _rest in (
    ("GatedUnit", "array arithmetic", (x(4, 3),), {}),
    ("Kernels", "kernels of the vocabulary", (x(2, 3, 6, 5), x(2, 3, 6, 5)), {"tops": 2, "wants": [0]}),
    ("Duck", "a class that derives from nothing", (x(4, 3),), {}),
):
    row("Python", f"forward alone: {_note}", f'python_param {{ {_MODULE} layer: "{_class}" }}', *_bottoms, **_rest)
