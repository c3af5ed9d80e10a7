"""The recurrent kernels of device "cpu": rnn and gru, bound; lstm has its own file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from ..program import Call
from . import lstm
from .dnnl import Library
from .lstm import Maybe, logistic, masked
from .memory import Array, Part, carve, carved_bytes, chain
from .reference_sequence import walk
from .step_products import Products, Step


def _parts(lib: Library | None, w: Any, streams: int, grad: bool, add: bool, *buffers: int) -> list[Part]:
    """Packed weights, and buffers of that many values a stream."""
    first = Products.part(lib, w.shape, w.dtype, streams, not grad, add)
    return [first, *(((streams, width), w.dtype) for width in buffers)]


# ------------------------------------------------------------------------------------------------------------------ rnn
def rnn(
    lib: Library | None, x: Array, w: Array, cont: Maybe, first: Maybe, y: Array, scratch: Any, *, act: str,
    reverse: bool,
) -> Step:  # fmt: skip
    """Kernels.rnn, bound."""
    room, seen = carve(scratch, _parts(lib, w, x.shape[1], False, True, w.shape[1]))
    products = Products(lib, w, x.shape[1], True, True, room)
    run = [*products.start]
    for t, before in walk(len(x), reverse):
        old, mask = masked(y[before] if before >= 0 else first, cont, t, seen)
        run += [*mask, *products([(old, x[t], y[t])])] if old is not None else [partial(np.copyto, y[t], x[t])]
        run.append(partial(np.tanh, y[t], y[t]) if act == "tanh" else partial(np.maximum, y[t], 0, out=y[t]))
    return chain(run)


def rnn_grad(
    lib: Library | None, w: Array, cont: Maybe, y: Array, dy: Array, dx: Array, dfirst: Array, scratch: Any, *,
    act: str, reverse: bool,
) -> Step:  # fmt: skip
    """Kernels.rnn_grad, bound. dfirst carries the gradient from step to step."""
    one = y.dtype.type(1)
    room, slope = carve(scratch, _parts(lib, w, y.shape[1], True, False, w.shape[1]))
    products = Products(lib, w, y.shape[1], False, False, room)
    run: list[Step] = [*products.start, partial(dfirst.fill, 0)]
    for t, _ in reversed(list(walk(len(y), reverse))):
        if act == "tanh":
            run += [partial(np.multiply, y[t], y[t], slope), partial(np.subtract, one, slope, slope)]
        else:
            run.append(partial(np.greater, y[t], 0, slope))
        run += [partial(np.add, dy[t], dfirst, dx[t]), partial(np.multiply, dx[t], slope, dx[t])]
        run += products([(dx[t], None, dfirst)])
        run += masked(dfirst, cont, t, dfirst)[1]
    return chain(run)


# ------------------------------------------------------------------------------------------------------------------ gru
def gru(
    lib: Library | None, x: Array, w: Array, b: Maybe, cont: Maybe, first: Maybe, y: Array, gates: Array,
    scratch: Any, *, reverse: bool,
) -> Step:  # fmt: skip
    """Kernels.gru, bound."""
    steps, streams, size = y.shape
    room, seen, product = carve(scratch, _parts(lib, w, streams, False, False, size, 3 * size))
    products = Products(lib, w, streams, True, False, room)
    run: list[Step] = [*products.start]
    for t, before in walk(steps, reverse):
        rz, n, u = gates[t][:, : 2 * size], gates[t][:, 2 * size : 3 * size], gates[t][:, 3 * size :]
        z = gates[t][:, size : 2 * size]
        old, mask = masked(y[before] if before >= 0 else first, cont, t, seen)
        run += mask
        if old is None:
            run += [partial(np.copyto, rz, x[t][:, : 2 * size]), partial(u.fill, 0)]
        else:
            run += [*products([(old, None, product)]), partial(np.copyto, u, product[:, 2 * size :]),
                    partial(np.add, product[:, : 2 * size], x[t][:, : 2 * size], rz)]  # fmt: skip
        if b is not None:
            run.append(partial(np.add, u, b, u))
        run += logistic(rz, rz)
        run += [partial(np.multiply, gates[t][:, :size], u, n), partial(np.add, n, x[t][:, 2 * size :], n),
                partial(np.tanh, n, n)]  # fmt: skip
        if old is None:
            run += [partial(np.multiply, z, n, y[t]), partial(np.subtract, n, y[t], y[t])]
        else:
            run += [partial(np.subtract, old, n, y[t]), partial(np.multiply, y[t], z, y[t]),
                    partial(np.add, y[t], n, y[t])]  # fmt: skip
    return chain(run)


def gru_grad(
    lib: Library | None, w: Array, cont: Maybe, first: Maybe, y: Array, gates: Array, dy: Array, dx: Array,
    du: Array, dfirst: Array, scratch: Any, *, reverse: bool,
) -> Step:  # fmt: skip
    """Kernels.gru_grad, bound. dfirst carries the gradient from step to step."""
    (steps, streams, size), zero, one = y.shape, y.dtype.type(0), y.dtype.type(1)
    room, seen, whole, tmp, keep = carve(scratch, _parts(lib, w, streams, True, False, *[size] * 4))
    products = Products(lib, w, streams, False, False, room)
    mul, add, sub = np.multiply, np.add, np.subtract
    run: list[Step] = [*products.start, partial(dfirst.fill, 0)]
    for t, before in reversed(list(walk(steps, reverse))):
        r, z, n, u = (gates[t][:, i * size : (i + 1) * size] for i in range(4))
        dr, dz, dn = (dx[t][:, i * size : (i + 1) * size] for i in range(3))
        run.append(partial(add, dy[t], dfirst, whole))
        old, mask = masked(y[before] if before >= 0 else first, cont, t, seen)
        run += mask
        run += [partial(sub, one, z, tmp), partial(mul, tmp, whole, dn), partial(mul, tmp, z, tmp)]
        # 0 - n: np.negative goes wrong on columns four numbers apart, which these are where size is 1 (NumPy 2.4)
        run += [partial(sub, zero if old is None else old, n, dz),
                partial(mul, dz, whole, dz), partial(mul, dz, tmp, dz)]  # fmt: skip
        run += [partial(mul, n, n, tmp), partial(sub, one, tmp, tmp), partial(mul, dn, tmp, dn)]
        run += [partial(sub, one, r, tmp), partial(mul, tmp, r, tmp), partial(mul, tmp, u, tmp),
                partial(mul, tmp, dn, dr)]  # fmt: skip
        run += [partial(np.copyto, du[t][:, : 2 * size], dx[t][:, : 2 * size]),
                partial(mul, dn, r, du[t][:, 2 * size :]), partial(mul, whole, z, keep)]  # fmt: skip
        run += [*products([(du[t], None, dfirst)]), partial(add, dfirst, keep, dfirst)]
        run += masked(dfirst, cont, t, dfirst)[1]
    return chain(run)


def workspace(lib: Library | None, call: Call) -> int:
    """Scratch bytes of rnn, gru and their adjoints."""
    args: Any = call.args
    name = call.op.name
    grad = name.endswith("_grad")
    w = args[0] if grad else args[1]
    streams = args[2].shape[1] if grad and name == "rnn_grad" else args[3].shape[1] if grad else args[0].shape[1]
    size: int = w.shape[1]
    widths = {"gru": (size, 3 * size), "gru_grad": (size,) * 4}.get(name, (size,))
    return carved_bytes(_parts(lib, w, streams, grad, name == "rnn", *widths))


BODIES: Mapping[str, Callable[..., Step]] = {
    "rnn": rnn, "rnn_grad": rnn_grad, "gru": gru, "gru_grad": gru_grad, "lstm": lstm.lstm, "lstm_grad": lstm.lstm_grad,
}  # fmt: skip
"""Kernel name -> function of (library, tensors in order, scratch, attributes by name) that gives back the step."""

WORKSPACES: Mapping[str, Callable[[Library | None, Call], int]] = {
    **dict.fromkeys(("rnn", "rnn_grad", "gru", "gru_grad"), workspace),
    **dict.fromkeys(("lstm", "lstm_grad"), lstm.workspace),
}  # fmt: skip
"""Kernel name -> scratch bytes."""
