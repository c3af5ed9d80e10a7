"""``netrun explain``."""

from __future__ import annotations

import argparse

from ..config.explain import explain


def run(args: argparse.Namespace) -> int:
    """Print what a name of the schema means; returns the exit code."""
    print(explain(args.name))
    return 0
