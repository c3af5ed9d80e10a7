"""Training steps of a net with a large Embed table, with sparse_gradient and without.

    python tools/bench/embed.py [--table 100000] [--width 128] [--batch 32] [--tokens 20]

Both solvers are the same but for that field; every step has another batch, of the same words for both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from common import arguments, median, ratio, take_turns, write

from netrun.config.upgrade import parse_solver
from netrun.solver import Solver

RULES = {"SGD with momentum": "momentum: 0.9", "Adam": 'type: "Adam" momentum: 0.9'}
BATCHES = 16


def opened(args: Any, options: str, sparse: bool) -> Solver:
    """A solver of table, InnerProduct and softmax."""
    text = f"""net_param {{
      layer {{ name: "in" type: "Input" top: "x" top: "label" input_param {{
        shape {{ dim: {args.batch} dim: {args.tokens} }} shape {{ dim: {args.batch} }} }} }}
      layer {{ name: "words" type: "Embed" bottom: "x" top: "y" embed_param {{ num_output: {args.width}
        input_dim: {args.table} bias_term: false sparse_gradient: {str(sparse).lower()}
        weight_filler {{ type: "uniform" min: -0.05 max: 0.05 }} }} }}
      layer {{ name: "ip" type: "InnerProduct" bottom: "y" top: "z" inner_product_param {{ num_output: 10
        weight_filler {{ type: "xavier" }} }} }}
      layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "z" bottom: "label" top: "loss" }} }}
    lr_policy: "fixed" base_lr: 0.001 random_seed: 1 snapshot_after_train: false {options}"""
    return Solver(parse_solver(text)[0], log=lambda *_: None)


def side(solver: Solver, batches: list[dict[str, Any]]) -> Callable[[], None]:
    """One iteration on the next batch."""
    turn = [0]

    def run() -> None:
        turn[0] += 1
        solver.runners[0].session.feed(batches[turn[0] % len(batches)])
        solver.step(1)

    return run


def main() -> None:
    """Measure and print."""
    whole = {"type": int}
    args = arguments("Embed with sparse gradient", table={**whole, "default": 100_000}, width={**whole, "default": 128},
                     batch={**whole, "default": 32}, tokens={**whole, "default": 20})  # fmt: skip
    rng = np.random.default_rng(0)
    batches = [
        {"x": rng.integers(0, args.table, (args.batch, args.tokens)), "label": rng.integers(0, 10, args.batch)}
        for _ in range(BATCHES)
    ]
    rows = []
    print(f"{'rule':<20} {'dense ms':>9} {'sparse ms':>10} {'times':>7} {'arena MB, dense':>16} {'sparse':>7}")
    for name, options in RULES.items():
        with opened(args, options, False) as dense, opened(args, options, True) as sparse:
            found = take_turns(
                {"dense": side(dense, batches), "sparse": side(sparse, batches)}, args.rounds, args.seconds
            )
            bytes_of = [s.runners[0].session.plan.arena + s.runners[0].session.plan.scratch for s in (dense, sparse)]
        times = ratio(found["sparse"], found["dense"])
        ms = [1000 * median(found[kind]) for kind in ("dense", "sparse")]
        print(f"{name:<20} {ms[0]:9.2f} {ms[1]:10.3f} {times:7.1f} {bytes_of[0] / 1e6:16.1f} {bytes_of[1] / 1e6:7.1f}")
        rows.append({"rule": name, "seconds": found, "times": times, "bytes": bytes_of})
    write("embed", args, rows)


if __name__ == "__main__":
    main()
