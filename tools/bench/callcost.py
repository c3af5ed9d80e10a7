"""What does one call cost besides its arithmetic? A chain of calls so small that nothing else is left.

python tools/bench/callcost.py
"""

from __future__ import annotations

import numpy as np
from common import arguments, median, take_turns, write

from netrun.device import open_device
from netrun.program import Origin, Program, Recorder
from netrun.session import Session
from netrun.types import Spec, Tensor, Window

CALLS = 200


def main() -> None:
    """Measure and print."""
    args = arguments("host overhead of a call")
    sides = {name: chain(name) for name in ("conv 1x1", "gemm", "pointwise", "nothing")}
    times = take_turns(sides, args.rounds, min(args.seconds, 0.2))
    rows = {name: median(values) / CALLS * 1e6 for name, values in times.items()}
    for name, cost in rows.items():
        print(f"{name:12} {cost:7.2f} us a call")
    write("callcost", args, {"us": rows, "seconds": times})


def chain(kind: str):  # type: ignore[no-untyped-def]
    """A session of CALLS calls of one kind, each on the result of the one before."""
    k = Recorder()
    x = Tensor("x", Spec((1, 16, 1, 1) if "conv" in kind else (1, 16)), "feed")
    w = Tensor("w", Spec((16, 16, 1, 1) if "conv" in kind else (16, 16)), "learned")
    t = x
    for i in range(CALLS):
        k.origin = Origin(f"layer{i}")
        y = k.new("y", x.spec, "data")
        if kind == "conv 1x1":
            k.conv(t, w, None, y, window=Window((1, 1)), groups=1)
        elif kind == "gemm":
            k.gemm(t, w, None, y, ta=False, tb=True)
        else:
            k.pointwise([t], y, expr="a + 1")
        t = y
    session = Session(Program(tuple(k.calls), {"x": x}, frozenset({t})), open_device(
        "null" if kind == "nothing" else "cpu"))  # fmt: skip
    session.feed({"x": np.zeros(x.shape)})
    return session.run


if __name__ == "__main__":
    main()
