"""What a layer that holds a net of its own (a loop's body, a branch) gets from the compiler: the net as calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..config import schema
from ..program import Call
from ..types import Spec, Tensor
from .base import Layer
from .context import Declared

Path = tuple[str | int, ...]


@dataclass
class Loss:
    """A top of the body that counts in the total loss."""

    blob: str
    tensor: Tensor
    weight: float


@dataclass
class Body:
    """A net inside a layer, recorded once.

    Attributes:
        calls: its forward pass on placeholder tensors.
        inputs: the placeholders of what it is given, by blob name.
        blobs: the placeholder of the last version of every blob, the given ones included.
        parameters: every parameter blob, sharers included, in the order of the body's layers.
        constants: what its layers hold besides (a matrix read from a file), with the placeholder.
        losses: its tops with a loss weight.
        clock: the placeholder of the number of the forward pass.
        layers: its layers by their position, for what they carry on in Python.
    """

    calls: list[Call] = field(default_factory=list)
    inputs: dict[str, Tensor] = field(default_factory=dict)
    blobs: dict[str, Tensor] = field(default_factory=dict)
    parameters: list[Inner] = field(default_factory=list)
    constants: list[tuple[Declared, Tensor]] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    clock: Tensor = field(default_factory=lambda: Tensor("clock", Spec((), "int64"), "control"))
    layers: dict[int, Layer] = field(default_factory=dict)

    def declare(self, owner: Layer) -> None:
        """Let the layer around own the parameters and constants of the body."""
        for parameter in self.parameters:
            owner.declared.append(parameter.declared)
        for declared, _ in self.constants:
            owner.declared.append(declared)

    def bound(self, owner: Layer) -> dict[Tensor, Any]:
        """What the layer around was given in place of the placeholders of parameters and constants, and its clock."""
        found: dict[Tensor, Any] = {self.clock: owner.clock}
        for parameter in self.parameters:
            if parameter.placeholder is not None:
                found[parameter.placeholder] = getattr(owner, parameter.declared.name)
        for declared, placeholder in self.constants:
            found[placeholder] = getattr(owner, declared.name)
        return found

    def close(self) -> None:
        """Let go of what the layers hold open."""
        for layer in self.layers.values():
            layer.close()


@dataclass
class Inner:
    """A parameter blob of a layer in a body. ``placeholder`` is set on owners alone."""

    declared: Declared
    message: schema.ParamSpec
    at: Path
    placeholder: Tensor | None = None


@dataclass(frozen=True)
class Given:
    """A blob that a body is given: its spec, and words that say where it comes from."""

    spec: Spec
    origin: str


Build = Callable[[Path, Mapping[str, Given], "Body | None"], Body]
"""Builds the layers that stand at a path of the layer's message, from what they are given and, for what the layers
carry on, the body of an earlier compilation. Raises ConfigError with every problem."""


__all__ = ["Body", "Build", "Given", "Inner", "Loss", "Path"]
