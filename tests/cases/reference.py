"""Rows of kernels as the reference computes them in float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from netrun.cpu.reference import Reference
from netrun.types import Spec

from . import KernelCase
from .kernels import KERNELS

K = Reference("float64")


def rows(*ops: str) -> list[KernelCase]:
    """The rows of these kernels."""
    return [case for case in KERNELS if case.op in ops]


def run(case: KernelCase) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments after the reference has run in float64, and the attributes."""
    given, attrs = case.build("float64")

    def memory(argument: Any) -> Any:
        if isinstance(argument, Spec):
            return K.temp("out", argument.shape, argument.dtype)
        return tuple(memory(a) for a in argument) if isinstance(argument, tuple) else argument

    args = tuple(memory(a) for a in given)
    getattr(K, case.op)(*args, **attrs)
    return args, dict(attrs)


def normal(rng: np.random.Generator, *shape: int) -> Any:
    """Draws of the normal distribution."""
    return rng.standard_normal(shape)


def inner(a: Any, b: Any) -> float:
    """The sum of the products of their elements."""
    return float(np.vdot(a, b))
