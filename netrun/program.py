"""A program: a flat list of calls on named tensors, and the recorder that makes one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .errors import printable
from .kernels import OPS, Kernels, Op
from .types import PERSISTENT, STRICT, Kind, Numerics, Shape, Spec, Tensor

Arg = Tensor | None | tuple[Tensor, ...]


FORWARD, BACKWARD, UPDATE = "", "'", "*"
"""What a call is a part of, as it is printed behind the layer's name."""


@dataclass(frozen=True)
class Origin:
    """For whom a call is made. Any text may be the name of a layer, so nothing is read out of one.

    Printed as the name and the way: "conv1", its backward "conv1'", an update "conv1*".

    Attributes:
        name: what people see.
        key: that of the layer, which no other layer of the net has; None for what belongs to no layer.
        way: FORWARD, BACKWARD or UPDATE.
    """

    name: str = ""
    key: str | None = None
    way: str = FORWARD

    @property
    def forward(self) -> Origin:
        """The forward pass of the same layer: what stands for the layer itself."""
        return self if self.way == FORWARD else Origin(self.name, self.key)

    @property
    def backward(self) -> Origin:
        """Its backward pass."""
        return self if self.way == BACKWARD else Origin(self.name, self.key, BACKWARD)

    @property
    def update(self) -> Origin:
        """The update of its parameters."""
        return self if self.way == UPDATE else Origin(self.name, self.key, UPDATE)

    @property
    def is_backward(self) -> bool:
        """Whether it is a backward pass."""
        return self.way == BACKWARD

    def __str__(self) -> str:
        return printable(self.name) + self.way


LOSS = Origin("(loss)")
"""The calls that add up the total loss, and backward's first ones."""
SOLVER = Origin("(solver)", way=UPDATE)
"""What an update does for all parameters together."""


@dataclass(frozen=True, eq=False)
class Call:
    """One kernel on its tensors, and for whom."""

    op: Op
    args: tuple[Arg, ...]
    attrs: Mapping[str, Any]
    origin: Origin = Origin()

    def reads(self) -> list[Tensor]:
        """Tensors whose value matters to the call, as given (views stay views)."""
        return self._with("r")

    def writes(self) -> list[Tensor]:
        """Tensors whose value the call makes."""
        return self._with("w")

    def tensors(self) -> list[Tensor]:
        """All of them, in order."""
        return [t for arg in self.args for t in _flat(arg)]

    def _with(self, mark: str) -> list[Tensor]:
        pairs = zip(self.op.arguments, self.args, strict=True)
        return [t for argument, arg in pairs if mark in argument.role for t in _flat(arg)]

    def argument(self, name: str) -> Arg:
        """The argument of that name in the kernel's signature."""
        return self.args[[a.name for a in self.op.arguments].index(name)]

    def map(self, change: Callable[[Tensor], Tensor]) -> Call:
        """The same call on other tensors."""
        return replace(self, args=tuple(_map(arg, change) for arg in self.args))

    def __str__(self) -> str:
        outs: list[str] = []
        ins: list[str] = []
        for argument, arg in zip(self.op.arguments, self.args, strict=True):
            text = "(" + " ".join(map(repr, arg)) + ")" if isinstance(arg, tuple) else repr(arg)
            if arg is not None:
                (outs if "w" in argument.role else ins).append(text)
        attrs = " ".join(f"{k}={_attribute(v)}" for k, v in self.attrs.items())
        return " ".join([*outs, "<-", self.op.name, *ins, *(["|", attrs] if attrs else [])])


def _attribute(value: Any) -> str:
    if isinstance(value, tuple):
        return "(" + ",".join(map(str, value)) + ")"
    text = str(value)
    return f'"{text}"' if " " in text else text


def _flat(arg: Arg) -> Iterator[Tensor]:
    if isinstance(arg, tuple):
        yield from arg
    elif arg is not None:
        yield arg


def _map(arg: Arg, change: Callable[[Tensor], Tensor]) -> Arg:
    if isinstance(arg, tuple):
        return tuple(change(t) for t in arg)
    return None if arg is None else change(arg)


@dataclass(frozen=True)
class Home:
    """Where a device has a kept tensor: in ``tensor``, of another element type, or of another order of axes.

    ``axes``: its axes in the order of those of the kept tensor; none where the order is the same.
    """

    tensor: Tensor
    axes: Shape = ()


