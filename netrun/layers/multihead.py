"""MultiHeadAttention, with rotary positions and a cache of earlier steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..expression import rule
from ..kernels import Kernels
from ..types import Shape, Spec
from .base import Count, stop
from .sight import Attention, Sight

_KEEP = rule(["a"], ["x"], "x = a")


class MultiHeadAttention(Attention):
    """y[n,i] = W_o [c_1, ... c_H] + b_o, c_h = sum over j of softmax_j(scale * q_h[n,i] . k_h[n,j]) v_h[n,j]

    with q = W_q x + b_q, k = W_k m + b_k, v = W_v m + b_v cut into H heads. Bottoms: x, N Tq D, which attends to itself
    (m = x), or x and a memory m, N Tk M; if wanted lengths, N, of the memory (of x where it attends to itself: y is 0
    behind them too), or a mask, N H Tq Tk (each may be 1), 1 where a query may look, else 0; no gradient passes to
    them. Sequences are T N D with time_major. With cache the bottoms are x, the next steps, and if wanted cont, N. Top:
    N Tq num_output; a second one the weights, N H Tq Tk, behind the dropout. What stands behind a length is never
    looked at and gets no gradient; a query that may look at nothing gives b_o. With rotary the pair
    (i, i + key_size/2) of every q and k of step t is turned by the angle t / rotary_base^(2i/key_size).

    Parameter blobs: W_q (H key_size, D), b_q, W_k (H key_size, M), b_k, W_v (H value_size, M), b_v, W_o (num_output,
    H value_size), b_o; no b without bias_term. With cache keys, values and the number of steps so far live on from
    forward to forward; gradients end at the first step of the bottom. (Vaswani et al., "Attention is all you need",
    2017; Su et al., "RoFormer", 2021, in the order of halves.)
    """

    bottoms: ClassVar[Count] = (1, 3)
    tops: ClassVar[Count] = (1, 2)
    skips = frozenset({2})
    own_fields = frozenset({
        "num_output", "num_heads", "key_size", "value_size", "causal", "dropout_ratio", "scale", "bias_term",
        "weight_filler", "bias_filler", "time_major", "rotary", "rotary_base", "cache",
    })  # fmt: skip
    past_keys: Any
    past_values: Any
    position: Any
    slots: Any
    steps: Any
    memory_steps: Any
    rates: Any

    # ---------------------------------------------------------------------------------------------------------- setup
    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        self.check_fields()
        x = self.sequence(0, bottom, "a sequence")
        heads, cache = self.p.num_heads, self.p.cache
        self._read_sizes(x[2])
        self._cross = len(bottom) > 1 and len(bottom[1].shape) == 3
        memory = self.sequence(1, bottom, "a memory") if self._cross else x
        if memory[0] != x[0]:
            self.fail("wants as many memories as queries", bottom=[0, 1])
        if len(bottom) == 3 and not self._cross:
            self.fail("wants x, memory and lengths or a mask, where it has 3 bottoms", bottom=[0, 1, 2])
        if self.has("cache"):
            self._read_cache(bottom, x)
        else:
            self.read_sight(2 if self._cross else 1, bottom, (x[0], heads, x[1], memory[1]))
        sizes = heads * self._size, heads * self._value
        for name, outputs, inputs in (("query", sizes[0], x[2]), ("key", sizes[0], memory[2]),
                                      ("value", sizes[1], memory[2]), ("output", self._outputs, sizes[1])):  # fmt: skip
            self.declare_dense(name, outputs, inputs)
        if self.p.rotary:
            half = self._size // 2
            self.state("rates", (half,), float(self.p.rotary_base) ** (-np.arange(half) / half))
            self.state("steps", (max(x[1], memory[1]), 1), np.arange(max(x[1], memory[1]))[:, None])
        y = (x[1], x[0], self._outputs) if self.p.time_major else (x[0], x[1], self._outputs)
        weights = (x[0], heads, x[1], cache or memory[1])
        return [self.spec(s) for s in (y, weights)[: max(1, len(self.message.top))]]

    def _read_sizes(self, size: int) -> None:
        heads = self.p.num_heads
        if heads < 1:
            self.fail(f"num_heads is {heads}, and has to be at least 1", at="num_heads")
        for field in ("key_size", "value_size", "num_output", "cache"):
            if self.has(field) and getattr(self.p, field) < 1:
                self.fail(f"{field} is {getattr(self.p, field)}, and has to be at least 1", at=field)
        if not self.has("key_size") and size % heads:
            self.fail(
                f"{size} values cannot be divided among {heads} heads", at="num_heads", bottom=0,
                hint="write key_size: 16, say, the length of query and key of one head",
            )  # fmt: skip
        self._size = self.p.key_size or size // heads
        self._value = self.p.value_size or self._size
        self._outputs = self.p.num_output or size
        self._scale = float(self.number("scale")) if self.has("scale") else 1 / math.sqrt(self._size)
        if self.p.rotary and self._size % 2:
            self.fail(f"rotary turns pairs of values, and key_size is {self._size}", at="rotary", bottom=0)
        if not float(self.number("rotary_base")) > 0:
            self.fail(f"rotary_base is {self.p.rotary_base:g}, and has to be above 0", at="rotary_base")

    def _read_cache(self, bottom: Sequence[Spec], x: Shape) -> None:
        kept = self.p.cache
        if self._cross or (len(bottom) > 1 and bottom[1].shape != x[:1]):
            hint = "a cache holds the layer's own earlier steps: no memory, lengths or mask goes with it"
            self.fail(f"with cache wants x and, as second bottom, cont (N = {x[0]})", at="cache", bottom=1, hint=hint)
        if x[1] > kept:
            self.fail(f"one forward brings {x[1]} steps, and the cache keeps {kept}", at="cache", bottom=0)
        heads = self.p.num_heads
        self.state("past_keys", (x[0], heads, kept, self._size), streams=0)
        self.state("past_values", (x[0], heads, kept, self._value), streams=0)
        self.state("position", (x[0],), streams=0)
        self.state("slots", (kept,), np.arange(kept))
        if not self.p.rotary:
            self.state("steps", (x[1], 1), np.arange(x[1])[:, None])

    # -------------------------------------------------------------------------------------------------------- forward
    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        x = bottom[0]
        memory = bottom[1] if self._cross else x
        cached = self.has("cache")
        if not cached:
            memory = self.blanked(k, memory, bottom)
            x = x if self._cross else memory
        begin = self._begin(k, bottom) if cached else None
        query, key = (self._turned(k, self._heads(k, self.dense(k, m, name), self._size), begin)
                      for m, name in ((x, "query"), (memory, "key")))  # fmt: skip
        value = self._heads(k, self.dense(k, memory, "value"), self._value)
        sight = Sight()
        if cached:
            key, value = self._remember(k, key, value, begin, sight)
        else:
            sight = self.sight(k, bottom)
            sight.blind |= self._cross and self.p.bias_term  # the values of blanked steps are b_v
        streams, heads, steps, _ = query.shape
        context = k.temp("context", (streams, heads, steps, self._value))
        if self.is_whole(top):
            self.look(k, query, key, value, context, sight, self._scale)
        else:
            scores = k.temp("scores", (streams, heads, steps, key.shape[2]))
            k.gemm(query, key, None, scores, ta=False, tb=True)
            self.mean(k, scores, value, context, sight, top[1] if len(top) > 1 else None, repr(self._scale))
        joined = self._joined(k, context)
        if cached or self._cross or self._given != "lengths":
            self.dense(k, joined, "output", top[0])
        else:
            self.blanked(k, self.dense(k, joined, "output"), bottom, top[0])

    def _heads(self, k: Kernels, x: Any, size: int) -> Any:
        """N H T size of N T (H size), or T N (H size)."""
        first, second, _ = x.shape
        parts = k.view(x, (first, second, self.p.num_heads, size))
        streams, steps = (second, first) if self.p.time_major else (first, second)
        y = k.temp("heads", (streams, self.p.num_heads, steps, size))
        k.transpose(parts, y, axes=(1, 2, 0, 3) if self.p.time_major else (0, 2, 1, 3))
        return y

    def _joined(self, k: Kernels, x: Any) -> Any:
        """The inverse of ``_heads``."""
        streams, heads, steps, size = x.shape
        ends = (steps, streams) if self.p.time_major else (streams, steps)
        y = k.temp("joined", (*ends, heads, size))
        k.transpose(x, y, axes=(2, 0, 1, 3) if self.p.time_major else (0, 2, 1, 3))
        return k.view(y, (*ends, heads * size))

    def _turned(self, k: Kernels, x: Any, begin: Any) -> Any:
        """x, N H T D, turned by the angles of its steps, if rotary."""
        if not self.p.rotary:
            return x
        *outer, steps, size = x.shape
        half = size // 2
        times = self.steps
        if times.shape[0] != steps:
            times = k.temp("times", (steps, 1))
            k.slice(self.steps, times, begin=(0, 0))
        shape = (steps, half) if begin is None else (x.shape[0], 1, steps, half)
        angle = "a * b" if begin is None else "(a + c) * b"
        arrays = [times, self.rates, *([] if begin is None else [begin])]
        turns = []
        for function in ("cos", "sin"):
            turns.append(k.temp(function, shape))
            k.pointwise(arrays, turns[-1], expr=f"{function}({angle})")
        parts = [k.temp(f"half{i}", (*outer, steps, half)) for i in range(2)]
        k.split(x, parts, axis=len(outer) + 1)
        made = [k.temp(f"turned{i}", (*outer, steps, half)) for i in range(2)]
        k.pointwise([*parts, *turns], made[0], expr="a * c - b * d")
        k.pointwise([*parts, *turns], made[1], expr="b * c + a * d")
        y = k.temp("turned", (*outer, steps, size))
        k.concat(made, y, axis=len(outer) + 1)
        return y

    # ---------------------------------------------------------------------------------------------------------- cache
    def _begin(self, k: Kernels, bottom: Sequence[Any]) -> Any:
        """The position of the first step, N 1 1 1."""
        begin = k.temp("begin", self.position.shape)
        if len(bottom) > 1:
            k.pointwise([stop(bottom[1]), self.position], begin, expr="where(a == 0, 0, b)")
        else:
            k.copy(self.position, begin)  # the state itself changes before backward reads it
        return k.view(begin, (*begin.shape, 1, 1, 1))

    def _remember(self, k: Kernels, key: Any, value: Any, begin: Any, sight: Sight) -> tuple[Any, Any]:
        """Keys and values of all steps so far, in their slots, which also become the state."""
        streams, heads, count, _ = key.shape
        steps = k.temp("now", (count, 1))
        k.slice(self.steps, steps, begin=(0, 0))
        wanted, places = k.temp("wanted", (streams, 1, count, 1)), k.temp("places", (streams, 1, count, 1))
        k.pointwise([steps, begin], wanted, expr="a + b")
        k.gather(self.slots, k.view(wanted, (streams, count)), k.view(places, (streams, count)))  # refuses one too many
        slots, found = k.view(self.slots, (self.p.cache, 1)), []
        if count > 1:  # which step goes into which slot
            picks = k.temp("picks", (streams, heads, self.p.cache, count))
            k.pointwise([slots, k.view(places, (streams, 1, 1, count))], picks, expr="a == b")
        for past, new in ((self.past_keys, key), (self.past_values, value)):
            whole = k.temp("whole", past.shape)
            if count == 1:
                k.pointwise([past, new, slots, places], whole, expr="where(c == d, b, a)")
            else:
                placed = k.temp("placed", past.shape)
                k.gemm(picks, new, None, placed, ta=False, tb=False)
                expr = f"where((c >= d) * (c < d + {count}), b, a)"
                k.pointwise([past, placed, slots, begin], whole, expr=expr)
            found.append(whole)
        after = k.temp("after", (streams,))
        k.pointwise([k.view(begin, (streams,))], after, expr=f"a + {count}")
        for new, state in zip((*found, after), (self.past_keys, self.past_values, self.position), strict=True):
            k.update([new], [state], rule=_KEEP)
        sight.only("{0} <= {1}", self.slots, places)
        sight.last = places
        return found[0], found[1]


__all__ = ["MultiHeadAttention"]
