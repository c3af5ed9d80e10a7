"""``netrun gradcheck``: are the gradients of a net right?"""

from __future__ import annotations

import argparse
import sys

from ..compiler.graph import Graph
from ..compiler.nodes import Node
from ..compiler.summary import table
from ..config import schema
from ..config.source import Source
from ..device import open_device
from ..errors import NetrunError, UsageError, nearest
from ..gradcheck import Checked, LayerCheck, bottoms_of
from ..solver_nets import check_counts, net_to_train
from . import results
from .files import build_with, read_any, state_of

WRONG_EXIT = 1


def run(args: argparse.Namespace) -> int:
    """Check every layer, or those asked for; returns the exit code: 1 if a gradient is wrong."""
    message, source = read_any(args.file, args.lenient)
    state = state_of(args)
    if isinstance(message, schema.SolverParameter):
        check_counts(message, source)
        found = net_to_train(message, source, source.folder)
        message, source = found.message, found.source or source
    graph = build_with(message, source, state, args.input_shape)
    device = open_device(args.device)
    chosen = _chosen(graph, [name for text in args.layer for name in text.split(",")])
    shapes = {v.blob: v.spec.shape for v in graph.inputs if v.producer.layer.type == "Input"}
    options = {"source": source, "folder": source.folder, "level": state.level, "stages": state.stages}
    flows, why = bottoms_of(message, graph, chosen[-1].name if chosen else "", seed=args.seed, shapes=shapes, **options)
    if why:
        print(f"random values in the place of data: {why}", file=sys.stderr)
    rows: list[Checked] = []
    for node in chosen:
        if node.layer.fed or not node.tops:
            continue
        where = source.where("layer", node.position)
        try:
            check = LayerCheck(node, flows, folder=source.folder, device=device, seed=args.seed)
            rows += check.run(args.tolerance, where)
        except NetrunError as error:
            raise type(error)(f"{node.name} ({node.layer.type}), alone: {error.problems[0].what}", where) from error
    return _show(rows, args, source)


def _chosen(graph: Graph, names: list[str]) -> list[Node]:
    known = [node.name for node in graph.nodes]
    for name in names:
        if name not in known:
            raise UsageError(f'--layer: the net has no layer "{name}"{nearest(name, known)}')
    return [node for node in graph.nodes if not names or node.name in names]


def _show(rows: list[Checked], args: argparse.Namespace, source: Source) -> int:
    wrong = [row for row in rows if row.wrong]
    if args.json:
        results.print_json(
            {
                "device": args.device,
                "tolerance": args.tolerance,
                "wrong": len(wrong),
                "gradients": [
                    {"layer": r.layer, "type": r.type, "of": r.what, "shape": list(r.shape), "by": r.made,
                     "error": r.error, "verdict": r.verdict} for r in rows
                ],
            }
        )  # fmt: skip
    else:
        cells = [("layer", "type", "gradient of", "shape", "by", "error", "verdict")]
        for r in rows:
            error = "" if r.verdict == "none" else f"{r.error:.1e}"
            cells.append((r.layer, r.type, r.what, " ".join(map(str, r.shape)), r.made, error, r.verdict))
        if rows:
            print("\n".join(table(cells, right=(5,))))
        passed = [r for r in rows if r.verdict != "none"]
        layers = len({r.layer for r in passed})
        verdict = f"{len(wrong)} wrong" if wrong else "all right"
        count = f"{len(passed)} gradient{'s' if len(passed) != 1 else ''} of {layers} layer{'s' if layers != 1 else ''}"
        print(f"{count}, float64 on {args.device}: {verdict}")
    for r in wrong:
        what = "is not finite" if r.verdict == "not finite" else f"is wrong: relative error {r.error:.1e}"
        print(f"{r.where}: {r.layer} ({r.type}): the gradient of {r.what}, {r.made}, {what}", file=sys.stderr)
    return WRONG_EXIT if wrong else 0
