"""What layers that run a net of their own share: its inputs and states, and the parameters of its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ..config import schema
from ..errors import nearest
from ..kernels import Kernels
from ..types import Shape, Spec
from .base import Count, Layer
from .body import Body, Given


@dataclass
class State:
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


class Holder(Layer):
    """A layer with layers inside. Its parameter blobs are theirs, then the learned first values of states."""

    type = ""
    bottoms: ClassVar[Count] = (0, None)
    tops: ClassVar[Count] = (0, None)
    bodies: list[Body]
    states: Sequence[State] = ()
    places: dict[str, int]
    """The inputs: number of the bottom by what the body calls it."""

    def input_names(self) -> list[str]:
        bottoms = list(self.message.bottom)
        given = list(self.p.input)
        if self.message.param:
            hint = "write param into the layers of the body, whose parameters they are"
            self.fail("takes no param entries of its own", hint=hint)
        if given and len(given) != len(bottoms):
            self.fail(f"input is given {len(given)} times for {len(bottoms)} bottoms", at="input")
        names = given or bottoms
        for i, name in enumerate(names):
            if name in names[:i]:
                self.fail(
                    f'two inputs are called "{name}"', at=("input", i), hint="input gives them names of their own"
                )
        return names

    def need_body(self, field: str) -> None:
        """Refuse a layer without layers inside."""
        if not self.p.HasField(field) or not getattr(self.p, field).layer:
            self.fail(f"has no {field}", hint=f"write {self.param} {{ {field} {{ layer {{ ... }} }} }}")

    def build(self, field: str, given: Mapping[str, Given], prefix: str = "") -> Body:
        """The layers of a field, from what they are given; their parameters are this layer's from now on."""
        if self.context.inner is None:
            self.fail("stands alone: a layer with a body is built as part of a net")
        before = getattr(self.context.before, "bodies", [])
        old = before[len(self.bodies)] if len(self.bodies) < len(before) else None
        body: Body = self.context.inner((self.param, field), given, old)
        for inner in body.parameters:
            inner.declared = replace(inner.declared, name=prefix + inner.declared.name)
        body.constants = [(replace(d, name=prefix + d.name), tensor) for d, tensor in body.constants]
        body.declare(self)
        self.bodies.append(body)
        return body

    def origin(self, name: str) -> str:
        """What a body's layers are told of an input."""
        return f'bottom "{self.message.bottom[self.places[name]]}" of {self.name}'

    def check_inputs(self, named: Sequence[tuple[str, tuple[str | int, ...]]]) -> None:
        """Refuse a name that is no input, and an input that serves two purposes."""
        for i, (name, at) in enumerate(named):
            if name not in self.places:
                self.fail(f'no input "{name}"{nearest(name, self.places)}', at=at)
            if name in [n for n, _ in named[:i]]:
                self.fail(f'the input "{name}" is used for two things', at=at)

    def check_states(self) -> None:
        """Refuse states that contradict themselves."""
        seen: set[str] = set()
        for i, state in enumerate(self.p.state):
            if not state.name:
                self.fail("a state has no name", at=("state", i))
            if state.name in seen or state.name in self.places:
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
            if state.HasField("param") and not state.HasField("filler"):
                self.fail(
                    f'the state "{state.name}" learns no first value', at=("state", i, "param"), hint="give filler"
                )

    def read_state(self, index: int, bottom: Sequence[Spec], streams: int) -> State:
        message = self.p.state[index]
        dims = tuple(int(n) for n in message.dim)
        number = None
        if message.initial:
            number = self.places[message.initial]
            shape = bottom[number].shape
            if shape[:2] == (1, streams) and (streams != 1 or len(shape) > (len(dims) or 1) + 1):
                shape = shape[1:]
            if shape[:1] != (streams,) or (dims and shape[1:] != dims):
                text = " ".join(map(str, (streams, *(dims or ("...",)))))
                self.fail(f'the first value of the state "{message.name}" wants the shape {text}', bottom=number)
            dims = shape[1:]
        if any(n < 1 for n in dims):
            self.fail(f'dim of the state "{message.name}" has to be at least 1', at=("state", index, "dim"))
        return State(message, (streams, *dims), number)

    def check_state(self, index: int, state: State) -> None:
        message, body = state.message, self.bodies[0]
        blobs, at = body.blobs, ("state", index, "next")
        if message.next not in blobs:
            known = [n for n in blobs if n not in body.inputs]
            hint = f"no layer of the body makes it{nearest(message.next, known)}"
            self.fail(f'the state "{message.name}" is never set: there is no blob "{message.next}"', at=at, hint=hint)
        after = blobs[message.next]
        if after is body.inputs[message.name]:
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
            self.state(state.carried, state.shape, streams=0)

    def param_specs(self) -> Sequence[schema.ParamSpec]:
        """Those of the layers inside, then those of learned first values."""
        learned = [s.message.param for s in self.states if s.learned]
        return [inner.message for body in self.bodies for inner in body.parameters] + learned

    def spec_path(self, index: int) -> tuple[str | int, ...]:
        inner = [parameter.at for body in self.bodies for parameter in body.parameters]
        if index < len(inner):
            return inner[index]
        learned = [i for i, s in enumerate(self.states) if s.learned]
        return (self.param, "state", learned[index - len(inner)], "param")

    def first_value(self, k: Kernels, bottom: Sequence[Any], state: State) -> Any:
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
        """Let the layers inside let go of what they hold open."""
        for body in self.bodies:
            body.close()


__all__ = ["Holder", "State"]
