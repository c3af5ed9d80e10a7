"""``netrun explain``."""

from __future__ import annotations

import argparse
import inspect
from textwrap import indent

from ..config.explain import explain
from ..layers import Layer


def run(args: argparse.Namespace) -> int:
    """Print what a name of the schema, or a layer type, means; returns the exit code."""
    name = args.name.strip()
    kind = Layer.registry.get(name)
    if kind is None:
        print(explain(name))
        return 0
    print(name)
    print(indent(inspect.cleandoc(kind.__doc__ or ""), "    "))
    if kind.param:
        print(f"\n    {kind.param} {{ ... }} in the layer holds what follows.\n")
        print(explain(f"LayerParameter.{kind.param}").partition("\n\n")[2])
    return 0
