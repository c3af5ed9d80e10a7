"""If and While: which layers run, and how often, follows from values.

Both are varying layers: the decision is made on the host, in front of the layer (If) or behind its steps (While), and
the net goes over to the program that is compiled for it. So both work on every device, and gradients pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from ..errors import nearest
from ..kernels import OPS, Kernels
from ..program import Call, Origin
from ..types import Shape, Spec, Tensor
from .base import Count
from .body import Given
from .context import Reshaped
from .states import Holder
from .unroll import Carried, Unrolled


class If(Holder):
    """y = then(x) if condition > 0, else otherwise(x): one of two nets, chosen in every forward pass

    Bottoms: the condition, one number, to which no gradient passes; any further inputs, which both branches see by
    name. Tops: blobs that both branches make, of one shape. A gradient passes through the branch that ran; parameters
    of the other one get none in that iteration.
    Parameter blobs: those of the layers in ``then``, in their order, and of those in ``otherwise``.
    """

    param = "if_param"
    bottoms: ClassVar[Count] = (1, None)
    tops: ClassVar[Count] = (1, None)
    skips = frozenset({0})
    varying = True
    in_place = False

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        self.bodies = []
        self.need_body("then")
        if bottom[0].count != 1:
            self.fail("wants one number as its condition", bottom=0)
        names = self.input_names()
        self.places = {name: i for i, name in enumerate(names)}
        given = {name: Given(bottom[i], f"the {self.origin(name)}") for i, name in enumerate(names)}
        branches = ["then", *(["otherwise"] if self.p.HasField("otherwise") else [])]
        for field in branches:
            self.build(field, given, f"{field}.")
            if self.bodies[-1].losses:
                self.fail(
                    "has a loss layer in a branch",
                    at=field,
                    hint="let the branch make a top, and the loss stand outside",
                )
        tops = list(self.message.top)
        output = list(self.p.output)
        if output and len(output) != len(tops):
            self.fail(f"output is given {len(output)} times for {len(tops)} tops", at="output")
        self._outputs = output or tops
        found = [self._specs(field, i) for i, field in enumerate(branches)]
        if len(branches) == 1:
            found.append([self._passed_on(name, bottom) for name in self._outputs])
        for i, (yes, no) in enumerate(zip(*found, strict=True)):
            if yes != no:
                self.fail(f'"{self._outputs[i]}" has the shape {yes} in one branch, {no} in the other', at="then")
        measured = self.context.measured
        self._choice = measured[-1][0] if measured else 1
        return found[0]

    def _specs(self, field: str, branch: int) -> list[Spec]:
        blobs = self.bodies[branch].blobs
        for name in self._outputs:
            if name not in blobs:
                self.fail(f'no layer of "{field}" makes the blob "{name}"{nearest(name, blobs)}', at=field)
        return [Spec(blobs[name].shape, blobs[name].dtype) for name in self._outputs]

    def _passed_on(self, name: str, bottom: Sequence[Spec]) -> Spec:
        if name not in self.places:
            hint = "give otherwise layers that make it, or an input of that name"
            self.fail(f'has no otherwise, so "{name}" would have to be an input', hint=hint)
        return bottom[self.places[name]]

    def measure(self, values: Callable[[int], Any]) -> Sequence[Shape]:
        number = float(np.asarray(values(0)).reshape(-1)[0])
        return [*self._top_shapes(), (int(number > 0),)]

    def settled(self, tops: Sequence[Shape]) -> Sequence[Shape]:
        return [*tops, (self._choice,)]

    def _top_shapes(self) -> list[Shape]:
        return [self.bodies[0].blobs[name].shape for name in self._outputs]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        branch = 0 if self._choice else 1
        if branch == len(self.bodies):
            for name, y in zip(self._outputs, top, strict=True):
                k.copy(bottom[self.places[name]], y)
            return
        body = self.bodies[branch]
        same = body.bound(self)
        same |= {body.inputs[name]: bottom[i] for name, i in self.places.items()}
        run = Unrolled(k, body.calls, 1, same, {}, name=self.key, one_mask=True)
        for name, y in zip(self._outputs, top, strict=True):
            run.values(body.blobs[name], k.view(y, (1, *y.shape)))


class While(Holder):
    """s = body(s) while condition > 0: a net of one's own, run as often as its own values say

    Bottoms: inputs, which every step gets whole, and first values of states, N and any further axes. Tops: last values
    of states, N and any further axes. Where a stream's condition no longer holds its states stay as they are, and the
    others go on, max_steps at most. A gradient passes through the steps that a stream took; none to the condition.
    Parameter blobs: those of the body's layers in their order, then learned first values.
    """

    param = "while_param"
    bottoms: ClassVar[Count] = (1, None)
    tops: ClassVar[Count] = (1, None)
    varying = True
    in_place = False
    _guess: list[int]
    """How many steps to try first: as many as the pass before needed. One list for all compilations of the layer."""

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        self.bodies = []
        self.need_body("body")
        self.places = {name: i for i, name in enumerate(self.input_names())}
        self.check_inputs([(s.initial, ("state", i, "initial")) for i, s in enumerate(self.p.state) if s.initial])
        self.check_states()
        if not self.p.max_steps:
            self.fail("is a loop without end: max_steps is not given", hint="write max_steps: 20, say")
        if not self.p.condition:
            self.fail(
                "is a loop without end: it has no condition", hint='write condition: "..." with a blob of the body'
            )
        streams = self._count_streams(bottom)
        self.states = [self.read_state(i, bottom, streams) for i in range(len(self.p.state))]
        initial = {s.initial for s in self.p.state if s.initial}
        given = {n: Given(bottom[i], f"the {self.origin(n)}") for n, i in self.places.items() if n not in initial}
        for i, state in enumerate(self.states):
            if state.carried:
                self.fail("keeps nothing between batches: no state is carried", at=("state", i, "carry"))
            given[state.message.name] = Given(self.spec(state.shape), f"a state of {self.name}")
        body = self.build("body", given)
        for i, state in enumerate(self.states):
            self.check_state(i, state)
        if body.losses:
            self.fail("has a loss layer in its body", at="body", hint="let it stand outside, over a last value")
        self._check_condition(streams)
        before, measured = self.context.before, self.context.measured
        self._guess = before._guess if isinstance(before, While) else [1]
        self._steps = measured[-1][0] if measured else 1
        self._last = self._lasts()
        return [self.spec(self.states[i].shape) for i in self._last]

    def _count_streams(self, bottom: Sequence[Spec]) -> int:
        for state in self.p.state:
            if state.initial:
                shape = bottom[self.places[state.initial]].shape
                return shape[0] if shape and (len(shape) < 3 or shape[0] != 1) else shape[1] if shape else 1
        return bottom[0].shape[0] if bottom[0].shape else 1

    def _check_condition(self, streams: int) -> None:
        body, name = self.bodies[0], self.p.condition
        if name not in body.blobs:
            self.fail(f'the body has no blob "{name}"{nearest(name, body.blobs)}', at="condition")
        blob = body.blobs[name]
        self._before_step = name in {s.message.name for s in self.states} and blob is body.inputs[name]
        if blob.spec.count not in (1, streams):
            text = " ".join(map(str, blob.shape))
            self.fail(
                f"wants a condition of one number, or of {streams}, one a stream; it has the shape {text}",
                at="condition",
            )
        moving = {body.inputs[s.message.name] for s in self.states}
        for call in body.calls:
            if call.op.name in ("random", "host") or any(t.root in moving for t in call.reads()):
                moving.update(t.root for t in call.writes())
        if blob.root not in moving:
            hint = "it depends on no state, so it is the same in every step"
            self.fail(f'is a loop without end: its condition "{name}" never changes', at="condition", hint=hint)

    def _lasts(self) -> list[int]:
        known = {s.message.last: i for i, s in enumerate(self.states) if s.message.last}
        tops = list(self.message.top)
        for name, i in known.items():
            if name not in tops:
                self.fail(f'no top "{name}"{nearest(name, tops)}', at=("state", i, "last"))
        for top in tops:
            if top not in known:
                hint = f'a state gives its last value to a top with last: "{top}"'
                self.fail(f'the top "{top}" is the last value of no state', hint=hint)
        return [known[top] for top in tops]

    # -------------------------------------------------------------------------------------------------- how many steps
    def measure(self, values: Callable[[int], Any]) -> Sequence[Shape]:
        return self._for(self._guess[0])

    def settled(self, tops: Sequence[Shape]) -> Sequence[Shape]:
        return [*tops, (self._steps,)]

    def _for(self, steps: int) -> list[Shape]:
        return [*(self.states[i].shape for i in self._last), (min(steps, int(self.p.max_steps)),)]

    def _look(self, xs: Sequence[Any], ys: Sequence[Any]) -> None:
        """After the steps: ask for more of them if a stream is not done; else remember how many were needed."""
        alive = [bool(step.any()) for step in xs[0]]
        if alive[-1] and self._steps < self.p.max_steps:
            raise Reshaped(tuple(self._for(2 * self._steps)))
        needed = sum(alive) + 1  # the last of them is the one that goes on no more
        self._guess[0] = 1 << math.ceil(math.log2(needed))

    # -------------------------------------------------------------------------------------------------------- forward
    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        body = self.bodies[0]
        same = body.bound(self)
        for name, placeholder in body.inputs.items():
            if name in self.places:
                same[placeholder] = bottom[self.places[name]]
        count = body.blobs[self.p.condition].spec.count
        dtype = self.context.dtype
        test = body.blobs[self.p.condition].stop().view((count,))
        calls, states = list(body.calls), []
        alive, going = Tensor("alive", Spec((count,), dtype)), Tensor("going", Spec((count,), dtype))
        if self._before_step:
            calls.insert(0, _pointwise([test], alive, "where(a > 0, 1, 0)", Origin(self.name, self.key)))
            going = alive
        else:
            calls.append(_pointwise([alive, test], going, "where(b > 0, a, 0)", Origin(self.name, self.key)))
            ones = k.temp("first_alive", (count,))
            k.fill(ones, value=1.0)
            states.append(Carried(alive, going, ones))
        for state in self.states:
            before = body.inputs[state.message.name]
            kept = Tensor(f"{state.message.name}.kept", before.spec)
            mask = alive.stop().view((count, *(1,) * (len(state.shape) - 1)))
            after = body.blobs[state.message.next]
            calls.append(_pointwise([mask, after, before], kept, "where(a > 0, b, c)", Origin(self.name, self.key)))
            states.append(Carried(before, kept, self.first_value(k, bottom, state)))
        loop = Unrolled(k, calls, self._steps, same, {}, states, name=self.key)
        went = k.temp("went_on", (self._steps, count))
        loop.values(going, went)
        k.host([went], [], fn=self._look, grad=None)
        last = loop.last[len(states) - len(self.states) :]
        for i, y in zip(self._last, top, strict=True):
            k.copy(last[i], y)


def _pointwise(xs: Sequence[Tensor], y: Tensor, expr: str, origin: Origin) -> Call:
    return Call(OPS["pointwise"], (tuple(xs), y), {"expr": expr}, origin)


__all__ = ["If", "While"]
