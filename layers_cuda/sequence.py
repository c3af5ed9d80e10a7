"""rnn, lstm and gru: for every step a product by cuBLAS and one kernel for what is around it, all in one graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from netrun.program import Call
from netrun.types import Spec

from .geometry import indices, type_defines
from .launch import BLOCK, Kernel, Step, sequence
from .precision import precision_of

if TYPE_CHECKING:
    from .device import Cuda

NOTHING = np.int64(0)
"""A null pointer."""


def _walk(steps: int, reverse: bool) -> Iterator[tuple[int, int, int]]:
    """(step before, step, step after) in the walk's order; -1 where there is none."""
    order = list(reversed(range(steps))) if reverse else list(range(steps))
    yield from zip([-1, *order[:-1]], order, [*order[1:], -1], strict=True)


class _Steps:
    """Launches over the N D values of one state."""

    def __init__(self, device: Cuda, w: Any, state: Any, cont: Any, call: Call) -> None:
        self.device, self.w, self.cont = device, w, cont
        rectify = ("RECTIFY", str(int(call.attrs.get("act") == "relu")))
        count = 4 * state.size
        self._defines = (*type_defines(w.dtype.name, max(count, w.size)), rectify)
        self._most, self._precision = max(count, w.size), precision_of(call)

    def launch(self, name: str, values: Sequence[Any], rows: int, size: int) -> Step:
        """A kernel of src/sequence.cu; None becomes a null pointer."""
        given = [NOTHING if v is None else v for v in values]
        numbers = indices(self._most, [rows * size, size])
        grid = self.device.launcher.blocks(rows * size)
        return self.device.launcher.step(Kernel("sequence", name, self._defines), grid, BLOCK, [*given, *numbers])

    def product(self, a: Any, w: Any, y: Any, turned: bool, add: bool = False) -> Step:
        """y = a w, or a w' where turned, added to what y holds where add."""
        return self.device.blas.matmul(a, w, y, False, turned, self._precision, add=add)

    def row(self, t: int) -> Any:
        """cont of a step, or None."""
        return None if self.cont is None or t < 0 else self.cont[t]

    def masked(self, state: Any, t: int, room: Any) -> tuple[Any, list[Step]]:
        """cont[t] state, in ``room`` where there is a cont."""
        if state is None or self.cont is None:
            return state, []
        return room, [self.launch("state", [state, None, self.row(t), room], *state.shape)]

    def old(self, first: Any, y: Any, before: int, t: int, room: Any) -> tuple[Any, list[Step]]:
        """What step t goes on from, None for zeros: the first state, or that of the step before, which has left cont
        times it in ``room`` where there is a cont."""
        if before < 0:
            return self.masked(first, t, room)
        return y[before] if self.cont is None else room, []

    def summed(self, first: Any, y: Any, before: int, t: int, room: Any, w: Any, into: Any) -> list[Step]:
        """``into`` += w times what step t goes on from."""
        old, steps = self.old(first, y, before, t, room)
        return steps if old is None else [*steps, self.product(old, w, into, True, add=True)]

    def left(self, room: Any, after: int) -> Any:
        """Where a step leaves what the step after it goes on from, None where that is its result as it stands."""
        return room if self.cont is not None and after >= 0 else None


