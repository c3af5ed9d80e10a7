"""What goes to stdout: scores as lines or as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from ..runner import Output


def lines(outputs: Sequence[Output], prefix: str = "") -> list[str]:
    """``accuracy = 0.9875``, one a value, with the weighted loss behind a loss."""
    found = []
    for output in outputs:
        for value in output.values.reshape(-1):
            loss = f" (* {output.weight:g} = {output.weight * value:g} loss)" if output.weight else ""
            found.append(f"{prefix}{output.name} = {value:g}{loss}")
    return found


def values(outputs: Sequence[Output]) -> dict[str, float | list[float]]:
    """By name: a number, or a list of them for an output of several."""
    found: dict[str, float | list[float]] = {}
    for output in outputs:
        numbers = [float(v) for v in output.values.reshape(-1)]
        found[output.name] = numbers[0] if len(numbers) == 1 else numbers
    return found


def print_json(value: Any) -> None:
    """Print a value as JSON; numbers that JSON does not know (nan, inf) become null."""
    print(json.dumps(_plain(value), indent=2))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
