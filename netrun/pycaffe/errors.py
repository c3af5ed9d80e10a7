"""Errors that pycaffe's scripts catch as RuntimeError, ValueError or KeyError: they are that, and netrun's too."""

from __future__ import annotations

import operator
import os
from typing import Any

from ..blob import TypeMismatchError
from ..errors import DataError, NetrunError, UsageError
from ..layers.python_class import UserLayer


class MissingFileError(UsageError, RuntimeError):
    """A file that a script names is not there."""


class MissingImageError(MissingFileError, FileNotFoundError):
    """An image file that a script names is not there."""

    def __str__(self) -> str:
        return str(self.args[0])


class ArgumentMismatchError(UsageError, ValueError, KeyError):
    """Arrays are given for other blobs than the net's inputs or outputs."""

    def __str__(self) -> str:
        return str(self.args[0])


class InputArraysError(DataError, RuntimeError):
    """The arrays for a MemoryData layer do not fit it."""


class MemoryDataWantedError(UsageError, RuntimeError):
    """Arrays can only be handed over, as float32, to a net that begins with a MemoryData layer."""


class their_own:  # noqa: N801 - a class, for a generator takes longer than all else here
    """What a user's layer raises comes out as it is, with the traceback to the user's file."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        cause = error.__cause__ if isinstance(error, NetrunError) else None
        if not isinstance(cause, Exception) or isinstance(cause, NetrunError):
            return
        at = cause.__traceback__
        while at is not None:
            if at.tb_frame.f_code is UserLayer.call.__code__:
                raise cause from None
            at = at.tb_next


def existing(path: Any) -> str:
    """The name of a file that is there.

    Raises:
        MissingFileError: it is not. TypeMismatchError: it is no name.
    """
    name = named(path)
    if not os.path.isfile(name):
        raise MissingFileError(f"Could not open file {name}")
    return name


def whole(value: Any, what: str) -> int:
    """``value`` as a whole number.

    Raises:
        TypeMismatchError: it is none.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise TypeMismatchError(f"{what} is a whole number, got {value!r}") from None


def named(path: Any) -> str:
    """The name of a file to write.

    Raises:
        TypeMismatchError: it is no name.
    """
    try:
        return os.fsdecode(path)
    except TypeError:
        raise TypeMismatchError(f"the name of a file is wanted, got {type(path).__name__}") from None


__all__ = [
    "ArgumentMismatchError",
    "InputArraysError",
    "MemoryDataWantedError",
    "MissingFileError",
    "MissingImageError",
    "existing",
    "named",
    "their_own",
    "whole",
]
