"""A Recurrent layer around an LSTM in Expr lines against the LSTM layer: forward and backward, and time to compile.

    python tools/bench/loop.py [--size 512] [--steps 50] [--batch 32]

Both nets are one layer on the same weights; their outputs are compared before timing. Compiling is from the text of the
net to the bound session, forward and backward.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from common import arguments, median, ratio, take_turns, write

from netrun.config import schema
from netrun.config.upgrade import parse_net
from netrun.net import Net


def text_of(kind: str, size: int, steps: int, batch: int) -> str:
    """A net of the one layer, called t, from x and cont to h_new."""
    head = f"""force_backward: true
    layer {{ name: "d" type: "Input" top: "x" top: "cont" input_param {{
      shape {{ dim: {steps} dim: {batch} dim: {size} }} shape {{ dim: {steps} dim: {batch} }} }} }}
    layer {{ name: "t" type: "{kind}" bottom: "x" bottom: "cont" top: "h_new" """
    if kind == "LSTM":
        return head + f"recurrent_param {{ num_output: {size} }} }}"
    states = " ".join(f'state {{ name: "{s}" next: "{s}_new" dim: {size} carry: true }}' for s in "hc")
    shape = f"shape {{ dim: {4 * size} dim: {size} }}"
    return (
        head
        + f"""recurrent_net_param {{ cont: "cont" {states} body {{
      layer {{ name: "lstm" type: "Expr" bottom: "x" bottom: "h" bottom: "c" top: "h_new" top: "c_new" expr_param {{
        weight {{ name: "W" {shape} }} weight {{ name: "b" shape {{ dim: {4 * size} }} }} weight {{ name: "R" {shape} }}
        expr: "i, f, o, g = split(x @ W.T + b + h @ R.T, 4, axis=1)"
        expr: "c_new = sigmoid(f) * c + sigmoid(i) * tanh(g)"
        expr: "h_new = sigmoid(o) * tanh(c_new)" }} }} }} }} }}"""
    )


def opened(kind: str, args: Any) -> tuple[Net, float]:
    """The net and the seconds it takes to compile."""
    start = time.perf_counter()
    message, source = parse_net(text_of(kind, args.size, args.steps, args.batch))
    net = Net(message, schema.TRAIN, source=source)
    return net, time.perf_counter() - start


def side(net: Net, dy: Any) -> Any:
    """Forward and backward on what stands in the blobs."""

    def run() -> None:
        net.forward()
        net.clear_param_diffs()
        net.backward(h_new=dy)

    return run


def main() -> None:
    """Measure and print."""
    whole = {"type": int}
    args = arguments("an LSTM in Expr lines", size={**whole, "default": 512}, steps={**whole, "default": 50},
                     batch={**whole, "default": 32})  # fmt: skip
    rng = np.random.default_rng(0)
    (layer, first), (loop, second) = opened("LSTM", args), opened("Recurrent", args)
    for mine, theirs in zip(loop.params["t"], layer.params["t"], strict=True):
        mine.data[...] = rng.uniform(-0.05, 0.05, mine.shape)
        theirs.data[...] = mine.data
    x = rng.standard_normal((args.steps, args.batch, args.size)).astype("float32")
    cont = np.ones((args.steps, args.batch), "float32")
    cont[0] = 0
    dy = rng.standard_normal(x.shape).astype("float32")
    for net in (layer, loop):
        net.forward(x=x, cont=cont)
    np.testing.assert_allclose(loop.blobs["h_new"].data, layer.blobs["h_new"].data, 1e-4, 1e-5)
    found = take_turns({"layer": side(layer, dy), "lines": side(loop, dy)}, args.rounds, args.seconds)
    share = ratio(found["lines"], found["layer"])
    print(f"LSTM layer            {median(found['layer']) * 1e3:8.1f} ms, compiled in {first:.2f} s")
    print(f"Recurrent, Expr lines {median(found['lines']) * 1e3:8.1f} ms, compiled in {second:.2f} s")
    print(f"speed of the lines    {share:8.2f} of the layer's")
    write("loop", args, [{"seconds": found, "compile": [first, second], "speed": share}])


if __name__ == "__main__":
    main()
