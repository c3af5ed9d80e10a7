"""Choices that the environment makes."""

from __future__ import annotations

import os

from netrun.errors import UsageError, nearest

VARIABLES = tuple(f"NETRUN_CUDA_{name}" for name in ("ADD", "CACHE", "CTC", "DEBUG", "GEMM", "RNN", "TUNE"))
"""The variables that a device reads when it is opened."""


def chosen(variable: str, *known: str) -> str:
    """What a variable of the environment says; the first of ``known`` where it says nothing.

    Raises:
        UsageError: it says something else.
    """
    value = os.environ.get(variable, "") or known[0]
    if value not in known:
        hint = nearest(value, known)
        raise UsageError(f'{variable} in the environment is "{value}"{hint} (known: {", ".join(known)})')
    return value
