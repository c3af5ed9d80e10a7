"""lstm and lstm_grad, bound: one product a step with packed weights, the gates in place by NumPy."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ..program import Call
from .dnnl import Library
from .memory import Array, Part, carve, carved_bytes, chain
from .reference_sequence import walk
from .step_products import Products, Step

Maybe = Array | None


def _parts(lib: Library | None, w: Any, peep: Any, proj: Any, streams: int, grad: bool) -> list[Part]:
    """Packed weights, packed projection, three buffers N D, one N 4D (grad), and one N R or, for grad, N D."""
    (rows4, rows), dtype = w.shape, w.dtype
    size = rows4 // 4
    out: Part = ((streams, size), dtype)
    second: Part = ((0,), np.uint8)
    if proj is not None:
        second = Products.part(lib, proj.shape, dtype, streams, not grad, False)
    wide: Part = ((streams if grad else 0, 4 * size), dtype)
    first = Products.part(lib, w.shape, dtype, streams, not grad, not grad, not grad and peep is None)
    return [first, second, out, out, out, wide, ((streams, size if grad else rows), dtype)]


def workspace(lib: Library | None, call: Call) -> int:
    """Scratch bytes of either."""
    args: Any = call.args
    grad = call.op.name == "lstm_grad"
    (w, peep, proj), streams = (args[:3], args[5].shape[1]) if grad else (args[1:4], args[0].shape[1])
    return carved_bytes(_parts(lib, w, peep, proj, streams, grad))


def masked(state: Maybe, cont: Maybe, t: int, room: Array) -> tuple[Maybe, list[Step]]:
    """cont[t] * state, and the steps that make it in ``room``."""
    if state is None or cont is None:
        return state, []
    return room, [partial(np.multiply, state, cont[t].reshape(-1, 1), room)]


def logistic(gates: Array, tanh: Array) -> list[Step]:
    """sigmoid over ``gates`` in place, and tanh over the array that holds them and what has to become a tanh."""
    half = gates.dtype.type(0.5)
    return [partial(np.multiply, gates, half, gates), partial(np.tanh, tanh, tanh),
            partial(np.multiply, gates, half, gates), partial(np.add, gates, half, gates)]  # fmt: skip


def lstm(
    lib: Library | None, x: Array, w: Array, peep: Maybe, proj: Maybe, cont: Maybe, first: Maybe, first_cell: Maybe,
    y: Array, cell: Array, gates: Array, scratch: Any, *, reverse: bool,
) -> Step:  # fmt: skip
    """Kernels.lstm, bound."""
    (steps, streams, size), mul, add = cell.shape, np.multiply, np.add
    room, room2, seen_cell, tmp, inner, _, seen = carve(scratch, _parts(lib, w, peep, proj, streams, False))
    products = Products(lib, w, streams, True, True, room, gates=peep is None)
    project = None if proj is None else Products(lib, proj, streams, True, False, room2)
    run: list[Step] = [*products.start, *(project.start if project else [])]
    for t, before in walk(steps, reverse):
        i, f, o, g = (gates[t][:, n * size : (n + 1) * size] for n in range(4))
        old, mask = masked(y[before] if before >= 0 else first, cont, t, seen)
        run += mask
        run += products([(old, x[t], gates[t])]) if old is not None else [partial(np.copyto, gates[t], x[t])]
        before_cell, mask = masked(cell[before] if before >= 0 else first_cell, cont, t, seen_cell)
        run += mask
        now = cell[t]
        if peep is None and not (products.activates and old is not None):
            run += logistic(gates[t][:, : 3 * size], gates[t])
        if peep is not None:
            if before_cell is not None:
                run += [partial(mul, before_cell, peep[0], tmp), partial(add, i, tmp, i),
                        partial(mul, before_cell, peep[1], tmp), partial(add, f, tmp, f)]  # fmt: skip
            run += [*logistic(gates[t][:, : 2 * size], gates[t][:, : 2 * size]), partial(np.tanh, g, g)]
        run.append(partial(mul, i, g, now))
        if before_cell is not None:
            run += [partial(mul, f, before_cell, tmp), partial(add, now, tmp, now)]
        if peep is not None:
            run += [partial(mul, now, peep[2], tmp), partial(add, o, tmp, o), *logistic(o, o)]
        made = y[t] if project is None else inner
        run += [partial(np.tanh, now, tmp), partial(mul, o, tmp, made)]
        if project is not None:
            run += project([(inner, None, y[t])])
    return chain(run)


def lstm_grad(
    lib: Library | None, w: Array, peep: Maybe, proj: Maybe, cont: Maybe, first_cell: Maybe, cell: Array,
    gates: Array, dy: Array, dcell: Maybe, dx: Array, dout: Array, dfirst: Array, dfirst_cell: Array, scratch: Any, *,
    reverse: bool,
) -> Step:  # fmt: skip
    """Kernels.lstm_grad, bound. dfirst and dfirst_cell carry the gradient from step to step."""
    (steps, streams, size), mul, add, one = cell.shape, np.multiply, np.add, cell.dtype.type(1)
    room, room2, seen_cell, bent, tmp, wide, inner = carve(scratch, _parts(lib, w, peep, proj, streams, True))
    products = Products(lib, w, streams, False, False, room)
    project = None if proj is None else Products(lib, proj, streams, False, False, room2)
    dc = dfirst_cell
    run: list[Step] = [*products.start, *(project.start if project else [])]
    run += [partial(dfirst.fill, 0), partial(dfirst_cell.fill, 0)]
    for t, before in reversed(list(walk(steps, reverse))):
        i, f, o, g = (gates[t][:, n * size : (n + 1) * size] for n in range(4))
        di, df, do, dg = (dx[t][:, n * size : (n + 1) * size] for n in range(4))
        slope = wide[:, : 3 * size]
        run.append(partial(add, dy[t], dfirst, dout[t]))
        dm = dout[t]
        if project is not None:
            dm = inner
            run += project([(dout[t], None, dm)])
        old, mask = masked(cell[before] if before >= 0 else first_cell, cont, t, seen_cell)
        run += [*mask, partial(np.tanh, cell[t], bent)]
        # slope = s - s s for the three gates; 1 - g g for the new values
        sig = gates[t][:, : 3 * size]
        run += [partial(mul, sig, sig, slope), partial(np.subtract, sig, slope, slope)]
        run += [partial(mul, dm, bent, do), partial(mul, do, slope[:, 2 * size :], do)]
        if dcell is not None:
            run.append(partial(add, dc, dcell[t], dc))
        # dc += dm o (1 - bent bent)
        run += [partial(mul, bent, bent, bent), partial(np.subtract, one, bent, bent), partial(mul, bent, o, bent),
                partial(mul, bent, dm, bent), partial(add, dc, bent, dc)]  # fmt: skip
        if peep is not None:
            run += [partial(mul, do, peep[2], tmp), partial(add, dc, tmp, dc)]
        run += [partial(mul, dc, g, di), partial(mul, di, slope[:, :size], di)]
        if old is None:
            run.append(partial(df.fill, 0))
        else:
            run += [partial(mul, dc, old, df), partial(mul, df, slope[:, size : 2 * size], df)]
        run += [partial(mul, g, g, tmp), partial(np.subtract, one, tmp, tmp), partial(mul, tmp, i, tmp),
                partial(mul, tmp, dc, dg), partial(mul, dc, f, dc)]  # fmt: skip
        if peep is not None:
            run += [partial(mul, di, peep[0], tmp), partial(add, dc, tmp, dc),
                    partial(mul, df, peep[1], tmp), partial(add, dc, tmp, dc)]  # fmt: skip
        run += products([(dx[t], None, dfirst)])
        if cont is not None:
            column = cont[t].reshape(-1, 1)
            run += [partial(mul, dfirst, column, dfirst), partial(mul, dc, column, dc)]
    return chain(run)
