"""Attention by dot products and by a comparing layer (Bahdanau): DotProductAttention, AdditiveAttention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from ..config import schema
from ..kernels import Kernels
from ..types import Shape, Spec
from .base import Count
from .sight import Attention


class _Pointing(Attention):
    """What the two share: a query of one step, N D, or of several, and a second top for the weights."""

    type = ""
    tops: ClassVar[Count] = (1, 2)

    def read_query(self, bottom: Sequence[Spec]) -> Shape:
        """The shape N Tq D of the query; sets whether it has no axis of steps."""
        self._single = len(bottom[0].shape) == 2
        if self._single:
            return bottom[0].shape[0], 1, bottom[0].shape[1]
        return self.sequence(0, bottom, "a query")

    def top_specs(self, places: Shape, size: int) -> list[Spec]:
        """Context and weights."""
        streams, steps, keys = places
        context = (steps, streams, size) if self.p.time_major else (streams, steps, size)
        shapes = [(streams, size), (streams, keys)] if self._single else [context, places]
        return [self.spec(shape) for shape in shapes[: max(1, len(self.message.top))]]

    def give(self, k: Kernels, scores: Any, value: Any, bottom: Sequence[Any], top: Sequence[Any], scale: str = "",
             *factor: Any) -> None:  # fmt: skip
        """Write the tops from scores N Tq Tk and values N Tk D."""
        streams, steps, _ = scores.shape
        shown = top[1] if len(top) > 1 else None
        y = self._home(k, (streams, steps, value.shape[2]), top)
        self.mean(k, scores, value, y, self.sight(k, bottom), shown, scale, *factor)
        self._turn(k, y, top)

    def _home(self, k: Kernels, shape: Shape, top: Sequence[Any]) -> Any:
        """Memory for the context N Tq D: the top, or where that is Tq N D an array to turn."""
        turned = self.p.time_major and shape[0] > 1 and shape[1] > 1
        return k.temp("context", shape) if turned else k.view(top[0], shape)

    def _turn(self, k: Kernels, y: Any, top: Sequence[Any]) -> None:
        if self.p.time_major and y.shape[0] > 1 and y.shape[1] > 1:
            k.transpose(y, top[0], axes=(1, 0, 2))


class DotProductAttention(_Pointing):
    """y[n,i] = sum over j of p[n,i,j] * value[n,j], p[n,i] = softmax over j of scale * (query[n,i] . key[n,j])

    Bottoms: query, N Tq D, or N D for one; key, N Tk D; value, N Tk Dv; if wanted lengths, N, of keys and values, or a
    mask, N Tq Tk (each may be 1), 1 where a query may look, else 0; no gradient passes to them. Sequences are T N D
    with time_major. Top: N Tq Dv (or N Dv); a second one the weights p, N Tq Tk (or N Tk), behind the dropout. With
    learned_scale the scale is a parameter blob, (1,). What stands behind a length is never looked at and gets no
    gradient; a query that may look at nothing gives 0. (Vaswani et al., "Attention is all you need", 2017; without the
    scale Luong, Pham, Manning, "Effective approaches to attention-based neural machine translation", 2015.)
    """

    bottoms: ClassVar[Count] = (3, 4)
    skips = frozenset({3})
    own_fields = frozenset({"causal", "dropout_ratio", "scale", "learned_scale", "time_major"})
    factor: Any

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        self.check_fields()
        query, key = self.read_query(bottom), self.sequence(1, bottom, "keys")
        value = self.sequence(2, bottom, "values")
        if key[0] != query[0] or key[2] != query[2]:
            self.fail("wants queries and keys of one length D, and as many sequences", bottom=[0, 1])
        if value[:2] != key[:2]:
            self.fail("wants a value for each key", bottom=[1, 2])
        places = query[0], query[1], key[1]
        self.read_sight(3, bottom, places)
        self._scale = float(self.number("scale")) if self.has("scale") else 1 / math.sqrt(query[2])
        if self.p.learned_scale:
            self.learned("factor", (1,), schema.FillerParameter(type="constant", value=self._scale))
        return self.top_specs(places, value[2])

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        query = k.view(bottom[0], (bottom[0].shape[0], 1, -1)) if self._single else self.batch_first(k, bottom[0])
        key, value = (self.batch_first(k, self.blanked(k, x, bottom)) for x in bottom[1:3])
        if self.is_whole(top) and not self.p.learned_scale:
            y = self._home(k, (*query.shape[:2], value.shape[2]), top)
            q, m, v, c = (k.view(x, (x.shape[0], 1, *x.shape[1:])) for x in (query, key, value, y))  # one head
            self.look(k, q, m, v, c, self.sight(k, bottom), self._scale)
            self._turn(k, y, top)
            return
        scores = k.temp("scores", (query.shape[0], query.shape[1], key.shape[1]))
        k.gemm(query, key, None, scores, ta=False, tb=True)
        if self.p.learned_scale:
            self.give(k, scores, value, bottom, top, "b", k.view(self.factor, (1, 1, 1)))
        else:
            self.give(k, scores, value, bottom, top, repr(self._scale) if self._scale != 1 else "")


class AdditiveAttention(_Pointing):
    """y[n,i] = sum over j of p[n,i,j] * m[n,j], p[n,i] = softmax over j of v . tanh(W q[n,i] + U m[n,j] + b)

    Bottoms: the query q, N Tq D, or N D for one (the state of a decoder); the memory m, N Tk M; if wanted lengths, N,
    of the memory, or a mask, as for DotProductAttention. Sequences are T N D with time_major. Top: N Tq M (or N M); a
    second one the weights p, N Tq Tk (or N Tk). Inside a Recurrent, with the memory as a static input, U m is computed
    once for all steps. Parameter blobs, A = num_output: W (A D), U (A M), b (A) if bias_term, v (1 A). (Bahdanau, Cho,
    Bengio, "Neural machine translation by jointly learning to align and translate", 2014.)
    """

    bottoms: ClassVar[Count] = (2, 3)
    skips = frozenset({2})
    own_fields = frozenset(
        {"num_output", "causal", "dropout_ratio", "bias_term", "weight_filler", "bias_filler", "time_major"}
    )
    score_weight: Any

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        self.check_fields()
        size = self.p.num_output
        if size < 1:
            self.fail(
                "has no num_output", hint="write num_output: 64, say: the values query and memory are compared in"
            )
        query, memory = self.read_query(bottom), self.sequence(1, bottom, "a memory")
        if memory[0] != query[0]:
            self.fail("wants as many memories as queries", bottom=[0, 1])
        places = query[0], query[1], memory[1]
        self.read_sight(2, bottom, places)
        self.declare_dense("query", size, query[2], False)
        self.declare_dense("memory", size, memory[2])
        self.declare_dense("score", 1, size, False)
        return self.top_specs(places, memory[2])

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        query = k.view(bottom[0], (bottom[0].shape[0], 1, -1)) if self._single else self.batch_first(k, bottom[0])
        memory = self.batch_first(k, self.blanked(k, bottom[1], bottom))
        (streams, steps, _), keys, size = query.shape, memory.shape[1], self.p.num_output
        near = k.view(self.dense(k, query, "query"), (streams, steps, 1, size))
        far = k.view(self.dense(k, memory, "memory"), (streams, 1, keys, size))
        compared = k.temp("compared", (streams, steps, keys, size))
        k.pointwise([near, far], compared, expr="tanh(a + b)")
        scores = k.temp("scores", (streams, steps, keys))
        rows = streams * steps * keys
        k.gemm(k.view(compared, (rows, size)), self.score_weight, None, k.view(scores, (rows, 1)), ta=False, tb=True)
        self.give(k, scores, memory, bottom, top)


__all__ = ["AdditiveAttention", "DotProductAttention"]
