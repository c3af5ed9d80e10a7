"""Functions that a script has called before and after each layer of a pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..blob import TypeMismatchError

Callback = Callable[[int], Any]
"""Takes the number of a layer."""


class Callbacks:
    """What one net calls, by when: "before_forward", "after_forward", "before_backward", "after_backward"."""

    def __init__(self) -> None:
        self._known: dict[str, list[Callback]] = {}

    def add(self, when: str, callback: Callback) -> None:
        """Call this one too.

        Raises:
            TypeMismatchError: it cannot be called.
        """
        if not callable(callback):
            raise TypeMismatchError(f"{when} wants a function of a layer's number, got {type(callback).__name__}")
        self._known.setdefault(when, []).append(callback)

    def listen(self, way: str) -> bool:
        """Whether anybody wants to know of the layers of a pass, "forward" or "backward"."""
        return f"before_{way}" in self._known or f"after_{way}" in self._known

    def around(self, way: str, layers: Iterable[int], run: Callable[[int], None]) -> None:
        """Run layer after layer, each between the callbacks."""
        for number in layers:
            for callback in self._known.get(f"before_{way}", ()):
                callback(number)
            run(number)
            for callback in self._known.get(f"after_{way}", ()):
                callback(number)


__all__ = ["Callback", "Callbacks"]
