"""Rows for attention: odd sizes, one query, causal order, lengths and masks of all shapes, what is no number behind
them, queries that see nothing, large scores."""

from __future__ import annotations

from typing import Any

import numpy as np

from cases import row
from cases.values import Made, Rng, normal
from netrun.cpu.reference import Reference
from netrun.cpu.reference_attention import visible
from netrun.types import Spec

PLAIN = (2, 3, 5, 7, 4, 3)
"""N H Tq Tk D Dv"""


def lengths(*values: float, shape: tuple[int, ...] = (), kind: str = "") -> Any:
    """Lengths with these values, as N 1 1 or in another shape."""
    return lambda rng, dtype: np.array(values, kind or dtype).reshape(shape or (len(values), 1, 1))


def mask(*shape: int, kind: str = "") -> Any:
    """Two of three places may be looked at, the first query at none where it has a line of its own."""

    def draw(rng: Rng, dtype: str) -> Any:
        seen = rng.random(shape) < 0.67
        if shape[2] > 1:
            seen[:, :, 0] = False
        return (seen * 2).astype(kind or dtype)

    return draw


def attention(
    sizes: tuple[int, ...] = PLAIN, scale: float = 0.5, causal: bool = False, far: Any = None, cut: Any = None,
    foul: float | None = None, grad: bool = False, dlse: bool = False, large: float = 1,
) -> Any:  # fmt: skip
    """One row. foul: what keys, values and queries hold that nobody sees, and those who see nothing."""

    def make(rng: Rng, dtype: str) -> Made:
        n, h, tq, tk, d, dv = sizes
        q, k, v = (normal(rng, dtype, n, h, *s) for s in ((tq, d), (tk, d), (tk, dv)))
        q *= np.asarray(large, dtype)
        sights = [None if x is None else x(rng, dtype) for x in (far, cut)]
        attrs = {"scale": scale, "causal": causal}
        seen = visible((n, h, tq, tk), sights[0], sights[1], causal)
        if foul is not None:
            k[~seen.any(axis=2)] = foul
            v[~seen.any(axis=2)] = -foul
        y, lse = np.empty((n, h, tq, dv), dtype), np.empty((n, h, tq), dtype)
        if not grad:
            return (q, k, v, *sights, Spec(y.shape, dtype), Spec(lse.shape, dtype)), attrs
        with np.errstate(all="ignore"):
            Reference().attention(q, k, v, *sights, y, lse, **attrs)  # type: ignore[arg-type]
        more = normal(rng, dtype, *lse.shape) if dlse else None
        outs = [Spec(x.shape, dtype) for x in (q, k, v)]
        return (q, k, v, *sights, y, lse, normal(rng, dtype, *y.shape), more, *outs), attrs

    return make


_LOOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5, "reason": "exponentials of sums in another order"}
_BLOCKS = (2, 4, 150, 150, 16, 8)
_ROWS: dict[str, dict[str, Any]] = {
    "plain": {},
    "one of each": {"sizes": (1, 1, 1, 1, 1, 1)},
    "one query": {"sizes": (2, 2, 1, 9, 5, 4), "far": lengths(4, 9)},
    "one query, two keys": {"sizes": (1, 3, 1, 2, 4, 1)},
    "causal": {"sizes": (2, 2, 6, 6, 3, 5), "causal": True},
    "causal, the last of many steps": {"sizes": (2, 2, 3, 8, 4, 4), "causal": True},
    "causal, more queries than keys": {"sizes": (1, 2, 7, 3, 4, 2), "causal": True},
    "lengths, one of them 0": {"sizes": (4, 2, 3, 5, 4, 4), "far": lengths(3, 5, 0, 9)},
    "lengths with fractions, below 0": {"sizes": (3, 1, 2, 5, 2, 2), "far": lengths(3.9, 0.7, -2.5)},
    "lengths of each query, whole numbers": {
        "sizes": (2, 2, 3, 6, 4, 4), "far": lengths(1, 3, 6, 0, 2, 5, shape=(2, 1, 3), kind="int32")},
    "lengths of each head": {"sizes": (2, 3, 4, 6, 4, 4), "far": lengths(2, 6, 1, shape=(1, 3, 1))},
    "a mask of keys": {"cut": mask(2, 1, 1, 7)},
    "a mask for all": {"cut": mask(1, 1, 5, 7)},
    "a mask of bytes": {"cut": mask(2, 3, 5, 7, kind="uint8")},
    "a mask of queries": {"cut": mask(2, 1, 5, 1)},
    "a mask of heads": {"cut": mask(1, 3, 1, 7)},
    "a mask of one place": {"cut": mask(1, 1, 1, 1)},
    "all of them": {"sizes": (2, 3, 6, 6, 4, 3), "cut": mask(2, 1, 6, 6), "far": lengths(4, 6), "causal": True},
    "large scores": {"scale": 6.0, "far": lengths(5, 7)},
    "scores that differ by thousands": {"large": 3000.0},
    "blocks": {"sizes": _BLOCKS},
    "blocks, causal": {"sizes": _BLOCKS, "causal": True},
    "blocks, causal, the last of many steps": {"sizes": (1, 2, 130, 290, 16, 16), "causal": True},
    "blocks, causal, more queries than keys": {"sizes": (1, 2, 290, 130, 8, 8), "causal": True},
    "blocks, lengths and a mask": {"sizes": _BLOCKS, "far": lengths(100, 60), "cut": mask(1, 4, 150, 150)},
    "many keys": {"sizes": (1, 3, 9, 1200, 8, 8), "far": lengths(1100)},
    "many small ones": {"sizes": (30, 4, 6, 6, 8, 8), "far": lengths(*(i % 7 for i in range(30)))},
    "seven heads": {"sizes": (3, 7, 20, 20, 8, 8), "far": lengths(20, 1, 11)},
    "no keys": {"sizes": (2, 1, 3, 0, 4, 2)},
    "no queries": {"sizes": (2, 1, 0, 3, 4, 2)},
}  # fmt: skip
_FOUL: dict[str, dict[str, Any]] = {
    "behind lengths": {"sizes": (3, 2, 4, 6, 4, 4), "far": lengths(3, 6, 0)},
    "behind a mask": {"sizes": (3, 2, 4, 6, 4, 4), "cut": mask(3, 1, 1, 6)},
    "behind a mask, blocks": {"sizes": (2, 2, 140, 140, 16, 16), "cut": mask(2, 2, 1, 140), "causal": True},
}
_CHECKED = {"large scores", "scores that differ by thousands", "no keys", "no queries", "many keys"}
"""Rows whose gradients finite differences say nothing about: they are of another size than the step, or nothing."""

for _note, _given in _ROWS.items():
    _small = not _note.startswith("blocks") and _note not in _CHECKED
    row("attention", _note, attention(**_given), ["q", "k", "v"] if _small else (), **_LOOSE)
    if "thousands" not in _note:  # one weight is 1 there, and every gradient what rounding leaves
        row("attention_grad", _note, attention(**_given, grad=True), **_LOOSE)
for _note in ("plain", "blocks, causal", "all of them"):
    row("attention_grad", f"{_note}, with a gradient of lse", attention(**_ROWS[_note], grad=True, dlse=True), **_LOOSE)
for _note, _given in _FOUL.items():
    for _name, _value in (("NaN", np.nan), ("1e30", 1e30), ("infinity", np.inf)):
        row("attention", f"{_name} {_note}", attention(**_given, foul=_value), **_LOOSE)
        row("attention_grad", f"{_name} {_note}", attention(**_given, foul=_value, grad=True), **_LOOSE)
