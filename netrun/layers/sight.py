"""What a query may look at, and what every attention comes down to: the kernel ``attention``, or, where the weights are
seen, dropped out or made otherwise, masked scores, softmax and mean of values as calls of their own.

Sequences are N T D here, scores N Tq Tk, or N H Tq Tk with several heads. What may not be looked at gets a score so low
that its weight is exactly 0. Lengths also blank what stands behind them: it may even be no number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..config import schema
from ..expression import letters
from ..kernels import Kernels
from ..random import stream_of
from ..types import Shape, Spec
from .base import Layer

UNSEEN = -1e38
"""The score of what may not be looked at: below every score that a net computes, for the lowest one that is seen has to
beat it. A finite one, so that a query with nothing to look at gets numbers. What softmax reads is float32 in every
precision (netrun.storage), and bfloat16 holds it too."""
XAVIER = schema.FillerParameter(type="xavier")


class Sight:
    """Conditions on the places (query, key) of scores, each an expression over arrays that broadcast to them.

    Attributes:
        blind: a query may have nothing to look at, and values that are not blanked.
        lengths, mask, causal: the same as the kernel ``attention`` takes it.
        last: the last key that each query may look at, N 1 Tq 1, where that is what the lengths are made of.
    """

    lengths: Any = None
    mask: Any = None
    causal = False
    last: Any = None

    def __init__(self) -> None:
        self._arrays: list[Any] = []
        self._conditions: list[tuple[str, list[int]]] = []
        self.blind = False

    def only(self, condition: str, *arrays: Any) -> None:
        """One more condition; {0}, {1}, ... stand for the arrays."""
        places = []
        for array in arrays:
            known = next((i for i, other in enumerate(self._arrays) if other is array), len(self._arrays))
            if known == len(self._arrays):
                self._arrays.append(array)
            places.append(known)
        self._conditions.append((condition, places))

    def choose(self, yes: str, no: str, before: int) -> tuple[str, list[Any]]:
        """The expression "yes where all conditions hold, else no" over ``before`` inputs of its own and the arrays
        behind them, which it returns as well."""
        if not self._conditions:
            return yes, []
        names = letters(before + len(self._arrays))[before:]
        terms = (f"({text.format(*(names[i] for i in places))})" for text, places in self._conditions)
        return f"where({' * '.join(terms)}, {yes}, {no})", list(self._arrays)


class Attention(Layer):
    """Base of the attention layers: their common fields, lengths and masks, and the product of weights and values."""

    type = ""
    param = "attention_param"
    own_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields of attention_param that not every type has."""
    key_steps: Any
    query_steps: Any

    @property
    def time_first(self) -> bool:
        return bool(self.p.time_major)

    def axes_of(self, i: int) -> str:
        if i in self.skips:
            return "N"
        return f"{'T N D' if self.p.time_major else 'N T D'} | N D | N"

    # ---------------------------------------------------------------------------------------------------------- setup
    def check_fields(self) -> None:
        """Refuse fields of other types, and numbers that make no sense."""
        for field, _ in self.p.ListFields():
            if field.name not in self.own_fields:
                known = ", ".join(sorted(self.own_fields))
                self.fail(f"has no {field.name}", at=field.name, hint=f"its fields are {known}")
        ratio = float(self.number("dropout_ratio"))
        if not 0 <= ratio < 1:
            self.fail(f"dropout_ratio is {ratio:g}, and has to be in 0 to 1, 1 excluded", at="dropout_ratio")
        self._keep = 1 - ratio

    def sequence(self, i: int, bottom: Sequence[Spec], what: str) -> Shape:
        """The shape N T D of a bottom.

        Raises:
            ShapeError: it has other axes.
        """
        shape = bottom[i].shape
        if len(shape) != 3:
            axes = "T N D" if self.p.time_major else "N T D"
            self.fail(f"wants {what} of 3 axes ({axes}), got {len(shape)}", bottom=i)
        return (shape[1], shape[0], shape[2]) if self.p.time_major else shape

    def read_sight(self, i: int, bottom: Sequence[Spec], places: Shape) -> None:
        """Check bottom i, lengths or a mask, if there is one, and declare what its use and causal need.

        Args:
            places: N Tq Tk, or N H Tq Tk.
        """
        self._given = ""
        self._places = places
        queries, keys = places[-2:]
        if len(bottom) > i:
            shape = bottom[i].shape
            fits = len(shape) == len(places) and all(n in (1, m) for n, m in zip(shape, places, strict=True))
            if shape != places[:1] and not fits:
                axes = "N H Tq Tk" if len(places) == 4 else "N Tq Tk"
                wanted = " ".join(map(str, places))
                self.fail(
                    f"wants lengths or a mask of its last bottom, got {len(shape)} axes", bottom=[0, i],
                    hint=f"lengths have the shape N = {places[0]}, a mask {axes} = {wanted}, where each may also be 1",
                )  # fmt: skip
            self._given = "mask" if fits else "lengths"
        if self.p.causal and queries != keys:
            self.fail(
                f"causal wants as many steps of the query as of the keys, got {queries} and {keys}", at="causal",
                bottom=[0, 1] if len(self.message.bottom) > 1 else 0,
            )  # fmt: skip
        if self._given == "lengths" or self.p.causal:
            self.state("key_steps", (keys,), np.arange(keys))
        if self.p.causal:
            self.state("query_steps", (queries, 1), np.arange(queries)[:, None])

    # -------------------------------------------------------------------------------------------------------- forward
    def sight(self, k: Kernels, bottom: Sequence[Any]) -> Sight:
        """What queries may look at; lengths or the mask are the last bottom."""
        found = Sight()
        if self._given == "lengths":
            ones = (1,) * (len(self._places) - 1)
            found.only("{0} < trunc({1})", self.key_steps, k.view(bottom[-1], (self._places[0], *ones)))
            found.lengths = k.view(bottom[-1], (self._places[0], 1, 1))
        elif self._given == "mask":
            found.only("{0} != 0", bottom[-1])
            found.blind = True
            shape = bottom[-1].shape
            found.mask = bottom[-1] if len(shape) == 4 else k.view(bottom[-1], (shape[0], 1, *shape[1:]))
        if self.p.causal:
            found.only("{0} <= {1}", self.key_steps, self.query_steps)
            found.causal = True
        return found

    def blanked(self, k: Kernels, x: Any, bottom: Sequence[Any], y: Any = None) -> Any:
        """x, N T D as it stands in the bottom, with 0 behind the lengths, in y if given."""
        if self._given != "lengths":
            return x
        length, steps = bottom[-1], self.key_steps
        count, size = x.shape[0 if self.p.time_major else 1], length.shape[0]
        wide = ((count, 1, 1), (1, size, 1)) if self.p.time_major else ((1, count, 1), (size, 1, 1))
        y = k.temp("inside", x.shape) if y is None else y
        k.pointwise([x, k.view(steps, wide[0]), k.view(length, wide[1])], y, expr="where(b < trunc(c), a, 0)")
        return y

    def batch_first(self, k: Kernels, x: Any) -> Any:
        """N T D of a bottom of 3 axes."""
        if not self.p.time_major or len(x.shape) != 3:
            return x
        steps, streams, size = x.shape
        if 1 in (steps, streams):
            return k.view(x, (streams, steps, size))
        y = k.temp("turned", (streams, steps, size))
        k.transpose(x, y, axes=(1, 0, 2))
        return y

    def is_whole(self, top: Sequence[Any]) -> bool:
        """Whether nobody sees or changes the weights, so that the kernel ``attention`` makes it all."""
        return len(top) < 2 and (self._keep == 1 or not self.train)

    def look(self, k: Kernels, query: Any, key: Any, value: Any, y: Any, sight: Sight, scale: float) -> None:
        """y = softmax(scale * query key') value, over what may be looked at, by one kernel.

        Args:
            query: N H Tq D, as key (Tk steps), value (Tk steps, Dv numbers) and y.
        """
        lengths = sight.lengths
        if sight.last is not None:
            lengths = k.temp("reach", sight.last.shape[:3])
            k.pointwise([k.view(sight.last, lengths.shape)], lengths, expr="a + 1")
        lse = k.temp("lse", query.shape[:3])
        k.attention(query, key, value, lengths, sight.mask, y, lse, scale=scale, causal=sight.causal)

    def mean(
        self, k: Kernels, scores: Any, value: Any, y: Any, sight: Sight, shown: Any, scale: str = "", *factor: Any
    ) -> None:
        """y = softmax(scores) value, over what may be looked at.

        Args:
            scores: ... Tq Tk.
            value: ... Tk D.
            shown: where the weights go too, or None.
            scale: what scores are multiplied by, an expression over the arrays ``factor`` (named b, c, ...).
        """
        places, keep = tuple(scores.shape), self._keep if self.train else 1.0
        expr, arrays = sight.choose(f"a * {scale}" if scale else "a", repr(UNSEEN), 1 + len(factor))
        if expr != "a":
            fit = k.temp("fit", places)
            k.pointwise([scores, *factor, *arrays], fit, expr=expr)
            scores = fit
        weights = k.temp("weights", places)
        k.softmax(scores, weights, axis=len(places) - 1)
        mask = []
        if keep < 1:
            mask = [k.temp("mask", places, "uint8")]
            stream = stream_of(self.key, "mask")
            k.random(self.clock, mask[0], how="bernoulli", p=keep, seed=self.context.seed, stream=stream)
        expr, arrays = sight.choose("a", "0", 1 + len(mask)) if sight.blind or shown is not None else ("a", [])
        if arrays or mask:
            kept = k.temp("kept", places)
            expr += f" * b * {1 / keep!r}" if mask else ""
            k.pointwise([weights, *mask, *arrays], kept, expr=expr)
            weights = kept
        if shown is not None:
            k.copy(weights, k.view(shown, places))
        k.gemm(weights, value, None, y, ta=False, tb=False)

    def dense(self, k: Kernels, x: Any, name: str, y: Any = None) -> Any:
        """x times the weight of that name, plus its bias: the last axis becomes another."""
        weight = getattr(self, f"{name}_weight")
        bias = getattr(self, f"{name}_bias") if self.p.bias_term and hasattr(self, f"{name}_bias") else None
        rows = math.prod(x.shape[:-1])
        made = k.temp(name, (*x.shape[:-1], weight.shape[0])) if y is None else y
        flat = k.view(made, (rows, weight.shape[0]))
        k.gemm(k.view(x, (rows, x.shape[-1])), weight, bias, flat, ta=False, tb=True)
        return made

    def declare_dense(self, name: str, outputs: int, inputs: int, biased: bool = True) -> None:
        """Declare the weight of that name, and its bias."""
        self.learned(f"{name}_weight", (outputs, inputs), self.filler("weight_filler", XAVIER))
        if biased and self.p.bias_term:
            self.learned(f"{name}_bias", (outputs,), self.p.bias_filler)

    def filler(self, field: str, otherwise: schema.FillerParameter) -> schema.FillerParameter:
        """The filler that the prototxt gives, or another one."""
        return getattr(self.p, field) if self.has(field) else otherwise


__all__ = ["UNSEEN", "XAVIER", "Attention", "Sight"]
