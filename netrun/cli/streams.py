"""Stdout and stderr as a command can rely on them, whatever the shell made of them."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO, cast


class Lasting(io.TextIOBase):
    """Writes to a stream for as long as that takes it; then, and for good, to nothing.

    A log on a full disk, in a closed terminal or for a reader that went away is no reason to lose a training.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    def write(self, text: str) -> int:
        """Take the text, written or not."""
        with self._given_up():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Bring to the stream what it holds back."""
        with self._given_up():
            self._stream.flush()

    def isatty(self) -> bool:
        """Whether somebody watches."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """The stream's own."""
        return self._stream.fileno()

    @contextlib.contextmanager
    def _given_up(self) -> Iterator[None]:
        try:
            yield
        except OSError:  # the same number leads nowhere now, so that the interpreter's last flush does not fail either
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())


@contextlib.contextmanager
def lasting() -> Iterator[None]:
    """What is closed leads nowhere, and a stderr that fails is no error.

    A file opened later would get the number of a closed stream, and whatever a C library complains of.
    """
    before = sys.stdout, sys.stderr
    with contextlib.ExitStack() as nowhere:
        if sys.stdout is None:
            sys.stdout = nowhere.enter_context(open(os.devnull, "w"))
        if sys.stderr is None:
            sys.stderr = nowhere.enter_context(open(os.devnull, "w"))
        sys.stderr = cast("TextIO", Lasting(sys.stderr))
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before


__all__ = ["Lasting", "lasting"]