@dataclass(frozen=True)
class Program:
    """Calls in order.

    ``feeds``: what the host writes before a run, by blob name. ``keeps``: what may be read after it; the memory of
    everything else is the planner's to reuse. ``initial``: values that persistent tensors start with; others are zero.
    ``apart``: kept tensors that have memory of their own, even where they are copies of others. ``numerics``: what the
    device that prepares it may compute and store in. ``visible``: kept tensors that somebody may read and write
    between the calls of one layer and those of the next, which may run alone; a device may have them in a form of its
    own, and then says in ``homes`` where. ``scales``: those that hold a multiple of what is seen, and the number.
    ``flats``: tensors in which others lie side by side (compiler/together.py), and these.
    ``batch``: how many samples a run takes; 0 where nobody knows.
    """

    calls: tuple[Call, ...]
    feeds: Mapping[str, Tensor] = field(default_factory=dict)
    keeps: frozenset[Tensor] = frozenset()
    initial: Mapping[Tensor, Any] = field(default_factory=dict)
    apart: frozenset[Tensor] = frozenset()
    numerics: Numerics = STRICT
    visible: frozenset[Tensor] = frozenset()
    homes: Mapping[Tensor, Home] = field(default_factory=dict)
    scales: Mapping[Tensor, Tensor] = field(default_factory=dict)
    batch: int = 0
    flats: Mapping[Tensor, tuple[Tensor, ...]] = field(default_factory=dict)

    def tensors(self) -> list[Tensor]:
        """Every tensor that owns memory, in order of first use."""
        seen = dict.fromkeys(self.feeds.values())
        seen.update(dict.fromkeys(t.root for call in self.calls for t in call.tensors()))
        return list(seen)

    def persistent(self) -> list[Tensor]:
        """The tensors whose values outlive a run; of those that lie side by side each."""
        every = dict.fromkeys(m for t in self.tensors() for m in self.flats.get(t, (t,)))
        return [t for t in every if t.kind in PERSISTENT or t in self.keeps]

    def having(self, calls: Iterable[Call]) -> Program:
        """The same program with other calls."""
        return replace(self, calls=tuple(calls))

    def housed(self, homes: Mapping[Tensor, Home]) -> Program:
        """The same program with kept tensors (those among the keys that are) in homes."""
        found = {t: home for t, home in homes.items() if t in self.keeps}
        older = {t: replace(h, tensor=found.pop(h.tensor).tensor) if h.tensor in found else h
                 for t, h in self.homes.items()}  # fmt: skip
        moved = {t: homes[t].tensor for t in self.keeps if t in homes}
        keeps, visible = (frozenset(moved.get(t, t) for t in s) for s in (self.keeps, self.visible))
        return replace(self, keeps=keeps, visible=visible, homes={**older, **found})

    def __str__(self) -> str:
        origins = [str(c.origin) for c in self.calls]
        width = max(map(len, origins), default=0)
        return "\n".join(f"{i:4d}  {o:<{width}}  {c}" for i, (o, c) in enumerate(zip(origins, self.calls, strict=True)))


RESERVED = ("clock", "lr", "correction", "first pass", "(loss).scale", "(solver).loss scale", "(solver).scale since")
"""Names of tensors that a net or a solver has once, and that no blob can have: their memory is found by their names."""


class Recorder(Kernels):
    """Writes down what a layer's ``forward`` (or a gradient rule) calls instead of doing it."""

    def __init__(self, dtype: str = "float32") -> None:
        self.calls: list[Call] = []
        self.origin = Origin()
        self.dtype = dtype
        self._names: dict[str, int] = dict.fromkeys(RESERVED, 1)

    def reserve(self, name: str) -> None:
        """Let no tensor that comes later have that name: it is that of one that is made elsewhere."""
        self._names[name] = max(self._names.get(name, 0), 1)

    def new(self, name: str, spec: Spec, kind: Kind) -> Tensor:
        """A tensor with a name of its own: a second "x" is called "x@2"."""
        count = self._names[name] = self._names.get(name, 0) + 1
        full = name if count == 1 else f"{name}@{count}"
        if count > 1 and full in self._names:  # somebody asked for that very name: the body of a loop in a loop
            return self.new(name, spec, kind)
        if count > 1:
            self._names[full] = 1
        return Tensor(full, spec, kind)

    def view(self, x: Any, shape: Sequence[int]) -> Any:
        return x.view(shape)

    def temp(self, name: str, shape: Sequence[int], dtype: str = "float32") -> Tensor:
        actual = self.dtype if dtype == "float32" else dtype
        return self.new(f"{self.origin.name}{self.origin.way}.{name}", Spec(tuple(shape), actual), "buffer")


def _recording(op: Op) -> Callable[..., None]:
    def method(self: Recorder, *args: Any, **attrs: Any) -> None:
        if len(args) != len(op.arguments) or set(attrs) != set(op.attributes):
            raise TypeError(f"{op.name}: got {len(args)} tensors and {sorted(attrs)}, wanted {op}")
        given = tuple(tuple(a) if isinstance(a, (list, tuple)) else a for a in args)
        self.calls.append(Call(op, given, attrs, self.origin))

    method.__name__ = op.name
    return method


for _op in OPS.values():
    setattr(Recorder, _op.name, _recording(_op))

__all__ = [
    "BACKWARD",
    "FORWARD",
    "LOSS",
    "SOLVER",
    "UPDATE",
    "Arg",
    "Call",
    "Home",
    "Origin",
    "Program",
    "Recorder",
    "Shape",
]
