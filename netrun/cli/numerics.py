"""``--precision``, ``--deterministic`` and ``--recompute``: fields of a net or a solver, said on the command line."""

from __future__ import annotations

import argparse

from ..config import schema


def apply(message: schema.NetParameter | schema.SolverParameter, args: argparse.Namespace) -> None:
    """Write what the flags say into the message, in the place of what it says itself."""
    if args.precision:
        message.precision = args.precision  # a name, which becomes its number
    if args.deterministic:
        message.deterministic = True
    if isinstance(message, schema.SolverParameter) and getattr(args, "recompute", False):
        message.recompute = True
