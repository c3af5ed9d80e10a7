"""Rows for the recurrent kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

from cases import row
from cases.values import Made, Rng, normal
from netrun.types import Spec

STEPS, STREAMS, SIZE, SMALL = 4, 3, 5, 2
_NOTES: dict[str, dict[str, Any]] = {
    "plain": {},
    "with cont": {"cont": True},
    "from a state": {"first": True},
    "from a state, with cont": {"first": True, "cont": True},
    "backwards": {"reverse": True, "first": True, "cont": True},
    "backwards from nothing": {"reverse": True},
    "one step": {"steps": 1, "first": True},
    "one step from nothing": {"steps": 1},
    "one stream": {"streams": 1, "cont": True},
    "one value": {"size": 1},
    "wide": {"streams": 16, "size": 32, "steps": 3, "cont": True, "first": True},
    "large weights": {"streams": 2, "size": 256, "steps": 3, "cont": True},
}


def _sizes(o: dict[str, Any]) -> tuple[int, int, int]:
    return o.get("steps", STEPS), o.get("streams", STREAMS), o.get("size", SIZE)


def _cont(rng: Rng, dtype: str, o: dict[str, Any]) -> Any:
    steps, streams, _ = _sizes(o)
    return (rng.random((steps, streams)) < 0.7).astype(dtype) if o.get("cont") else None


def _given(rng: Rng, dtype: str, o: dict[str, Any], name: str, *shape: int) -> Any:
    return normal(rng, dtype, *shape) * 0.5 if o.get(name) else None


def _small(rng: Rng, dtype: str, *shape: int) -> Any:
    return (normal(rng, dtype, *shape) / np.sqrt(shape[-1])).astype(dtype)


def rnn(o: dict[str, Any], act: str = "tanh") -> Any:
    def make(rng: Rng, dtype: str) -> Made:
        t, n, d = _sizes(o)
        given = (normal(rng, dtype, t, n, d), _small(rng, dtype, d, d), _cont(rng, dtype, o),
                 _given(rng, dtype, o, "first", n, d), Spec((t, n, d), dtype))  # fmt: skip
        return given, {"act": act, "reverse": o.get("reverse", False)}

    return make


def rnn_grad(o: dict[str, Any], act: str = "tanh") -> Any:
    def make(rng: Rng, dtype: str) -> Made:
        t, n, d = _sizes(o)
        y = np.tanh(normal(rng, dtype, t, n, d))
        given = (_small(rng, dtype, d, d), _cont(rng, dtype, o), y, normal(rng, dtype, t, n, d),
                 Spec((t, n, d), dtype), Spec((n, d), dtype))  # fmt: skip
        return given, {"act": act, "reverse": o.get("reverse", False)}

    return make


def _lstm_weights(rng: Rng, dtype: str, o: dict[str, Any]) -> tuple[Any, Any, Any]:
    d = _sizes(o)[2]
    r = SMALL if o.get("proj") else d
    return _small(rng, dtype, 4 * d, r), _given(rng, dtype, o, "peep", 3, d), _given(rng, dtype, o, "proj", r, d)


def lstm(o: dict[str, Any]) -> Any:
    def make(rng: Rng, dtype: str) -> Made:
        t, n, d = _sizes(o)
        w, peep, proj = _lstm_weights(rng, dtype, o)
        r = w.shape[1]
        given = (normal(rng, dtype, t, n, 4 * d), w, peep, proj, _cont(rng, dtype, o),
                 _given(rng, dtype, o, "first", n, r), _given(rng, dtype, o, "first", n, d),
                 Spec((t, n, r), dtype), Spec((t, n, d), dtype), Spec((t, n, 4 * d), dtype))  # fmt: skip
        return given, {"reverse": o.get("reverse", False)}

    return make


def lstm_grad(o: dict[str, Any]) -> Any:
    def make(rng: Rng, dtype: str) -> Made:
        t, n, d = _sizes(o)
        w, peep, proj = _lstm_weights(rng, dtype, o)
        r = w.shape[1]
        gates = np.concatenate([rng.random((t, n, 3 * d)), rng.uniform(-1, 1, (t, n, d))], axis=2).astype(dtype)
        given = (w, peep, proj, _cont(rng, dtype, o), _given(rng, dtype, o, "first", n, d),
                 normal(rng, dtype, t, n, d), gates, normal(rng, dtype, t, n, r),
                 _given(rng, dtype, o, "first", t, n, d),
                 *(Spec(s, dtype) for s in ((t, n, 4 * d), (t, n, r), (n, r), (n, d))))  # fmt: skip
        return given, {"reverse": o.get("reverse", False)}

    return make


def gru(o: dict[str, Any]) -> Any:
    def make(rng: Rng, dtype: str) -> Made:
        t, n, d = _sizes(o)
        given = (normal(rng, dtype, t, n, 3 * d), _small(rng, dtype, 3 * d, d), _given(rng, dtype, o, "cont", d),
                 _cont(rng, dtype, o), _given(rng, dtype, o, "first", n, d), Spec((t, n, d), dtype),
                 Spec((t, n, 4 * d), dtype))  # fmt: skip
        return given, {"reverse": o.get("reverse", False)}

    return make


def gru_grad(o: dict[str, Any]) -> Any:
    def make(rng: Rng, dtype: str) -> Made:
        t, n, d = _sizes(o)
        gates = np.concatenate([rng.random((t, n, 2 * d)), rng.uniform(-1, 1, (t, n, 2 * d))], axis=2).astype(dtype)
        given = (_small(rng, dtype, 3 * d, d), _cont(rng, dtype, o), _given(rng, dtype, o, "first", n, d),
                 normal(rng, dtype, t, n, d), gates, normal(rng, dtype, t, n, d), Spec((t, n, 3 * d), dtype),
                 Spec((t, n, 3 * d), dtype), Spec((n, d), dtype))  # fmt: skip
        return given, {"reverse": o.get("reverse", False)}

    return make


_OPTIONAL = {"first": "first", "first_cell": "first", "peep": "peep", "proj": "proj", "b": "cont"}


def _wants(o: dict[str, Any], *names: str) -> list[str]:
    return [name for name in names if name not in _OPTIONAL or o.get(_OPTIONAL[name])]


_LOOSE = {"rtol": 3e-5, "reason": "rounding grows along a chain of steps"}
for _note, _o in _NOTES.items():
    row("rnn", _note, rnn(_o), _wants(_o, "x", "w", "first"), **_LOOSE)
    row("rnn_grad", _note, rnn_grad(_o), **_LOOSE)
    row("gru", _note, gru(_o), _wants(_o, "x", "w", "b", "first"), **_LOOSE)
    row("gru_grad", _note, gru_grad(_o), **_LOOSE)
    row("lstm", _note, lstm(_o), _wants(_o, "x", "w", "first", "first_cell"), **_LOOSE)
    row("lstm_grad", _note, lstm_grad(_o), **_LOOSE)
for _note in ("plain", "backwards", "one step from nothing"):
    for _more in (("peep",), ("proj",), ("peep", "proj")):
        _o = {**_NOTES[_note], **dict.fromkeys(_more, True)}
        _text = f"{_note}, {' and '.join(_more)}"
        row("lstm", _text, lstm(_o), _wants(_o, "x", "w", "peep", "proj", "first", "first_cell"), **_LOOSE)
        row("lstm_grad", _text, lstm_grad(_o), **_LOOSE)
for _note in ("plain", "backwards"):
    row("rnn", f"{_note}, relu", rnn(_NOTES[_note], "relu"), _wants(_NOTES[_note], "x", "w", "first"), **_LOOSE)
    row("rnn_grad", f"{_note}, relu", rnn_grad(_NOTES[_note], "relu"), **_LOOSE)


# ------------------------------------------------------------------------------------------------------------------ ctc
def ctc(
    shape: tuple[int, int, int],
    rows: list[list[int]],
    steps: list[int],
    blank: int = 0,
    kind: str = "",
    scale: float = 1,
) -> Any:
    def make(rng: Rng, dtype: str) -> Made:
        n = shape[1]
        label = np.zeros((n, max(1, *map(len, rows))), kind or dtype)
        for i, values in enumerate(rows):
            label[i, : len(values)] = values
        given = (normal(rng, dtype, *shape) * np.asarray(scale, dtype), label, np.array(steps, kind or dtype),
                 np.array([len(r) for r in rows], kind or dtype), Spec((n,), dtype), Spec(shape, dtype))  # fmt: skip
        return given, {"blank": blank}

    return make


_NEAR: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5, "reason": "sums of logarithms grow with the steps"}
row("ctc", "one label", ctc((1, 1, 3), [[1]], [1]), ["x"], **_NEAR)
row("ctc", "several lengths", ctc((6, 4, 5), [[1, 2, 3], [4], [], [2, 2]], [6, 3, 5, 4]), ["x"], **_NEAR)
row("ctc", "repetitions", ctc((9, 2, 3), [[1, 1, 2, 2], [2, 1, 2]], [9, 9]), ["x"], **_NEAR)
row("ctc", "the last class is the blank", ctc((5, 2, 4), [[0, 1], [2, 0]], [5, 4], 3, "int32"), ["x"], **_NEAR)
row("ctc", "labels that do not fit", ctc((4, 3, 4), [[1, 1, 1], [1, 2, 3], [1, 2]], [4, 4, 0]), ["x"], **_NEAR)
row("ctc", "sure scores", ctc((8, 2, 6), [[1, 2], [5, 4, 3]], [8, 7], 0, "", 40), ["x"], **_NEAR)
row("ctc", "many steps", ctc((60, 3, 40), [[*range(1, 20)], [7] * 9, [3, 1]], [60, 55, 20]), ["x"], **_NEAR)
row("ctc", "no steps", ctc((2, 2, 3), [[], [1]], [0, 2]), ["x"], **_NEAR)
