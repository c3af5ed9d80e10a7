"""Attention on the stand-in GPU: tops and gradients of every row equal those of the reference device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases.layers import LAYERS, LayerCase

from layers_cuda.device import Cuda
from netrun.net import Net

CASES = [case for case in LAYERS if case.type.endswith("Attention") or case.type == "PositionEncoding"]


def run(case: LayerCase, device: Any) -> dict[str, Any]:
    rng = np.random.default_rng(4)
    with Net(case.net(), case.phase, device=device) as net:
        for blob in net.params.get("t", ()):
            blob.data[...] = rng.normal(size=blob.shape)
        net.forward(**{f"x{i}": value for i, value in enumerate(case.draw("float32"))})
        found = {name: np.array(net.blobs[name].data) for name in case.top_names}
        net.backward(**{name: rng.normal(size=value.shape) for name, value in found.items()})
        found |= {f"x{i}'": np.array(net.blobs[f"x{i}"].diff) for i in case.wants}
        found |= {f"weight {i}'": np.array(blob.diff) for i, blob in enumerate(net.params.get("t", ()))}
        found |= {f"state {name}": net.session.read(tensor) for name, tensor in net.recording.states.items()}
    return found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case: LayerCase, device: Cuda) -> None:
    got, wanted = run(case, device), run(case, "reference")
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, 2e-4, 1e-5 * max(1.0, float(np.abs(value).max())), err_msg=name)
