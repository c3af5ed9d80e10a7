"""Attention on the stand-in GPU: tops and gradients of every row equal those of the reference device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases.layers import LAYERS, LayerCase

from layers_cuda.device import Cuda
from netrun.config import schema
from netrun.config.upgrade import parse_net
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


@pytest.mark.parametrize("precision", ["BF16", "FP16"])
def test_what_is_hidden_never_beats_a_low_score(precision: str, device: Cuda) -> None:
    """Scores of -40000, which 16 bits hold: of four keys the first two may be seen, and get all of the weight."""
    inputs = {"q": np.ones((1, 3, 1)), "k": np.full((1, 4, 1), -40000.0), "v": np.arange(4.0).reshape(1, 4, 1)}
    inputs["length"] = np.full(1, 2.0)
    layers = "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ '
        f"{' '.join(f'dim: {n}' for n in value.shape)} }} }} }} "
        for name, value in inputs.items()
    )
    attention = 'layer { name: "t" type: "DotProductAttention" bottom: "q" bottom: "k" bottom: "v" bottom: "length" '
    attention += 'top: "y" attention_param { scale: 1 } }'
    with Net(parse_net(layers + attention)[0], schema.TEST, device=device, precision=precision) as net:
        found = net.forward(**inputs)["y"]
    np.testing.assert_allclose(np.array(found).ravel(), [0.5] * 3, 2**-8)
