"""What the stand-ins for NVIDIA's libraries share: C functions made of methods, memory as arrays, 16 bits."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np


def memory(pointer: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: Any) -> Any:
    """Device memory as an array; strides count elements."""
    kind = np.dtype(dtype)
    extent = sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + 1
    raw = (ctypes.c_char * (extent * kind.itemsize)).from_address(pointer)
    flat = np.frombuffer(raw, kind)
    return np.lib.stride_tricks.as_strided(flat, shape, tuple(s * kind.itemsize for s in strides))


class Function:
    """A C function: takes argtypes as ctypes' functions do."""

    def __init__(self, body: Callable[..., int]) -> None:
        self.body, self.argtypes, self.restype = body, None, ctypes.c_int

    def __call__(self, *args: Any) -> int:
        wanted: Any = self.argtypes
        name = self.body.__name__
        assert wanted is not None or not args, f"{name} has no argument types: ctypes would pass addresses as 32 bits"
        wanted = wanted or ()
        assert len(wanted) == len(args), f"{name}: {len(args)} arguments"
        for kind, arg in zip(wanted, args, strict=True):
            kind.from_param(arg)  # a number of NumPy is no int for ctypes
            assert kind is not ctypes.c_int or -(2**31) <= arg < 2**31, f"{name}: {arg} is cut off"
        return self.body(*args)


class Library:
    """Methods of a subclass named like C functions become functions with argtypes."""

    def __init__(self) -> None:
        for name in dir(type(self)):
            if name.startswith(("cudnn", "cublas")):
                setattr(self, name, Function(getattr(self, name)))


def quiet(run: Callable[[], None]) -> Callable[[], None]:
    """A GPU warns of no overflow."""

    def quiet() -> None:
        with np.errstate(all="ignore"):
            run()

    return quiet


def wide_of(values: Any, wide: Any) -> Any:
    """Values to compute with; uint16 holds bfloat16, which NumPy does not have."""
    if values.dtype != np.uint16:
        return values.astype(wide)
    return (np.ascontiguousarray(values).astype(np.uint32) << 16).view(np.float32)


def bits_of(values: Any) -> Any:
    """float32 as the bits of bfloat16, rounded to nearest even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
