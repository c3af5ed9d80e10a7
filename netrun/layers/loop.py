"""Recurrent: any net as the step of a loop over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import nearest
from ..expression import rule
from ..kernels import OPS, Kernels
from ..program import Call, Origin
from ..types import Spec, Tensor
from .base import stop
from .body import Given
from .states import Holder
from .unroll import Carried, Unrolled

_KEEP = rule(["a"], ["x"], "x = a")


class Recurrent(Holder):
    """y[t] = body(x[t], s[t-1]), s[t] = body(x[t], s[t-1]): a net of one's own, run once for each step of a sequence

    Bottoms, in any order: inputs, T N and any further axes, of which a step gets N and the further ones; static
    inputs, which every step gets whole; cont, T N, 0 where a stream starts anew; first values of states, N D.
    Tops: blobs of the body, T N and any further axes; last values of states, N D.
    At a step with cont 0 a stream's states are set back: to the learned first value if there is one, else to zero.
    Several states may be read and set by any layers of the body, so that the lowest cell of a stack can read what the
    highest gave in the step before. Loss layers in the body count with their weight in every step; a top that is a
    loss holds T numbers. Gradients pass through all steps and to first values, not into the batch before.
    Parameter blobs: those of the body's layers in their order, each layer's in its own order; then learned first
    values in the order of the states. They learn and are shared as ``param`` says in the body.
    """

    param = "recurrent_net_param"

    @property
    def time_first(self) -> bool:
        return True

    def axes_of(self, i: int) -> str:
        return "T N ..." if self.input_names()[i] in self._stepped else ""

    # ---------------------------------------------------------------------------------------------------------- setup
    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        self.bodies = []
        self.need_body("body")
        names = self.input_names()
        self.places = {name: i for i, name in enumerate(names)}
        self._check_names()
        static, cont = set(self.p.static), self.p.cont
        initial = {state.initial for state in self.p.state if state.initial}
        self._stepped = [n for n in names if n not in static and n not in initial]
        self._steps = self._count_steps(bottom)
        streams = self._count_streams(bottom)
        self.states = [self.read_state(i, bottom, streams) for i in range(len(self.p.state))]
        given = {}
        for name in names:
            spec = bottom[self.places[name]]
            if name in static:
                given[name] = Given(spec, f"the {self.origin(name)}")
            elif name not in initial:
                given[name] = Given(Spec(spec.shape[1:], spec.dtype), f"one step of the {self.origin(name)}")
        for state in self.states:
            given[state.message.name] = Given(self.spec(state.shape), f"a state of {self.name}")
        self.build("body", given)
        for i, state in enumerate(self.states):
            self.check_state(i, state)
        if cont and bottom[self.places[cont]].shape != (self._steps, streams):
            self.fail(f"wants T N = {self._steps} {streams} numbers of cont", at="cont", bottom=self.places[cont])
        return self._top_specs()

    def _check_names(self) -> None:
        """Everything that names an input names one."""
        named: list[tuple[str, tuple[str | int, ...]]] = [(n, ("static", i)) for i, n in enumerate(self.p.static)]
        named += [(s.initial, ("state", i, "initial")) for i, s in enumerate(self.p.state) if s.initial]
        named += [(self.p.cont, ("cont",))] if self.p.cont else []
        self.check_inputs(named)
        self.check_states()
        for i, state in enumerate(self.p.state):
            if state.carry and self.p.reverse:
                self.fail("carry and reverse exclude each other: the last step run is the first in time", at="reverse")
            if state.carry and state.HasField("filler") and not self.p.cont:
                hint = "name a cont input: where it is 0 the state is set to the learned value"
                self.fail(
                    f'the state "{state.name}" is carried, so nothing says when it starts', at=("state", i), hint=hint
                )

    def _count_steps(self, bottom: Sequence[Spec]) -> int:
        if not self._stepped:
            if not self.p.steps:
                hint = "write steps: N, or give it a bottom T N ..."
                self.fail("is a loop without end: nothing says how many steps it has", hint=hint)
            return int(self.p.steps)
        numbers = [self.places[name] for name in self._stepped]
        for i in numbers:
            if len(bottom[i].shape) < 2:
                hint = "an input without time is named in static, or as the initial of a state"
                self.fail("wants T N ... (steps, streams) of an input", bottom=i, hint=hint)
            if bottom[i].shape[:1] != bottom[numbers[0]].shape[:1]:
                self.fail("wants as many steps of every input", bottom=[numbers[0], i])
        steps = bottom[numbers[0]].shape[0]
        if self.p.steps and self.p.steps != steps:
            self.fail(f"steps is {self.p.steps}, the inputs have {steps}", at="steps", bottom=numbers[0])
        if steps < 1:
            self.fail("wants at least one step", bottom=numbers[0])
        return steps

    def _count_streams(self, bottom: Sequence[Spec]) -> int:
        if self._stepped:
            return bottom[self.places[self._stepped[0]]].shape[1]
        for state in self.p.state:
            if state.initial:
                shape = bottom[self.places[state.initial]].shape
                return shape[0] if len(shape) < 3 or shape[0] != 1 else shape[1]
        for name in self.p.static:
            shape = bottom[self.places[name]].shape
            if shape:
                return shape[0]
        return self.fail("has no bottom that says how many streams there are")

    def _top_specs(self) -> list[Spec]:
        tops, lasts = list(self.message.top), {}
        for i, state in enumerate(self.states):
            last = state.message.last
            if last and last not in tops:
                self.fail(f'no top "{last}"{nearest(last, tops)}', at=("state", i, "last"))
            if last:
                lasts[last] = i
        rest = [top for top in tops if top not in lasts]
        output = list(self.p.output)
        if output and len(output) != len(rest):
            self.fail(f"output is given {len(output)} times for {len(rest)} tops that are no last value", at="output")
        self._outputs: dict[int, str] = {}
        self._lasts: dict[int, int] = {}
        specs = []
        for i, top in enumerate(tops):
            if top in lasts:
                self._lasts[i] = lasts[top]
                specs.append(self.spec(self.states[lasts[top]].shape))
                continue
            place = rest.index(top)
            name = output[place] if output else top
            if name not in self.bodies[0].blobs:
                at: Any = ("output", place) if output else ""
                hint = "" if output else "a top that is called otherwise than in the body needs output"
                known = [*self.bodies[0].blobs, *(s.message.last for s in self.states if s.message.last)]
                self.fail(f'the body has no blob "{name}"{nearest(name, known)}', at=at, hint=hint)
            self._outputs[i] = name
            blob = self.bodies[0].blobs[name]
            specs.append(Spec((self._steps, *blob.shape), blob.dtype))
        return specs

    # --------------------------------------------------------------------------------------------------------- losses
    def top_weights(self) -> list[float]:
        known = {loss.blob: loss.weight for loss in self.bodies[0].losses}
        return [known.get(self._outputs.get(i, ""), 0.0) for i in range(len(self.message.top))]

    def unnamed_tops(self) -> Sequence[tuple[Spec, float]]:
        """Losses of the body that are no tops."""
        return [(Spec((self._steps, *x.tensor.shape), x.tensor.dtype), x.weight) for x in self._unnamed()]

    def _unnamed(self) -> list[Any]:
        shown = set(self._outputs.values())
        return [loss for loss in self.bodies[0].losses if loss.blob not in shown]

    # -------------------------------------------------------------------------------------------------------- forward
    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        body, calls = self.bodies[0], []
        same = body.bound(self)
        stepped: dict[Tensor, Any] = {}
        for name, placeholder in body.inputs.items():
            if name in self.places:
                target = stepped if name in self._stepped else same
                target[placeholder] = bottom[self.places[name]]
        cont = self._cont(k, bottom, stepped) if self.p.cont and self.states else None
        states = []
        for state in self.states:
            first, placeholder = self.first_value(k, bottom, state), body.inputs[state.message.name]
            before = placeholder
            if cont is not None:
                before = Tensor(f"{state.message.name}.before", placeholder.spec)
                seen = cont.view((state.shape[0], *(1,) * (len(state.shape) - 1)))
                args, expr = [before, seen], "a * b"
                if state.learned:
                    start = Tensor(f"{state.message.name}.start", Spec((1, *state.shape[1:]), placeholder.dtype))
                    same[start] = getattr(self, state.learned)
                    args, expr = [*args, start], "a * b + (1 - b) * c"
                origin = Origin(self.name, self.key)
                calls.append(Call(OPS["pointwise"], (tuple(args), placeholder), {"expr": expr}, origin))
            states.append(Carried(before, body.blobs[state.message.next], first))
        loop = Unrolled(
            k, [*calls, *body.calls], self._steps, same, stepped, states,
            backwards=self.p.reverse, name=self.key, one_mask=self.p.one_mask,
        )  # fmt: skip
        for i, name in self._outputs.items():
            loop.values(body.blobs[name], top[i])
        for i, number in self._lasts.items():
            k.copy(loop.last[number], top[i])
        for loss, y in zip(self._unnamed(), top[len(self.message.top) :], strict=True):
            loop.values(loss.tensor, y)
        for state, last in zip(self.states, loop.last, strict=True):
            if state.carried:
                k.update([last], [getattr(self, state.carried)], rule=_KEEP)

    def _cont(self, k: Kernels, bottom: Sequence[Any], stepped: dict[Tensor, Any]) -> Tensor:
        """What the state before each step is multiplied by. Run backwards, a stream's last step is its first."""
        given = stop(bottom[self.places[self.p.cont]])
        placeholder = Tensor(f"{self.p.cont}.seen", Spec(given.shape[1:], str(given.dtype)))
        if self.p.reverse:
            steps, streams = given.shape
            after = k.temp("cont_after", (steps, streams))
            if steps > 1:
                rest, ones = k.temp("cont_rest", (steps - 1, streams)), k.temp("cont_end", (1, streams))
                k.slice(given, rest, begin=(1, 0))
                k.fill(ones, value=1.0)
                k.concat([rest, ones], after, axis=0)
            else:
                k.fill(after, value=1.0)
            given = after
        stepped[placeholder] = given
        return placeholder


__all__ = ["Recurrent"]
