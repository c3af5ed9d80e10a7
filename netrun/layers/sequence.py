"""What the recurrent layers share: their bottoms and tops, a stack of layers in one or two directions, and padding.

A sequence comes as T N ..., T steps of N streams side by side. What the second bottom is, its axes say:

- cont (T N), 0 where a stream starts anew and 1 where it goes on. The state lives on from one forward to the next;
  backward through time ends at the first step.
- lengths (N): every column is one sequence that begins at step 0. What stands behind its end is never looked at, what
  comes out there is 0, and no gradient gets there. Nothing lives on.
- absent: every column is one whole sequence.

The direction from the end to the start begins at each sequence's own end with a state of zeros.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from ..expression import rule
from ..kernels import Kernels
from ..random import stream_of
from ..types import Spec
from .base import Count, Layer, stop

_KEEP = {1: rule(["a"], ["x"], "x = a"), 2: rule(["a", "b"], ["x", "y"], "x = a; y = b")}
"""The last step's values become the state, by their number."""


class RecurrentStack(Layer):
    """Base of LSTM, RNN and GRU: a subclass names its state and its gates, and runs one layer in one direction."""

    type = ""
    param = "recurrent_param"
    bottoms: ClassVar[Count] = (1, 5)
    tops: ClassVar[Count] = (1, 3)
    skips = frozenset({1})
    carried: ClassVar[tuple[str, ...]] = ()
    """Names of the parts of the state, in the order of the bottoms and tops that expose them; the first comes out."""
    gates: ClassVar[int] = 1
    """Rows of the weights for each value of the state."""
    own_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields of recurrent_param that not every type has."""

    # -------------------------------------------------------------------------------------------------------- shapes
    def axes_of(self, i: int) -> str:
        return ("T N ...", "T N | N")[i] if i < 2 else ""

    @property
    def time_first(self) -> bool:
        return True

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        exposed = len(self.carried) if self.p.expose_hidden else 0
        self._check_ends(exposed)
        self._check_fields()
        shape, size = bottom[0].shape, self.p.num_output
        if len(shape) < 2:
            self.fail(f"wants a bottom of at least 2 axes (T N ...: steps, streams), got {len(shape)}", bottom=0)
        if size < 1:
            self.fail(f"num_output is {size}, and has to be at least 1", at="num_output")
        steps, streams = shape[:2]
        self._lengths = len(bottom) > 1 and bottom[1].shape == (streams,)
        if len(bottom) > 1 and not self._lengths and bottom[1].shape != (steps, streams):
            what = "wants one number of its second bottom for each step and stream (T N), or one length a stream (N)"
            self.fail(what, bottom=[0, 1])
        self._lives_on = len(bottom) > 1 and not self._lengths and not exposed
        self._static = 2 if len(bottom) > 2 + exposed else 0
        if self._static and bottom[2].shape[:1] != (streams,):
            self.fail(f"wants a third bottom of N ..., N = {streams} streams", bottom=[0, 2])
        self._layers, self._ways = self.p.num_layers, 2 if self.p.bidirectional else 1
        self._sizes = [self.out_size if name == self.carried[0] else size for name in self.carried]
        states = [(self._layers * self._ways, streams, n) for n in self._sizes]
        for i, wanted in enumerate(states[:exposed]):
            given = len(bottom) - exposed + i
            if bottom[given].shape != wanted:
                what = " ".join(map(str, wanted))
                axes = "1 N D" if wanted[0] == 1 else "L N D, L = layers x directions"
                self.fail(f"a first state has the shape {axes} = {what}", bottom=given)
        inputs = math.prod(shape[2:])
        for layer in range(self._layers):
            for way in range(self._ways):
                self._weights(layer, way, inputs, bottom)
            inputs = self._ways * self.out_size
        self.last_weights(size, inputs)
        if self._lives_on:
            for layer in range(self._layers):
                for name, n in zip(self.carried, self._sizes, strict=True):
                    self.state(_called(name, layer), (1, streams, n), streams=1)
        return [self.spec((steps, streams, self.top_size)), *map(self.spec, states[:exposed])]

    def _check_ends(self, exposed: int) -> None:
        message = self.message
        if not 2 + exposed <= len(message.bottom) <= 3 + exposed and (exposed or len(message.bottom) != 1):
            names = "".join(f", first {name}" for name in self.carried[:exposed])
            hint = f"they are: the sequence, cont or lengths, then if wanted one input for the whole sequence{names}"
            self.fail(f"wants {2 + exposed} or {3 + exposed} bottoms, got {len(message.bottom)}", hint=hint)
        if len(message.top) != 1 + exposed:
            hint = "expose_hidden makes a top of each part of the last state, and only that"
            self.fail(f"wants {1 + exposed} tops, got {len(message.top)}", hint=hint)

    def _check_fields(self) -> None:
        special = {"projection": "LSTM", "peephole": "LSTM", "activation": "RNN", "output_layer": "RNN"}
        for name, kind in special.items():
            if self.has(name) and name not in self.own_fields:
                self.fail(f"has no {name}; {kind} layers have", at=name)
        if not 1 <= self.p.num_layers <= 1000:
            self.fail(f"num_layers is {self.p.num_layers}, and has to be in 1 to 1000", at="num_layers")
        ratio = float(self.number("dropout_ratio"))
        if not 0 <= ratio < 1:
            self.fail(f"dropout_ratio is {ratio:g}, and has to be in 0 to 1, 1 excluded", at="dropout_ratio")
        if ratio and self.p.num_layers == 1:
            hint = "a Dropout layer behind this one does that"
            self.fail(
                "dropout_ratio acts between the layers of a stack, and num_layers is 1", at="dropout_ratio", hint=hint
            )
        if self.p.state_gradient and not self.p.expose_hidden:
            self.fail("state_gradient needs expose_hidden: there is no state outside to pass to", at="state_gradient")

    @property
    def out_size(self) -> int:
        """Values that one direction of one layer gives out."""
        return int(self.p.num_output)

    @property
    def top_size(self) -> int:
        """Values of the top, a step and stream."""
        return self._ways * self.out_size

    def _weights(self, layer: int, way: int, inputs: int, bottom: Sequence[Spec]) -> None:
        """Declare those of one direction of one layer, in Caffe's order."""
        rows = self.gates * self.p.num_output
        self.weights_of("input_weight", layer, way, (rows, inputs))
        self.weights_of("input_bias", layer, way, (rows,))
        if self._static and layer == 0:
            self.weights_of("static_weight", layer, way, (rows, math.prod(bottom[2].shape[1:])))
        self.weights_of("hidden_weight", layer, way, (rows, self.out_size))
        self.more_weights(layer, way)

    def more_weights(self, layer: int, way: int) -> None:
        """Declare what comes behind the common weights of one direction of one layer."""

    def weights_of(self, name: str, layer: int, way: int, shape: Sequence[int]) -> None:
        """Declare a parameter of one direction of one layer: one axis is a bias."""
        filler = self.p.weight_filler if len(shape) > 1 else self.p.bias_filler
        self.learned(_called(name, layer, way), shape, filler)

    def last_weights(self, size: int, inputs: int) -> None:
        """Declare what comes behind the weights of all layers."""

    def weight(self, name: str, layer: int, way: int) -> Any:
        """A parameter of one direction of one layer."""
        return getattr(self, _called(name, layer, way))

    # ------------------------------------------------------------------------------------------------------- forward
    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        steps, streams = bottom[0].shape[:2]
        x = k.view(bottom[0], (steps, streams, -1))
        conts, ends = [None, None], None
        if self._lengths:
            ends, inside, conts[1] = self._padding(k, bottom[1], steps)
            clean = k.temp("inside", x.shape)
            k.pointwise([x, inside], clean, expr="where(b, a, 0)")  # what stands in the padding may even be no number
            x = clean
        elif len(bottom) > 1:
            conts = [bottom[1], self._turned(k, bottom[1]) if self._ways == 2 else None]
        first = self._first(k, bottom)
        lasts: list[list[Any]] = []
        for layer in range(self._layers):
            outs = []
            for way in range(self._ways):
                final = layer == self._layers - 1 and self._ways == 1 and not self._lengths and self.ends_the_layer
                shape = (steps, streams, self.out_size)
                y = k.view(top[0], shape) if final else k.temp(_called("hidden", layer, way), shape)
                inputs = self._from_inputs(k, x, bottom, layer, way)
                begin = first[layer * self._ways + way]
                parts = self.run(k, inputs, conts[way], begin, y, layer, way)
                lasts.append([self._last(k, part, way, ends) for part in self._kept(parts)])
                outs.append(y)
            x = self._joined(k, outs, layer)
        if not final:
            self._finish(k, x, inside if self._lengths else None, top[0])
        self._carry(k, lasts, top)

    @property
    def ends_the_layer(self) -> bool:
        """Whether the last layer's hidden state is the top."""
        return True

    def run(self, k: Kernels, x: Any, cont: Any, first: Sequence[Any], y: Any, layer: int, way: int) -> Sequence[Any]:
        """One direction of one layer from its inputs T N gates*D to y; the parts of the state at every step."""
        raise NotImplementedError(f"{type(self).__name__}.run")

    def finish(self, k: Kernels, x: Any, y: Any) -> None:
        """The top from the hidden state of every step, T N and the size of all directions, where they differ."""
        k.copy(x, y)

    def _finish(self, k: Kernels, x: Any, inside: Any, y: Any) -> None:
        if inside is None:
            self.finish(k, x, y)
            return
        made = x
        if not self.ends_the_layer:
            made = k.temp("unmasked", y.shape)
            self.finish(k, x, made)
        k.pointwise([made, inside], y, expr="where(b, a, 0)")

    def _padding(self, k: Kernels, length: Any, steps: int) -> tuple[Any, Any, Any]:
        """For each step and stream: (is the last one), (is no padding), (goes on towards the start)."""
        streams = length.shape[0]
        level, tops, index = k.temp("level", (steps, 1)), k.temp("levels", (steps, 1)), k.temp("from_end", (steps, 1))
        k.fill(level, value=0.0)
        k.topk(level, tops, index, axis=0)  # of equal values the last comes first: the steps counted from the end
        made = []
        row = k.view(length, (1, streams))
        now = f"{steps - 1} - a"
        for name, expr in (("last", f"{now} == min(trunc(b), {steps}) - 1"), ("inside", f"{now} < trunc(b)"),
                           ("goes_on", f"{now} + 1 < trunc(b)")):  # fmt: skip
            flags = k.temp(name, (steps, streams))
            k.pointwise([index, row], flags, expr=expr)
            made.append(flags)
        last, inside, goes_on = made
        return k.view(last, (steps, streams, 1)), k.view(inside, (steps, streams, 1)), goes_on

    def _turned(self, k: Kernels, cont: Any) -> Any:
        """cont for the walk from the end: a sequence that begins at step t ends at t - 1."""
        steps, streams = cont.shape
        turned = k.temp("turned", (steps, streams))
        if steps == 1:
            k.fill(turned, value=0.0)
            return turned
        later = k.temp("later", (steps - 1, streams))
        k.slice(cont, later, begin=(1, 0))
        k.place(later, turned, begin=(0, 0))
        return turned

    def _first(self, k: Kernels, bottom: Sequence[Any]) -> list[list[Any]]:
        """The state before the first step of each direction of each layer; None for zeros."""
        count, streams = len(self.carried), bottom[0].shape[1]
        walks = [(layer, way) for layer in range(self._layers) for way in range(self._ways)]
        if self.p.expose_hidden:
            given = bottom[len(bottom) - count :]
            given = given if self.p.state_gradient else [stop(x) for x in given]
            return [[self._row(k, x, i, "first") for x in given] for i in range(len(walks))]
        found: list[list[Any]] = []
        for layer, way in walks:
            parts: list[Any] = [None] * count
            if self._lives_on and way == 0:
                parts = [
                    k.temp(f"first_{name}", (streams, n)) for name, n in zip(self.carried, self._sizes, strict=True)
                ]
                for name, part in zip(self.carried, parts, strict=True):
                    # the state itself changes before backward reads it
                    k.copy(k.view(getattr(self, _called(name, layer)), part.shape), part)
            found.append(parts)
        return found

    def _row(self, k: Kernels, x: Any, i: int, name: str) -> Any:
        """Entry i of the first axis."""
        if x.shape[0] == 1:
            return k.view(x, x.shape[1:])
        part = k.temp(name, (1, *x.shape[1:]))
        k.slice(x, part, begin=(i, 0, 0))
        return k.view(part, x.shape[1:])

    def _from_inputs(self, k: Kernels, x: Any, bottom: Sequence[Any], layer: int, way: int) -> Any:
        """T N rows: what all steps get from the layer before and from the input that does not change."""
        steps, streams = x.shape[:2]
        rows = self.gates * self.p.num_output
        y = k.temp("from_input", (steps * streams, rows))
        w, b = self.weight("input_weight", layer, way), self.weight("input_bias", layer, way)
        k.gemm(k.view(x, (steps * streams, -1)), w, b, y, ta=False, tb=True)
        y = k.view(y, (steps, streams, rows))
        if not self._static or layer:
            return y
        static, whole = k.temp("from_static", (streams, rows)), k.temp("from_inputs", (steps, streams, rows))
        w = self.weight("static_weight", layer, way)
        k.gemm(k.view(bottom[2], (streams, -1)), w, None, static, ta=False, tb=True)
        k.pointwise([y, k.view(static, (1, streams, rows))], whole, expr="a + b")
        return whole

    def _joined(self, k: Kernels, outs: list[Any], layer: int) -> Any:
        """The directions side by side, with dropout where another layer follows."""
        y = outs[0]
        if len(outs) > 1:
            y = k.temp("both", (*y.shape[:2], 2 * y.shape[2]))
            k.concat(outs, y, axis=2)
        keep = 1 - float(self.p.dropout_ratio)
        if layer == self._layers - 1 or keep == 1 or not self.train:
            return y
        mask, dropped = k.temp("mask", y.shape, "uint8"), k.temp("dropped", y.shape)
        stream = stream_of(self.key, f"mask{layer}")
        k.random(self.clock, mask, how="bernoulli", p=keep, seed=self.context.seed, stream=stream)
        k.pointwise([y, mask], dropped, expr=f"a * b * {1 / keep!r}")
        return dropped

    # ----------------------------------------------------------------------------------------------- the last state
    def _kept(self, parts: Sequence[Any]) -> Sequence[Any]:
        """Those whose last step somebody wants."""
        return parts if self.p.expose_hidden or self._lives_on else ()

    def _last(self, k: Kernels, part: Any, way: int, ends: Any) -> Any:
        """1 N D: the state behind the last step of each sequence."""
        steps, streams, size = part.shape
        part = part if self.p.state_gradient else stop(part)
        last = k.temp("last", (1, streams, size))
        if ends is not None and way == 0:
            k.reduce([part, ends], last, expr="where(b, a, 0)", how="sum", axes=(0,))
        elif steps == 1:
            return part
        else:
            k.slice(part, last, begin=(0 if way else steps - 1, 0, 0))
        return last

    def _carry(self, k: Kernels, lasts: list[list[Any]], top: Sequence[Any]) -> None:
        """The last states go to the tops, or live on."""
        if self.p.expose_hidden:
            for i, y in enumerate(top[1:]):
                rows = [last[i] for last in lasts]
                if len(rows) > 1:
                    k.concat(rows, y, axis=0)
                else:
                    k.copy(rows[0], y)
        elif self._lives_on:
            for layer in range(self._layers):
                own = [getattr(self, _called(name, layer)) for name in self.carried]
                k.update(lasts[layer * self._ways], own, rule=_KEEP[len(own)])


def _called(name: str, layer: int, way: int = 0) -> str:
    """The name of a tensor of one direction of one layer; the first has the plain one."""
    return name + (f"_{layer + 1}" if layer else "") + ("_reverse" if way else "")


__all__ = ["RecurrentStack"]
