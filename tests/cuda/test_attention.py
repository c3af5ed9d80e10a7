"""Attention on the stand-in GPU: tops and gradients of every row equal those of the reference device."""

from __future__ import annotations

from collections.abc import Callable
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


@pytest.mark.parametrize(("precision", "near"), [("TF32", 1e-5), ("BF16", 0.03), ("FP16", 0.005)])
@pytest.mark.parametrize("causal", ["true", "false"])
def test_lower_precision(precision: str, near: float, causal: str, make_device: Callable[..., Cuda]) -> None:
    """Queries, keys, values and weights in 16 bits, scores and the sums of their rows in float32."""
    rng = np.random.default_rng(0)
    layer = f"""force_backward: true
        layer {{ name: "x" type: "Input" top: "x" top: "n" input_param {{ shape {{ dim: 2 dim: 9 dim: 8 }}
          shape {{ dim: 2 }} }} }}
        layer {{ name: "t" type: "MultiHeadAttention" bottom: "x" bottom: "n" top: "y" attention_param {{
          num_heads: 2 causal: {causal} }} }}"""
    x, n, seed, found = rng.standard_normal((2, 9, 8)), np.array([9, 5]), rng.standard_normal((2, 9, 8)), []
    values = [rng.standard_normal(shape) / 2 for shape in [(8, 8), (8,)] * 4]
    for name, device in ((precision, make_device()), ("FP32", "reference")):
        with Net(parse_net(f"precision: {name} {layer}")[0], schema.TRAIN, device=device) as net:
            for blob, value in zip(net.params["t"], values, strict=True):
                blob.data[...] = value
            y = np.array(net.forward(x=x, n=n)["y"])
            net.backward(y=seed)
            assert "attention_grad" in {call.op.name for call in net.session.program.calls}
            found.append([y, np.array(net.blobs["x"].diff), *(np.array(blob.diff) for blob in net.params["t"])])
    for got, wanted in zip(*found, strict=True):
        error, size = np.linalg.norm(got - wanted), np.linalg.norm(wanted)
        assert error <= near * size or size < 1e-4  # the gradient of the keys' bias is what rounding leaves
