"""``netrun draw``."""

from __future__ import annotations

import argparse
import os

from ..config import schema
from ..draw import draw
from ..errors import UsageError
from ..solver_nets import check_counts, net_to_train
from .files import phase_of, read_any


def run(args: argparse.Namespace) -> int:
    """Write a net's picture and print the name of the file; returns the exit code."""
    message, source = read_any(args.file, args.lenient)
    if isinstance(message, schema.SolverParameter):
        check_counts(message, source)
        message = net_to_train(message, source, source.folder).message
    out = args.out or os.path.splitext(os.path.basename(args.file))[0] + ".svg"
    kind = os.path.splitext(out)[1].lstrip(".").lower()
    phase = phase_of(args.phase) if args.phase else None
    made = draw(message, kind or "svg", args.rankdir.upper(), phase)
    try:
        with open(out, "wb") as stream:
            stream.write(made)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror or error}") from None
    print(out)
    return 0
