"""pointwise, reduce and update, bound: a tape run block by block, so that what lies between stays in the cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np

from ..expression import Num, Rule, Var, letters, names_in, parse
from ..program import Call
from ..types import Shape
from .evaluate import erf, float_type, run_rule
from .memory import Array, Part, carve, carved_bytes, chain
from .tape import TESTS, UFUNCS, Layout, Tape, layout
from .team import sharers, together

BLOCK = 64 * 1024
"""Elements of a block: a few buffers of it fit into the second-level cache."""

Step = Callable[[], Any]


@lru_cache(maxsize=1024)
def _tape(expr: str) -> Tape:
    return Tape.of(expr)


@lru_cache(maxsize=256)
def _rule_tape(rule: Rule) -> Tape:
    return Tape.of_rule(rule)


def _run_erf(x: Array, out: Array) -> None:
    out[...] = erf(np.asarray(x))


# ------------------------------------------------------------------------------------------------------------- shapes
def merged(shape: Shape, arrays: Sequence[Array]) -> tuple[Shape, list[Array]]:
    """The same elementwise problem with as few axes as possible.

    Neighbouring axes become one where every array either has both of them or is repeated along both.
    """
    wide = [a.reshape((1,) * (len(shape) - a.ndim) + a.shape) for a in arrays]
    groups: list[list[int]] = []
    for axis, length in enumerate(shape):
        if length == 1:
            continue
        repeated = [a.shape[axis] == 1 for a in wide]
        if groups and [a.shape[groups[-1][-1]] == 1 for a in wide] == repeated:
            groups[-1].append(axis)
        else:
            groups.append([axis])
    small = tuple(math.prod(shape[i] for i in group) for group in groups)
    return small, [a.reshape([math.prod(a.shape[i] for i in group) for group in groups]) for a in wide]


def blocks(shape: Shape) -> list[tuple[int, int]]:
    """Ranges of the first axis that hold about BLOCK elements each."""
    if not shape:
        return [(0, 1)]
    rows = max(1, BLOCK // max(1, math.prod(shape[1:])))
    return [(a, min(shape[0], a + rows)) for a in range(0, shape[0], rows)]


def _block_count(shape: Shape) -> int:
    """Elements of the largest block of any merged form of a shape: at least one row of it."""
    count = math.prod(shape)
    return count if count <= 2 * BLOCK else max(BLOCK, *(math.prod(shape[i:]) for i in range(1, len(shape) + 1)))


# ------------------------------------------------------------------------------------------------------------ running
def _part(array: Array, shape: Shape, a: int, b: int) -> Array:
    """Rows a..b of an array that has, or is repeated along, the first axis."""
    return array if not shape or array.shape[0] == 1 else array[a:b]


def _steps(
    tape: Tape, plan: Layout, inputs: Mapping[str, Array], outs: Mapping[str, Array], shape: Shape, work: list[Array],
    dtype: np.dtype[Any],
) -> list[Step]:  # fmt: skip
    """Operations on one block. ``work``: the float buffers, then the masks. ``outs`` have ``shape``."""
    values: list[Array] = []
    steps: list[Step] = []
    last = tape.last_uses()
    count = math.prod(shape)
    final = {value: outs[name] for name, value in tape.writes.items() if outs[name].dtype == dtype}
    for i, operation in enumerate(tape.operations):
        op, args = operation.op, [values[a] for a in operation.args]
        if op == "number":
            values.append(np.array(operation.value, dtype))
            continue
        if op == "input" and plan.homes[i] < 0:
            values.append(inputs[operation.name])
            continue
        mask = op.startswith("mask")
        home = work[plan.homes[i] + (plan.buffers if mask else 0)][:count].reshape(shape)
        target = final.get(i)
        if target is not None and _may_write(tape, i, last, values, target, op):
            home = target
        values.append(home)
        if op == "input":
            steps.append(partial(np.copyto, home, inputs[operation.name], casting="unsafe"))
        elif op == "where":
            test, yes, no = args
            steps += [partial(np.copyto, home, no), partial(np.copyto, home, yes, where=test)]
        elif op == "copy":
            steps.append(partial(np.copyto, home, args[0]))
        elif op == "erf":
            steps.append(partial(_run_erf, args[0], home))
        else:
            function = TESTS[op[5:]] if mask else TESTS.get(op) or UFUNCS[op]
            steps.append(partial(getattr(np, function), *args, out=home))
    for name, value in tape.writes.items():
        if values[value] is not outs[name]:
            steps.append(partial(np.copyto, outs[name], values[value], casting="unsafe"))
    return steps


def _may_write(tape: Tape, i: int, last: list[int], values: list[Array], target: Array, op: str) -> bool:
    """Whether operation i may write its value where it belongs: nobody reads what lies there afterwards."""
    for number, value in enumerate(values):
        later = last[number] > i or (op == "where" and last[number] == i)
        if later and tape.operations[number].op == "input" and np.may_share_memory(value, target):
            return False
    return True


def _work(plan: Layout, count: int, dtype: np.dtype[Any]) -> list[Part]:
    floats: list[Part] = [((count,), dtype)] * plan.buffers
    return floats + [((count,), np.dtype(bool))] * plan.masks


def _bind(
    tape: Tape, inputs: Mapping[str, Array], outs: Mapping[str, Array], shape: Shape, dtype: np.dtype[Any], scratch: Any
) -> Step:
    names, given = list(inputs), list(inputs.values())
    plan = layout(tape, [n for n in names if inputs[n].dtype != dtype])
    small, every = merged(shape, [*given, *outs.values()])
    cut = blocks(small)
    rows = max((b - a for a, b in cut), default=0)
    sharing = min(sharers(math.prod(small)), len(cut)) or 1
    parts = _work(plan, rows * math.prod(small[1:]), dtype)
    work = carve(scratch, parts * sharing)
    shares: list[list[Step]] = [[] for _ in range(sharing)]
    for i, (a, b) in enumerate(cut):
        part = [_part(array, small, a, b) for array in every]
        block = (b - a, *small[1:]) if small else ()
        here = dict(zip(names, part, strict=False)), dict(zip(outs, part[len(names) :], strict=True))
        number = i * sharing // len(cut)
        own = work[number * len(parts) : (number + 1) * len(parts)]
        shares[number] += _steps(tape, plan, *here, block, own, dtype)
    if sharing > 1:
        return together(shares)
    return shares[0][0] if len(shares[0]) == 1 else chain(shares[0])


# ---------------------------------------------------------------------------------------------------------- the kernels
def pointwise(xs: Sequence[Array], y: Array, scratch: Any, *, expr: str) -> Step:
    """Kernels.pointwise, bound."""
    tree = parse(expr)
    if isinstance(tree, Num):
        return partial(y.fill, tree.value)
    used = names_in(tree)
    inputs = {name: x for name, x in zip(letters(len(xs)), xs, strict=True) if name in used}
    if isinstance(tree, Var):
        return partial(np.copyto, y, inputs[tree.name], casting="unsafe")
    return _bind(_tape(expr), inputs, {"": y}, y.shape, float_type([y], xs), scratch)


def update(xs: Sequence[Array], vs: Sequence[Array], scratch: Any, *, rule: Rule) -> Step:
    """Kernels.update, bound. Variables of several shapes or types are left to the reference."""
    dtype = float_type(vs, xs)
    if any(v.shape != vs[0].shape or v.dtype != dtype for v in vs):
        return partial(run_rule, rule, xs, vs)
    tape = _rule_tape(rule)
    variables = dict(zip(rule.variables, vs, strict=True))
    inputs = {**dict(zip(rule.inputs, xs, strict=True)), **variables}
    outs = {name: variables[name] for name in tape.writes}
    return _bind(tape, inputs, outs, vs[0].shape, dtype, scratch)


def reduce(xs: Sequence[Array], y: Array, scratch: Any, *, expr: str, how: str, axes: Shape) -> Step:
    """Kernels.reduce, bound: the expression into scratch (where it is more than an input), then one reduction."""
    tree, dtype = parse(expr), float_type([y], xs)
    shape = np.broadcast_shapes(*(x.shape for x in xs))
    total = how == "sum"
    function = np.add.reduce if total else np.maximum.reduce
    steps: list[Step] = []
    if isinstance(tree, Var):
        whole = np.broadcast_to(dict(zip(letters(len(xs)), xs, strict=True))[tree.name], shape)
    else:
        whole, rest = _whole(shape, dtype, scratch)
        steps.append(pointwise(xs, whole, rest, expr=expr))
    kept = tuple(1 if i in axes else n for i, n in enumerate(shape))
    home = y.reshape(kept)
    if total or whole.dtype != y.dtype:
        inside = np.float64 if total else dtype
        steps.append(lambda: np.copyto(home, function(whole, axis=axes, dtype=inside, keepdims=True), casting="unsafe"))
    else:
        steps.append(partial(function, whole, axis=axes, out=home, keepdims=True))
    return steps[0] if len(steps) == 1 else chain(steps)


def _whole(shape: Shape, dtype: Any, scratch: Any) -> tuple[Array, Any]:
    (whole,) = carve(scratch, [(shape, dtype)])
    used = carved_bytes([(shape, dtype)])
    return whole, None if scratch is None else scratch[used:]


# ------------------------------------------------------------------------------------------------------------- scratch
def workspace(call: Call) -> int:
    """Scratch bytes of a pointwise, reduce or update call."""
    xs, ys = call.args
    assert isinstance(xs, tuple)
    outs = ys if isinstance(ys, tuple) else (ys,)
    types = [np.empty(0, t.dtype) for t in outs if t is not None], [np.empty(0, x.dtype) for x in xs]
    dtype = float_type(*types)
    if call.op.name == "update":
        rule = call.attrs["rule"]
        tape, names = _rule_tape(rule), (*rule.inputs, *rule.variables)
        shape = outs[0].shape if outs[0] is not None else ()
        inputs = [*xs, *(t for t in outs if t is not None)]
    else:
        tape, names, inputs = _tape(call.attrs["expr"]), letters(len(xs)), list(xs)
        shapes = [x.shape for x in xs]
        shape = np.broadcast_shapes(*shapes) if call.op.name == "reduce" or outs[0] is None else outs[0].shape
    plan = layout(tape, [n for n, x in zip(names, inputs, strict=True) if x.dtype != dtype.name])
    needed = carved_bytes(_work(plan, _block_count(shape), dtype)) * sharers(math.prod(shape))
    return needed + (carved_bytes([(shape, dtype)]) if call.op.name == "reduce" else 0)
