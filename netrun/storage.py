"""Activations in 16 bits: a program rewritten so that what lies between its kernels takes half the memory.

Convolutions, products and attention read and write 16 bits. What follows them (activations, pooling, normalisation,
concat, and the same backward) goes on in 16 bits; every kernel computes in float32 inside. Parameters, their gradients
and updates, statistics, losses, what is fed and what is kept (but for ``Program.visible``) stay float32. Where the two
meet stands a ``copy``, which converts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .kernels import CHANGES, OPS
from .program import Call, Home, Origin, Program
from .types import PERSISTENT, Tensor

STORAGE: Mapping[str, str] = {"BF16": "bfloat16", "FP16": "float16"}
"""The element type that a precision stores in."""

PRODUCTS: Mapping[str, tuple[str, ...]] = {
    "conv": ("x", "w", "b", "y"), "conv_grad_x": ("w", "dy", "dx"), "conv_grad_w": ("x", "dy", "dw"),
    "gemm": ("a", "b"),
    "attention": ("q", "k", "v", "y"), "attention_grad": ("q", "k", "v", "y", "dy", "dq", "dk", "dv"),
}  # fmt: skip
"""Kernels that always work on 16 bits, and the arguments that do. A gemm writes either."""

ALIKE: Mapping[str, tuple[str, ...]] = {
    "pool_max": ("x", "y"), "pool_max_grad": ("dy", "dx"), "pool_avg": ("x", "y"), "pool_avg_grad": ("dy", "dx"),
    "lrn": ("x", "y", "scale"), "lrn_grad": ("x", "y", "scale", "dy", "dx"),
    "normalize": ("x", "y"), "normalize_grad": ("y", "dy", "dx"),
    "im2col": ("x", "y"), "col2im": ("y", "x"), "concat": ("xs", "y"), "split": ("x", "ys"),
    "slice": ("x", "y"), "place": ("x", "y"), "transpose": ("x", "y"),
}  # fmt: skip
"""Kernels that work on 16 bits where what they read has them, and the arguments that have one type then."""

MIXED = frozenset({"pointwise", "reduce", "copy", "update"})
"""Kernels whose arguments have any type each."""


def narrowed(program: Program) -> Program:
    """The program with activations in the 16-bit type of its precision; itself where that is no 16-bit one."""
    storage = STORAGE.get(program.numerics.precision)
    return program if storage is None else _Narrowing(program, storage).run()


class _Narrowing:
    def __init__(self, program: Program, storage: str) -> None:
        self.program, self.storage = program, storage
        self._reads16: set[Tensor] = set()
        for call in program.calls:
            if call.op.name in PRODUCTS or call.op.name in ALIKE or call.op.name in MIXED - {"update", "reduce"}:
                self._reads16.update(t.root for t in call.reads())
        self._narrow: dict[Tensor, Tensor] = {}
        """Tensors that the program now makes in 16 bits, and what they became."""
        self._copies: dict[tuple[Tensor, str, Origin | None], Tensor] = {}
        self._calls: list[Call] = []

    def run(self) -> Program:
        for call in self.program.calls:
            name = call.op.name
            if name in PRODUCTS:
                self._alike(call, PRODUCTS[name], True)
            elif name in ALIKE:
                self._alike(call, ALIKE[name], self._begins(call, ALIKE[name]))
            elif name in MIXED:
                self._mixed(call)
            else:
                self._emit(call, {}, [])
        return self.program.having(self._calls).housed({t: Home(made) for t, made in self._narrow.items()})

    def _begins(self, call: Call, names: tuple[str, ...]) -> bool:
        """Whether what the call reads is there in 16 bits."""
        reads = {t.root for t in call.reads()}
        return any(t.root in self._narrow for t in _named(call, names) if t.root in reads)

    def _may(self, tensor: Tensor) -> bool:
        """Whether a tensor is one of those that are stored in 16 bits."""
        root = tensor.root
        passing = root.kind in ("data", "diff", "buffer") and root.kind not in PERSISTENT
        plain = root in self.program.keeps and root not in self.program.visible
        return passing and not plain and root.dtype == "float32" and root in self._reads16

    def _alike(self, call: Call, names: tuple[str, ...], wanted: bool) -> None:
        written = {t.root for t in call.writes()}
        if not wanted:
            self._emit(call, {}, [])
            return
        chosen = [t for t in _named(call, names) if t.dtype == "float32"]
        outs = [t for t in chosen if t.root in written]
        if call.op.name == "gemm":
            outs = [t for t in call.writes() if self._may(t)]
        place: dict[Tensor, Tensor] = {}
        after: list[Call] = []
        for t in outs:
            made = self._made(t.root)
            place[t.root] = made
            if self._may(t):
                self._narrow[t.root] = made
            else:
                after.append(Call(OPS["copy"], (made, t.root), {}, call.origin))
        for t in chosen:
            if t.root not in written:
                place[t.root] = self._version(t.root, self.storage, call)
        self._emit(call, place, after)

    def _mixed(self, call: Call) -> None:
        written = {t.root for t in call.writes()}
        place = {t.root: self._narrow.get(t.root, t.root) for t in call.reads() if t.root not in written}
        if call.op.name in ("pointwise", "copy"):
            (y,) = call.writes()
            if self._may(y) and any(t.root in self._narrow and t.spec.count == y.spec.count for t in call.reads()):
                place[y.root] = self._narrow[y.root] = self._made(y.root)
        self._emit(call, place, [])

    def _emit(self, call: Call, place: Mapping[Tensor, Tensor], after: list[Call]) -> None:
        """The call on its tensors as ``place`` says, what is not named there in its own type."""
        written = {t.root for t in call.writes()}
        found = {t.root: place.get(t.root, t.root) for t in call.tensors()}
        for root in [r for r in found if r not in place and r not in written]:
            found[root] = self._version(root, root.dtype, call)
        self._calls.append(call.map(lambda t: t if found[t.root] is t.root else found[t.root].view(t.shape)))
        self._calls += after
        if call.op.name in CHANGES:
            for key in [k for k in self._copies if k[0] in written]:
                del self._copies[key]

    def _made(self, root: Tensor) -> Tensor:
        return Tensor(root.name, replace(root.spec, dtype=self.storage), "buffer" if root.kind == "grad" else root.kind)

    def _version(self, root: Tensor, dtype: str, call: Call) -> Tensor:
        """The tensor in a type, converted where it is not there yet.

        What outlives the run and is large is converted for forward and for backward anew: to keep the copy in between
        costs more. So is what somebody may have written to between one layer and the next, for every layer.
        """
        native = self._narrow.get(root, root)
        if native.dtype == dtype:
            return native
        key = root, dtype, for_whom(self.program, root, call.origin)
        if key not in self._copies:
            made = Tensor(root.name, replace(root.spec, dtype=dtype), "buffer")
            self._calls.append(Call(OPS["copy"], (native, made), {}, call.origin))
            self._copies[key] = made
        return self._copies[key]


SMALL = 16 << 20
"""Bytes of a parameter up to which one copy in another form serves forward and backward: it costs less to keep than to
make again. A large one in between would cost more."""


def for_whom(program: Program, root: Tensor, origin: Origin) -> Origin | None:
    """The calls that share one copy of a tensor in another form, as a value that is the same for all of them."""
    if program.visible:
        return origin
    large = root.kind in PERSISTENT and root.spec.nbytes > SMALL
    return Origin().backward if large and origin.is_backward else None


def _named(call: Call, names: tuple[str, ...]) -> list[Tensor]:
    """The tensors of those arguments."""
    found: list[Tensor] = []
    for name in names:
        given = call.argument(name)
        found += given if isinstance(given, tuple) else [given] if given is not None else []
    return found


__all__ = ["STORAGE", "for_whom", "narrowed"]
