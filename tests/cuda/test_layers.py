"""Every layer type on the stand-in GPU: all rows of the table, forward and backward, against the reference device."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from cases.layers import LAYERS, LayerCase

from layers_cuda.device import Cuda
from netrun.layers import Layer
from netrun.net import Net

COMPUTED = [case for case in LAYERS if not Layer.registry[case.type].fed]


def run(case: LayerCase, device: Any) -> dict[str, Any]:
    """Tops, gradients of the bottoms and of the parameters; every second pass on a GPU is a graph."""
    found: dict[str, Any] = {}
    with Net(case.net(), case.phase, device=device) as net:
        rng = np.random.default_rng(4)
        for blob in net.params.get("t", []):
            blob.data[...] += 0.3 + 0.1 * rng.random(blob.shape)
        kept = [blob.data.copy() for blob in net.params.get("t", [])]
        for _ in range(2):
            for blob, value in zip(net.params.get("t", []), kept, strict=True):
                blob.data[...] = value
            net.forwards = 0  # the same masks every time
            net.reset_states()
            net.forward(**{f"x{i}": value for i, value in enumerate(case.draw("float32"))})
            weights = np.random.default_rng(5)
            found = {name: np.array(net.blobs[name].data) for name in case.top_names}
            net.clear_param_diffs()
            net.backward(
                **{n: weights.normal(size=v.shape) * (i not in case.quiet) for i, (n, v) in enumerate(found.items())}
            )
        found |= {f"x{i}'": np.array(net.blobs[f"x{i}"].diff) for i in case.wants}
        found |= {f"parameter {i}": np.array(blob.data) for i, blob in enumerate(net.params.get("t", []))}
        found |= {f"parameter {i}'": np.array(blob.diff) for i, blob in enumerate(net.params.get("t", []))}
    return found


FIRST = [next(case for case in COMPUTED if case.type == kind) for kind in dict.fromkeys(c.type for c in COMPUTED)]
"""One row of every type; the others run with -m exhaustive."""


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=[] if c in FIRST else pytest.mark.exhaustive) for c in COMPUTED], ids=str
)
def test_equals_the_reference(case: LayerCase, device: Cuda) -> None:
    if case.needs and not find_spec(case.needs):
        pytest.skip(f"{case.needs} is not installed")
    got, wanted = run(case, device), run(case, "reference")
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        scale = max(1.0, float(np.abs(value).max(initial=0)))
        np.testing.assert_allclose(got[name], value, 5e-4, 2e-5 * scale, err_msg=name)
