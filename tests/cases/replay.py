"""Recordings of layers and small nets, replayed: tests/golden/README.md, sections 1 and 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netrun.config import schema
from netrun.config.upgrade import parse_net
from netrun.net import Net

EXACT = {"Accuracy", "ArgMax", "Threshold"}
COPIES = {
    "Convolution", "Deconvolution", "InnerProduct", "Embed", "Im2col", "Concat", "Crop", "Slice", "Split", "Flatten",
    "Reshape", "Tile", "Eltwise", "Scale", "Bias", "BatchReindex", "Parameter", "ReLU", "AbsVal", "Silence",
}  # fmt: skip
"""Types whose sums are exact in float32, or that only move values."""


def load(path: Path) -> dict[str, Any]:
    with np.load(path) as file:
        return dict(file)


def type_of(path: Path) -> str:
    return path.stem.rsplit("_", 1)[0]


def close(got: Any, wanted: Any, rtol: float, atol: float, what: str) -> None:
    assert np.shape(got) == np.shape(wanted), what
    np.testing.assert_allclose(got, wanted, rtol, atol, err_msg=what)


def close_forward(got: Any, wanted: Any, kind: str, what: str) -> None:
    scale = max(1.0, float(np.abs(wanted).max(initial=0)))
    if kind in EXACT:
        np.testing.assert_array_equal(got, wanted, what)
    elif kind in COPIES:
        close(got, wanted, 1e-6, 1e-6, what)
    else:
        close(got, wanted, 1e-5, 1e-6 * scale, what)


def close_backward(got: Any, wanted: Any, what: str, scale: float = 0.0) -> None:
    scale = max(scale, float(np.abs(wanted).max(initial=0)))
    close(got, wanted, 1e-4, max(1e-7, 2e-6 * scale), what)


def build(case: Any, device: str) -> Net:
    message, _ = parse_net(str(case["prototxt"]))
    message.force_backward = True
    return Net(message, schema.Phase.Value(str(case["phase"])), device=device)


def under(case: Any, prefix: str) -> dict[str, Any]:
    """Arrays of a case by the rest of their name."""
    return {key.removeprefix(prefix): case[key] for key in case if key.startswith(prefix)}


def replay_layer(path: Path, device: str) -> None:
    """One layer, forward and backward; recurrent ones a second time with the state carried over."""
    kind, case = type_of(path), load(path)
    with build(case, device) as net:
        for i, value in under(case, "param_").items():
            if i.isdigit():
                net.params["t"][int(i)].data[...] = value
        net.forward(**{name: value for name, value in under(case, "in_").items() if name in net.inputs})
        for name, value in under(case, "top_").items():
            close_forward(net.blobs[name].data, value, kind if name != "mask" else "ArgMax", f"top {name}")
        for i, value in under(case, "param_after_").items():
            close(net.params["t"][int(i)].data, value, 1e-5, 1e-6, f"parameter {i} after the forward pass")
        if str(case["mode"]) == "fwd":
            return
        net.clear_param_diffs()
        net.backward(**under(case, "topdiff_"))
        for name, value in under(case, "bottomdiff_").items():
            close_backward(net.blobs[name].diff, value, f"gradient of {name}")
        for i, value in under(case, "paramdiff_").items():
            close_backward(net.params["t"][int(i)].diff, value, f"gradient of parameter {i}")
        second = under(case, "step2_in_")
        if second:
            net.forward(**second)
            for name, value in under(case, "step2_top_").items():
                close_forward(net.blobs[name].data, value, kind, f"top {name} of the second forward")


def replay_dropout(path: Path, device: str) -> None:
    """Dropout in TRAIN: the mask is random, the relations hold."""
    case = load(path)
    for key in sorted(k for k in case if k.startswith("ratio_")):
        number = key.removeprefix("ratio_")
        ratio, x, dy = float(case[key]), case[f"in_{number}"], case[f"topdiff_{number}"]
        shape = " ".join(f"dim: {n}" for n in x.shape)
        text = f"""force_backward: true
            layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {shape} }} }} }}
            layer {{ name: "d" type: "Dropout" bottom: "x" top: "y" dropout_param {{ dropout_ratio: {ratio} }} }}"""
        with Net(parse_net(text)[0], schema.TRAIN, device=device) as net:
            y = np.array(net.forward(x=x)["y"])
            net.backward(y=dy)
            kept = y != 0
            seen = x != 0  # where x is 0 the top does not tell whether it was kept
            np.testing.assert_allclose(y[kept], (x / (1 - ratio))[kept], 1e-6)
            np.testing.assert_allclose(net.blobs["x"].diff[seen], np.where(kept, dy / (1 - ratio), 0)[seen], 1e-6)
            theirs = case[f"top_{number}"] != 0
            assert abs(kept.mean() - theirs.mean()) <= 5 * np.sqrt(2 * ratio * (1 - ratio) / x.size)


def replay_small_net(path: Path, device: str) -> None:
    """A whole net, forward and backward: every blob, every gradient."""
    case = load(path)
    message, _ = parse_net(str(case["prototxt"]))
    with Net(message, schema.Phase.Value(str(case["phase"])), device=device) as net:
        for layer, blobs in net.params.items():
            for i, blob in enumerate(blobs):
                blob.data[...] = case[f"param_{layer}_{i}"]
        net.forward(**under(case, "in_"))
        assert net.loss == pytest.approx(float(case["total_loss"]), rel=1e-5)
        assert list(net.outputs) == [str(name) for name in case["outputs"]]
        for name, value in under(case, "blob_").items():
            if name in net.blobs:
                close_forward(net.blobs[name].data, value, "", f"blob {name}")
        for name, value in under(case, "param_after_").items():
            layer, i = name.rsplit("_", 1)
            close(net.params[layer][int(i)].data, value, 1e-5, 1e-6, name)
        net.clear_param_diffs()
        net.backward()
        for name, value in under(case, "paramdiff_").items():
            layer, i = name.rsplit("_", 1)
            scale = 0.0
            if net.device.name != "reference":  # sums in an order of its own: a bias may cancel to another rounding
                scale = float(np.abs(case[f"paramdiff_{layer}_0"]).max())
            close_backward(net.params[layer][int(i)].diff, value, f"gradient of {name}", scale)
        for name, value in under(case, "blobdiff_").items():
            if name in net.blobs:
                close_backward(net.blobs[name].diff, value, f"gradient of {name}")
