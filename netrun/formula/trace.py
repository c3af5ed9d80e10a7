"""What ``forward(k, x, w)`` of a Python layer is given: arrays that write down what is done with them.

``k`` has every function of functions.py (``k.softmax(x, axis=1)`` gives a new array) and every kernel of
netrun/kernels.py, which is told where to write (``k.softmax(x, y, axis=1)`` with ``y = k.temp("y", x.shape)``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import nearest
from ..kernels import CHANGES, OPS, Kernels
from .array import Array, FormulaError, Written, words
from .build import Builder
from .functions import FUNCTIONS, apply
from .rules import RULES, check

_CHANGES = "it changes what the layer is given; a layer class of a package (entry point netrun.layers) does that"
_ADJOINT = "it belongs to a gradient, and gradients are derived: call the kernel it is the adjoint of"
REFUSED: Mapping[str, str] = {
    **{name: _ADJOINT for name in OPS if "grad" in name and name not in RULES},
    "host": "it is a step in Python that no device but the host has; a class with backward does that",
    **dict.fromkeys(CHANGES, _CHANGES),
    "merge_rows": _ADJOINT,
    "random": "its counter is the net's; put a Dropout or DummyData layer before this one",
}
"""Kernels that a forward of this kind cannot call, and why."""


class Vocabulary:
    """The ``k`` of a forward."""

    def __init__(self, build: Builder) -> None:
        self._build = build
        self._temps = 0

    def temp(self, name: str, shape: Sequence[Any], dtype: str = "float32") -> Array:
        """Memory that a kernel call writes."""
        self._temps += 1
        sizes = tuple(self._build.whole(n, "a size") for n in shape)
        actual = self._build.dtype if dtype == "float32" else np.dtype(dtype).name
        return self._build.make("temp", (), (name, self._temps), sizes, actual)

    def view(self, x: Any, shape: Sequence[Any]) -> Array:
        """The same elements under another shape."""
        return self._build.reshape(x, shape)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__") or (name not in FUNCTIONS and name not in OPS):
            raise AttributeError(f"k has no function or kernel {name!r}{nearest(name, [*FUNCTIONS, *OPS])}")

        def run(*args: Any, **attrs: Any) -> Any:
            if name in OPS and (name not in FUNCTIONS or self._writes(name, args)):
                return self._kernel(name, args, attrs)
            return apply(self._build, name, args, attrs)

        return run

    def __dir__(self) -> list[str]:
        return sorted({"temp", "view", *FUNCTIONS, *OPS} - set(REFUSED))

    def _writes(self, name: str, args: Sequence[Any]) -> bool:
        """Whether these are the arguments of the kernel: as many, with memory where it writes."""
        op = OPS[name]
        if len(args) != len(op.arguments):
            return False
        outs = [arg for argument, arg in zip(op.arguments, args, strict=True) if "w" in argument.role]
        return all(_temp(part) is not None for out in outs for part in _flat(out))

    def _kernel(self, name: str, args: Sequence[Any], attrs: Mapping[str, Any]) -> None:
        op = OPS[name]
        if name in REFUSED:
            raise FormulaError(f"k.{name} cannot be called here: {REFUSED[name]}")
        wanted = ", ".join([*(a.name for a in op.arguments), *(f"{a}=" for a in op.attributes)])
        if len(args) != len(op.arguments) or set(attrs) != set(op.attributes):
            raise FormulaError(f"k.{name} wants ({wanted})", [_first(getattr(Kernels, name).__doc__)])
        given: list[Any] = []
        for argument, arg in zip(op.arguments, args, strict=True):
            if arg is None and argument.maybe:
                given.append(None)
                continue
            if "w" in argument.role:
                for out in _flat(arg):
                    temp = _temp(out)
                    if temp is None:
                        raise FormulaError(f'k.{name} writes {argument.name}: that has to be a k.temp("name", shape)')
                    if id(temp) in self._build.written:
                        raise FormulaError(f'k.{name}: the temp "{temp.attrs[0]}" is written already')
                found = tuple(_flat(arg))
            else:
                found = tuple(self._build.array(a) for a in _flat(arg))
            given.append(found if argument.many else found[0])
        check(name, given, attrs)
        call = Written(name, tuple(given), dict(attrs))
        for argument, arg in zip(op.arguments, given, strict=True):
            if "w" in argument.role:
                for out in _flat(arg):
                    temp = _temp(out)
                    assert temp is not None
                    self._build.written[id(temp)] = call


def _flat(arg: Any) -> Sequence[Any]:
    return list(arg) if isinstance(arg, (tuple, list)) else [arg]


def _temp(x: Any) -> Array | None:
    """The temp that an array is, or is a view of."""
    while isinstance(x, Array) and x.op == "view":
        x = x.args[0]
    return x if isinstance(x, Array) and x.op == "temp" else None


def _first(text: str | None) -> str:
    return (text or "").strip().split("\n")[0]


class Weights:
    """The ``w`` of a forward: a learned weight is an attribute."""

    def __init__(self, weights: Mapping[str, Array]) -> None:
        self.__dict__.update(weights)

    def __getattr__(self, name: str) -> Array:
        if name.startswith("__"):
            raise AttributeError(name)
        known = ", ".join(f"{n} ({words(a.shape)})" for n, a in self.__dict__.items()) or "none"
        raise FormulaError(f'no weight "{name}"{nearest(name, self.__dict__)}', [f"declared by weights(): {known}"])

    def __getitem__(self, name: str) -> Array:
        found: Array = getattr(self, name)
        return found


__all__ = ["Vocabulary", "Weights"]
