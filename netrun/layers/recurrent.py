"""Recurrent layers: LSTM, RNN, and the single step LSTMUnit.

A sequence comes as T N ..., T steps of N streams side by side. ``cont`` (T N) is 0 where a stream starts anew and 1
where it goes on. Everything that does not depend on the state before is one product over all steps; the rest is
recorded step by step, so that backward through time follows from the recorded calls. It ends at the first step: no
gradient passes to the batch before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from ..expression import rule
from ..kernels import Kernels
from ..types import Shape, Spec
from .base import Count, Layer, stop

_KEEP = {1: rule(["a"], ["x"], "x = a"), 2: rule(["a", "b"], ["x", "y"], "x = a; y = b")}
"""The last step's values become the state, by their number."""

_CELL = "c * sigmoid(b) * d + sigmoid(a) * tanh(e)"
"""The new cell from the gates a (input), b (forget), e (new values), from c (cont) and d, the cell before."""


def lstm_step(k: Kernels, gates: Any, cont: Any, before: Any, cell: Any, hidden: Any) -> None:
    """One step of an LSTM: N streams of D cells. gates: N 4D, in the order i f o g; cont: N 1; the rest: N D."""
    streams, size = before.shape
    parts = [k.temp(f"gate_{name}", (streams, 1, size)) for name in "ifog"]
    k.split(k.view(gates, (streams, 4, size)), parts, axis=1)
    i, f, o, g = (k.view(part, (streams, size)) for part in parts)
    k.pointwise([i, f, cont, before, g], cell, expr=_CELL)
    k.pointwise([o, cell], hidden, expr="sigmoid(a) * tanh(b)")


