"""``netrun upgrade``: nets, solvers and .caffemodel files of any age in the current form."""

from __future__ import annotations

import argparse
import os

from ..config import schema
from ..config.files import replacing
from ..config.text import write
from ..config.weights import upgrade_weights
from ..errors import UsageError
from . import results
from .files import read_any


def run(args: argparse.Namespace) -> int:
    """Write the file ``new`` from ``old`` and say what was changed; returns the exit code.

    Raises:
        UsageError: ``new`` is there already and --force is not given, or cannot be written.
        ConfigError, WeightsError: ``old`` is wrong, or damaged.
    """
    old, new = args.old, args.new
    if os.path.isdir(new):
        raise UsageError(f"{new} is a folder, the name of a file is wanted")
    if os.path.exists(new) and not args.force:
        raise UsageError(f"{new} is there already", None, ["--force replaces it"])
    if _is_binary(old):
        kind, notices = "weights", upgrade_weights(old, new)
    else:
        message, source = read_any(old, args.lenient)
        kind = "solver" if isinstance(message, schema.SolverParameter) else "net"
        notices = source.notices
        try:
            with replacing(new) as stream:
                stream.write(write(message).encode())
        except OSError as problem:
            raise UsageError(f"{new} cannot be written: {problem.strerror or problem}") from None
    if args.json:
        results.print_json({"old": old, "new": new, "kind": kind, "changes": notices})
        return 0
    for notice in notices:
        print(notice)
    changed = "upgraded" if notices else "was in the current form already, written again"
    print(f"{new}: {kind} {changed}")
    return 0


def _is_binary(path: str) -> bool:
    """Whether a file holds anything but text."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(4096)
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}") from None
    except OSError as problem:
        raise UsageError(f"{path} cannot be read: {problem.strerror or problem}") from None
    return any(byte < 32 and byte not in b"\t\n\r\f\v" for byte in head)
