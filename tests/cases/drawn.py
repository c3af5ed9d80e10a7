"""Random configurations of a layer and what it makes of them: tops and gradients, of any device."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from netrun.config import schema
from netrun.config.upgrade import parse_net
from netrun.net import Net

Array = Any


class Draw:
    """Random configurations and values; the same every time."""

    def __init__(self, seed: int) -> None:
        self.pick = random.Random(seed)
        self.rng = np.random.default_rng(seed)

    def values(self, *shape: int) -> Array:
        """Multiples of 1/1024, often with ties and zeros."""
        coarse = self.pick.choice((1, 1, 512))
        return (self.rng.integers(-2048 // coarse, 2048 // coarse + 1, shape) * coarse / 1024).astype("float32")

    def shape(self, least: int, most: int) -> list[int]:
        return [self.pick.randint(1, 5) for _ in range(self.pick.randint(least, most))]

    def axis(self, axis: int, rank: int) -> int:
        """The same axis, perhaps counted from the end."""
        return self.pick.choice((axis, axis - rank))


def fields(values: dict[str, Any]) -> str:
    """Fields of a message; a list repeats its field."""
    parts = [(k, v) for k, vs in values.items() for v in (vs if isinstance(vs, list) else [vs])]
    return " ".join(f"{k}: {str(v).lower() if isinstance(v, bool) else v}" for k, v in parts)


def ran(
    device: str,
    kind: str,
    body: str,
    bottoms: list[Array],
    slopes: list[Array] | None,
    parameters: list[Array] = [],  # noqa: B006
    tops: int = 1,
) -> tuple[list[Array], list[Array], list[Array]]:
    """Tops, gradients of the bottoms, gradients of the parameters."""
    parts = ["force_backward: true"]
    for i, x in enumerate(bottoms):
        dims = " ".join(f"dim: {n}" for n in x.shape)
        parts.append(f'layer {{ name: "x{i}" type: "Input" top: "x{i}" input_param {{ shape {{ {dims} }} }} }}')
    ends = [f'bottom: "x{i}"' for i in range(len(bottoms))] + [f'top: "y{i}"' for i in range(tops)]
    parts.append(f'layer {{ name: "t" type: "{kind}" {" ".join(ends)} {body} }}')
    with Net(parse_net("\n".join(parts))[0], schema.TRAIN, device=device) as net:
        own = net.params.get("t", [])
        for blob, value in zip(own, parameters, strict=True):
            blob.data[...] = value
        net.forward(**{f"x{i}": x for i, x in enumerate(bottoms)})
        made = [np.array(net.blobs[f"y{i}"].data) for i in range(tops)]
        if slopes is not None:
            net.clear_param_diffs()
            net.backward(**{f"y{i}": slope for i, slope in enumerate(slopes)})
        return made, [net.blobs[f"x{i}"].diff.copy() for i in range(len(bottoms))], [b.diff.copy() for b in own]


def close(got: Array, wanted: Array, what: str) -> None:
    scale = max(float(np.abs(wanted).max(initial=0)), 0.05)
    np.testing.assert_allclose(got, wanted, 1e-4, 2e-6 * scale, err_msg=what)