class _Recurrent(Layer):
    """What LSTM and RNN share: bottoms, shapes, the state, the walk over the steps."""

    type = ""
    param = "recurrent_param"
    bottoms: ClassVar[Count] = (2, 5)
    tops: ClassVar[Count] = (1, 3)
    skips = frozenset({1})
    carried: ClassVar[tuple[str, ...]] = ()
    """Names of the parts of the state, in the order of the bottoms and tops that expose them."""
    gates: ClassVar[int] = 1
    """Rows of the weights for each value of the state."""
    input_weight: Any
    input_bias: Any
    static_weight: Any
    hidden_weight: Any

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        exposed = len(self.carried) if self.p.expose_hidden else 0
        self._check_ends(exposed)
        shape, size = bottom[0].shape, self.p.num_output
        if len(shape) < 2:
            self.fail(f"wants a bottom of at least 2 axes (T N ...: steps, streams), got {len(shape)}", bottom=0)
        if size < 1:
            self.fail(f"num_output is {size}, and has to be at least 1", at="num_output")
        if bottom[1].shape != shape[:2]:
            self.fail("wants one number of its second bottom for each step and stream (T N)", bottom=[0, 1])
        steps, streams = shape[:2]
        self._static = 2 if len(bottom) > 2 + exposed else 0
        if self._static and bottom[2].shape[:1] != (streams,):
            self.fail(f"wants a third bottom of N ..., N = {streams} streams", bottom=[0, 2])
        for given in range(len(bottom) - exposed, len(bottom)):
            if bottom[given].shape != (1, streams, size):
                self.fail(f"a first state has the shape 1 N D = 1 {streams} {size}", bottom=given)
        self._inputs = math.prod(shape[2:])
        rows = self.gates * size
        weight, bias = self.p.weight_filler, self.p.bias_filler
        self.learned("input_weight", (rows, self._inputs), weight)
        self.learned("input_bias", (rows,), bias)
        if self._static:
            self.learned("static_weight", (rows, math.prod(bottom[2].shape[1:])), weight)
        self.learned("hidden_weight", (rows, size), weight)
        self.more_weights(size)
        if not exposed:
            for name in self.carried:
                self.state(name, (1, streams, size))
        top = (steps, streams, size)
        return [self.spec(top), *[self.spec((1, streams, size))] * exposed]

    def _check_ends(self, exposed: int) -> None:
        message = self.message
        if not 2 + exposed <= len(message.bottom) <= 3 + exposed:
            names = "".join(f", first {name}" for name in self.carried[:exposed])
            hint = f"they are: the sequence, cont, then if wanted one input for the whole sequence{names}"
            self.fail(f"wants {2 + exposed} or {3 + exposed} bottoms, got {len(message.bottom)}", hint=hint)
        if len(message.top) != 1 + exposed:
            hint = "expose_hidden makes a top of each part of the last state, and only that"
            self.fail(f"wants {1 + exposed} tops, got {len(message.top)}", hint=hint)

    def more_weights(self, size: int) -> None:
        """Declare what comes behind the common weights."""

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        (steps, streams), size = bottom[0].shape[:2], self.p.num_output
        parts = self._split(k, "input", self._from_inputs(k, bottom), (streams, self.gates * size))
        conts = self._split(k, "cont", bottom[1], (streams, 1))
        state = self._first(k, bottom, (streams, size))
        outputs = []
        for t in range(steps):
            seen, product = k.temp("seen", (streams, size)), k.temp("product", parts[t].shape)
            k.pointwise([state[0], conts[t]], seen, expr="a * b")
            k.gemm(seen, self.hidden_weight, None, product, ta=False, tb=True)
            gates = k.temp("gates", parts[t].shape)
            k.pointwise([product, parts[t]], gates, expr="a + b")
            state = self.advance(k, gates, conts[t], state)
            outputs.append(k.view(state[0], (1, streams, size)))
        self.finish(k, outputs, top[0])
        if self.p.expose_hidden:
            for part, y in zip(state, top[1:], strict=True):
                k.copy(stop(part), y)
        else:
            own = [getattr(self, name) for name in self.carried]
            last = [k.view(part, (1, streams, size)) for part in state]
            k.update(last, own, rule=_KEEP[len(own)])

    def _from_inputs(self, k: Kernels, bottom: Sequence[Any]) -> Any:
        """T N rows: what all steps get from the sequence and from the input that does not change."""
        steps, streams = bottom[0].shape[:2]
        rows = self.gates * self.p.num_output
        y = k.temp("from_input", (steps * streams, rows))
        x = k.view(bottom[0], (steps * streams, self._inputs))
        k.gemm(x, self.input_weight, self.input_bias, y, ta=False, tb=True)
        y = k.view(y, (steps, streams, rows))
        if not self._static:
            return y
        static, whole = k.temp("from_static", (streams, rows)), k.temp("from_inputs", (steps, streams, rows))
        k.gemm(k.view(bottom[2], (streams, -1)), self.static_weight, None, static, ta=False, tb=True)
        k.pointwise([y, k.view(static, (1, streams, rows))], whole, expr="a + b")
        return whole

    def _split(self, k: Kernels, name: str, x: Any, shape: Shape) -> list[Any]:
        """x, T ..., as T tensors of that shape."""
        steps = x.shape[0]
        if steps == 1:
            return [k.view(x, shape)]
        parts = [k.temp(f"{name}_step", (1, *x.shape[1:])) for _ in range(steps)]
        k.split(x, parts, axis=0)
        return [k.view(part, shape) for part in parts]

    def _first(self, k: Kernels, bottom: Sequence[Any], shape: Shape) -> list[Any]:
        """The state before the first step; no gradient passes to it."""
        count = len(self.carried)
        if self.p.expose_hidden:
            return [k.view(stop(x), shape) for x in bottom[len(bottom) - count :]]
        first = [k.temp(f"first_{name}", shape) for name in self.carried]
        for name, part in zip(self.carried, first, strict=True):  # the state itself changes before backward reads it
            k.copy(k.view(getattr(self, name), shape), part)
        return first

    def advance(self, k: Kernels, gates: Any, cont: Any, state: list[Any]) -> list[Any]:
        """One step: the state after it."""
        raise NotImplementedError(f"{type(self).__name__}.advance")

    def finish(self, k: Kernels, hidden: list[Any], y: Any) -> None:
        """The top from the hidden state of every step, 1 N D each."""
        raise NotImplementedError(f"{type(self).__name__}.finish")


