"""``netrun expand``: the plain prototxt that a config in the config language stands for."""

from __future__ import annotations

import argparse
import os

from ..config.files import replacing
from ..config.text import write
from ..errors import UsageError
from .files import read_any


def run(args: argparse.Namespace) -> int:
    """Write it, to stdout or to a file; returns the exit code.

    Raises:
        UsageError: the file to write is there already and --force is not given, or it cannot be written.
        ConfigError: the config is wrong.
    """
    out = args.out
    if out and os.path.isdir(out):
        raise UsageError(f"{out} is a folder, the name of a file is wanted")
    if out and os.path.exists(out) and not args.force:
        raise UsageError(f"{out} is there already", None, ["--force replaces it"])
    message, _ = read_any(args.file, args.lenient, upgraded=False)
    text = write(message)
    if not out:
        print(text, end="")
        return 0
    try:
        with replacing(out) as stream:
            stream.write(text.encode())
    except OSError as problem:
        raise UsageError(f"{out} cannot be written: {problem.strerror or problem}") from None
    print(out)
    return 0
