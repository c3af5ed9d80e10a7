"""What a row of the table of layers is, and how one is added.

A row is the layer's text without its name and bottoms, and how each bottom is drawn. From it come the contract tests,
the gradient checks, and whatever else wants every layer on every device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cases.values import Rng, away, labels, positive
from netrun.config import schema
from netrun.config.upgrade import parse_net

Draw = Callable[..., Any]
Shape = tuple[int, ...]
TRAIN, TEST = schema.TRAIN, schema.TEST


@dataclass(frozen=True)
class Bottom:
    """How one bottom is drawn. ``batch``: its first axis is the batch, so that a row can be tried with one sample."""

    shape: Shape
    values: Draw = away
    batch: bool = True

    def with_one_sample(self) -> Bottom:
        """The same with a batch of one."""
        return Bottom((1, *self.shape[1:]), self.values, True) if self.batch and self.shape else self


@dataclass(frozen=True)
class LayerCase:
    """One row.

    Attributes:
        type: the layer type.
        note: what is special about the row.
        body: the layer's text without name, type, bottom and top.
        bottoms: how they are drawn.
        wants: the bottoms whose gradient is checked by finite differences; their values stay away from kinks.
        tops: how many.
        phase: TRAIN or TEST.
        single: a batch of one makes sense.
        rtol: of the gradient check; more than the default only where the gradient is not the derivative on purpose.
        names: names of the tops where the layer cares; y0, y1 ... otherwise.
        needs: the optional Python package without which the layer cannot be set up.
        quiet: the tops from which no gradient comes, by number.
    """

    type: str
    note: str
    body: str
    bottoms: tuple[Bottom, ...]
    wants: tuple[int, ...]
    tops: int = 1
    phase: int = TEST
    single: bool = True
    rtol: float = 1e-5
    names: tuple[str, ...] = ()
    needs: str = ""
    quiet: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.type}: {self.note}"

    def with_one_sample(self) -> LayerCase:
        """The same row with a batch of one."""
        small = tuple(b.with_one_sample() for b in self.bottoms)
        return replace(self, bottoms=small)

    @property
    def top_names(self) -> list[str]:
        """Names of the tops."""
        return list(self.names) or [f"y{i}" for i in range(self.tops)]

    @property
    def layer_text(self) -> str:
        """The layer in the prototxt, called t, with bottoms x0, x1 ..."""
        ends = [f'bottom: "x{i}"' for i in range(len(self.bottoms))] + [f'top: "{name}"' for name in self.top_names]
        return f'layer {{ name: "t" type: "{self.type}" {" ".join(ends)} {self.body} }}'

    def message(self) -> schema.LayerParameter:
        """The layer alone."""
        return parse_net(self.layer_text)[0].layer[0]

    def net(self) -> schema.NetParameter:
        """The layer behind an Input for each bottom."""
        inputs = []
        for i, bottom in enumerate(self.bottoms):
            shape = " ".join(f"dim: {n}" for n in bottom.shape)
            inputs.append(f'layer {{ name: "x{i}" type: "Input" top: "x{i}" input_param {{ shape {{ {shape} }} }} }}')
        return parse_net("\n".join(["force_backward: true", *inputs, self.layer_text]))[0]

    def draw(self, dtype: str, seed: int = 1) -> list[Any]:
        """Values of the bottoms; the same every time."""
        rng = np.random.default_rng(seed)
        return [np.asarray(b.values(rng, dtype, *b.shape), dtype) for b in self.bottoms]


LAYERS: list[LayerCase] = []
"""The table."""


def row(kind: str, note: str, body: str, *bottoms: Bottom, wants: Any = None, **rest: Any) -> None:
    """Add a row; every bottom's gradient is checked unless ``wants`` says which."""
    chosen = tuple(range(len(bottoms))) if wants is None else tuple(wants)
    LAYERS.append(LayerCase(kind, note, body, bottoms, chosen, **rest))


def x(*shape: int, values: Draw = away, batch: bool = True) -> Bottom:
    """A bottom of that shape."""
    return Bottom(shape, values, batch)


def classes(count: int) -> Draw:
    """Labels below ``count``."""
    return lambda rng, dtype, *shape: labels(rng, count, *shape).astype(dtype)


def probabilities(rng: Rng, dtype: str, *shape: int) -> Any:
    """Positive, adding up to 1 over axis 1."""
    drawn = positive(rng, dtype, *shape)
    return drawn / drawn.sum(axis=1, keepdims=True)


def fractions(rng: Rng, dtype: str, *shape: int) -> Any:
    """Between 0 and 1."""
    return rng.random(shape).astype(dtype)


GAUSS = 'weight_filler { type: "gaussian" std: 0.5 } bias_filler { type: "uniform" min: -1 }'
