"""Channels last where it pays: convolutions on tensor cores read N S C, and what stands between them can as well.

A tensor in this layout is a tensor of another shape: N S C instead of N C S. So kernels that work on any axes
(pointwise, reduce, normalize, concat, slice) only get other axes; convolutions, pooling and lrn are told by the
attribute ``last``, which only this device makes and reads. At the border of a region stands a ``transpose``. What is
fed, kept (but for ``Program.visible``) or carried over stays plain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from netrun.kernels import CHANGES, OPS
from netrun.program import Call, Home, Origin, Program
from netrun.storage import for_whom
from netrun.types import PERSISTENT, Shape, Tensor

CONVOLUTIONS = {"conv": ("x", "w", "y"), "conv_grad_x": ("dx", "w", "dy"), "conv_grad_w": ("x", "dw", "dy")}
"""Image, filter and output of each."""

TOLD = {
    "pool_max": ("x", "y", "index"), "pool_max_grad": ("index", "dy", "dx"), "pool_avg": ("x", "y"),
    "pool_avg_grad": ("dy", "dx"), "lrn": ("x", "y", "scale"), "lrn_grad": ("x", "y", "scale", "dy", "dx"),
}  # fmt: skip
"""Kernels with the attribute ``last``, and the arguments that are in the layout."""

MOVED = {"concat": ("xs", "y"), "split": ("x", "ys"), "slice": ("x", "y"), "place": ("x", "y")}
"""Kernels whose ``axis`` or ``begin`` changes."""

NORMS = {"normalize": ("x", "y"), "normalize_grad": ("y", "dy", "dx")}


def forth(shape: Sequence[int]) -> Shape:
    """N C S becomes N S C."""
    return (shape[0], *shape[2:], shape[1])


def _back(rank: int) -> Shape:
    """The axes of a transpose from N S C to N C S."""
    return (0, rank - 1, *range(1, rank - 1))


def _forth(rank: int) -> Shape:
    return (0, *range(2, rank), 1)


def channels_last(program: Program, takes: Callable[[Call], bool]) -> Program:
    """The program with its convolutions, and what is connected to them, in N S C.

    Args:
        takes: whether the device has a plan for a convolution in that layout.
    """
    layouts = _Layouts(program, takes)
    return layouts.rewritten() if layouts.regions else program


class _Layouts:
    def __init__(self, program: Program, takes: Callable[[Call], bool]) -> None:
        self.program = program
        plain = program.keeps - program.visible
        self._fixed = {t for t in program.tensors() if t in plain or t.kind in PERSISTENT}
        self._parent: dict[Tensor, Tensor] = {}
        self._groups = [_activations(call) for call in program.calls]
        for group in self._groups:
            free = [t for t in group if t not in self._fixed]
            for a, b in pairwise(free):
                self._parent[self._find(a)] = self._find(b)
        self._good = [c.op.name in CONVOLUTIONS and bool(g) and takes(_told(c))
                      for c, g in zip(program.calls, self._groups, strict=True)]  # fmt: skip
        self.regions = {
            self._find(t)
            for group, good in zip(self._groups, self._good, strict=True) if good
            for t in group if t not in self._fixed
        }  # fmt: skip
        self._native: dict[Tensor, Tensor] = {}
        self._versions: dict[tuple[Tensor, bool, Origin | None], Tensor] = {}
        self._calls: list[Call] = []
        self._origin = Origin()

    def _find(self, t: Tensor) -> Tensor:
        while t in self._parent and self._parent[t] is not t:
            t = self._parent[t]
        return t

    def _inside(self, t: Tensor) -> bool:
        return t not in self._fixed and self._find(t) in self.regions

    # ----------------------------------------------------------------------------------------------------- rewriting
    def rewritten(self) -> Program:
        """All calls, each in the layout of its region."""
        for call, group, good in zip(self.program.calls, self._groups, self._good, strict=True):
            self._origin = call.origin
            inside = bool(group) and any(self._inside(t) for t in group)
            if call.op.name in CONVOLUTIONS:
                inside = inside and good
            changed = self._changed(call, set(group)) if inside else None
            if changed is None and call.op.name == "reduce":
                changed = self._reduced(call)
            if changed is None:
                changed = self._as_known(call)
                self._calls.append(changed)
            if call.op.name in CHANGES:
                written = {t.root for t in call.writes()}
                for key in [k for k in self._versions if k[0] in written]:
                    del self._versions[key]
        homes = {t: Home(made, _back(len(t.shape))) for t, made in self._native.items()}
        return self.program.having(self._calls).housed(homes)

    def _as_known(self, call: Call) -> Call:
        """The call on plain tensors."""
        written = {t.root for t in call.writes()}
        return call.map(lambda t: t if t.root in written else self._plain(t))

    def _changed(self, call: Call, group: set[Tensor]) -> Call | None:
        """Emit the call in N S C; None if one of its arguments cannot be seen so."""
        name, rank = call.op.name, len(next(iter(group)).shape)
        attrs = dict(call.attrs)
        if name in CONVOLUTIONS or name in TOLD:
            attrs["last"] = True
        elif name in ("concat", "split"):
            if attrs["axis"] % rank == 0:
                return None
            attrs["axis"] = (attrs["axis"] % rank - 2) % (rank - 1) + 1
        elif name in ("slice", "place"):
            attrs["begin"] = forth(attrs["begin"])
        elif name in NORMS:
            attrs["axes"] = tuple(sorted(_forth(rank).index(a % rank) for a in attrs["axes"]))
        weights = {CONVOLUTIONS[name][1]} if name in CONVOLUTIONS else set()
        weight = {t.root for n in weights for t in _tensors(call, n)}
        written = {t.root for t in call.writes()}
        if any(t.shape != t.root.shape for n in weights for t in _tensors(call, n)):
            return None
        for t in call.tensors():
            if t.root not in group and t.root not in weight and _seen(t, rank) is None:
                return None
        after: list[Call] = []

        def place(t: Tensor) -> Tensor:
            if t.root in group or t.root in weight:
                if t.root not in written:
                    return self._last(t.root)
                if t.root in weight and _flat(t.root):
                    return t.root.view(forth(t.shape))  # the same bytes
                made = Tensor(t.root.name, replace(t.root.spec, shape=forth(t.shape)), _kind(t.root))
                if t.root in weight or not self._inside(t.root):
                    after.append(Call(OPS["transpose"], (made, t.root), {"axes": _back(rank)}, call.origin))
                else:
                    self._native[t.root] = made
                return made
            if name in CONVOLUTIONS:  # a bias
                return self._plain(t)
            seen = _seen(t, rank)
            assert seen is not None  # looked at above
            return seen if t.root in written else _again(self._plain(t), seen)

        self._calls_of(call, attrs, place, after)
        return call

    def _calls_of(
        self, call: Call, attrs: dict[str, Any], place: Callable[[Tensor], Tensor], after: list[Call]
    ) -> None:
        made = call.map(place)  # may emit transposes of what it reads
        self._calls.append(replace(made, attrs=attrs))
        self._calls += after

    def _reduced(self, call: Call) -> Call | None:
        """A reduction over tensors of a region that leaves the channels, or nothing."""
        xs, y = call.args
        assert isinstance(xs, tuple)
        assert isinstance(y, Tensor)
        whole = [t for t in xs if t.base is None and t.root in self._native]
        if not whole:
            return None
        shape, rank = whole[0].shape, len(whole[0].shape)
        gone = {a % rank for a in call.attrs["axes"]}
        stay = [i for i in range(rank) if i not in gone and shape[i] > 1]
        if any(i >= 2 for i in stay) or any(_seen(t, rank) is None for t in xs if t not in whole):
            return None
        axes = tuple(sorted(_forth(rank).index(a) for a in gone))
        given = tuple(self._native[t.root] if t in whole else _again(self._plain(t), _seen(t, rank)) for t in xs)
        result = y.view(tuple(shape[i] for i in stay)) if y.spec.count == math.prod(shape[i] for i in stay) else None
        if result is None:
            return None
        left = [n for i, n in enumerate(forth(shape)) if i not in axes]
        self._calls.append(replace(call, args=(given, y.view(left)), attrs={**call.attrs, "axes": axes}))
        return call

    # ----------------------------------------------------------------------------------------------------- versions
    def _last(self, root: Tensor) -> Tensor:
        """The tensor in N S C, transposed where it is not there yet."""
        if root in self._native:
            return self._native[root]
        return self._version(root, root, _forth(len(root.shape)), forth(root.shape))

    def _plain(self, t: Tensor) -> Tensor:
        """The tensor as everyone else knows it."""
        native = self._native.get(t.root)
        if native is None:
            return t
        return self._version(t.root, native, _back(len(native.shape)), t.root.shape).view(t.shape)

    def _version(self, root: Tensor, source: Tensor, axes: Shape, shape: Shape) -> Tensor:
        if _flat(root):
            return source.view(shape)  # the same bytes
        key = root, source is root, for_whom(self.program, root, self._origin)
        if key not in self._versions:
            made = Tensor(root.name, replace(root.spec, shape=shape), "buffer")
            self._calls.append(Call(OPS["transpose"], (source, made), {"axes": axes}, self._origin))
            self._versions[key] = made
        return self._versions[key]


def _flat(root: Tensor) -> bool:
    """Whether N C S and N S C are the same bytes."""
    return root.shape[1] == 1 or math.prod(root.shape[2:]) == 1


def _told(call: Call) -> Call:
    """A convolution with all its tensors in N S C, to ask for a plan."""
    names = CONVOLUTIONS[call.op.name]
    chosen = {t for n in names for t in _tensors(call, n)}

    def put(t: Tensor) -> Tensor:
        return Tensor(t.name, replace(t.spec, shape=forth(t.shape)), t.kind) if t in chosen else t

    return replace(call.map(put), attrs={**call.attrs, "last": True})


def _again(t: Tensor, seen: Tensor | None) -> Tensor:
    assert seen is not None
    return t.view(seen.shape)


def _kind(root: Tensor) -> Any:
    return root.kind if root.kind in ("data", "diff", "buffer") else "buffer"


def _seen(t: Tensor, rank: int) -> Tensor | None:
    """A plain tensor that broadcasts to N C S, under the shape in which it broadcasts to N S C; None if its elements
    would have to move."""
    padded = (1,) * (rank - len(t.shape)) + tuple(t.shape)
    if len(padded) != rank or (padded[1] > 1 and math.prod(padded[2:]) > 1):
        return None
    return t if len(t.shape) == 0 else t.view(forth(padded))


def _tensors(call: Call, name: str) -> list[Tensor]:
    given = call.argument(name)
    return list(given) if isinstance(given, tuple) else [] if given is None else [given]


def _activations(call: Call) -> list[Tensor]:
    """The tensors of a call that have to be in one layout; none where the kernel knows plain ones only."""
    name = call.op.name
    if name in CONVOLUTIONS:
        image, _, output = CONVOLUTIONS[name]
        names: tuple[str, ...] = (image, output)
    elif name in ("pointwise", "copy"):
        y = call.writes()[0]
        group = [t for t in call.tensors() if t.shape == y.shape]
        return _fitting(group)
    else:
        names = {**TOLD, **MOVED, **NORMS}.get(name, ())
    return _fitting([t for n in names for t in _tensors(call, n)])


def _fitting(group: Sequence[Tensor]) -> list[Tensor]:
    if any(not 4 <= len(t.shape) <= 5 or t.shape != t.root.shape or t.dtype == "float64" for t in group):
        return []
    return list(dict.fromkeys(t.root for t in group))


__all__ = ["channels_last", "forth"]
