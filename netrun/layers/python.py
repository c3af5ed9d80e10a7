"""Layers written as Python classes: type Python. Here those with the methods of pycaffe's Layer, steps on the host."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..config import schema
from ..kernels import HostStep, Kernels
from ..types import Shape, Spec
from .base import Count
from .context import Context, Reshaped
from .python_blobs import PythonBlob, PythonBlobs, PythonLayer
from .python_class import UserLayer, find
from .python_forward import PythonForward, is_forward_only

Array = npt.NDArray[Any]
METHODS = ("setup", "reshape", "forward", "backward")
"""What a user's class has; without ``backward`` no gradient passes."""


@dataclass
class _Carried:
    """What one user's object has, for whatever shapes its net is compiled.

    values   the parameters' first values
    initial  what setup or reshape wrote into a top's data: forward finds it there
    made     the tops of a forward that asked for other shapes, until its step has them
    """

    user: Any
    values: list[Array] = field(default_factory=list)
    initial: dict[int, Array] = field(default_factory=dict)
    made: list[Array] | None = None


class Python(UserLayer):
    """y = what the class python_param.layer of the module python_param.module computes

    Bottoms and tops: any number, of any shapes that the class wants. A class that derives from netrun.ForwardLayer says
    its forward pass alone: netrun/layers/python_forward.py. Any other has the methods of pycaffe's Layer: setup and
    reshape(bottom, top), forward(bottom, top), backward(top, propagate_down, bottom); without backward no gradient
    passes. reshape is called before every forward, and the tops may have another shape each time; forward may reshape
    its tops too. Tops hold what reshape wrote, or zeros, before the class writes them, gradients are zeros; in place
    bottom and top are one blob, data and diff. What is written into a bottom's data, the layers behind it read too; on
    a GPU it is refused. self.blobs are trained parameters; their diff starts at zero in every backward, so that writing
    it and adding to it are the same: what the passes of iter_size and other layers leave is added up behind it. The
    module is looked for next to the prototxt too.
    """

    bottoms: ClassVar[Count] = (0, None)
    tops: ClassVar[Count] = (0, None)
    varying = True
    user: Any = None
    """The user's object."""
    _carried: _Carried
    _shapes: list[Shape]
    _in_place: list[bool]
    """For every top whether it is the bottom of the same number."""

    def __new__(cls, message: schema.LayerParameter, context: Context | None = None) -> Any:
        """The layer; one of another class where the user's class says its forward pass alone."""
        user = find(message.python_param, (context or Context()).folder) if cls is Python else None
        return PythonForward(message, context, user) if is_forward_only(user) else super().__new__(cls)

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        dtype, before = self.context.dtype, self.context.before
        bottoms = [PythonBlob(b.shape, b.dtype) for b in bottom]
        ends = zip(self.message.bottom, bottom, strict=False)
        shapes = {name: b.shape for name, b in ends}  # in place a top is the bottom, and has its shape
        self._in_place = [name in self.message.bottom[i : i + 1] for i, name in enumerate(self.message.top)]
        pairs = zip(self.message.top, self._in_place, strict=True)
        tops = [PythonBlob(shapes[name] if same else (), dtype) for name, same in pairs]
        if isinstance(before, Python):
            self._carried, self.user = before._carried, before.user
            if len(before._shapes) == len(tops):
                kept = zip(before._shapes, tops, self._in_place, strict=True)
                tops = [PythonBlob(top.shape if same else shape, dtype) for shape, top, same in kept]
        else:
            self.user = self._new_user()
            self._carried = _Carried(self.user)
            self.call("setup", bottoms, tops)
            self._require("reshape", "forward")
            self._carried.values = [np.array(blob.data) for blob in self.user.blobs]
        for i, value in enumerate(self._carried.values):
            self._declare(f"blob{i}", value.shape, "learned", None, value)
        if self.context.measured is not None:
            self._shapes = list(self.context.measured)
        else:
            self._reshape(bottoms, tops)
            self._shapes = [top.shape for top in tops]
        return [self.spec(shape) for shape in self._shapes]

    def measure(self, values: Callable[[int], Any]) -> Sequence[Shape]:
        bottoms = [PythonBlob(b.shape, b.dtype, partial(values, i)) for i, b in enumerate(self.bottom_specs)]
        # A class may give its tops their shapes once, in setup: they keep the shapes they have.
        tops = [PythonBlob(shape, self.context.dtype) for shape in self._shapes]
        for i, same in enumerate(self._in_place):
            if same:
                tops[i] = PythonBlob(bottoms[i].shape, self.context.dtype)
        self._carried.made = None
        self._reshape(bottoms, tops)
        return [top.shape for top in tops]

    def _reshape(self, bottoms: list[PythonBlob], tops: list[PythonBlob]) -> None:
        self.call("reshape", bottoms, tops)
        for i, top in enumerate(tops):
            if top.written is not None:
                self._carried.initial[i] = top.written

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        own = [getattr(self, d.name) for d in self.declared]
        grad = self._backward if hasattr(self.user, "backward") else None
        k.host([*bottom, *own], list(top), fn=self._forward, grad=grad)

    def _forward(self, xs: Sequence[Array], ys: Sequence[Array]) -> None:
        made, self._carried.made = self._carried.made, None
        if made is not None and [value.shape for value in made] == [y.shape for y in ys]:
            for y, value in zip(ys, made, strict=True):
                y[...] = value
            return
        count = len(self.bottom_specs)
        tops, bottoms = [PythonBlob.over(y) for y in ys], [PythonBlob.over(x) for x in xs[:count]]
        for i, (same, y) in enumerate(zip(self._in_place, ys, strict=True)):
            before = xs[i] if same else self._carried.initial.get(i)
            y[...] = before if before is not None and before.shape == y.shape else 0
            if same and xs[i].shape == y.shape:
                bottoms[i] = tops[i]
        self.user.blobs.bind([PythonBlob.over(x) for x in xs[count:]])
        self.call("forward", bottoms, tops)
        if any(top.shape != y.shape for top, y in zip(tops, ys, strict=True)):
            if self.context.inside:
                self._refuse_shapes([top.shape for top in tops])
            self._carried.made = [np.array(top.data) for top in tops]
            raise Reshaped([top.shape for top in tops])

    def _reshape_inside(self, xs: Sequence[Array]) -> None:
        """``reshape`` before a forward in the body of another layer: the shapes stay."""
        tops = [PythonBlob(shape, self.context.dtype) for shape in self._shapes]
        self._reshape([PythonBlob.over(x) for x in xs], tops)
        if [top.shape for top in tops] != [tuple(shape) for shape in self._shapes]:
            self._refuse_shapes([top.shape for top in tops])

    def _refuse_shapes(self, shapes: Sequence[Shape]) -> None:
        got, had = (", ".join(" ".join(map(str, s)) for s in some) for some in (shapes, self._shapes))
        self.fail(f"gives its tops the shapes {got}, and had {had}: inside another layer they are fixed")

    def _backward(self, wanted: tuple[bool, ...]) -> HostStep:
        count, inputs = len(self.bottom_specs), len(wanted)

        def step(given: Sequence[Array], targets: Sequence[Array]) -> None:
            for target in targets:
                target[...] = 0
            remaining = iter(targets)
            diffs = [next(remaining) if want else None for want in wanted]
            xs, rest = given[:inputs], given[inputs:]
            ys, dys = rest[: len(rest) // 2], rest[len(rest) // 2 :]
            blobs = [PythonBlob.over(x, diff) for x, diff in zip(xs, diffs, strict=True)]
            self.user.blobs.bind(blobs[count:])
            tops = [PythonBlob.over(y, dy) for y, dy in zip(ys, dys, strict=True)]
            for i, same in enumerate(self._in_place):
                one = diffs[i] if same else None
                if one is not None and one.shape == dys[i].shape:
                    one[...] = dys[i]
                    blobs[i] = tops[i] = PythonBlob.over(ys[i], one)
            self.call("backward", tops, list(wanted[:count]), blobs[:count])

        return step

    # ------------------------------------------------------------------------------------------------ the user's class
    def _new_user(self) -> Any:
        user = self.load()
        try:
            given = [self.message] if _takes(user, self.message) else []
            made = user(*given)
        except Exception as error:
            raise self.explained("__init__", error) from error
        self.user = made
        made.param_str, made.phase, made.blobs = self.p.param_str, self.context.phase, PythonBlobs(self.context.dtype)
        self._require("setup")
        return made

    def _require(self, *methods: str) -> None:
        missing = [name for name in methods if not callable(getattr(self.user, name, None))]
        if missing:
            what = f"the class {self.p.layer} of {self.p.module} has no method {', '.join(missing)}"
            self.fail(what, at="layer", hint=f"a layer in Python has the methods {', '.join(METHODS)}")


def _takes(user: Any, message: Any) -> bool:
    """Whether the class is made with the layer's message, as pycaffe's are."""
    try:
        inspect.signature(user).bind(message)
    except (TypeError, ValueError):
        return False
    return True


__all__ = ["Python", "PythonBlob", "PythonBlobs", "PythonLayer"]
