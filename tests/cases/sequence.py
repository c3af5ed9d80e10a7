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
