"""What a call costs in arithmetic, told from shapes alone."""

from __future__ import annotations

import math
from typing import cast

from ..program import Call
from ..types import Tensor


def multiply_adds(call: Call) -> int:
    """Multiplications that go with an addition: those of convolutions and matrix products.

    Work element by element (activations, pooling, normalisation, biases) counts nothing, as is the custom. Padding
    counts as if it were data.
    """
    kind = call.op.name
    if kind == "conv":
        return _convolution(call, out="y", weight="w")
    if kind == "conv_grad_x":
        return _convolution(call, out="dy", weight="w")
    if kind == "conv_grad_w":
        return _convolution(call, out="dy", weight="dw")
    if kind == "gemm":
        a, y = _tensor(call, "a"), _tensor(call, "y")
        return y.spec.count * a.shape[-2 if call.attrs["ta"] else -1]
    if kind.removesuffix("_grad") == "attention":
        return _attention(call)
    if kind.removesuffix("_grad") in ("rnn", "lstm", "gru"):
        return _recurrence(call)
    return 0


def _attention(call: Call) -> int:
    """Every score takes a product of two rows and a row of values; backward makes the scores again, with the gradients
    of scores, values, queries and keys. Hidden places count as if they were looked at."""
    q, k, v = (_tensor(call, name) for name in "qkv")
    scores, inner, outer = math.prod(q.shape[:3]) * k.shape[2], q.shape[3], v.shape[3]
    return scores * (3 * inner + 2 * outer if call.op.name.endswith("_grad") else inner + outer)


def _recurrence(call: Call) -> int:
    """Every step multiplies each stream's state with the weights once, forward as backward."""
    (steps, streams), work = _tensor(call, "dy" if call.op.name.endswith("_grad") else "y").shape[:2], 0
    for name in ("w", "proj"):
        if any(a.name == name for a in call.op.arguments) and call.argument(name) is not None:
            work += _tensor(call, name).spec.count
    return steps * streams * work


def _convolution(call: Call, out: str, weight: str) -> int:
    """Every output value of the direct convolution takes one multiply-add for each weight of its filter."""
    return _tensor(call, out).spec.count * math.prod(_tensor(call, weight).shape[1:])


def _tensor(call: Call, name: str) -> Tensor:
    return cast(Tensor, call.argument(name))
