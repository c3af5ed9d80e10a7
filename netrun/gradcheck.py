"""Derived and hand-written gradients held against finite differences, layer by layer, in float64.

Every layer is looked at alone: its bottoms are inputs of a small net, filled with what flows through the whole net
(moved a little, away from ties and kinks) or with random numbers; a random weighted sum of its tops is the loss L. For
random directions d the derivative of L along d, (L(x + h d) - L(x - h d)) / 2h, is held against gradient * d.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .compiler.graph import AUTOMATIC, Graph, Node
from .config import schema
from .device import Device
from .errors import NetrunError, Where
from .net import Net

Array = npt.NDArray[Any]
STEP, COARSE = 1e-6, 1e-3
"""h; and the one for classes that compute in single precision."""
ROUGH = 2e-3
"""Relative error that such a class may have with the coarse step."""
SAMPLES = 4
"""Batches are cut to so many samples where a layer lets them."""
POINTS, DIRECTIONS = 3, 2
"""A gradient is called wrong only if it is at so many points: one may lie on a kink."""


@dataclass(frozen=True)
class Checked:
    """One gradient.

    Attributes:
        what: of which value: ``bottom "x"``, ``weight 0 (w)``.
        made: "derived", or the method of the user's class that computes it.
        error: |gradient * d - difference| / max(both, |gradient|), the largest of all directions.
        verdict: ok; rough (right to three digits, as far as a class in single precision can be told); WRONG; none (no
            gradient passes); not finite.
    """

    layer: str
    type: str
    what: str
    shape: tuple[int, ...]
    made: str
    error: float
    verdict: str
    where: Where | None = None

    @property
    def wrong(self) -> bool:
        """True if training would go astray."""
        return self.verdict in ("WRONG", "not finite")


def bottoms_of(
    net: schema.NetParameter,
    graph: Graph,
    last: str,
    *,
    seed: int,
    shapes: Mapping[str, tuple[int, ...]],
    **options: Any,
) -> tuple[dict[str, Array], str]:
    """What flows through the net up to layer ``last``, by blob; and why it cannot be had, where it cannot.

    Input layers are filled with random numbers: labels where a layer takes them as such, normal ones elsewhere.
    """
    message = schema.NetParameter()
    message.CopyFrom(net)
    kept = [layer for layer in net.layer if layer.top or layer.name == last]  # what only writes files stays out
    del message.layer[:]
    message.layer.extend(kept)
    try:
        with Net(message, graph.phase, device="cpu", dtype="float64", seed=seed, shapes=shapes, **options) as whole:
            given = _inputs(graph, np.random.default_rng(seed))
            for name in whole.inputs:
                whole.blobs[name].data[...] = given[name]
            whole.forward(end=last)
            return {name: np.array(whole.blobs[name].data) for name in whole.blobs}, ""
    except NetrunError as error:
        return {}, str(error).partition("\n")[0]


def _inputs(graph: Graph, rng: np.random.Generator) -> dict[str, Array]:
    """Random values of all that the host feeds."""
    found = {}
    for value in graph.inputs:
        readers = [(node, i) for node, i in value.readers if i in node.layer.skips]
        found[value.blob] = rng.normal(size=value.spec.shape)
        for node, _ in readers[:1]:
            found[value.blob] = _labels(node, value.spec.shape, rng)
    return found


def _labels(node: Node, shape: Sequence[int], rng: np.random.Generator) -> Array:
    """Labels for a layer: below the length of the first bottom's axis 1."""
    first = node.bottoms[0].spec.shape
    classes = first[1] if len(first) > 1 and node.bottoms[0].spec.shape != tuple(shape) else 2
    return rng.integers(0, classes, tuple(shape)).astype("float64")


