"""The flags that say how weights meet a net: --strict, --rename, --reinit."""

from __future__ import annotations

import argparse

from ..config import schema


def loading(args: argparse.Namespace) -> schema.LoadParameter:
    """What the flags say, as the message that a solver has for it."""
    message = schema.LoadParameter(rename=args.rename)
    message.reinit.extend(name.strip() for entry in args.reinit for name in entry.split(",") if name.strip())
    if args.strict:
        message.strict = True
    return message
