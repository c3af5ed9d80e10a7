"""Batch normalisation taken apart, so that what is normalised never lies in memory.

Statistics over the batch take a pass of their own over x. What is left of ``normalize`` is then a pointwise expression
of x, mean and 1 / sqrt(var + eps), which fusing.py puts into whatever reads it: the scale and the ReLU behind it, and
in backward the sums and the gradient. Those two sums are also the gradients of the scale and the shift, which so cost
nothing; the scale goes into the gradient's expression.

Passes over the activations of one normalisation with scale and ReLU, as the vocabulary has it: 7 forward, 13 backward;
as it becomes: 3 and 7.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from netrun.kernels import OPS
from netrun.program import Call, Program
from netrun.types import PERSISTENT, Shape, Spec, Tensor

from .batch import MOMENTS, SUMS


@dataclass(frozen=True)
class _Norm:
    """One that was taken apart. ``kept``: the shape in which its statistics broadcast to x."""

    inverse: Tensor
    kept: Shape


def apart(program: Program) -> Program:
    """The program with its batch normalisations as moments, sums and pointwise calls."""
    return _Norms(program).run()


class _Norms:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.position = {call: i for i, call in enumerate(program.calls)}
        self.writer = {t.root: call for call in program.calls for t in call.writes()}
        self.readers: dict[Tensor, list[Call]] = {}
        for call in program.calls:
            for root in dict.fromkeys(t.root for t in call.reads()):
                self.readers.setdefault(root, []).append(call)
        self.norms: dict[Tensor, _Norm] = {}
        self.change: dict[Call, list[Call]] = {}

    def run(self) -> Program:
        for call in self.program.calls:
            if call.op.name == "normalize":
                self._forward(call)
            elif call.op.name == "normalize_grad":
                self._backward(call)
        if not self.change:
            return self.program
        return self.program.having(c for call in self.program.calls for c in self.change.get(call, [call]))

    def _passing(self, t: Tensor) -> bool:
        return t.base is None and t not in self.program.keeps and t.kind not in PERSISTENT

    def _forward(self, call: Call) -> None:
        x, y, mean, var = call.tensors()
        axes = {a % len(x.shape) for a in call.attrs["axes"]}
        kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
        if 0 not in axes or x.shape[0] == 1 or 0 in x.shape or not self._passing(y):
            return  # a norm of each image by itself is one kernel already
        inverse = Tensor(f"{y.name}.inverse", Spec(kept, var.dtype), "buffer")
        attrs = {"axes": call.attrs["axes"], "eps": call.attrs["eps"]}
        given = (x, mean.view(kept), inverse)
        self.change[call] = [
            Call(MOMENTS, (x, mean, var, inverse), attrs, call.origin),
            Call(OPS["pointwise"], (given, y), {"expr": "(a - b) * c"}, call.origin),
        ]
        self.norms[y] = _Norm(inverse, kept)

    def _backward(self, call: Call) -> None:
        y, _, dy, dx = call.tensors()
        norm = self.norms.get(y.root)
        if norm is None or y.base is not None:
            return
        share = repr(math.prod(norm.kept) / math.prod(y.shape))
        axes = call.attrs["axes"]
        scaled = self._scaled(dy, norm.kept)
        given = dy if scaled is None else scaled.reads()[0]
        found = None if scaled is None else self._gradients(call, scaled, y)
        if found is None:
            sums = [Tensor(f"{dx.name}.{name}", norm.inverse.spec, "buffer") for name in ("total", "product")]
        else:
            sums = [c.writes()[0].view(norm.kept) for c in found]
            self.change.update((c, []) for c in found)
        more: tuple[Tensor, ...] = () if scaled is None else (scaled.reads()[1].view(norm.kept),)
        factor = "c" if scaled is None else "c * f"
        if scaled is not None:
            self.change[scaled] = []
        attrs = {"expr": "a", "other": "b", "axes": axes}
        self.change[call] = [
            Call(SUMS, ((given, y), *sums), attrs, call.origin),
            Call(OPS["pointwise"], ((given, y, norm.inverse, *sums, *more), dx),
                 {"expr": f"(a - d * {share} - b * (e * {share})) * ({factor})"}, call.origin),
        ]  # fmt: skip

    def _scaled(self, dy: Tensor, kept: Shape) -> Call | None:
        """The call that makes dy by a factor for each result of the statistics, where nobody else reads dy."""
        made = self.writer.get(dy.root)
        alone = self._passing(dy) and len(self.readers[dy.root]) == 1
        if made is None or not alone or made.op.name != "pointwise" or made.attrs["expr"] != "a * b":
            return None
        given, factor = made.reads()
        fits = given.shape == dy.shape and math.prod(factor.shape) == math.prod(kept) and made not in self.change
        padded = (1,) * (len(kept) - len(factor.shape)) + tuple(factor.shape)
        return made if fits and padded == kept and given.root is not factor.root else None

    def _gradients(self, call: Call, scaled: Call, y: Tensor) -> list[Call] | None:
        """The sums of the gradient before the factor, and of its product with y, if somebody makes both of them."""
        d = scaled.reads()[0]
        around = [c for c in self.readers[d.root] if c.op.name == "reduce" and c.origin == scaled.origin]
        found = []
        for expr, wanted in (("a", (d,)), ("a * b", (d, y))):
            same = [c for c in around if c.attrs["expr"] == expr and self._adds(c, wanted, call)]
            if len(same) != 1:
                return None
            found += same
        return found

    def _adds(self, c: Call, wanted: tuple[Tensor, ...], call: Call) -> bool:
        """Whether a reduction sums over exactly these, for results that nobody reads before ``call``."""
        given, made = c.reads(), c.writes()[0]
        same = len(given) == len(wanted) and all(
            a.root is b.root and a.shape == b.shape for a, b in zip(given, wanted, strict=True)
        )
        shape, here = wanted[0].shape, self.position[call]
        axes, other = ({a % len(shape) for a in attrs["axes"]} for attrs in (c.attrs, call.attrs))
        over = c.attrs["how"] == "sum" and all(shape[i] == 1 for i in axes ^ other)
        early = [r for r in self.readers.get(made.root, []) if self.position[r] < here]
        real = "float64" if wanted[0].dtype == "float64" else "float32"
        return same and over and not early and self.position[c] < here and made.dtype == real and c not in self.change
