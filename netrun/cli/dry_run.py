"""``netrun train --dry-run``: everything a run does, once, in a folder that is gone afterwards."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterable

from ..compiler.summary import size_text
from ..config import schema
from ..config.source import Source
from ..device import Device
from ..errors import UsageError
from ..log import Log
from ..session import Session
from ..snapshot import prefix_of
from ..solver import Solver
from ..types import PERSISTENT
from . import results


def run(
    message: schema.SolverParameter, source: Source | None, device: Device, log: Log, args: argparse.Namespace
) -> int:
    """One training iteration, one batch of every test net, one snapshot and a resume from it.

    Raises:
        NetrunError: what would also end the real run.
    """
    file = source.file if source else ""
    _check_writable(prefix_of(message, file))
    short = schema.SolverParameter()
    short.CopyFrom(message)
    short.test_initialization, short.snapshot = False, 0
    short.test_iter[:] = [1] * len(message.test_iter)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="netrun-") as folder:
        short.snapshot_prefix = os.path.join(folder, "dry")
        with Solver(short, device=device, log=log, source=source) as solver:
            if args.snapshot:
                solver.restore(args.snapshot)
            start = time.perf_counter()
            solver.step(1)
            iteration = time.perf_counter() - start
            for index in range(len(solver.runners) - 1):
                solver.test(index)
            _, state = solver.snapshot()
            solver.restore(state)
            planned = planned_bytes(solver.sessions)
    seconds = time.perf_counter() - began
    found = {"ok": True, "seconds": seconds, "iteration_seconds": iteration, "planned_bytes": planned}
    if args.json:
        results.print_json(found)
    else:
        tests = f"{len(message.test_iter)} test net{'s' if len(message.test_iter) != 1 else ''}"
        print(
            f"ok: one iteration ({iteration:.3g} s), {tests}, a snapshot and a resume in {seconds:.2f} s; "
            f"{size_text(planned)} of memory planned"
        )
    return 0


def planned_bytes(sessions: Iterable[Session]) -> int:
    """Bytes that sessions of one run take together; what they share counts once."""
    shared: dict[str, int] = {}
    total = 0
    for session in sessions:
        total += session.plan.arena + session.plan.scratch
        for tensor in session.program.persistent():
            if tensor.kind in PERSISTENT and tensor.kind != "feed":
                shared[tensor.name] = tensor.spec.nbytes
            else:
                total += tensor.spec.nbytes
    return total + sum(shared.values())


def _check_writable(prefix: str) -> None:
    """Refuse a prefix whose snapshots could not be written, without making its folder."""
    folder = os.path.dirname(os.path.abspath(prefix))
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        raise UsageError(f'snapshot_prefix "{prefix}": {folder} is no folder that can be written to') from None