def _room(device: Cuda, scratch: Any, dtype: str, *shapes: tuple[int, ...]) -> list[Any]:
    """Arrays one behind the other in the scratch."""
    found, at = [], 0
    for shape in shapes:
        spec = Spec(shape, dtype)
        found.append(device.array(scratch, at, spec))
        at += -(-spec.nbytes // 256) * 256
    return found


def _bytes(dtype: str, *shapes: tuple[int, ...]) -> int:
    return sum(-(-Spec(shape, dtype).nbytes // 256) * 256 for shape in shapes)


# ------------------------------------------------------------------------------------------------------------------ rnn
def rnn(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.rnn, bound."""
    x, w, cont, first, y = args
    k = _Steps(device, w, y[0], cont, call)
    (seen,) = _room(device, scratch, y.dtype.name, y.shape[1:])
    run: list[Step] = [device.launcher.copy(x, y)]
    for before, t, after in _walk(len(x), call.attrs["reverse"]):
        run += k.summed(first, y, before, t, seen, w, y[t])
        run.append(k.launch("rnn_step", [y[t], k.left(seen, after), k.row(after)], *y.shape[1:]))
    return sequence(run)


def rnn_grad(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.rnn_grad, bound. dfirst carries the gradient from step to step."""
    w, cont, y, dy, dx, dfirst = args
    k, rows = _Steps(device, w, y[0], cont, call), y.shape[1:]
    run: list[Step] = []
    for _, t, after in reversed(list(_walk(len(y), call.attrs["reverse"]))):
        carry = dfirst if after >= 0 else None
        run.append(k.launch("rnn_grad_step", [y[t], dy[t], carry, k.row(after), dx[t]], *rows))
        run.append(k.product(dx[t], w, dfirst, False))
    return sequence([*run, *k.masked(dfirst, t, dfirst)[1]])


# ----------------------------------------------------------------------------------------------------------------- lstm
def lstm(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.lstm, bound."""
    x, w, peep, proj, cont, first, first_cell, y, cell, gates = args
    k, rows = _Steps(device, w, cell[0], cont, call), cell.shape[1:]
    seen, inner = _room(device, scratch, y.dtype.name, y.shape[1:], rows)
    run: list[Step] = [device.launcher.copy(x, gates)]
    for before, t, after in _walk(len(x), call.attrs["reverse"]):
        run += k.summed(first, y, before, t, seen, w, gates[t])
        goes_on = k.left(seen, after)
        old_cell, made = cell[before] if before >= 0 else first_cell, y[t] if proj is None else inner
        values = [gates[t], old_cell, k.row(t), peep, cell[t], made, goes_on if proj is None else None, k.row(after)]
        run.append(k.launch("lstm_step", values, *rows))
        if proj is not None:
            run.append(k.product(inner, proj, y[t], True))
            run += k.masked(y[t], after, seen)[1] if goes_on is not None else []
    return sequence(run)


def lstm_grad(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.lstm_grad, bound. dfirst and dfirst_cell carry the gradient from step to step."""
    w, peep, proj, cont, first_cell, cell, gates, dy, dcell, dx, dout, dfirst, dfirst_cell = args
    k, rows = _Steps(device, w, cell[0], cont, call), cell.shape[1:]
    (inner,) = _room(device, scratch, cell.dtype.name, rows)
    run: list[Step] = [device.launcher.zero(dfirst_cell)]
    for before, t, after in reversed(list(_walk(len(cell), call.attrs["reverse"]))):
        carry = dfirst if after >= 0 else None
        run.append(k.launch("arriving", [dy[t], carry, k.row(after), dout[t]], *dy.shape[1:]))
        dh = dout[t]
        if proj is not None:
            dh = inner
            run.append(k.product(dout[t], proj, inner, False))
        old_cell = cell[before] if before >= 0 else first_cell
        values = [gates[t], cell[t], old_cell, k.row(t), peep, dh, None if dcell is None else dcell[t], dfirst_cell]
        run.append(k.launch("lstm_grad_step", [*values, dx[t]], *rows))
        run.append(k.product(dx[t], w, dfirst, False))
    return sequence([*run, *k.masked(dfirst, t, dfirst)[1]])


# ------------------------------------------------------------------------------------------------------------------ gru
def gru(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.gru, bound."""
    x, w, b, cont, first, y, gates = args
    k, rows = _Steps(device, w, y[0], cont, call), y.shape[1:]
    seen, product = _room(device, scratch, y.dtype.name, rows, x.shape[1:])
    run: list[Step] = []
    for before, t, after in _walk(len(x), call.attrs["reverse"]):
        old, mask = k.old(first, y, before, t, seen)
        run += mask
        if old is not None:
            run.append(k.product(old, w, product, True))
        state = y[before] if before >= 0 else first
        values = [x[t], None if old is None else product, b, state, k.row(t), y[t], gates[t]]
        run.append(k.launch("gru_step", [*values, k.left(seen, after), k.row(after)], *rows))
    return sequence(run)


def gru_grad(device: Cuda, call: Call, args: Sequence[Any], scratch: Any) -> Step:
    """Kernels.gru_grad, bound. dfirst carries the gradient from step to step."""
    w, cont, first, y, gates, dy, dx, du, dfirst = args
    k, rows = _Steps(device, w, y[0], cont, call), y.shape[1:]
    (direct,) = _room(device, scratch, y.dtype.name, rows)
    run: list[Step] = [device.launcher.zero(dfirst), device.launcher.zero(direct)]
    for before, t, after in reversed(list(_walk(len(y), call.attrs["reverse"]))):
        state = y[before] if before >= 0 else first
        values = [gates[t], state, k.row(t), dy[t], dfirst, k.row(after), direct, dx[t], du[t]]
        run += [k.launch("gru_grad_step", values, *rows), k.product(du[t], w, dfirst, False)]
    run.append(k.launch("state", [dfirst, direct, k.row(t), dfirst], *rows))
    return sequence(run)


def _workspace(device: Cuda, call: Call) -> int:
    """Bytes of what goes from step to step."""
    args: Any = call.args
    name = call.op.name
    dtype = args[0].dtype
    if name in ("rnn", "gru", "gru_grad"):
        y = args[{"rnn": 4, "gru": 5, "gru_grad": 3}[name]]
        return _bytes(dtype, y.shape[1:], (y.shape[1], 3 * y.shape[2]))
    if name == "lstm":
        return _bytes(dtype, args[7].shape[1:], args[8].shape[1:])
    return _bytes(dtype, args[5].shape[1:])


BODIES: dict[str, Callable[[Cuda, Call, Sequence[Any], Any], Step]] = {
    "rnn": rnn,
    "rnn_grad": rnn_grad,
    "lstm": lstm,
    "lstm_grad": lstm_grad,
    "gru": gru,
    "gru_grad": gru_grad,
}
WORKSPACE: dict[str, Callable[[Cuda, Call], int]] = dict.fromkeys(
    ("rnn", "gru", "gru_grad", "lstm", "lstm_grad"), _workspace
)
