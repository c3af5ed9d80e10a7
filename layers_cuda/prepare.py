"""What this device changes in a program before it is planned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from netrun.expression import parse
from netrun.program import Call, Program
from netrun.storage import narrowed
from netrun.types import PERSISTENT, Tensor

from .adding import added
from .casts import cast_together
from .fusing import fused
from .layout import CONVOLUTIONS, channels_last
from .recurrent import Sizes, by_cudnn
from .renewing import renewed
from .slices import joined
from .summed import summed

RELU = parse("relu(a, 0)")

FUSING = frozenset({"conv", "gemm"})
"""Kernels that apply a ReLU to what they make."""


RECURRENT = frozenset({"rnn", "rnn_grad", "lstm", "lstm_grad", "gru", "gru_grad"})
"""Kernels with products of float32 inside, in every precision: they go on from their own results, step after step."""


def _never(call: Call) -> bool:
    return False


def prepare(
    program: Program,
    has_plan: Callable[[Call], bool] = _never,
    takes_parts: Callable[[Call], bool] = _never,
    sizes: Sizes | None = None,
    takes_sums: Callable[[Call], bool] = _never,
) -> Program:
    """The program as a GPU runs it: fused, with its numerics in its calls and tensors, with channels last where tensor
    cores multiply, with pointwise calls fused, without the concats whose parts can be written in place, with gradients
    added to what is there and summed where they are made, and with updates that write what convolutions read.

    Args:
        has_plan: whether the device runs a convolution with the attribute ``last``.
        takes_parts: whether it runs one with the attribute ``begin``.
        sizes: what cuDNN needs for a recurrent stack; None leaves those to own kernels. A program that is to give the
            same bits every time does so as well: cuDNN does not promise that.
        takes_sums: whether it runs a convolution or a product with the attribute ``add``.
    """
    if sizes is not None and not program.numerics.deterministic:
        program = by_cudnn(program, sizes)
    made = _marked(_rectified(program))
    if program.numerics.precision != "FP32":
        made = narrowed(channels_last(made, has_plan))
    made = added(joined(fused(made, takes_sums), takes_parts), takes_sums)
    return renewed(cast_together(summed(made)))


def _marked(program: Program) -> Program:
    """Write precision and determinism into the calls that choose by them."""
    wanted = program.numerics
    calls = []
    for call in program.calls:
        added: dict[str, Any] = {}
        if wanted.precision != "FP32" and call.op.name in {*CONVOLUTIONS, "gemm", "attention", "attention_grad"}:
            added["precision"] = wanted.precision
        if wanted.precision != "FP32" and call.op.name in RECURRENT:
            added["precision"] = "TF32"
        if wanted.deterministic and call.op.name in CONVOLUTIONS:
            added["deterministic"] = True
        calls.append(replace(call, attrs={**call.attrs, **added}) if added else call)
    return program.having(calls)


def _rectified(program: Program) -> Program:
    """Give every convolution and product the ReLU behind it, where nobody else sees the value in between.

    cuDNN and cuBLASLt apply it while the result is still in registers. The call keeps its kernel and gets the attribute
    ``relu=True``, which only this device makes and only this device reads. A ReLU's gradient needs its output alone, so
    training profits as well; a net that keeps all its blobs is left as it is.
    """
    readers: Counter[Tensor] = Counter()
    for call in program.calls:
        readers.update(dict.fromkeys((t.root for t in call.reads()), 1))
    made = {call.writes()[0].root: i for i, call in enumerate(program.calls) if call.op.name in FUSING}
    calls: list[Call | None] = list(program.calls)
    for i, call in enumerate(program.calls):
        if call.op.name != "pointwise" or parse(call.attrs["expr"]) != RELU:
            continue
        given, (y,) = call.reads(), call.writes()
        at = made.get(given[0].root)
        if len(given) != 1 or at is None or readers[given[0].root] != 1 or not _fits(program, given[0], y):
            continue
        maker = program.calls[at]
        result = y.view(maker.writes()[0].shape)
        calls[at] = Call(maker.op, (*maker.args[:-1], result), {**maker.attrs, "relu": True}, maker.origin)
        calls[i] = None
    return program.having(call for call in calls if call is not None)


def _fits(program: Program, x: Tensor, y: Tensor) -> bool:
    """Whether the value between the two is a passing one and the result takes its place as it is."""
    passing = all(t.root.kind not in PERSISTENT for t in (x, y)) and x.root not in program.keeps
    return passing and x.spec.count == y.spec.count == y.root.spec.count and x.dtype == y.dtype