class LSTM(_Recurrent):
    """h[t] = sigmoid(o) * tanh(c[t]), c[t] = cont[t] * sigmoid(f) * c[t-1] + sigmoid(i) * tanh(g)

    with (i, f, o, g) = W x[t] + b + U s + R (cont[t] * h[t-1]), four gates of D = num_output values each.

    Bottoms: the sequence x, T N and any further axes; cont, T N, 0 where a stream starts and 1 where it goes on, to
    which no gradient passes; if wanted s, N and any further axes, the same for all steps; with expose_hidden the first
    h and c, 1 N D each. Tops: h, T N D; with expose_hidden the last h and c. Without it they live on into the next
    forward. Gradients end at the first step: none passes to the first h and c, and those of the last ones are ignored.
    Parameter blobs: W (4D I), b (4D), U (4D S) if there is s, R (4D D).
    """

    carried = ("hidden", "cell")
    gates = 4

    def advance(self, k: Kernels, gates: Any, cont: Any, state: list[Any]) -> list[Any]:
        cell, hidden = k.temp("cell", state[1].shape), k.temp("hidden", state[1].shape)
        lstm_step(k, gates, cont, state[1], cell, hidden)
        return [hidden, cell]

    def finish(self, k: Kernels, hidden: list[Any], y: Any) -> None:
        if len(hidden) == 1:
            k.copy(hidden[0], y)
        else:
            k.concat(hidden, y, axis=0)


class RNN(_Recurrent):
    """y[t] = tanh(V h[t] + d), h[t] = tanh(W x[t] + b + U s + R (cont[t] * h[t-1]))

    Bottoms: the sequence x, T N and any further axes; cont, T N, 0 where a stream starts and 1 where it goes on, to
    which no gradient passes; if wanted s, N and any further axes, the same for all steps; with expose_hidden the first
    h, 1 N D, D = num_output. Tops: y, T N D; with expose_hidden the last h. Without it h lives on into the next
    forward. Gradients end at the first step: none passes to the first h, and that of the last one is ignored.
    Parameter blobs: W (D I), b (D), U (D S) if there is s, R (D D), V (D D), d (D).
    """

    carried = ("hidden",)
    output_weight: Any
    output_bias: Any

    def more_weights(self, size: int) -> None:
        self.learned("output_weight", (size, size), self.p.weight_filler)
        self.learned("output_bias", (size,), self.p.bias_filler)

    def advance(self, k: Kernels, gates: Any, cont: Any, state: list[Any]) -> list[Any]:
        hidden = k.temp("hidden", state[0].shape)
        k.pointwise([gates], hidden, expr="tanh(a)")
        return [hidden]

    def finish(self, k: Kernels, hidden: list[Any], y: Any) -> None:
        steps, streams, size = y.shape
        all_steps = hidden[0]
        if steps > 1:
            all_steps = k.temp("hidden_steps", y.shape)
            k.concat(hidden, all_steps, axis=0)
        product, rows = k.temp("output_product", (steps * streams, size)), (steps * streams, size)
        k.gemm(k.view(all_steps, rows), self.output_weight, self.output_bias, product, ta=False, tb=True)
        k.pointwise([product], k.view(y, rows), expr="tanh(a)")


class LSTMUnit(Layer):
    """c = cont * sigmoid(f) * c0 + sigmoid(i) * tanh(g), h = sigmoid(o) * tanh(c): one step of an LSTM

    Bottoms: the cell before, c0, ... D; the gates (i, f, o, g), ... 4D; cont, one number for each row of them, to which
    no gradient passes. Tops: c and h, shaped like c0. The gradient of the forget gate is right for any cont; Caffe's is
    for 0 and 1 only.
    """

    bottoms = 3
    tops = 2
    skips = frozenset({2})

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        cell, gates, cont = (b.shape for b in bottom)
        if not cell or gates != (*cell[:-1], 4 * cell[-1]):
            self.fail("wants four gates for every cell: ... D and ... 4D", bottom=[0, 1])
        if math.prod(cont) != math.prod(cell[:-1]):
            self.fail("wants one number of its third bottom for each row of cells", bottom=[0, 2])
        self._rows = math.prod(cell[:-1]), cell[-1]
        return [bottom[0], bottom[0]]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        rows, size = self._rows
        cell, hidden = (k.view(y, self._rows) for y in top)
        lstm_step(
            k, k.view(bottom[1], (rows, 4 * size)), k.view(bottom[2], (rows, 1)), k.view(bottom[0], self._rows),
            cell, hidden,
        )  # fmt: skip


__all__ = ["LSTM", "RNN", "LSTMUnit", "lstm_step"]
