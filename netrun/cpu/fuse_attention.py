"""Attention over few steps: its weights are kept for backward, which takes longer to make them than to read them.

Where there is nothing to hide besides, products and a softmax of their own do the same in fewer steps.
"""

from __future__ import annotations

from dataclasses import replace

from ..kernels import OPS
from ..program import Arg, Call, Program
from ..types import PERSISTENT, Spec, Tensor
from .onednn import ATTENTION_GRAD_KEPT, ATTENTION_KEEP, Recipes

MOST = 1 << 21
"""Weights up to which keeping them pays, all heads together: 8 MiB of them stay in a cache that all cores share.

Measured on two shared cores, forward and backward, 64 heads, with lengths or causal: at 128 steps 1.15 times as fast as
to make them again; at 512 steps as fast, or slower.
"""

FEW = 1 << 19
"""Scores up to which forward alone is faster in fewer steps, where nothing is hidden. 64 x 4 heads of 16 steps: 1.5
times; 64 heads of 128 steps: 0.95; forward and backward 1.5 and 1.04."""


def keeping(program: Program, recipes: Recipes) -> Program:
    """The program with the weights of small attentions kept, where nobody may change what they were made of."""
    program = _apart(program)
    calls = list(program.calls)
    forward = {call.argument("lse"): i for i, call in enumerate(calls) if call.op.name == "attention"}
    open_ = {*program.keeps, *(home.tensor.root for home in program.homes.values())}
    for at, call in enumerate(program.calls):
        made = forward.get(call.argument("lse")) if call.op.name == "attention_grad" else None
        if made is None or calls[made].op.name != "attention" or not _alike(calls[made], call):
            continue
        weights = _weights(call)
        if weights.spec.count > MOST or _changeable(call, open_):
            continue
        first = replace(calls[made], op=ATTENTION_KEEP, args=(*calls[made].args, weights))
        second = replace(call, op=ATTENTION_GRAD_KEPT, args=(*call.args[:9], weights, *call.args[9:]))
        if recipes.of(first) is not None and recipes.of(second) is not None:
            calls[made], calls[at] = first, second
    return program.having(calls)


def _weights(call: Call) -> Tensor:
    """What the weights of a call are kept in."""
    q, k = call.reads()[:2]
    return Tensor(f"{q.root.name}.weights", Spec((*q.shape[:3], k.shape[2])), "buffer")


def _changeable(call: Call, open_: set[Tensor]) -> bool:
    """Whether somebody may write to what the weights are made of between forward and backward."""
    return any(t.root in open_ or t.root.kind in PERSISTENT for t in call.reads()[:2])


def _hides(call: Call) -> bool:
    """Whether a query may not look at everything there is, or there is nothing, or a type that is not the usual one."""
    q, k, v, lengths, mask = call.args[:5]
    sights = lengths is not None or mask is not None or call.attrs["causal"]
    return sights or any(0 in t.shape or t.dtype != "float32" for t in (q, k, v) if isinstance(t, Tensor))


def _alike(forward: Call, backward: Call) -> bool:
    """Whether both are of the same queries, keys and sights."""
    same = all(a is b or (a is not None and b is not None and _same(a, b))
               for a, b in zip(forward.args[:5], backward.args[:5], strict=True))  # fmt: skip
    return same and forward.attrs == backward.attrs


def _same(a: object, b: object) -> bool:
    return isinstance(a, Tensor) and isinstance(b, Tensor) and a.root is b.root and a.shape == b.shape


def _apart(program: Program) -> Program:
    """The program with small attentions that hide nothing as products and a softmax; their weights are kept."""
    readers: dict[Tensor, list[Call]] = {}
    for call in program.calls:
        for root in dict.fromkeys(t.root for t in call.reads()):
            readers.setdefault(root, []).append(call)
    open_ = {*program.keeps, *(home.tensor.root for home in program.homes.values())}
    weights: dict[Tensor, Tensor] = {}
    calls: list[Call] = []
    for call in program.calls:
        lse = call.argument("lse") if call.op.name in ("attention", "attention_grad") else None
        if not isinstance(lse, Tensor):
            calls.append(call)
        elif call.op.name == "attention_grad":
            calls += _backward(call, weights[lse.root]) if lse.root in weights else [call]
        else:
            made, after = _weights(call), readers.get(lse.root, [])
            kept = all(c.op.name == "attention_grad" and _alike(call, c) and c.args[8] is None for c in after)
            if _hides(call) or not kept or lse.root in open_ or made.spec.count > (MOST if after else FEW):
                calls.append(call)
                continue
            if after and _changeable(call, open_):
                calls.append(call)
                continue
            weights[lse.root] = made
            calls += _forward(call, made)
    return program.having(calls)


def _forward(call: Call, weights: Tensor) -> list[Call]:
    q, k, v, _, _, y, _ = call.args
    scores, scaled = (Tensor(f"{weights.name}.{what}", weights.spec, "buffer") for what in ("scores", "scaled"))
    return [
        _gemm(call, q, k, scores, tb=True),
        Call(OPS["pointwise"], ((scores,), scaled), {"expr": f"a * {call.attrs['scale']!r}"}, call.origin),
        Call(OPS["softmax"], (scaled, weights), {"axis": 3}, call.origin),
        _gemm(call, weights, v, y),
    ]


def _backward(call: Call, weights: Tensor) -> list[Call]:
    q, k, v, _, _, _, _, dy, _, dq, dk, dv = call.args
    seeds, slopes, scaled = (
        Tensor(f"{weights.name}.{w}", weights.spec, "buffer") for w in ("seeds", "slopes", "scaled'")
    )
    return [
        _gemm(call, dy, v, seeds, tb=True),
        _gemm(call, weights, dy, dv, ta=True),
        Call(OPS["softmax_grad"], (weights, seeds, slopes), {"axis": 3}, call.origin),
        Call(OPS["pointwise"], ((slopes,), scaled), {"expr": f"a * {call.attrs['scale']!r}"}, call.origin),
        _gemm(call, scaled, k, dq),
        _gemm(call, scaled, q, dk, ta=True),
    ]


def _gemm(call: Call, a: Arg, b: Arg, y: Arg, ta: bool = False, tb: bool = False) -> Call:
    return Call(OPS["gemm"], (a, b, None, y), {"ta": ta, "tb": tb}, call.origin)
