"""Python layers that say their forward pass alone; the gradient follows, and they run on every device.

    class GatedUnit(netrun.ForwardLayer):
        "y = (x u) * sigmoid(x v)"

        def weights(self, x):
            return {"u": ((x.shape[1], 64), "xavier"), "v": ((x.shape[1], 64), "xavier")}

        def forward(self, k, x, w):
            return (x @ w.u) * k.sigmoid(x @ w.v)

In the prototxt: ``layer { type: "Python" python_param { module: "my_layers" layer: "GatedUnit" } }``. ``x`` is the
bottom, or a tuple of the bottoms; ``k`` has the functions of the Expr layer's language and all kernels
(netrun/formula/trace.py). ``forward`` runs once, when the net is built: it writes down what is computed.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NoReturn, cast

from ..config import schema
from ..formula.array import Array, FormulaError
from ..formula.trace import Vocabulary, Weights
from ..types import Shape, Spec
from .base import Layer
from .context import Context
from .expr import Formula
from .python_class import UserLayer


class ForwardLayer:
    """What a layer derives from that says its forward pass alone. It needs no backward: it is derived.

    Attributes:
        param_str: the text from the prototxt.
        phase: 0 in training, 1 otherwise; ``train`` says the same.
        options: names and defaults of parameters, given in the prototxt as ``option { key: "units" value: "64" }``;
            ``self.option["units"]`` is the value, of the default's type.
    """

    param_str: str = ""
    phase: int = 1
    options: ClassVar[Mapping[str, bool | int | float | str]] = {}
    option: Mapping[str, Any]

    @property
    def train(self) -> bool:
        """True while the net learns."""
        return self.phase == 0

    def weights(self, x: Any) -> Mapping[str, Any]:
        """The learned weights by name: a shape, or (shape, filler).

        A filler is a number, a type ("xavier"), or the fields of FillerParameter ({"type": "gaussian", "std": 0.01}).
        """
        return {}

    def forward(self, k: Any, x: Any, w: Any) -> Any:
        """The top, or a tuple of the tops, from the bottom (or a tuple of them) and the weights."""
        raise NotImplementedError(f"{type(self).__name__}.forward")

    @classmethod
    def as_layer(cls, name: str) -> type[Layer]:
        """The layer type that an installed package offers under this name (entry point group netrun.layers)."""
        return cast("type[Layer]", type(name, (PythonForward,), {"__doc__": cls.__doc__, "type": name, "made_of": cls}))


def is_forward_only(user: Any) -> bool:
    """True for a class deriving from :class:`ForwardLayer`, or written like one: forward(self, k, ...), no reshape."""
    if not isinstance(user, type) or issubclass(user, ForwardLayer):
        return isinstance(user, type)
    forward = getattr(user, "forward", None)
    if hasattr(user, "reshape") or not inspect.isfunction(forward):
        return False
    return list(inspect.signature(forward).parameters)[1:2] == ["k"]


class PythonForward(UserLayer, Formula):
    """y = forward(k, x, w) of the user's class; see the module's docstring

    Bottoms and tops: any number, as the class wants.
    """

    type = ""
    bottoms = (0, None)
    tops = (1, None)
    made_of: ClassVar[Any] = None
    """The class, of a type that a package offers."""

    def __init__(self, message: schema.LayerParameter, context: Context | None = None, user: Any = None) -> None:
        self._class = user or self.made_of
        self.options = getattr(self._class, "options", {})
        super().__init__(message, context)

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        self.begin()
        try:
            self.user = self._class()
        except Exception as error:
            raise self.explained("__init__", error) from error
        self.user.param_str, self.user.phase, self.user.option = self.p.param_str, self.context.phase, self.option
        leaves = self.inputs()
        x = leaves[0] if len(leaves) == 1 else tuple(leaves)
        declare = getattr(self.user, "weights", None)
        given = self.call("weights", x) if declare else {}
        if not isinstance(given, Mapping):
            self._wrong("weights", "has to return a dictionary from names to shapes")
        w = Weights({name: self._declared(name, value) for name, value in given.items()})
        found = self.call("forward", Vocabulary(self.build), x, w)
        roots = list(found) if isinstance(found, (tuple, list)) else [found]
        count = self.context.tops or len(self.message.top)
        if len(roots) != count:
            self._wrong("forward", f"returns {len(roots)} values, the layer has {count} tops")
        try:
            return self.finish(roots)
        except FormulaError as error:
            raise self.explained("forward", error) from error

    def _declared(self, name: Any, value: Any) -> Array:
        """The leaf of one weight."""
        pair = isinstance(value, (tuple, list)) and len(value) == 2 and not isinstance(value[1], int)
        pair = pair or (isinstance(value, (tuple, list)) and len(value) == 2 and isinstance(value[0], (tuple, list)))
        shape, filler = value if pair else (value, None)
        if not isinstance(name, str) or not name.isidentifier():
            self._wrong("weights", f"{name!r} is no name for a weight")
        try:
            sizes: Shape = tuple(
                self.build.whole(n, "a size") for n in (shape if hasattr(shape, "__len__") else [shape])
            )
        except (FormulaError, TypeError):
            self._wrong("weights", f"{name} wants a shape or (shape, filler), got {value!r}")
        return self.weight(name, sizes, self._filler(name, filler))

    def _filler(self, name: str, filler: Any) -> schema.FillerParameter | None:
        if filler is None or isinstance(filler, schema.FillerParameter):
            return filler
        try:
            if isinstance(filler, str):
                return schema.FillerParameter(type=filler)
            if isinstance(filler, (int, float)):
                return schema.FillerParameter(type="constant", value=filler)
            return schema.FillerParameter(**filler)
        except (TypeError, ValueError) as error:
            self._wrong("weights", f"{name}: {filler!r} is no filler: {error}")

    def _wrong(self, method: str, what: str) -> NoReturn:
        self.fail(f"{self._class_names()[0]}.{method} {what}")

    def _class_names(self) -> tuple[str, str]:
        return self._class.__name__, self._class.__module__


PythonForward.type = "Python"  # its name in messages; the registry has the type from python.py

__all__ = ["ForwardLayer", "PythonForward", "is_forward_only"]
