"""Recurrent layers, forward and backward: a stack of LSTM, GRU or RNN against PyTorch's.

    python tools/bench/sequence.py [--size 512] [--layers 2] [--steps 50] [--batch 32]

Inputs and gradients at the output are noise; the gradient of the input and of all weights is computed on both sides.
Before timing, the outputs of both sides are compared on the same weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import arguments, median, ratio, take_turns, torch_or_none, write

from netrun.config import schema
from netrun.config.upgrade import parse_net
from netrun.net import Net

ORDER = {"LSTM": (0, 1, 3, 2), "GRU": (0, 1, 2), "RNN": (0,)}
"""Where PyTorch keeps each of our gates."""


def our_net(kind: str, size: int, layers: int, steps: int, batch: int) -> Net:
    """A net of the one layer."""
    text = f"""force_backward: true
    layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: {steps} dim: {batch} dim: {size} }} }} }}
    layer {{ name: "t" type: "{kind}" bottom: "x" top: "y" recurrent_param {{ num_output: {size} num_layers: {layers}
      weight_filler {{ type: "uniform" min: -0.05 max: 0.05 }} bias_filler {{ type: "uniform" min: -0.05 max: 0.05 }}
      {"output_layer: false" if kind == "RNN" else ""} }} }}"""
    return Net(parse_net(text)[0], schema.TRAIN)


def our_side(net: Net, dy: Any) -> Any:
    """Forward and backward on what stands in the blobs."""

    def side() -> None:
        net.forward()
        net.clear_param_diffs()
        net.backward(y=dy)

    return side


def their_side(torch: Any, kind: str, net: Net, dy: Any, layers: int) -> tuple[Any, Any]:
    """The same of PyTorch, on our weights; and its outputs."""
    x = torch.tensor(np.array(net.blobs["x"].data), requires_grad=True)
    size = x.shape[2]
    module = getattr(torch.nn, kind)(size, size, layers)
    each = 4 if kind == "GRU" else 3
    blobs = [np.array(b.data) for b in net.params["t"]]
    with torch.no_grad():
        for layer in range(layers):
            w, b, r, *rest = blobs[layer * each : (layer + 1) * each]
            inner = np.zeros_like(b)
            if rest:
                inner[2 * size :] = rest[0]
            for name, value in (("weight_ih", w), ("weight_hh", r), ("bias_ih", b), ("bias_hh", inner)):
                gates = np.split(value, len(ORDER[kind]))
                turned = np.concatenate([gates[i] for i in ORDER[kind]])
                getattr(module, f"{name}_l{layer}").copy_(torch.tensor(turned))
    seed = torch.tensor(dy)

    def side() -> None:
        x.grad = None
        module.zero_grad(set_to_none=True)
        module(x)[0].backward(seed)

    with torch.no_grad():
        return side, module(x)[0].numpy()


def main() -> None:
    """Measure and print."""
    whole = {"type": int}
    args = arguments("recurrent layers", size={**whole, "default": 512}, layers={**whole, "default": 2},
                     steps={**whole, "default": 50}, batch={**whole, "default": 32},
                     kinds={"default": "LSTM,GRU,RNN"})  # fmt: skip
    torch, rows = torch_or_none(args), []
    rng = np.random.default_rng(0)
    print(f"{'layer':6} {'netrun ms':>10} {'torch ms':>10} {'ratio':>6}")
    for kind in args.kinds.split(","):
        net = our_net(kind, args.size, args.layers, args.steps, args.batch)
        net.blobs["x"].data[...] = rng.standard_normal(net.blobs["x"].shape)
        dy = rng.standard_normal((args.steps, args.batch, args.size)).astype("float32")
        sides, y = {"netrun": our_side(net, dy)}, None
        if torch is not None:
            sides["torch"], y = their_side(torch, kind, net, dy, args.layers)
            np.testing.assert_allclose(net.forward()["y"], y, 1e-4, 1e-4)
        found = take_turns(sides, args.rounds, args.seconds)
        theirs = ""
        if y is not None:
            theirs = f"{median(found['torch']) * 1e3:10.1f} {ratio(found['netrun'], found['torch']):6.2f}"
        print(f"{kind:6} {median(found['netrun']) * 1e3:10.1f} {theirs}")
        rows.append({"layer": kind, "seconds": found})
    write("sequence", args, rows, torch=getattr(torch, "__version__", None))


if __name__ == "__main__":
    main()
