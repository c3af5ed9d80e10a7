"""The recurrent kernels of device "reference": a loop over the steps, as the definition reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ..kernels import Kernels

Array = npt.NDArray[Any]


class Sequences(Kernels):
    """rnn, lstm, gru and their adjoints."""

    # ------------------------------------------------------------------------------------------------------ forward
    def rnn(
        self, x: Array, w: Array, cont: Array | None, first: Array | None, y: Array, *, act: str, reverse: bool
    ) -> None:
        for t, before in walk(len(x), reverse):
            value = x[t] + seen(y, before, t, cont, first) @ w.T
            y[t] = np.tanh(value) if act == "tanh" else np.maximum(value, 0)

    def lstm(
        self, x: Array, w: Array, peep: Array | None, proj: Array | None, cont: Array | None, first: Array | None,
        first_cell: Array | None, y: Array, cell: Array, gates: Array, *, reverse: bool,
    ) -> None:  # fmt: skip
        for t, before in walk(len(x), reverse):
            i, f, o, g = np.split(x[t] + seen(y, before, t, cont, first) @ w.T, 4, axis=1)
            old = seen(cell, before, t, cont, first_cell)
            if peep is not None:
                i, f = i + peep[0] * old, f + peep[1] * old
            i, f, g = sigmoid(i), sigmoid(f), np.tanh(g)
            cell[t] = f * old + i * g
            if peep is not None:
                o = o + peep[2] * cell[t]
            o = sigmoid(o)
            inner = o * np.tanh(cell[t])
            y[t] = inner if proj is None else inner @ proj.T
            gates[t] = np.concatenate([i, f, o, g], axis=1)

    def gru(
        self, x: Array, w: Array, b: Array | None, cont: Array | None, first: Array | None, y: Array, gates: Array, *,
        reverse: bool,
    ) -> None:  # fmt: skip
        for t, before in walk(len(x), reverse):
            old = seen(y, before, t, cont, first)
            a, c, u = np.split(old @ w.T, 3, axis=1)
            if b is not None:
                u = u + b
            xr, xz, xn = np.split(x[t], 3, axis=1)
            r, z = sigmoid(xr + a), sigmoid(xz + c)
            n = np.tanh(xn + r * u)
            y[t] = (1 - z) * n + z * old
            gates[t] = np.concatenate([r, z, n, u], axis=1)

    # ----------------------------------------------------------------------------------------------------- backward
    def rnn_grad(
        self, w: Array, cont: Array | None, y: Array, dy: Array, dx: Array, dfirst: Array, *, act: str, reverse: bool
    ) -> None:
        carry = np.zeros_like(y[0])
        for t, _ in reversed(list(walk(len(y), reverse))):
            slope = 1 - y[t] ** 2 if act == "tanh" else (y[t] > 0).astype(y.dtype)
            dx[t] = (dy[t] + carry) * slope
            carry = kept(dx[t] @ w, t, cont)
        dfirst[...] = carry

    def lstm_grad(
        self, w: Array, peep: Array | None, proj: Array | None, cont: Array | None, first_cell: Array | None,
        cell: Array, gates: Array, dy: Array, dcell: Array | None, dx: Array, dout: Array, dfirst: Array,
        dfirst_cell: Array, *, reverse: bool,
    ) -> None:  # fmt: skip
        carry, carry_cell = np.zeros_like(dfirst), np.zeros_like(dfirst_cell)
        for t, before in reversed(list(walk(len(cell), reverse))):
            i, f, o, g = np.split(gates[t], 4, axis=1)
            old, bent = seen(cell, before, t, cont, first_cell), np.tanh(cell[t])
            dout[t] = dy[t] + carry
            dm = dout[t] if proj is None else dout[t] @ proj
            do = dm * bent * o * (1 - o)
            dc = dm * o * (1 - bent**2) + carry_cell
            if dcell is not None:
                dc = dc + dcell[t]
            if peep is not None:
                dc = dc + peep[2] * do
            di, df, dg = dc * g * i * (1 - i), dc * old * f * (1 - f), dc * i * (1 - g**2)
            back = dc * f
            if peep is not None:
                back = back + peep[0] * di + peep[1] * df
            dx[t] = np.concatenate([di, df, do, dg], axis=1)
            carry, carry_cell = kept(dx[t] @ w, t, cont), kept(back, t, cont)
        dfirst[...], dfirst_cell[...] = carry, carry_cell

    def gru_grad(
        self, w: Array, cont: Array | None, first: Array | None, y: Array, gates: Array, dy: Array, dx: Array,
        du: Array, dfirst: Array, *, reverse: bool,
    ) -> None:  # fmt: skip
        carry = np.zeros_like(y[0])
        for t, before in reversed(list(walk(len(y), reverse))):
            r, z, n, u = np.split(gates[t], 4, axis=1)
            old, whole = seen(y, before, t, cont, first), dy[t] + carry
            dn = whole * (1 - z) * (1 - n**2)
            dr, dz = dn * u * r * (1 - r), whole * (old - n) * z * (1 - z)
            dx[t] = np.concatenate([dr, dz, dn], axis=1)
            du[t] = np.concatenate([dr, dz, dn * r], axis=1)
            carry = kept(du[t] @ w + whole * z, t, cont)
        dfirst[...] = carry


# ------------------------------------------------------------------------------------------------------------- helpers
def walk(steps: int, reverse: bool) -> Iterator[tuple[int, int]]:
    """(step, the step before it) in the walk's order; before the first step comes -1."""
    for t in reversed(range(steps)) if reverse else range(steps):
        before = t + 1 if reverse else t - 1
        yield t, before if before < steps else -1


def seen(y: Array, before: int, t: int, cont: Array | None, first: Array | None) -> Array:
    """The state that step t starts from."""
    if before < 0 and first is None:
        return np.zeros_like(y[0])
    state: Array = y[before] if before >= 0 else first  # type: ignore[assignment]
    return kept(state.reshape(y.shape[1:]), t, cont)


def kept(state: Array, t: int, cont: Array | None) -> Array:
    """The state where step t goes on with it, 0 where it starts anew."""
    return state if cont is None else state * cont[t].reshape(-1, 1)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)) without overflow."""
    half = x.dtype.type(0.5)
    value: Array = np.tanh(x * half) * half + half
    return value


__all__ = ["Sequences", "kept", "seen", "sigmoid", "walk"]