class LayerCheck:
    """The gradients of one layer."""

    def __init__(self, node: Node, flows: Mapping[str, Array], *, folder: str, device: str | Device, seed: int) -> None:
        self.node, self.folder, self.device, self.seed = node, folder, device, seed
        named = [value.blob for value in node.bottoms]
        self.inputs = [f"{name}#{i}" if name in named[:i] else name for i, name in enumerate(named)]
        """Names of the bottoms, which a formula needs; one that comes twice has two."""
        taken = {*self.inputs, AUTOMATIC}
        self.tops = [f"top {i}" if top.blob in taken else top.blob for i, top in enumerate(node.tops)]
        self.values = [self._value(i, flows) for i in range(len(node.bottoms))]
        self.small = self._cut()
        user = getattr(node.layer, "user", None)
        self.backward = f"{type(user).__name__}.backward" if user is not None and node.layer.varying else ""
        """The method that makes the gradients, of a layer that writes its own."""

    def _value(self, i: int, flows: Mapping[str, Array]) -> Array:
        spec, rng = self.node.bottoms[i].spec, np.random.default_rng((self.seed, 1, i))
        found = flows.get(self.node.bottoms[i].blob)
        if found is not None and found.shape == spec.shape:
            return found
        return _labels(self.node, spec.shape, rng) if i in self.node.layer.skips else rng.normal(size=spec.shape)

    def _cut(self) -> bool:
        """True if the layer takes a few samples of its batch alone."""
        firsts = {v.shape[:1] for v in self.values}
        if len(firsts) != 1 or firsts == {()} or next(iter(firsts))[0] <= SAMPLES:
            return False
        try:
            with self._net([v[:SAMPLES] for v in self.values]):
                return True
        except NetrunError:
            return False

    def _net(self, values: Sequence[Array]) -> Net:
        """The layer behind inputs of these shapes."""
        message = schema.NetParameter(force_backward=True)
        for name, value in zip(self.inputs, values, strict=True):
            layer = message.layer.add(name=f"(input) {name}", type="Input", top=[name])
            layer.input_param.shape.add().dim.extend(value.shape)
        own = message.layer.add()
        own.CopyFrom(self.node.message)
        for field in ("bottom", "top", "include", "exclude", "loss_weight", "phase"):
            own.ClearField(field)
        own.bottom.extend(self.inputs)
        own.top.extend(self.tops)
        phase = self.node.layer.context.phase
        return Net(message, phase, device=self.device, dtype="float64", seed=self.seed, folder=self.folder)

    def run(self, tolerance: float, where: Where | None = None) -> list[Checked]:
        """Check all gradients of the layer."""
        node = self.node
        values = [v[:SAMPLES] if self.small else v for v in self.values]
        wanted = [i for i in range(len(values)) if not node.stops(i) and node.bottoms[i].spec.dtype.startswith("f")]
        best: dict[str, Checked] = {}
        with self._net(values) as net:
            own = net.graph.nodes[-1]
            blobs = net.params[own.name] if own.parameters else []
            weights = [i for i, parameter in enumerate(own.parameters) if parameter.trained]
            names = [f'bottom "{node.bottoms[i].blob}"' for i in wanted]
            names += [f"weight {i} ({own.parameters[i].declared.name})" for i in weights]
            attempts = [(point, STEP, tolerance) for point in range(POINTS)]
            attempts += [(POINTS, COARSE, ROUGH)] if self.backward else []
            for point, step, most in attempts:
                if best and not any(checked.wrong for checked in best.values()):
                    break
                found = self._at(net, values, wanted, [blobs[i] for i in weights], blobs, point, step)
                for name, (shape, error, passes) in zip(names, found, strict=True):
                    verdict = "none" if not passes else "not finite" if not math.isfinite(error) else "WRONG"
                    if passes and error <= most:
                        verdict = "ok" if step == STEP else "rough"
                    made = self.backward or "derived"
                    now = Checked(node.name, node.layer.type, name, shape, made, error, verdict, where)
                    before = best.get(name)
                    if before is None or (before.wrong and not (now.wrong and before.error <= now.error)):
                        best[name] = now
        return list(best.values())

    def _at(
        self, net: Net, values: Sequence[Array], wanted: Sequence[int], weights: Sequence[Any], blobs: Sequence[Any],
        point: int, step: float,
    ) -> list[tuple[tuple[int, ...], float, bool]]:  # fmt: skip
        """Shape, error and whether a gradient passes at all, of every wanted bottom and weight, at one point."""
        rng = np.random.default_rng((self.seed, 2, point))
        xs = [_moved(v, rng) if i in wanted else np.array(v) for i, v in enumerate(values)]
        frozen = [(blob, blob.data.copy()) for blob in blobs if not any(blob is w for w in weights)]
        for blob in weights:
            blob.data[...] += 0.1 * rng.normal(size=blob.shape)
        seeds: dict[str, Array] = {}

        def loss() -> float:
            for blob, value in frozen:
                blob.data[...] = value
            net.forwards = 0  # the same masks every time
            net.reset_states()
            for name, x in zip(self.inputs, xs, strict=True):
                net.blobs[name].data[...] = x
            net.run_forward()
            if not seeds:
                seeds.update({name: rng.normal(size=net.blobs[name].shape) for name in self.tops})
            return sum(float((net.blobs[name].data * seed).sum()) for name, seed in seeds.items())

        loss()
        net.clear_param_diffs()
        for name, seed in seeds.items():
            net.blobs[name].diff[...] = seed
        reached = net.backward()
        points = [xs[i] for i in wanted] + [blob.data for blob in weights]
        gradients = [net.blobs[self.inputs[i]].diff.copy() for i in wanted] + [blob.diff.copy() for blob in weights]
        passes = [self.inputs[i] in reached for i in wanted] + [True] * len(weights)
        rows = []
        for at, gradient, passing in zip(points, gradients, passes, strict=True):
            error = _largest(at, gradient, loss, step, rng) if passing else 0.0
            rows.append((tuple(gradient.shape), error, passing))
        return rows


def _moved(value: Array, rng: np.random.Generator) -> Array:
    """The value a little away from ties and kinks; signs stay."""
    if np.array_equal(value, np.rint(value)) and np.ptp(value) > 0 and (value >= 0).all():
        return np.array(value)  # labels, counts, bytes: what a data layer gives
    spread = float(value.std()) or float(np.abs(value).max()) or 1.0
    moved: Array = value * (1 + 0.1 * rng.normal(size=value.shape)) + (value == 0) * 0.1 * spread * rng.random(
        value.shape
    )
    return moved


def _largest(at: Array, gradient: Array, loss: Callable[[], float], step: float, rng: np.random.Generator) -> float:
    """The largest relative error along a few random directions."""
    start, size, worst = at.copy(), float(np.linalg.norm(gradient)), 0.0
    for _ in range(DIRECTIONS):
        direction = rng.normal(size=at.shape)
        ends = []
        for sign in (1, -1):
            at[...] = start + sign * step * direction
            ends.append(loss())
        at[...] = start
        slope, ours = (ends[0] - ends[1]) / (2 * step), float((gradient * direction).sum())
        error = abs(slope - ours) / max(abs(slope), abs(ours), size, 1e-3)
        if not error <= worst:
            worst = error
    return worst


__all__ = ["Checked", "LayerCheck", "bottoms_of"]
