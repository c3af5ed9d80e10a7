r"""What a layer is: a class that says shapes once (setup) and its forward pass once (forward), for every device.

    class ReLU(Layer):
        "y = x if x > 0, else negative_slope * x"
        param = "relu_param"

        def forward(self, k, bottom, top):
            k.pointwise([bottom[0]], top[0], expr=f"relu(a, {self.p.negative_slope})")

Defining the class registers it under its name. Backward is derived from the calls (netrun/compiler/gradients). A
package of its own adds a layer type through the entry point group ``netrun.layers`` (name = the type, value =
"module:Class"); parameters without a message in the schema go into ``options`` and, in the prototxt, into
``option { key: "alpha" value: "0.5" }``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NoReturn

import numpy as np

from ..config import schema
from ..errors import ShapeError
from ..fillers import filler_problem
from ..kernels import Kernels
from ..types import Shape, Spec, Tensor
from .context import Context, Declared
from .options import Value, read_options

Count = int | tuple[int, int | None]
"""How many bottoms or tops: exactly n, or (least, most) with None for no limit."""


class Layer:
    """Base of all layers. One object belongs to one place in one net."""

    registry: ClassVar[dict[str, type[Layer]]] = {}
    type: ClassVar[str] = ""
    """Name in the prototxt; the class's own name unless set."""
    param: ClassVar[str] = ""
    """Field of LayerParameter that holds this type's parameters."""
    bottoms: ClassVar[Count] = 1
    tops: ClassVar[Count] = 1
    loss: ClassVar[bool] = False
    """A loss layer: its first top has loss_weight 1 unless the prototxt says otherwise."""
    fed: ClassVar[bool] = False
    """The tops are written by the host before each forward (inputs and data layers)."""
    options: Mapping[str, Value] = {}
    """Names and defaults of the parameters given as ``option { key value }``."""
    skips: ClassVar[frozenset[int]] = frozenset()
    """Bottoms that never receive a gradient (labels, indices)."""
    axes: ClassVar[str] = ""
    """Names that this type gives the axes of a bottom, by their number: "N C | N C H W"; "T N ..." is open."""
    in_place: ClassVar[bool] = True
    """False: no top may have the name of a bottom (as Caffe has it: the blobs would share their memory)."""
    varying: ClassVar[bool] = False
    """The shapes of the tops depend on values: they are known only when a forward pass arrives here (``measure``)."""
    flexible: bool = False
    """A fed layer that may bring batches of other shapes than the first; ``setup`` heeds ``context.measured`` then."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "type" not in cls.__dict__:
            cls.type = cls.__name__
        if cls.type:
            Layer.registry[cls.type] = cls

    def __init__(self, message: schema.LayerParameter, context: Context | None = None) -> None:
        self.message = message
        self.context = context or Context()
        self.name = message.name
        self.key = self.context.key or message.name
        """What is the layer's alone is found under it: states, random draws, data."""
        self.declared: list[Declared] = []
        self.clock: Any = None
        """A control tensor: the number of forward passes so far. What is random is drawn with it."""
        self.p: Any = getattr(message, self.param) if self.param else None
        who = f"{self.name} ({self.type})"
        self.option = read_options(message.option, self.options, who, self.context.locate)

    # --------------------------------------------------------------------------------------------- for subclasses
    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        """Shapes of the tops from those of the bottoms; declares what the layer owns. Pure: no memory, no device.

        Raises:
            ShapeError: through ``fail``.
        """
        return [bottom[0]]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        """The forward pass as kernel calls: reads bottoms, writes every top."""
        raise NotImplementedError(f"{type(self).__name__}.forward")

    def measure(self, values: Callable[[int], Any]) -> Sequence[Shape]:
        """Shapes of the tops for the values of this forward pass, if the type is ``varying``.

        Args:
            values: gives the values of a bottom, by its number, as a NumPy array.
        """
        raise NotImplementedError(f"{type(self).__name__}.measure")

    def param_specs(self) -> Sequence[schema.ParamSpec]:
        """How its parameter blobs learn, in their order; missing ones are as by default."""
        return self.message.param

    def spec_path(self, index: int) -> tuple[str | int, ...]:
        """Where in the layer's message the entry of a parameter blob stands."""
        return ("param", index)

    def top_weights(self) -> list[float]:
        """The loss weight of every top where the prototxt says none."""
        return [1.0 if self.loss and i == 0 else 0.0 for i in range(len(self.message.top) or 1)]

    def unnamed_tops(self) -> Sequence[tuple[Spec, float]]:
        """Further tops that have no name and count in the loss all the same: spec and weight of each."""
        return ()

    def close(self) -> None:
        """Let go of what the layer holds open (a file it writes)."""

    def learned(
        self, name: str, shape: Sequence[int], filler: schema.FillerParameter | None = None, sparse: bool = False
    ) -> None:
        """Declare a trained parameter; it becomes ``self.<name>``. The order of calls is the order of its blobs."""
        self._declare(name, shape, "learned", filler)
        self.declared[-1].sparse = sparse

    def statistic(self, name: str, shape: Sequence[int], filler: schema.FillerParameter | None = None) -> None:
        """Declare a parameter blob that the forward pass itself updates and no gradient reaches."""
        self._declare(name, shape, "statistic", filler)

    def state(self, name: str, shape: Sequence[int], value: Any = None, *, streams: int | None = None) -> None:
        """Declare a value carried from one forward to the next (at first zero), or a constant, ``value``; in no weight
        file. ``streams``: the axis of what is carried that counts the streams (a beam search exchanges them)."""
        self._declare(name, shape, "state", None, value)
        self.declared[-1].streams = streams

    def _declare(
        self, name: str, shape: Sequence[int], role: str, filler: schema.FillerParameter | None, value: Any = None
    ) -> None:
        problem = filler_problem(filler, tuple(shape)) if filler is not None else ""
        if problem:
            self.fail(f"{name}: {problem}", at=self._filler_field(name))
        self.declared.append(Declared(name, Spec(tuple(shape), self.context.dtype), role, filler, value))

    def _filler_field(self, name: str) -> str:
        """The field that holds the filler of a blob: weight_filler, or filler where a type has but one."""
        fields = self.p.DESCRIPTOR.fields_by_name if self.param else ()
        return next((field for field in (f"{name}_filler", "filler") if field in fields), "")

    def settled(self, tops: Sequence[Shape]) -> Sequence[Shape]:
        """What ``measure`` has to give for this compilation of a varying layer to serve: the shapes of the tops, and
        whatever else ``context.measured`` decided."""
        return tops

    @property
    def blobs(self) -> list[Declared]:
        """The parameter blobs in Caffe's order."""
        return [d for d in self.declared if d.role != "state"]

    @property
    def train(self) -> bool:
        """True in the TRAIN phase."""
        return self.context.phase == schema.TRAIN

    def axis(self, axis: int, rank: int, what: str = "axis") -> int:
        """A canonical axis number from one that may count from the end (-1 is the last).

        Raises:
            ShapeError: there is no such axis.
        """
        if not -rank <= axis < rank:
            self.fail(f"{what} {axis} does not exist: the bottom has {rank} axes", at=what, bottom=0)
        return axis % rank

    def number(self, field: str) -> str:
        """A parameter as it stands in an expression: every digit of its single precision value.

        Raises:
            ShapeError: it is infinite or no number.
        """
        value = float(getattr(self.p, field))
        if not math.isfinite(value):
            self.fail(f"{field} is {value}, and has to be a finite number", at=field)
        return repr(value)

    def has(self, field: str) -> bool:
        """True if the prototxt gives that field of this type's parameters."""
        return bool(self.p.HasField(field))

    def spec(self, shape: Sequence[int], dtype: str | None = None) -> Spec:
        """A spec in the net's element type."""
        return Spec(tuple(shape), dtype or self.context.dtype)

    def fail(
        self, what: str, *, at: str | tuple[str | int, ...] = "", bottom: int | Sequence[int] = (), hint: str = ""
    ) -> NoReturn:
        """Refuse: raise a ShapeError that names position, layer and type.

        Args:
            what: one line, what is wrong, with the values.
            at: field of this type's parameters that is to blame ("kernel_size"), or the way to one, for the position.
            bottom: the bottom, or bottoms, to describe in a line each.
            hint: a line that says what to do.
        """
        way = (at,) if isinstance(at, str) else at
        where = self.context.locate(self.param, *way) if at and self.param else self.context.locate()
        notes = []
        for i in [bottom] if isinstance(bottom, int) else bottom:
            if i < len(self.message.bottom) and i < len(self.bottom_specs):
                notes.append(self.describe_bottom(i))
        if hint:
            notes.append(hint)
        raise ShapeError(f"{self.name} ({self.type}): {what}", where, notes)

    bottom_specs: Sequence[Spec] = ()

    def describe_bottom(self, i: int) -> str:
        """``bottom "pool1"   N C H W = 64 20 9 9, from layer pool1 at line 48``"""
        shape = self.bottom_specs[i].shape
        axes = f"{_names_for(self.axes_of(i), len(shape))} = {' '.join(map(str, shape))}" if shape else "one number"
        origin = self.context.producers[i] if i < len(self.context.producers) else ""
        return f'bottom "{self.message.bottom[i]}"   {axes}{origin}'

    def axes_of(self, i: int) -> str:
        """The names of the axes of bottom ``i``, as in ``axes``, for types whose bottoms differ."""
        return self.axes

    @property
    def time_first(self) -> bool:
        """Whether the first bottom is T N ...: its second axis is the batch."""
        return False

    def configure(self, bottom: Sequence[Spec]) -> list[Spec]:
        """``setup`` with what comes before and after it for every type: counts, and the check of what it returned."""
        self.bottom_specs = tuple(bottom)
        self._check_counts()
        self._check_numbers()
        self.declared.clear()
        tops = [Spec(s.shape, s.dtype) for s in self.setup(self.bottom_specs)]
        self._take_blobs()
        for top in tops:
            if any(n < 1 for n in top.shape) and not (self.varying or any(0 in b.shape for b in bottom)):
                self.fail(f"the top would have the shape {' '.join(map(str, top.shape))}: every axis needs at least 1")
        if len(tops) != (self.context.tops or len(self.message.top) or len(tops)):
            self.fail(f"{len(self.message.top)} tops are named, the layer makes {len(tops)}")
        return tops

    def _take_blobs(self) -> None:
        """Parameters whose values stand in the net itself, as ``blobs`` of the layer, begin with them."""
        given = self.message.blobs
        if given and len(given) != len(self.blobs):
            self.fail(f"brings {len(given)} blobs of values, and has {len(self.blobs)} parameter blobs")
        for declared, blob in zip(self.blobs, given, strict=False):
            values = np.array(blob.double_data or blob.data, declared.spec.dtype)
            if values.size != declared.spec.count:
                self.fail(f"blobs: {declared.name} needs {declared.spec.count} values, got {values.size}")
            declared.value, declared.filler = values.reshape(declared.spec.shape), None

    def _check_numbers(self) -> None:
        """Refuse what is no number in any parameter of the type; which infinities make sense the type itself knows."""
        if self.p is None:
            return
        for given, value in self.p.ListFields():
            if isinstance(value, float) and math.isnan(value):
                self.fail(f"{given.name} is nan, and has to be a finite number", at=given.name)

    def _check_counts(self) -> None:
        names = {"bottom": self.message.bottom, "top": self.message.top}
        for what, wanted in (("bottom", self.bottoms), ("top", self.tops)):
            least, most = wanted if isinstance(wanted, tuple) else (wanted, wanted)
            got = len(names[what])
            if what == "top" and (self.context.tops is not None or (self.loss and not got)):
                continue
            if got < least or (most is not None and got > most):
                exact = f"{least}" if least == most else f"at least {least}" if most is None else f"{least} to {most}"
                listed = ", ".join(f'"{n}"' for n in names[what]) or "none"
                self.fail(f"wants {exact} {what}{'s' if exact != '1' else ''}, got {got} ({listed})")
        both = [top for top in self.message.top if top in self.message.bottom]
        if both and not self.in_place:
            self.fail(f'cannot be in place: "{both[0]}" is bottom and top', hint="give the top a name of its own")


IMAGES = "N C | N C W | N C H W | N C D H W"
"""Axes of types that tell channels from what lies behind them."""


def _names_for(axes: str, count: int) -> str:
    for names in axes.split(" | "):
        words = names.split()
        if len(words) == count or (words[-1:] == ["..."] and count >= len(words) - 1):
            return names
    return "shape"


def stop(x: Any) -> Any:
    """The same values as a constant: no gradient flows through this use of them (see :meth:`Tensor.stop`).

    ``x + (a - stop(a)) * slope`` has the value of x and any gradient in a that one wishes: that is how a layer says a
    gradient that is not the derivative of its forward pass.
    """
    return x.stop() if isinstance(x, Tensor) else x


__all__ = ["IMAGES", "Count", "Layer", "stop"]
