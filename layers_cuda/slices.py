"""Concat without copying: its parts are written and read where they lie, in the joined tensor.

Where every part of a concat is made by one call that can write into a larger tensor, and nobody else reads the part in
the forward pass, the concat goes: each call gets the whole tensor as its result, and says which channels are its own.
In backward a part of the whole is read in the same way, be it a result that the gradient of a ReLU needs or the
gradient of a branch; what cannot read so gets the part cut out. So several calls write one tensor, which only this
device does, after all other changes to a program.

A convolution says so by the attribute ``begin``, the first of its channels (of y, or dy); pooling and pointwise by
``cut``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from netrun.kernels import OPS
from netrun.program import Call, Origin, Program
from netrun.types import PERSISTENT, Tensor

from .geometry import Cut
from .pool import whole_planes

WRITES = {"conv": "y", "pool_max": "y", "pool_avg": "y", "pointwise": "y"}
"""Kernels that can write into a part of a larger tensor, and the argument."""

READS = {
    "conv_grad_x": "dy", "conv_grad_w": "dy", "pool_max_grad": "dy", "pool_avg_grad": "dy", "pointwise": "xs",
}  # fmt: skip
"""Kernels that can read a part of one."""


@dataclass(frozen=True)
class _Part:
    """Where a tensor lies: from ``begin`` on along ``axis`` of ``whole``. ``read``: by all who read it."""

    whole: Tensor
    axis: int
    begin: int
    read: bool


def joined(program: Program, takes: Callable[[Call], bool]) -> Program:
    """The program with the concats left out that need not be, and parts of tensors read in place.

    Args:
        takes: whether the device runs a convolution with the attribute ``begin``.
    """
    return _Joining(program, takes).run()


class _Joining:
    def __init__(self, program: Program, takes: Callable[[Call], bool]) -> None:
        self.program, self._takes = program, takes
        self._makers: dict[Tensor, Call] = {}
        self._readers: dict[Tensor, list[Call]] = {}
        for call in program.calls:
            if call.op.name in WRITES:
                self._makers[call.writes()[0]] = call
            for t in dict.fromkeys(t.root for t in call.reads()):
                self._readers.setdefault(t, []).append(call)
        self._written: dict[Call, Call] = {}
        """Calls that write into a part, as they do."""
        self._parts: dict[Tensor, _Part] = {}
        self._gone: set[Call] = set()

    def run(self) -> Program:
        for call in self.program.calls:
            if call.op.name == "concat":
                self._concat(call)
        for call in self.program.calls:
            if call.op.name == "slice":
                self._slice(call)
        if not self._gone:
            return self.program
        cut_out: dict[Tensor, Tensor] = {}
        calls: list[Call] = []

        def place(t: Tensor, origin: Origin) -> Tensor:
            part = self._parts.get(t.root)
            if part is None:
                return t
            if t.root not in cut_out:
                cut_out[t.root] = Tensor(t.root.name, t.root.spec, t.root.kind)
                begin = tuple(part.begin if i == part.axis else 0 for i in range(len(t.root.shape)))
                calls.append(Call(OPS["slice"], (part.whole, cut_out[t.root]), {"begin": begin}, origin))
            return cut_out[t.root].view(t.shape)

        for call in self.program.calls:
            if call in self._gone:
                continue
            made = self._written.get(call) or self._reading(call)
            placed = {t: place(t, call.origin) for t in made.tensors()}  # cuts out what it needs, in front of it
            calls.append(made.map(placed.__getitem__))
        return self.program.having(calls)

    # ------------------------------------------------------------------------------------------------- what can go
    def _concat(self, call: Call) -> None:
        xs, y = call.args
        assert isinstance(xs, tuple)
        assert isinstance(y, Tensor)
        axis, at = call.attrs["axis"] % len(y.shape), 0
        if y.base is not None or y.kind in PERSISTENT or len(set(xs)) < len(xs):
            return
        found: list[tuple[Tensor, Call, _Part]] = []
        for x in xs:
            maker = self._makers.get(x)
            if maker is None or x in self.program.keeps or x.kind in PERSISTENT or x.dtype != y.dtype:
                return
            others = [c for c in self._readers[x] if c is not call]
            read = all(self._reads_part(c, x, axis) for c in others)
            part = _Part(y, axis, at, read)
            made = self._with(maker, {x: part})
            if any(not c.origin.is_backward for c in others) or not self._writes_part(maker, made, part):
                return
            found.append((x, made, part))
            at += x.shape[axis]
        self._gone.add(call)
        for x, made, part in found:
            self._written[self._makers[x]] = made
            self._parts[x] = part

    def _slice(self, call: Call) -> None:
        x, y = call.tensors()
        axes = [i for i, (n, m) in enumerate(zip(x.shape, y.shape, strict=True)) if n != m]
        passing = x.kind not in PERSISTENT and x.base is None and y.base is None and x not in self._parts
        if len(axes) != 1 or not passing or y in self.program.keeps or y.kind in PERSISTENT:
            return
        if all(self._reads_part(c, y, axes[0]) for c in self._readers.get(y, ())):
            self._gone.add(call)
            self._parts[y] = _Part(x, axes[0], call.attrs["begin"][axes[0]], True)

    def _writes_part(self, call: Call, made: Call, part: _Part) -> bool:
        name = call.op.name
        if name == "conv":
            return part.axis == _channels(call, part.axis) and self._takes(made)
        if name == "pointwise":
            return call.writes()[0].base is None
        return part.axis == _channels(call, part.axis) and not (name == "pool_avg" and whole_planes(call))

    def _reads_part(self, call: Call, tensor: Tensor, axis: int) -> bool:
        """Whether a call that reads a tensor can read it as a part of a larger one along that axis."""
        name = call.op.name
        if name not in READS or call in self._written:
            return False
        given = [t for t in call.reads() if t.root is tensor]
        if any(t.base is not None for t in given):
            return False
        if name == "pointwise":
            return all(t.shape == call.writes()[0].shape for t in given)
        if given != [call.argument(READS[name])] or axis != _channels(call, axis):
            return False
        wider = tuple(2 * n if i == axis else n for i, n in enumerate(tensor.shape))
        whole = Tensor(tensor.name, replace(tensor.spec, shape=wider), tensor.kind)
        return name.startswith("pool") or self._takes(self._with(call, {tensor: _Part(whole, axis, 0, True)}))

    # ----------------------------------------------------------------------------------------------- as it is then
    def _reading(self, call: Call) -> Call:
        """The call on the larger tensors that it can read parts of."""
        taken = {t.root: self._parts[t.root] for t in call.reads() if t.root in self._parts}
        taken = {t: part for t, part in taken.items() if part.read}
        for part in list(taken.values())[:1]:  # one axis for all of them
            taken = {t: p for t, p in taken.items() if p.axis == part.axis}
        return self._with(call, taken) if taken else call

    def _with(self, call: Call, parts: dict[Tensor, _Part]) -> Call:
        """The call with larger tensors in the place of their parts."""
        tensors = call.tensors()
        (part, *_) = parts.values()
        if call.op.name.startswith("conv"):
            added: dict[str, object] = {"begin": part.begin}
        else:
            shape = next(t for t in tensors if t in parts).shape
            begins = tuple(parts[t].begin if t in parts else -1 for t in tensors)
            added = {"cut": Cut(shape, part.axis, begins)}
        made = call.map(lambda t: parts[t].whole if t in parts else t)
        return replace(made, attrs={**call.attrs, **added})


def _channels(call: Call, axis: int) -> int:
    """The axis of the channels of what a call works on."""
    rank = max(len(t.shape) for t in call.tensors())
    return rank - 1 if call.attrs.get("last") else 1


__all__ = ["joined"]
