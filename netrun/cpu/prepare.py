"""Layouts, chosen from call to call.

Activations that convolutions make or read get the layout convolutions are fastest in; so does everything that is
connected to them through kernels that keep a layout (pooling, ReLU, sums, concat, normalisation). At the border of such
a region stands a copy between layouts. What is fed, kept or carried over stays plain, so nobody outside ever sees one;
but what is ``visible`` lies in its layout, and a session converts it for who looks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from ..kernels import CHANGES, OPS
from ..program import Call, Home, Origin, Program
from ..types import PLAIN, Tensor
from . import onednn_norm, onednn_spatial
from .dnnl import Unsupported
from .fuse import fused, paired, readers_of
from .layouts import CHANNELS_LAST, HALF, padded, preferred_block, work
from .onednn import BATCH_NORM, BATCH_NORM_GRAD, Recipes
from .onednn_conv import weight_layout
from .onednn_products import halvable, halving_pays
from .regions import CONVOLUTIONS, connected, roles

WASTE = 1.12
"""Arithmetic on filled-up channels that is worth the blocks: above it, channels last."""


def prepare(program: Program, recipes: Recipes) -> Program:
    """The program with fused calls, layouts and copies between them."""
    return _packed(paired(_Layouts(fused(program, recipes), recipes).rewritten(), recipes), recipes)


def _packed(program: Program, recipes: Recipes) -> Program:
    """Weights that the program does not change are brought into the library's form by calls of their own.

    A session whose parameters stay as they are can then run these calls once.
    """
    changed = _changed(program)
    calls: list[Call] = []
    for call in program.calls:
        if call.op.name in ("conv", "conv_then") and recipes.of(call) is not None:
            w = call.args[1]
            assert isinstance(w, Tensor)
            layout = weight_layout(recipes.lib, call) if w.root.kind == "learned" and w.root not in changed else PLAIN
            if layout != PLAIN:
                made = Tensor(w.name, replace(w.spec, layout=layout), "buffer")
                calls.append(Call(OPS["copy"], (w, made), {}, call.origin))
                call = replace(call, args=(call.args[0], made, *call.args[2:]))
        calls.append(call)
    return program.having(calls)


def _changed(program: Program) -> set[Tensor]:
    """The parameters that the program itself changes."""
    return {t.root for call in program.calls if call.op.name in CHANGES for t in call.writes()}


# -------------------------------------------------------------------------------------------------------------- layouts
class _Layouts:
    """Chooses a layout for every connected region of activations and rewrites the calls."""

    def __init__(self, program: Program, recipes: Recipes) -> None:
        self.program, self.recipes, self.lib = program, recipes, recipes.lib
        self.half = program.numerics.precision == "BF16"
        self._parent: dict[Tensor, Tensor] = {}
        self._native: dict[Tensor, Tensor] = {}
        self._versions: dict[tuple[Tensor, str, Origin | None], Tensor] = {}
        self._origin = Origin()
        self._calls: list[Call] = []
        # what code of a user's own gets into its hands is the memory itself: it may write there
        given = {t.root for call in program.calls if call.op.name == "host" for t in call.tensors()}
        self._kept = (program.keeps & program.visible) - given
        self._names = {t.name for t in (*program.tensors(), *program.keeps)}
        self._homes: dict[Tensor, Home] = {}
        self._fixed = {t for t in program.persistent() if t not in self._kept}
        self._joined = [connected(call) for call in program.calls]
        for group in self._joined:
            for a, b in pairwise(group):
                self._union(a, b)
        self._layout = self._choose()
        self._changed = _changed(program)
        self._forward = not program.visible and not any(call.origin.is_backward for call in program.calls)
        products = [call for call in program.calls if call.op.name == "gemm" and halvable(call)]
        self._users = Counter(self._half_of(t, call.origin) for call in products for t in call.tensors()[:2])
        self._private = self._privates()
        self._agreed = self._norms()

    # ------------------------------------------------------------------------------------------------------- regions
    def _find(self, t: Tensor) -> Tensor:
        while self._parent.get(t, t) is not t:
            t = self._parent[t]
        return t

    def _union(self, a: Tensor, b: Tensor) -> None:
        if a in self._fixed or b in self._fixed:
            return
        a, b = self._find(a), self._find(b)
        if a is not b:
            self._parent[a] = b

    def _choose(self) -> dict[Tensor, str]:
        """Layout by the first tensor of a region: blocks, unless they would mostly hold zeros."""
        size = preferred_block(self.lib)
        useful: dict[Tensor, float] = {}
        done: dict[Tensor, float] = {}
        for call in self.program.calls:
            if call.op.name not in CONVOLUTIONS:
                continue
            x, y, w = roles(call)
            cost = math.prod(w.shape) * math.prod(y.shape[2:]) * y.shape[0]
            block = f"c{size}"
            filled = cost * padded(y.shape, block)[1] / y.shape[1]
            if x.shape[1] > 4:
                filled *= padded(x.shape, block)[1] / x.shape[1]
            for t in {self._find(x.root), self._find(y.root)}:
                useful[t] = useful.get(t, 0.0) + cost
                done[t] = done.get(t, 0.0) + filled
        ending = HALF if self.half else ""
        return {
            t: (f"c{size}" if size > 1 and done[t] <= WASTE * useful[t] else CHANNELS_LAST) + ending for t in useful
        }

    def _privates(self) -> dict[Tensor, list[Call]]:
        """What a forward kernel keeps for its own backward and nobody else reads, with its readers."""
        readers = readers_of(self.program)
        found = {}
        for call in self.program.calls:
            name = {"pool_max": "index", "lrn": "scale"}.get(call.op.name)
            if name is None:
                continue
            kept = call.argument(name)
            assert isinstance(kept, Tensor)
            after = readers.get(kept.root, [])
            if (
                kept.base is None
                and kept not in self._fixed
                and all(c.op.name == call.op.name + "_grad" for c in after)
            ):
                found[kept] = after
        return found

    def _norms(self) -> dict[Call, str]:
        """The layout of each batch normalisation with a mask of its ReLU: backward reads that in forward's order."""
        found: dict[Call, str] = {}
        forward: dict[Tensor, tuple[Call, list[Tensor]]] = {}
        for call, group in zip(self.program.calls, self._joined, strict=True):
            if call.op is BATCH_NORM:
                forward[call.writes()[-1].root] = call, group
            elif call.op is BATCH_NORM_GRAD and call.attrs["relu"]:
                mask = call.argument("mask")
                assert isinstance(mask, Tensor)
                both = [forward[mask.root], (call, group)]
                layout = self._wanted(group)
                same = all(self._wanted(g) == layout and self._runs(c, g, layout) for c, g in both)
                found.update({c: layout if same else PLAIN for c, _ in both})
        return found

    def _runs(self, call: Call, group: Sequence[Tensor], layout: str) -> bool:
        """Whether the library has the call with its activations in that layout."""

        def put(t: Tensor) -> Tensor:
            return Tensor(t.name, replace(t.spec, layout=layout), t.kind) if t.root in group else t

        return self.recipes.of(call.map(put)) is not None

    # ----------------------------------------------------------------------------------------------------- rewriting
    def rewritten(self) -> Program:
        """The program in its layouts."""
        for call, group in zip(self.program.calls, self._joined, strict=True):
            self._origin = call.origin
            if self.half and call.op.name == "gemm" and self._halved(call):
                continue
            if call.op.name in CHANGES:
                self._forget({t.root for t in call.writes()})
            if call.op.name in ("pool_max", "lrn"):
                self._with_private(call, group)
            elif not self._in_layout(call, group, self._agreed.get(call) or self._wanted(group)):
                self._plainly(call)
        return self.program.having(self._calls).housed(self._homes)

    def _halved(self, call: Call) -> bool:
        """Emit a product of 16-bit copies of its factors, if that pays; the sum is full."""
        args: Any = call.args
        a, b, c, y = args
        if not halvable(call) or not halving_pays(call, [self._sharing(t) for t in (a, b)]):
            return False
        halves = [Tensor(f"{t.root.name}.half", replace(t.spec, layout=PLAIN + HALF), "buffer") for t in (a, b)]
        if self.recipes.of(replace(call, args=(*halves, c, y))) is None:
            return False
        found = []
        for t, half in zip((a, b), halves, strict=True):
            key = self._half_of(t, self._origin)
            if key not in self._versions:
                self._calls.append(Call(OPS["copy"], (self._version(t, PLAIN), half), {}, self._origin))
                self._versions[key] = half
            found.append(self._versions[key])
        c = self._version(c, PLAIN) if isinstance(c, Tensor) else c
        self._calls.append(replace(call, args=(*found, c, y)))
        return True

    def _forget(self, changed: set[Tensor]) -> None:
        """What was copied of parameters is out of date."""
        for key in [key for key in self._versions if key[0] in changed]:
            del self._versions[key]

    def _half_of(self, t: Tensor, origin: Origin) -> tuple[Tensor, str, Origin | None]:
        """What the 16-bit copy of a factor is kept under."""
        return t.root, f"{replace(t.spec, layout=PLAIN + HALF)}", self._once(t, origin)

    def _sharing(self, t: Tensor) -> int:
        """How many products share the copy of a factor; 0 where it is made once for many runs of the program."""
        constant = self._forward and t.root.kind == "learned" and t.root not in self._changed
        return 0 if constant else self._users[self._half_of(t, self._origin)]

    def _wanted(self, group: Sequence[Tensor]) -> str:
        for t in group:
            layout = self._layout.get(self._find(t))
            if layout is not None and t not in self._fixed:
                return layout
        return PLAIN

    def _with_private(self, call: Call, group: Sequence[Tensor]) -> None:
        """A kernel whose second output the library keeps in a form of its own, if its backward can use that."""
        kept = call.writes()[1]
        wanted = self._wanted(group)
        for layout in dict.fromkeys((wanted, PLAIN)):
            if kept.root not in self._private:
                break
            size = self._work_bytes(call, layout) if self._private[kept] else 0
            if size is None:
                continue
            made = self._own_form(kept, work(size))
            self._native[kept] = made
            if all(self._can(c, layout, made) for c in self._private[kept]) and self._in_layout(call, group, layout):
                if kept in self._kept:
                    self._homes[kept] = Home(made)
                return
            del self._native[kept]
        if wanted == PLAIN or not self._in_layout(call, group, wanted):
            self._plainly(call)

    def _work_bytes(self, call: Call, layout: str) -> int | None:
        x, y = call.reads()[0], call.writes()[0]
        if x.dtype != "float32":
            return None
        given, out = replace(x.spec, layout=layout), replace(y.spec, layout=layout)
        try:
            if call.op.name == "lrn":
                return onednn_norm.lrn_work(self.lib, given, call.attrs)
            return onednn_spatial.pool_max_work(self.lib, given, out, call.attrs["window"])
        except Unsupported:
            return None

    def _can(self, call: Call, layout: str, kept: Tensor) -> bool:
        """Whether the library runs the backward call in that layout with that memory of its forward."""
        if any(t.base is not None and t.shape != t.root.shape for t in call.tensors()):
            return False

        def put(t: Tensor) -> Tensor:
            return kept if t.root in self._private else Tensor(t.name, replace(t.spec, layout=layout), t.kind)

        wanted = self._wanted(connected(call))
        return wanted in (layout, PLAIN) and self.recipes.of(call.map(put)) is not None

    def _in_layout(self, call: Call, group: Sequence[Tensor], layout: str) -> bool:
        """Emit the call with its activations in that layout; False if the library has no such kernel."""
        inside = set(group)
        private = any(self._is_work(t) for t in call.tensors())
        if layout == PLAIN and not private:
            return False

        def put(t: Tensor) -> Tensor:
            if self._is_work(t):
                return self._native.get(t.root, t)
            if t.root not in inside or (call.op.name in CONVOLUTIONS and t.shape[1] <= 4):
                return t if t.root not in self._native else Tensor(t.name, replace(t.spec, layout=PLAIN), t.kind)
            return Tensor(t.name, replace(t.spec, layout=layout), t.kind)

        tried = call.map(put)
        if self.recipes.of(tried) is None:
            return False
        written = {t.root for t in call.writes()}
        after: list[Call] = []

        def place(t: Tensor) -> Tensor:
            spec = put(t).spec
            if t.root not in written:
                return self._version(t, spec.layout) if not spec.layout.startswith("work") else put(t)
            if spec.layout.startswith("work"):
                return put(t)
            if spec.layout == PLAIN:
                return t
            made = self._own_form(t, spec.layout)
            if t.root in self._kept:
                self._homes[t.root] = Home(made)
            if t.root in self._fixed:
                after.append(Call(OPS["copy"], (made, t.root), {}, call.origin))
            else:
                self._native[t.root] = made
            return made

        done = call.map(place)
        self._calls.append(done)
        self._calls += after
        return True

    def _own_form(self, t: Tensor, layout: str) -> Tensor:
        """The tensor that stands for one in another layout; what is kept has the plain memory besides, by its name."""
        name = f"{t.root.name}@{layout}" if t.root in self._kept else t.root.name
        while name != t.root.name and name in self._names:  # a blob may be called so
            name += "@"
        return Tensor(name, replace(t.spec, layout=layout), t.kind)

    def _once(self, t: Tensor, origin: Origin) -> Origin | None:
        """What is kept may be written from outside between two layers: a copy of it serves this layer only.

        Parameters too, where layers may run alone; a program that runs as a whole changes them in calls of its own.
        """
        if t.root.kind == "learned" and not self.program.visible:
            return None
        return origin if t.root in self._fixed or t.root in self._kept else None

    def _is_work(self, t: Tensor) -> bool:
        return self._native.get(t.root, t).spec.layout.startswith("work:")

    def _plainly(self, call: Call) -> None:
        """Emit the call on plain arrays."""
        written = {t.root for t in call.writes()}
        self._calls.append(call.map(lambda t: t if t.root in written else self._version(t, PLAIN)))

    def _version(self, t: Tensor, layout: str) -> Tensor:
        """The tensor in a layout, copied where it is not there yet."""
        if self._is_work(t):
            return t
        native = self._native.get(t.root, t.root)
        if native.spec.layout == layout:
            return native.view(t.shape) if native is not t.root else t
        key = (t.root, layout, self._once(t, self._origin))
        if key not in self._versions:
            made = Tensor(t.root.name, replace(t.root.spec, layout=layout), "buffer")
            self._calls.append(Call(OPS["copy"], (native, made), {}, self._origin))
            self._versions[key] = made
        made = self._versions[key]
        return made.view(t.shape) if layout == PLAIN else made
