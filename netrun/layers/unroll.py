"""A loop over time as calls: the calls of its body, once, once for each step, or once over all steps.

The body comes as the calls of one step. What depends neither on the step nor on a state is called once. What depends on
no state is called before the loop, over all steps at once where the kernel has a rule for it (``stacked.py``): an input
projection is one product over T N rows. What a state depends on is called step by step, in order. What depends on a
state, but no state on it, comes after the loop, again over all steps at once: an output projection is one product too.

The steps are written out, not kept as a program inside the program: gradients, memory plan, fusion, capture and slices
of a net work on them as on any calls, and no device knows of loops. The price is time to compile, in proportion to the
number of steps times the calls between two states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..kernels import Kernels
from ..program import Call
from ..random import stream_of
from ..types import Tensor
from .base import stop
from .stacked import Stack, over_all

_ONCE, _BEFORE, _LOOP, _AFTER = range(4)


@dataclass(frozen=True)
class Carried:
    """A state: the placeholder that the body reads it from, the one that holds it after the step, the first value."""

    before: Tensor
    after: Tensor
    first: Any


class Unrolled:
    """Makes the calls of a loop when it is made; then gives its values.

    Args:
        k: who is called.
        calls: one step, on placeholder tensors.
        steps: how many steps.
        same: placeholders with a value for all steps: parameters, constants.
        stepped: placeholders with the values of all steps: T and the axes of the placeholder.
        states: what goes from step to step.
        backwards: the last step comes first.
        name: of the layer; random numbers follow from it.
        one_mask: what is random is drawn once, and serves all steps.
    """

    def __init__(
        self,
        k: Kernels,
        calls: Sequence[Call],
        steps: int,
        same: Mapping[Tensor, Any],
        stepped: Mapping[Tensor, Any],
        states: Sequence[Carried] = (),
        *,
        backwards: bool = False,
        name: str = "",
        one_mask: bool = False,
    ) -> None:
        self.k, self.steps, self.name, self._one_mask = k, steps, name, one_mask
        self._same: dict[Tensor, Any] = dict(same)
        self._whole: dict[Tensor, Any] = dict(stepped)
        self._pieces: dict[Tensor, list[Any]] = {}
        self._varying: set[Tensor] = set(stepped)
        self._order = range(steps - 1, -1, -1) if backwards else range(steps)
        self._states = states
        self._stack = Stack(k, steps, lambda t: t.root in self._varying, self._over_all, self._constant)
        self.last: list[Any] = []
        """The states after the last step."""
        place = _sorted_out(calls, stepped, states, one_mask)
        self._varying.update(s.before for s in states)
        for call, when in zip(calls, place, strict=True):
            if when != _ONCE:
                self._varying.update(t.root for t in call.writes())
        for when in (_ONCE, _BEFORE, _LOOP, _AFTER):
            chosen = [call for call, p in zip(calls, place, strict=True) if p == when]
            if when == _LOOP:
                self._loop(chosen)
                continue
            for call in chosen:
                if when == _ONCE:
                    self._make(call, None)
                elif not self._make_over_all(call):
                    for t in self._order:
                        self._make(call, t)

    def values(self, tensor: Tensor, y: Any) -> None:
        """Write the values of a placeholder in all steps, T and its axes, into y."""
        root, shape = tensor.root, (1, *tensor.shape)
        if root not in self._varying:
            self.k.pointwise([self.k.view(self._constant(tensor), shape)], y, expr="a")
        else:
            self.k.copy(self._over_all(tensor), y)

    # ---------------------------------------------------------------------------------------------------------- calls
    def _loop(self, calls: Sequence[Call]) -> None:
        now = [s.first for s in self._states]
        for state in self._states:
            self._pieces[state.before] = [None] * self.steps
        for t in self._order:
            for state, value in zip(self._states, now, strict=True):
                self._pieces[state.before][t] = value
            for call in calls:
                self._make(call, t)
            now = [self._piece(s.after, t) for s in self._states]
        self.last = now

    def _make(self, call: Call, step: int | None) -> None:
        """The call for one step, or for all where it is the same in all."""
        attrs = dict(call.attrs)
        if call.op.name == "random":
            attrs["stream"] = stream_of(self.name, attrs["stream"], "" if step is None else step)

        def give(tensor: Tensor) -> Any:
            if tensor.root not in written:
                return self._constant(tensor) if step is None else self._piece(tensor, step)
            root = tensor.root
            if root not in made:
                made[root] = self.k.temp(root.name, root.shape, root.dtype)
            return self._seen(made[root], tensor)

        written = {t.root for t in call.writes()}
        made: dict[Tensor, Any] = {}
        self._emit(call, [_each(arg, give) for arg in call.args], attrs)
        for root, value in made.items():
            if step is None:
                self._same[root] = value
            else:
                self._pieces.setdefault(root, [None] * self.steps)[step] = value

    def _make_over_all(self, call: Call) -> bool:
        """One call for all steps, if its kernel has a rule for it."""
        found = over_all(call, self._stack)
        if found is None:
            return False
        args, attrs = found
        if call.op.name == "random":
            attrs = {**attrs, "stream": stream_of(self.name, attrs["stream"], "all")}
        self._emit(call, args, attrs)
        return True

    def _emit(self, call: Call, args: Sequence[Any], attrs: Mapping[str, Any]) -> None:
        getattr(self.k, call.op.name)(*args, **attrs)

    # --------------------------------------------------------------------------------------------------------- values
    def _constant(self, tensor: Tensor) -> Any:
        return self._seen(self._same[tensor.root], tensor)

    def _piece(self, tensor: Tensor, step: int) -> Any:
        """The value of one step."""
        root = tensor.root
        if root not in self._varying:
            return self._constant(tensor)
        if root not in self._pieces:
            whole = self._whole[root]
            parts = [whole]
            if self.steps > 1:
                parts = [self.k.temp(f"{root.name}_step", (1, *root.shape), root.dtype) for _ in range(self.steps)]
                self.k.split(whole, parts, axis=0)
            self._pieces[root] = [self.k.view(part, root.shape) for part in parts]
        return self._seen(self._pieces[root][step], tensor)

    def _over_all(self, tensor: Tensor) -> Any:
        """The values of all steps, T and the axes of the placeholder; memory for them where there are none yet."""
        root, shape = tensor.root, (self.steps, *tensor.shape)
        if root not in self._whole:
            made = self._whole[root] = self.k.temp(root.name, (self.steps, *root.shape), root.dtype)
            if root in self._pieces:
                parts = [self.k.view(piece, (1, *root.shape)) for piece in self._pieces[root]]
                if self.steps > 1:
                    self.k.concat(parts, made, axis=0)
                else:
                    self.k.copy(parts[0], made)
        seen = self._whole[root]
        seen = seen if tuple(seen.shape) == shape else self.k.view(seen, shape)
        return stop(seen) if tensor.is_stopped else seen

    def _seen(self, value: Any, tensor: Tensor) -> Any:
        """A value as the body sees it: in the shape of the view, stopped where the view is."""
        seen = value if tuple(value.shape) == tensor.shape else self.k.view(value, tensor.shape)
        return stop(seen) if tensor.is_stopped else seen


def _each(arg: Any, give: Callable[[Tensor], Any]) -> Any:
    if isinstance(arg, tuple):
        return tuple(give(t) for t in arg)
    return None if arg is None else give(arg)


def _sorted_out(
    calls: Sequence[Call], stepped: Iterable[Tensor], states: Sequence[Carried], one_mask: bool
) -> list[int]:
    """For every call when it is made: once, before the loop, in it, or after it."""
    varying, moving = set(stepped), {s.before for s in states}
    place = []
    for call in calls:
        reads, writes = {t.root for t in call.reads()}, {t.root for t in call.writes()}
        own = call.op.name == "host" or (call.op.name == "random" and not one_mask)
        if reads & moving:
            moving |= writes
            place.append(_AFTER)
        elif own or reads & varying:
            varying |= writes
            place.append(_BEFORE)
        else:
            place.append(_ONCE)
    needed = {s.after.root for s in states}
    for i in reversed(range(len(calls))):
        if place[i] == _AFTER and any(t.root in needed for t in calls[i].writes()):
            place[i] = _LOOP
            needed.update(t.root for t in calls[i].reads())
    return place


__all__ = ["Carried", "Unrolled"]
