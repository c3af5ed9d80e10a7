"""``netrun summary``."""

from __future__ import annotations

import argparse

from ..compiler.summary import summarize
from . import results
from .files import open_graph


def run(args: argparse.Namespace) -> int:
    """Print the table of layers; returns the exit code."""
    graph, _ = open_graph(args)
    found = summarize(graph)
    if args.json:
        results.print_json(found.as_json())
    else:
        print(found)
    return 0
