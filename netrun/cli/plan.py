"""``netrun plan``."""

from __future__ import annotations

import argparse

from ..compiler.passes import drop_unread, elide_copies
from ..compiler.plan import plan
from ..compiler.record import record
from ..compiler.summary import size_text
from ..device import open_device
from ..memory import joined
from ..program import Program
from ..runner import forward_program
from ..training import compile_training
from . import results
from .files import open_graph


def run(args: argparse.Namespace) -> int:
    """Print the program and its memory; returns the exit code."""
    graph, solver = open_graph(args)
    device = open_device(args.device)
    programs: list[tuple[str, Program]] = []
    if solver is None:
        programs.append(("forward", forward_program(record(graph))))
    else:
        training = compile_training(graph, solver, keep_all=solver.debug_info)
        programs.append(("iteration" if training.update is None else "pass", training.step))
        if training.update is not None:
            programs.append((f"update, after {solver.iter_size} passes", training.update))
    found = []
    for name, program in programs:
        elided, _ = elide_copies(program)
        prepared = joined(device.prepare(drop_unread(elided)), device, lambda sets: True)
        memory = plan(prepared, device)
        numbers = {
            "name": name,
            "calls": len(prepared.calls),
            "calls_recorded": len(program.calls),
            "naive_bytes": memory.naive,
            "planned_bytes": memory.arena,
            "scratch_bytes": memory.scratch,
            "held_bytes": memory.held,
            "total_bytes": memory.total,
        }
        found.append(numbers)
        if args.json:
            continue
        print(f"# {graph.name or 'net'}: {name}, {len(prepared.calls)} calls, device {device.name}")
        print(prepared)
        print(
            f"# between calls: {memory.naive:,} bytes naive, {memory.arena:,} planned; "
            f"scratch {memory.scratch:,}; held {memory.held:,}; total {memory.total:,} ({size_text(memory.total)})"
        )
    if args.json:
        results.print_json({"net": graph.name, "device": device.name, "programs": found})
    return 0
