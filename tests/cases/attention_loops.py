"""Attention written out as loops over every sequence, query and key, and the layer under test in a net of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from netrun.config import schema
from netrun.config.upgrade import parse_net
from netrun.net import Net

RNG = np.random.default_rng(7)
GAUSS = 'weight_filler { type: "gaussian" std: 0.5 } bias_filler { type: "gaussian" std: 0.3 }'
Seen = Callable[[int, int, int], bool]


def drawn(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype("float32")


def text_of(kind: str, body: str, *bottoms: Any, tops: int = 1) -> str:
    lines = ["force_backward: true"]
    for i, bottom in enumerate(bottoms):
        dims = " ".join(f"dim: {n}" for n in np.shape(bottom))
        lines.append(f'layer {{ name: "x{i}" type: "Input" top: "x{i}" input_param {{ shape {{ {dims} }} }} }}')
    ends = "".join(f' bottom: "x{i}"' for i in range(len(bottoms))) + "".join(f' top: "y{i}"' for i in range(tops))
    lines.append(f'layer {{ name: "t" type: "{kind}"{ends} {body} }}')
    return "\n".join(lines)


def opened(kind: str, body: str, *bottoms: Any, tops: int = 1, device: str = "cpu") -> Net:
    return Net(parse_net(text_of(kind, body, *bottoms, tops=tops))[0], schema.TEST, device=device)


def outcome(net: Net, *bottoms: Any) -> list[Any]:
    found = net.forward(**{f"x{i}": bottom for i, bottom in enumerate(bottoms)})
    return [np.array(found[name]) for name in sorted(found)]


def weights(net: Net) -> list[Any]:
    return [np.array(blob.data, "float64") for blob in net.params["t"]]


def weighted(score: Callable[[int, int, int], float], value: Any, queries: int, seen: Seen) -> tuple[Any, Any]:
    """Context and weights, one place after the other."""
    streams, keys, size = value.shape
    context, shown = np.zeros((streams, queries, size)), np.zeros((streams, queries, keys))
    for n in range(streams):
        for i in range(queries):
            chosen = [j for j in range(keys) if seen(n, i, j)]
            if not chosen:
                continue
            scores = {j: score(n, i, j) for j in chosen}
            most = max(scores.values())
            total = sum(math.exp(s - most) for s in scores.values())
            for j in chosen:
                shown[n, i, j] = math.exp(scores[j] - most) / total
                for d in range(size):
                    context[n, i, d] += shown[n, i, j] * float(value[n, j, d])
    return context, shown


def dot(query: Any, key: Any, value: Any, scale: float, seen: Seen) -> tuple[Any, Any]:
    def score(n: int, i: int, j: int) -> float:
        return scale * sum(float(a) * float(b) for a, b in zip(query[n, i], key[n, j], strict=True))

    return weighted(score, value, query.shape[1], seen)


def turned(x: Any, base: float) -> Any:
    """Every pair (i, i + half) turned by its angle."""
    y, half = np.array(x), x.shape[2] // 2
    for t in range(x.shape[1]):
        for i in range(half):
            angle = t / base ** (i / half)
            a, b = x[:, t, i], x[:, t, i + half]
            y[:, t, i] = a * math.cos(angle) - b * math.sin(angle)
            y[:, t, i + half] = a * math.sin(angle) + b * math.cos(angle)
    return y


def multihead(x: Any, memory: Any, blobs: list[Any], heads: int, seen: Seen, base: float = 0) -> tuple[Any, Any]:
    wq, bq, wk, bk, wv, bv, wo, bo = blobs
    q, k, v = x @ wq.T + bq, memory @ wk.T + bk, memory @ wv.T + bv
    size, width = q.shape[2] // heads, v.shape[2] // heads
    parts = []
    for h in range(heads):
        qh, kh = (m[:, :, h * size : (h + 1) * size] for m in (q, k))
        if base:
            qh, kh = turned(qh, base), turned(kh, base)
        parts.append(dot(qh, kh, v[:, :, h * width : (h + 1) * width], size**-0.5, seen))
    return np.concatenate([c for c, _ in parts], axis=2) @ wo.T + bo, np.stack([p for _, p in parts], axis=1)


LENGTHS = np.array([3, 5, 0, 1], "float32")
SEES: dict[str, tuple[str, Seen]] = {
    "all": ("", lambda n, i, j: True),
    "causal": ("causal: true", lambda n, i, j: j <= i),
    "lengths": ("", lambda n, i, j: j < LENGTHS[n]),
    "both": ("causal: true", lambda n, i, j: j <= i and j < LENGTHS[n]),
}


def near(got: Any, wanted: Any) -> None:
    np.testing.assert_allclose(got, wanted, 1e-5, 1e-5)


def first(major: bool, x: Any) -> Any:
    return np.ascontiguousarray(x.transpose(1, 0, 2)) if major else x
