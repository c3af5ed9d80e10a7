"""Recurrent: any net as the step of a loop over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..config import schema
from ..errors import nearest
from ..expression import rule
from ..kernels import OPS, Kernels
from ..program import Call
from ..types import Shape, Spec, Tensor
from .base import Count, Layer, stop
from .body import Body, Given
from .unroll import Carried, Unrolled

_KEEP = rule(["a"], ["x"], "x = a")


@dataclass
class _State:
    """A state with what was found out about it. ``initial``: number of the bottom that it starts with."""

    message: schema.LoopState
    shape: Shape
    initial: int | None

    @property
    def learned(self) -> str:
        """Name of the parameter blob it starts with; "" if it has none."""
        return f"{self.message.name}.initial" if self.message.HasField("filler") else ""

    @property
    def carried(self) -> str:
        """Name of what it carries between batches; "" if nothing."""
        return f"{self.message.name}.carried" if self.message.carry else ""


class Recurrent(Layer):
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
    bottoms: ClassVar[Count] = (0, None)
    tops: ClassVar[Count] = (0, None)
    _body: Body
    _states: list[_State]

    # ---------------------------------------------------------------------------------------------------------- setup
    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        names = self._input_names()
        self._number = {name: i for i, name in enumerate(names)}
        self._check_names()
        static, cont = set(self.p.static), self.p.cont
        initial = {state.initial for state in self.p.state if state.initial}
        self._stepped = [n for n in names if n not in static and n not in initial]
        self._steps = self._count_steps(bottom)
        streams = self._count_streams(bottom)
        self._states = [self._state(i, bottom, streams) for i in range(len(self.p.state))]
        given = {}
        for name in names:
            spec, shown = bottom[self._number[name]], self.message.bottom[self._number[name]]
            if name in initial:
                continue
            if name in static:
                given[name] = Given(spec, f'the bottom "{shown}" of {self.name}')
            else:
                given[name] = Given(
                    Spec(spec.shape[1:], spec.dtype), f'one step of the bottom "{shown}" of {self.name}'
                )
        for state in self._states:
            given[state.message.name] = Given(self.spec(state.shape), f"a state of {self.name}")
        before = self.context.before
        if self.context.inner is None:
            self.fail("stands alone: a layer with a body is built as part of a net")
        self._body = self.context.inner((self.param, "body"), given, getattr(before, "_body", None))
        self._body.declare(self)
        for i, state in enumerate(self._states):
            self._check_state(i, state)
        if cont and bottom[self._number[cont]].shape != (self._steps, streams):
            self.fail(f"wants T N = {self._steps} {streams} numbers of cont", at="cont", bottom=self._number[cont])
        return self._top_specs()

    def _input_names(self) -> list[str]:
        bottoms = list(self.message.bottom)
        given = list(self.p.input)
        if self.message.param:
            hint = "write param into the layers of the body, whose parameters they are"
            self.fail("takes no param entries of its own", hint=hint)
        if not self.p.HasField("body") or not self.p.body.layer:
            self.fail("has no body", hint=f"write {self.param} {{ body {{ layer {{ ... }} }} }}")
        if given and len(given) != len(bottoms):
            self.fail(f"input is given {len(given)} times for {len(bottoms)} bottoms", at="input")
        names = given or bottoms
        for i, name in enumerate(names):
            if name in names[:i]:
                self.fail(
                    f'two inputs are called "{name}"', at=("input", i), hint="input gives them names of their own"
                )
        return names

    def _check_names(self) -> None:
        """Everything that names an input names one."""
        named: list[tuple[str, tuple[str | int, ...]]] = [(n, ("static", i)) for i, n in enumerate(self.p.static)]
        named += [(s.initial, ("state", i, "initial")) for i, s in enumerate(self.p.state) if s.initial]
        named += [(self.p.cont, ("cont",))] if self.p.cont else []
        for i, (name, at) in enumerate(named):
            if name not in self._number:
                self.fail(f'no input "{name}"{nearest(name, self._number)}', at=at)
            if name in [n for n, _ in named[:i]]:
                self.fail(f'the input "{name}" is used for two things', at=at)
        seen: set[str] = set()
        for i, state in enumerate(self.p.state):
            if not state.name:
                self.fail("a state has no name", at=("state", i))
            if state.name in seen or state.name in self._number:
                kind = "state" if state.name in seen else "input"
                self.fail(f'there is a {kind} called "{state.name}" already', at=("state", i, "name"))
            seen.add(state.name)
            if not state.next:
                hint = 'write next: "..." with the blob of the body that is its value after the step'
                self.fail(f'the state "{state.name}" is never set', at=("state", i), hint=hint)
            starts = [n for n in ("initial", "filler") if state.HasField(n)]
            if len(starts) > 1 or (state.carry and state.HasField("initial")):
                both = " and ".join([*starts, *(["carry"] if state.carry else [])][:2])
                self.fail(f'the state "{state.name}" has both {both}', at=("state", i, both.split()[-1]))
            if state.carry and self.p.reverse:
                self.fail("carry and reverse exclude each other: the last step run is the first in time", at="reverse")
            if state.carry and state.HasField("filler") and not self.p.cont:
                hint = "name a cont input: where it is 0 the state is set to the learned value"
                self.fail(
                    f'the state "{state.name}" is carried, so nothing says when it starts', at=("state", i), hint=hint
                )
            if state.HasField("param") and not state.HasField("filler"):
                self.fail(
                    f'the state "{state.name}" learns no first value', at=("state", i, "param"), hint="give filler"
                )

    def _count_steps(self, bottom: Sequence[Spec]) -> int:
        if not self._stepped:
            if not self.p.steps:
                hint = "write steps: N, or give it a bottom T N ..."
                self.fail("is a loop without end: nothing says how many steps it has", hint=hint)
            return int(self.p.steps)
        numbers = [self._number[name] for name in self._stepped]
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
            return bottom[self._number[self._stepped[0]]].shape[1]
        for state in self.p.state:
            if state.initial:
                shape = bottom[self._number[state.initial]].shape
                return shape[0] if len(shape) < 3 or shape[0] != 1 else shape[1]
        for name in self.p.static:
            shape = bottom[self._number[name]].shape
            if shape:
                return shape[0]
        return self.fail("has no bottom that says how many streams there are")

    def _state(self, index: int, bottom: Sequence[Spec], streams: int) -> _State:
        message = self.p.state[index]
        dims = tuple(int(n) for n in message.dim)
        number = None
        if message.initial:
            number = self._number[message.initial]
            shape = bottom[number].shape
            if shape[:2] == (1, streams) and (streams != 1 or len(shape) > (len(dims) or 1) + 1):
                shape = shape[1:]
            if shape[:1] != (streams,) or (dims and shape[1:] != dims):
                text = " ".join(map(str, (streams, *(dims or ("...",)))))
                self.fail(f'the first value of the state "{message.name}" wants the shape {text}', bottom=number)
            dims = shape[1:]
        if any(n < 1 for n in dims):
            self.fail(f'dim of the state "{message.name}" has to be at least 1', at=("state", index, "dim"))
        return _State(message, (streams, *dims), number)

    def _check_state(self, index: int, state: _State) -> None:
        message, blobs = state.message, self._body.blobs
        at = ("state", index, "next")
        if message.next not in blobs:
            known = [n for n in blobs if n not in self._body.inputs]
            hint = f"no layer of the body makes it{nearest(message.next, known)}"
            self.fail(f'the state "{message.name}" is never set: there is no blob "{message.next}"', at=at, hint=hint)
        after = blobs[message.next]
        if after is self._body.inputs[message.name]:
            self.fail(f'the state "{message.name}" is never set: no layer of the body changes it', at=at)
        if after.shape != state.shape:
            got, wanted = (" ".join(map(str, s)) or "one number" for s in (after.shape, state.shape))
            hint = f"dim: {' dim: '.join(map(str, after.shape[1:]))} would fit" if after.shape[1:] else ""
            if message.initial:
                hint = ""
            what = f'the state "{message.name}" has the shape {wanted}, its next value "{message.next}" has {got}'
            self.fail(what, at=at, hint=hint)
        if state.learned:
            self.learned(state.learned, (1, *state.shape[1:]), message.filler)
        if state.carried:
            self.state(state.carried, state.shape)

    def _top_specs(self) -> list[Spec]:
        tops, lasts = list(self.message.top), {}
        for i, state in enumerate(self._states):
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
                specs.append(self.spec(self._states[lasts[top]].shape))
                continue
            place = rest.index(top)
            name = output[place] if output else top
            if name not in self._body.blobs:
                at: Any = ("output", place) if output else ""
                hint = "" if output else "a top that is called otherwise than in the body needs output"
                known = [*self._body.blobs, *(s.message.last for s in self._states if s.message.last)]
                self.fail(f'the body has no blob "{name}"{nearest(name, known)}', at=at, hint=hint)
            self._outputs[i] = name
            blob = self._body.blobs[name]
            specs.append(Spec((self._steps, *blob.shape), blob.dtype))
        return specs

    # ----------------------------------------------------------------------------------------------------- parameters
    def param_specs(self) -> Sequence[schema.ParamSpec]:
        """Those of the body's layers, then those of learned first values."""
        learned = [s.message.param for s in self._states if s.learned]
        return [inner.message for inner in self._body.parameters] + learned

    def spec_path(self, index: int) -> tuple[str | int, ...]:
        count = len(self._body.parameters)
        if index < count:
            return self._body.parameters[index].at
        learned = [i for i, s in enumerate(self._states) if s.learned]
        return (self.param, "state", learned[index - count], "param")

    # --------------------------------------------------------------------------------------------------------- losses
    def top_weights(self) -> list[float]:
        known = {loss.blob: loss.weight for loss in self._body.losses}
        return [known.get(self._outputs.get(i, ""), 0.0) for i in range(len(self.message.top))]

    def unnamed_tops(self) -> Sequence[tuple[Spec, float]]:
        """Losses of the body that are no tops."""
        return [(Spec((self._steps, *x.tensor.shape), x.tensor.dtype), x.weight) for x in self._unnamed()]

    def _unnamed(self) -> list[Any]:
        shown = set(self._outputs.values())
        return [loss for loss in self._body.losses if loss.blob not in shown]

    # -------------------------------------------------------------------------------------------------------- forward
    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        body, calls = self._body, []
        same = body.bound(self)
        stepped: dict[Tensor, Any] = {}
        for name, placeholder in body.inputs.items():
            if name in self._number:
                target = stepped if name in self._stepped else same
                target[placeholder] = bottom[self._number[name]]
        cont = self._cont(k, bottom, stepped) if self.p.cont and self._states else None
        states = []
        for state in self._states:
            first, placeholder = self._first(k, bottom, state), body.inputs[state.message.name]
            before = placeholder
            if cont is not None:
                before = Tensor(f"{state.message.name}.before", placeholder.spec)
                seen = cont.view((state.shape[0], *(1,) * (len(state.shape) - 1)))
                args, expr = [before, seen], "a * b"
                if state.learned:
                    start = Tensor(f"{state.message.name}.start", Spec((1, *state.shape[1:]), placeholder.dtype))
                    same[start] = getattr(self, state.learned)
                    args, expr = [*args, start], "a * b + (1 - b) * c"
                calls.append(Call(OPS["pointwise"], (tuple(args), placeholder), {"expr": expr}, self.name))
            states.append(Carried(before, body.blobs[state.message.next], first))
        loop = Unrolled(
            k, [*calls, *body.calls], self._steps, same, stepped, states,
            backwards=self.p.reverse, name=self.name, one_mask=self.p.one_mask,
        )  # fmt: skip
        for i, name in self._outputs.items():
            loop.values(body.blobs[name], top[i])
        for i, number in self._lasts.items():
            k.copy(loop.last[number], top[i])
        for loss, y in zip(self._unnamed(), top[len(self.message.top) :], strict=True):
            loop.values(loss.tensor, y)
        for state, last in zip(self._states, loop.last, strict=True):
            if state.carried:
                k.update([last], [getattr(self, state.carried)], rule=_KEEP)

    def _cont(self, k: Kernels, bottom: Sequence[Any], stepped: dict[Tensor, Any]) -> Tensor:
        """What the state before each step is multiplied by. Run backwards, a stream's last step is its first."""
        given = stop(bottom[self._number[self.p.cont]])
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

    def _first(self, k: Kernels, bottom: Sequence[Any], state: _State) -> Any:
        """The value of a state before the first step."""
        if state.initial is not None:
            return k.view(bottom[state.initial], state.shape)
        first = k.temp(f"first_{state.message.name}", state.shape)
        if state.carried:  # the state itself changes before backward reads it
            k.copy(getattr(self, state.carried), first)
        elif state.learned:
            k.pointwise([getattr(self, state.learned)], first, expr="a")
        else:
            k.fill(first, value=0.0)
        return first

    def close(self) -> None:
        """Let the body's layers let go of what they hold open."""
        self._body.close()


__all__ = ["Recurrent"]
