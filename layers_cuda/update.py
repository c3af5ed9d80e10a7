"""update: the assignments of a rule in one kernel, for one parameter or for many at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from netrun.errors import DeviceError
from netrun.expression import Rule
from netrun.program import Call
from netrun.types import Spec

from .expressions import cuda_rule
from .geometry import VECTOR, aligned, fold, indices, real_defines, real_of, vector_of
from .launch import BLOCK, CTYPES, Kernel, Launch, Step, nothing
from .pointwise import inputs

if TYPE_CHECKING:
    from .device import Cuda

CHUNK = 16 * BLOCK
"""Elements that one block of ``together`` works on."""


def update(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.update, bound."""
    rule: Rule = call.attrs["rule"]
    xs, vs = args
    shape = np.broadcast_shapes(*(v.shape for v in vs))
    if any(v.shape != shape for v in vs):
        raise DeviceError(f"the variables of an update have different shapes: {[v.shape for v in vs]}")
    if 0 in shape:
        return nothing
    axes = fold(shape, [x.shape for x in xs])
    width = vector_of(axes, [*vs, *(x for x, mask in zip(xs, axes.masks, strict=True) if axes.wide(mask))])
    taken, changed = [x.dtype.name for x in xs], [v.dtype.name for v in vs]
    kernel = Kernel("update", "update", (
        *real_defines(real_of(changed, taken), axes.count, *taken, *changed),
        *axes.defines(),
        ("INPUTS(X)", inputs(rule.inputs, taken, axes.masks)),
        ("VARIABLES(X)", _list([(n, CTYPES[d]) for n, d in zip(rule.variables, changed, strict=True)])),
        ("BODY", cuda_rule(rule, dict(zip(rule.variables, (CTYPES[d] for d in changed), strict=True)))),
        ("V", str(width)),
    ))  # fmt: skip
    values = [*xs, *vs, *indices(axes.count, [axes.count, *axes.sizes])]
    return device.launcher.step(kernel, device.launcher.blocks(-(-axes.count // width)), BLOCK, values)


def update_rows(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.update_rows, bound. A row out of range is reported by ``device.faults`` and not written."""
    rule: Rule = call.attrs["rule"]
    index, xs, vs = args
    rows, width = vs[0].shape[0], math.prod(vs[0].shape[1:])
    count = index.size * width
    if not count:
        return nothing
    taken, changed = [x.dtype.name for x in xs], [v.dtype.name for v in vs]
    wide = [int(x.size == count and count > 1) for x in xs]
    most = max(count, vs[0].size)
    kernel = Kernel("update_rows", "update_rows", (
        *real_defines(real_of(changed, taken), most, *taken, *changed),
        ("LABEL", CTYPES[index.dtype.name]),
        ("INPUTS(X)", _list([(n, CTYPES[d], w) for n, d, w in zip(rule.inputs, taken, wide, strict=True)])),
        ("VARIABLES(X)", _list([(n, CTYPES[d]) for n, d in zip(rule.variables, changed, strict=True)])),
        ("BODY", cuda_rule(rule, dict(zip(rule.variables, (CTYPES[d] for d in changed), strict=True)))),
    ))  # fmt: skip
    fault = device.faults.slot(call.origin, "index", index.shape, rows)
    values = [index, *xs, *vs, fault, *indices(most, [count, rows, width])]
    return device.launcher.step(kernel, device.launcher.blocks(count), BLOCK, values)


def together(device: Cuda, rule: Rule, tensors: Sequence[tuple[Sequence[Any], Sequence[Any]]]) -> Step | None:
    """One launch that updates many parameters by the same rule.

    Args:
        tensors: (xs, vs) of each update call. An input must be one number that all calls share (the same array: a
            learning rate), or have as many elements as its variables (a gradient).

    Returns:
        The step, or None where the calls do not fit together: bind them one by one.
    """
    if len({tuple(a.dtype.name for part in pair for a in part) for pair in tensors}) != 1:
        return None
    first_xs, first_vs = tensors[0]
    shared = [x.size == 1 and all(xs[i].data.ptr == x.data.ptr for xs, _ in tensors) for i, x in enumerate(first_xs)]
    own = [i for i, same in enumerate(shared) if not same]
    rows: list[list[int]] = []
    chunks: list[tuple[int, int]] = []
    for xs, vs in tensors:
        count = vs[0].size
        if any(a.size != count for a in [*vs, *(xs[i] for i in own)]):
            return None
        chunks += [(len(rows), begin) for begin in range(0, count, CHUNK)]
        rows.append([*(v.data.ptr for v in vs), *(xs[i].data.ptr for i in own), count])
    if not chunks:
        return nothing
    arrays = [a for xs, vs in tensors for a in [*vs, *(xs[i] for i in own)]]
    taken, changed = [x.dtype.name for x in first_xs], [v.dtype.name for v in first_vs]
    slots = len(first_vs)
    kernel = Kernel("update_many", "update_many", (
        *real_defines(real_of(changed, taken), 0, *taken, *changed),
        ("SHARED(X)", _list([(n, CTYPES[d]) for n, d, s in zip(rule.inputs, taken, shared, strict=True) if s])),
        ("INPUTS(X)", _list([(rule.inputs[i], CTYPES[taken[i]], slots + k) for k, i in enumerate(own)])),
        ("VARIABLES(X)", _list([(n, CTYPES[changed[k]], k) for k, n in enumerate(rule.variables)])),
        ("BODY", cuda_rule(rule, dict(zip(rule.variables, (CTYPES[d] for d in changed), strict=True)))),
        ("SLOTS", str(len(rows[0]))),
        ("CHUNK", str(CHUNK)),
        ("V", str(VECTOR if aligned(arrays) else 1)),
    ))  # fmt: skip
    tables = [constant(device, np.array(values, np.int64)) for values in (rows, chunks)]
    given = [x for x, same in zip(first_xs, shared, strict=True) if same]
    step = device.launcher.step(kernel, len(chunks), BLOCK, [*given, *tables])
    return Launch.of((tables, arrays), step)  # the table holds bare addresses


def _list(rows: Sequence[tuple[object, ...]]) -> str:
    """X(...) for each row."""
    return " ".join(f"X({', '.join(map(str, row))})" for row in rows)


def constant(device: Cuda, values: np.ndarray[Any, Any]) -> Any:
    """A device copy of host values."""
    spec = Spec(values.shape, values.dtype.name)
    array = device.array(device.allocate(spec.nbytes), 0, spec)
    device.write(array, values)
    return array


BODIES: dict[str, Callable[[Cuda, Call, Sequence[Any], Any], Step]] = {"update": update, "update_rows": update_rows}
WORKSPACE: dict[str, Callable[[Cuda, Call], int]] = {}
