"""Nets of one layer, for tests that look at what it computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from netrun.config import schema
from netrun.config.upgrade import parse_net
from netrun.net import Net


def net_of(kind: str, body: str, *shapes: Sequence[int], tops: int = 1, phase: int = schema.TEST, **more: Any) -> Net:
    """The layer t of that type and body, with inputs x0, x1 ... of these shapes and tops y0, y1 ..."""
    lines = ["force_backward: true"]
    for i, shape in enumerate(shapes):
        dims = " ".join(f"dim: {n}" for n in shape)
        lines.append(f'layer {{ name: "x{i}" type: "Input" top: "x{i}" input_param {{ shape {{ {dims} }} }} }}')
    ends = [f'bottom: "x{i}"' for i in range(len(shapes))] + [f'top: "y{i}"' for i in range(tops)]
    lines.append(f'layer {{ name: "t" type: "{kind}" {" ".join(ends)} {body} }}')
    return Net(parse_net("\n".join(lines), "net.prototxt")[0], phase, **more)
