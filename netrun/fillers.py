"""First values of parameters: what a ``filler { type: "xavier" }`` means.

All random numbers are drawn in single precision, so that a net starts from the same weights in float32 and in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .config import schema
from .errors import ConfigError, nearest
from .types import Shape

Array = npt.NDArray[Any]
Filler = Callable[[schema.FillerParameter, Shape, np.random.Generator], Array]


def fill(filler: schema.FillerParameter, shape: Shape, rng: np.random.Generator, dtype: str = "float32") -> Array:
    """An array of first values.

    Args:
        filler: kind and settings; see FillerParameter in the schema.
        shape: (outputs, inputs, ...) of weights, (outputs,) of a bias.
        rng: where random kinds draw from; constant and bilinear ignore it.

    Raises:
        ConfigError: there is no such kind, or it cannot fill that shape.
    """
    problem = filler_problem(filler, shape)
    if problem:
        raise ConfigError(problem)
    return np.ascontiguousarray(FILLERS[filler.type](filler, shape, rng), dtype).reshape(shape)


def filler_problem(filler: schema.FillerParameter, shape: Shape) -> str:
    """What is wrong with this filler for this shape, in one line; empty if nothing is."""
    if filler.type not in FILLERS:
        known = ", ".join(FILLERS)
        return f'there is no filler type "{filler.type}"{nearest(filler.type, FILLERS)} (known: {known})'
    if filler.sparse != -1 and filler.type != "gaussian":
        return f'sparse belongs to the filler type "gaussian", not to "{filler.type}"'
    if filler.type == "gaussian" and filler.sparse != -1:
        rows = shape[0] if shape else 1
        if not 0 <= filler.sparse <= rows:
            return f"filler: sparse is {filler.sparse}, and has to be in 0 to {rows}, the first axis of the weights"
    if filler.type == "gaussian" and filler.std < 0:
        return f"filler: std is {filler.std:g}, and cannot be negative"
    if filler.type == "uniform" and filler.max < filler.min:
        return f"filler: min {filler.min:g} is larger than max {filler.max:g}"
    if filler.type == "bilinear" and (len(shape) != 4 or shape[2] != shape[3]):
        text = " ".join(map(str, shape)) or "none"
        return f'the filler type "bilinear" is for 4 axes and square kernels, the axes here are {text}'
    return ""


def fans(shape: Shape) -> tuple[float, float]:
    """(fan-in, fan-out): count / shape[0] and count / shape[1]; the fan-out of a single axis is its length."""
    count = math.prod(shape)
    fan_in = count / shape[0] if shape and shape[0] else 1.0
    fan_out = count / shape[1] if len(shape) > 1 and shape[1] else float(count)
    return fan_in, fan_out


def _spread(filler: schema.FillerParameter, shape: Shape) -> float:
    """The n of xavier and msra."""
    fan_in, fan_out = fans(shape)
    norms = schema.FillerParameter
    values = {norms.FAN_IN: fan_in, norms.FAN_OUT: fan_out, norms.AVERAGE: (fan_in + fan_out) / 2}
    return max(values[filler.variance_norm], 1e-30)


def _constant(filler: schema.FillerParameter, shape: Shape, rng: np.random.Generator) -> Array:
    return np.full(shape, filler.value, np.float32)


def _between(low: float, high: float, shape: Shape, rng: np.random.Generator) -> Array:
    drawn: Array = rng.random(shape, dtype=np.float32)
    drawn *= np.float32(high - low)
    drawn += np.float32(low)
    return drawn


def _uniform(filler: schema.FillerParameter, shape: Shape, rng: np.random.Generator) -> Array:
    return _between(filler.min, filler.max, shape, rng)


def _gaussian(filler: schema.FillerParameter, shape: Shape, rng: np.random.Generator) -> Array:
    drawn: Array = rng.standard_normal(shape, dtype=np.float32)
    drawn *= np.float32(filler.std)
    drawn += np.float32(filler.mean)
    if filler.sparse != -1:
        drawn *= rng.random(shape, dtype=np.float32) < filler.sparse / (shape[0] if shape else 1)
    return drawn


def _positive_unitball(filler: schema.FillerParameter, shape: Shape, rng: np.random.Generator) -> Array:
    rows: Array = rng.random(shape, dtype=np.float32).reshape(shape[0] if shape else 1, -1)
    sums = rows.sum(axis=1, keepdims=True, dtype=np.float64)
    return (rows / np.where(sums > 0, sums, 1)).reshape(shape)


def _xavier(filler: schema.FillerParameter, shape: Shape, rng: np.random.Generator) -> Array:
    limit = math.sqrt(3 / _spread(filler, shape))
    return _between(-limit, limit, shape, rng)


def _msra(filler: schema.FillerParameter, shape: Shape, rng: np.random.Generator) -> Array:
    drawn: Array = rng.standard_normal(shape, dtype=np.float32)
    drawn *= np.float32(math.sqrt(2 / _spread(filler, shape)))
    return drawn


def _bilinear(filler: schema.FillerParameter, shape: Shape, rng: np.random.Generator) -> Array:
    size = shape[-1]
    factor = math.ceil(size / 2)
    centre = (size - 1) / (2 * factor)
    line = 1 - np.abs(np.arange(size) / factor - centre)
    return np.broadcast_to(np.outer(line, line), shape)


def _orthogonal(filler: schema.FillerParameter, shape: Shape, rng: np.random.Generator) -> Array:
    """Saxe, McClelland, Ganguli, "Exact solutions to the nonlinear dynamics of learning", 2014: Q of a normal matrix.

    Seen as shape[0] rows, the rows are orthonormal; where there are more rows than entries in one, the columns are.
    The signs of R's diagonal are moved into Q, so that Q is uniform over the orthogonal matrices.
    """
    rows = shape[0] if shape else 1
    columns = max(math.prod(shape) // max(rows, 1), 1)
    drawn = rng.standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(drawn)
    q *= np.where(np.diag(r) < 0, -1.0, 1.0)
    return (filler.std * (q if rows >= columns else q.T)).reshape(shape)


FILLERS: Mapping[str, Filler] = {
    "constant": _constant,
    "uniform": _uniform,
    "gaussian": _gaussian,
    "positive_unitball": _positive_unitball,
    "xavier": _xavier,
    "msra": _msra,
    "bilinear": _bilinear,
    "orthogonal": _orthogonal,
}
"""Every filler by the name it has in a prototxt."""
