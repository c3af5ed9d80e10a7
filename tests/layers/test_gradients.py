"""The derived gradient of every row against finite differences in float64, along random directions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases.layers import LAYERS, LayerCase

from netrun.layers import Layer
from netrun.net import Net

STEP = 1e-6


def learned(net: Net) -> list[Any]:
    """The parameters that a gradient reaches."""
    return [b for node in net.graph.nodes for b, p in zip(net.params.get(node.name, []), node.parameters, strict=True)
            if p.trained]  # fmt: skip


COMPUTED = [c for c in LAYERS if c.tops and not Layer.registry[c.type].fed]
WITHOUT = {"Accuracy", "ArgMax", "Threshold"}
"""Types that pass no gradient at all, and own no parameter."""


@pytest.mark.parametrize("kind", sorted({c.type for c in COMPUTED} - WITHOUT))
def test_no_gradient_is_left_out(kind: str) -> None:
    """Rows may leave bottoms out whose gradient is not to be checked, but every type is checked in every bottom and
    parameter, and in two shapes at least."""
    cls = Layer.registry[kind]
    rows = [case for case in COMPUTED if case.type == kind]
    bottoms = max(len(case.bottoms) for case in rows)
    # None reaches the first states of recurrent layers, and the last bottom of Filter, which selects.
    none = {"LSTM": {3, 4}, "RNN": {3}, "Filter": {bottoms - 1}}.get(kind, set())
    left = set(range(bottoms)) - {i for case in rows for i in case.wants} - cls.skips - none
    assert left == set(), f"no row checks the gradient in bottom {min(left, default=0)}"
    shapes = {tuple(b.shape for b in c.bottoms) for case in rows for c in (case, case.with_one_sample())}
    assert len(shapes) >= 2 or not bottoms


@pytest.mark.parametrize("case", [c for c in COMPUTED if c.single], ids=str)
def test_gradient_of_one_sample(case: LayerCase) -> None:
    test_gradient(case.with_one_sample(), "reference")


@pytest.mark.parametrize("case", COMPUTED, ids=str)
@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_gradient(case: LayerCase, device: str) -> None:
    rng = np.random.default_rng(11)
    values = case.draw("float64")
    with Net(case.net(), case.phase, device=device, dtype="float64") as net:
        for blobs in net.params.values():
            for blob in blobs:
                blob.data[...] += 0.3 + 0.1 * rng.random(blob.shape)
        statistics = [b for bs in net.params.values() for b in bs if not any(b is o for o in learned(net))]
        frozen = [b.data.copy() for b in statistics]
        points = [values[i] for i in case.wants] + [blob.data for blob in learned(net)]
        starts = [p.copy() for p in points]
        weights = {}
        for i, name in enumerate(case.top_names):
            weights[name] = rng.normal(size=net.blobs[name].shape) * (i not in case.quiet)

        def loss() -> float:
            for blob, value in zip(statistics, frozen, strict=True):
                blob.data[...] = value
            net.forwards = 0  # the same masks every time
            net.reset_states()
            net.forward(**{f"x{i}": value for i, value in enumerate(values)})
            return sum(float((net.blobs[name].data * weights[name]).sum()) for name in case.top_names)

        loss()
        net.clear_param_diffs()
        net.backward(**weights)
        blobs = [net.blobs[f"x{i}"] for i in case.wants] + learned(net)
        gradients = [blob.diff.copy() for blob in blobs]
        for i in set(range(len(values))) - set(case.wants):
            assert not net.blobs[f"x{i}"].diff.any(), f"bottom {i} gets a gradient"
        for point, start, gradient in zip(points, starts, gradients, strict=True):
            for _ in range(2):
                direction = rng.normal(size=point.shape)
                ends = []
                for sign in (1, -1):
                    point[...] = start + sign * STEP * direction
                    ends.append(loss())
                point[...] = start
                slope = (ends[0] - ends[1]) / (2 * STEP)
                assert float((gradient * direction).sum()) == pytest.approx(slope, rel=case.rtol, abs=1e-7)
