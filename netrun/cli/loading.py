"""Weights as commands bring them into a net: --weights, and --strict, --rename, --reinit that say how."""

from __future__ import annotations

import argparse
from dataclasses import replace

from ..compiler.record import Recording
from ..config import schema
from ..log import Log
from ..params import LoadOptions, load
from ..session import Memory


def loading(args: argparse.Namespace) -> schema.LoadParameter:
    """What the flags say, as the message that a solver has for it."""
    message = schema.LoadParameter(rename=args.rename)
    message.reinit.extend(name.strip() for entry in args.reinit for name in entry.split(",") if name.strip())
    if args.strict:
        message.strict = True
    return message


def load_weights(recording: Recording, memory: Memory, args: argparse.Namespace, log: Log) -> None:
    """Load the files of --weights one after the other, and log what became of every layer.

    Raises:
        UsageError: a file is not there, a flag names a layer that is not there. WeightsError: a file does not fit.
    """
    names = [name.strip() for name in args.weights.split(",")]
    options = replace(LoadOptions.of(loading(args)), partial=len(names) > 1)
    for name in names:
        for line in load(recording, memory, name, options).lines():
            log(line, "net.cpp:744")
