"""Recurrent layers: LSTM, GRU, RNN, and the single step LSTMUnit. What they share, and padding: sequence.py.

Everything that does not depend on the state before is one product over all steps; the rest is one kernel for each layer
and direction of a stack.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..config import schema
from ..kernels import Kernels
from ..types import Spec
from .base import Layer
from .sequence import RecurrentStack

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


class LSTM(RecurrentStack):
    """h[t] = sigmoid(o) * tanh(c[t]), c[t] = cont[t] * sigmoid(f) * c[t-1] + sigmoid(i) * tanh(g)

    with (i, f, o, g) = W x[t] + b + U s + R (cont[t] * h[t-1]), four gates of D = num_output values each. peephole adds
    P[0] * c0 to i, P[1] * c0 to f, c0 = cont[t] * c[t-1], and P[2] * c[t] to o; with projection (P values)
    h[t] = V (sigmoid(o) * tanh(c[t])).

    Bottoms: the sequence x, T N and any further axes; cont, T N, 0 where a stream starts and 1 where it goes on, or
    lengths, N, one for each sequence, to which no gradient passes (without either every column is a whole sequence);
    if wanted s, N and any further axes, the same for all steps; with expose_hidden the first h and c, L N D each. Tops:
    h, T N D, 0 in the padding, or T N 2D of both directions; with expose_hidden the last h and c. L = num_layers x
    directions, the directions of a layer side by side; 1 as in Caffe. With cont and without expose_hidden the states
    of the forward direction live on into the next forward. Unless state_gradient is set, gradients end at the first
    step: none passes to the first h and c, and those of the last ones are ignored.
    Parameter blobs, of each direction of each layer: W (4D I), b (4D), U (4D S) if there is s (first layer), R (4D D),
    P (3 D) if peephole, V (P D) if projection.
    """

    carried = ("hidden", "cell")
    gates = 4
    own_fields = frozenset({"projection", "peephole"})

    @property
    def out_size(self) -> int:
        """Values that one direction of one layer gives out."""
        return int(self.p.projection or self.p.num_output)

    def more_weights(self, layer: int, way: int) -> None:
        size = self.p.num_output
        if self.p.peephole:
            self.weights_of("peephole_weight", layer, way, (3, size))
        if self.p.projection:
            self.weights_of("projection_weight", layer, way, (self.p.projection, size))

    def run(self, k: Kernels, x: Any, cont: Any, first: Sequence[Any], y: Any, layer: int, way: int) -> Sequence[Any]:
        steps, streams = x.shape[:2]
        peep = self.weight("peephole_weight", layer, way) if self.p.peephole else None
        proj = self.weight("projection_weight", layer, way) if self.p.projection else None
        cell, gates = k.temp("cell", (steps, streams, self.p.num_output)), k.temp("gates", x.shape)
        w = self.weight("hidden_weight", layer, way)
        k.lstm(x, w, peep, proj, cont, first[0], first[1], y, cell, gates, reverse=bool(way))
        return [y, cell]


class GRU(RecurrentStack):
    """h[t] = (1 - z) * n + z * h0, n = tanh(x_n + r * (R_n h0 + d)), h0 = cont[t] * h[t-1]

    with r = sigmoid(x_r + R_r h0), z = sigmoid(x_z + R_z h0), (x_r, x_z, x_n) = W x[t] + b + U s: the reset gate acts
    behind the product with the state ("linear before reset"), as in cuDNN, oneDNN and PyTorch.

    Bottoms and tops: those of LSTM, with h alone as the state. Parameter blobs, of each direction of each layer:
    W (3D I), b (3D), U (3D S) if there is s (first layer), R (3D D), d (D).
    """

    carried = ("hidden",)
    gates = 3

    def more_weights(self, layer: int, way: int) -> None:
        self.weights_of("hidden_bias", layer, way, (self.p.num_output,))

    def run(self, k: Kernels, x: Any, cont: Any, first: Sequence[Any], y: Any, layer: int, way: int) -> Sequence[Any]:
        gates = k.temp("gates", (*y.shape[:2], 4 * y.shape[2]))
        w, b = self.weight("hidden_weight", layer, way), self.weight("hidden_bias", layer, way)
        k.gru(x, w, b, cont, first[0], y, gates, reverse=bool(way))
        return [y]


class RNN(RecurrentStack):
    """y[t] = act(V h[t] + d), h[t] = act(W x[t] + b + U s + R (cont[t] * h[t-1])), act = tanh, or relu

    output_layer: false leaves V and d out: y[t] = h[t]; with several layers or directions V reads what comes out of all
    of them. Bottoms and tops: those of LSTM, with h alone as the state; the top of a layer with V has D values in
    either case. Parameter blobs, of each direction of each layer: W (D I), b (D), U (D S) if there is s (first layer),
    R (D D); then V (D D, or D 2D) and d (D).
    """

    carried = ("hidden",)
    own_fields = frozenset({"activation", "output_layer"})
    output_weight: Any
    output_bias: Any

    @property
    def act(self) -> str:
        """The name in expressions and kernels."""
        return "relu" if self.p.activation == schema.RecurrentParameter.RELU else "tanh"

    @property
    def ends_the_layer(self) -> bool:
        """Whether the last layer's hidden state is the top."""
        return not self.p.output_layer

    @property
    def top_size(self) -> int:
        """Values of the top, a step and stream."""
        return int(self.p.num_output) if self.p.output_layer else super().top_size

    def last_weights(self, size: int, inputs: int) -> None:
        if self.p.output_layer:
            self.learned("output_weight", (size, inputs), self.p.weight_filler)
            self.learned("output_bias", (size,), self.p.bias_filler)

    def run(self, k: Kernels, x: Any, cont: Any, first: Sequence[Any], y: Any, layer: int, way: int) -> Sequence[Any]:
        k.rnn(x, self.weight("hidden_weight", layer, way), cont, first[0], y, act=self.act, reverse=bool(way))
        return [y]

    def finish(self, k: Kernels, x: Any, y: Any) -> None:
        if not self.p.output_layer:
            k.copy(x, y)
            return
        rows = math.prod(x.shape[:2])
        product = k.temp("output_product", (rows, y.shape[2]))
        k.gemm(k.view(x, (rows, -1)), self.output_weight, self.output_bias, product, ta=False, tb=True)
        k.pointwise([product], k.view(y, product.shape), expr="tanh(a)" if self.act == "tanh" else "max(a, 0)")


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


__all__ = ["GRU", "LSTM", "RNN", "LSTMUnit", "lstm_step"]
