"""Nets written as programs: every call of ``layers.X(...)`` is a layer, and ``to_proto`` gives the prototxt.

    n = NetSpec()
    n.data, n.label = layers.DummyData(shape=[{"dim": [8, 1, 28, 28]}, {"dim": [8]}], ntop=2)
    n.conv1 = layers.Convolution(n.data, kernel_size=5, num_output=20, weight_filler={"type": "xavier"})
    n.relu1 = layers.ReLU(n.conv1, in_place=True)
    n.loss = layers.SoftmaxWithLoss(layers.InnerProduct(n.relu1, num_output=10), n.label)
    print(n.to_proto())

The names of attributes become the names of tops and layers; what has none is called by its type and a number.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from google.protobuf.message import Message

from .config import schema
from .errors import UsageError, nearest


class NotATopError(UsageError, TypeError):
    """The bottom of a layer is no top of another one."""


class UnknownTopError(UsageError, AttributeError, KeyError):
    """A NetSpec has no top of that name."""

    def __str__(self) -> str:
        return str(self.args[0])


class WrongFieldError(UsageError, AttributeError):
    """A layer has no such parameter."""


class WrongValueError(UsageError, TypeError, ValueError):
    """A parameter does not take that value."""


class Top:
    """Output number ``n`` of the layer ``fn``."""

    def __init__(self, fn: Function, n: int) -> None:
        self.fn, self.n = fn, n

    def to_proto(self) -> schema.NetParameter:
        """The net of all layers that lead to this top."""
        return to_proto(self)

    def _to_proto(self, layers: Layers_, names: Mapping[Any, str], autonames: Counter[str]) -> None:
        self.fn._to_proto(layers, names, autonames)


class Function:
    """One layer: its type, the tops it reads, and its parameters.

    Args:
        type_name: the layer type ("Convolution").
        inputs: tops of other layers.
        params: fields of the layer's own parameters or of LayerParameter; ``ntop`` is the number of tops (1),
            ``in_place`` gives the tops the names of the bottoms.

    Raises:
        NotATopError: an input is something else.
    """

    def __init__(self, type_name: str, inputs: Sequence[Any], params: Mapping[str, Any]) -> None:
        self.type_name = type_name
        for index, given in enumerate(inputs):
            if not isinstance(given, Top):
                raise NotATopError(f"{type_name} input {index} is not a Top (type is {type(given)})")
        self.inputs: tuple[Top, ...] = tuple(inputs)
        self.params: dict[str, Any] = dict(params)
        self.ntop: int = self.params.pop("ntop", 1)
        self.in_place: bool = self.params.pop("in_place", False)
        self.tops = tuple(Top(self, n) for n in range(self.ntop))

    def to_proto(self) -> schema.NetParameter:
        """The net of all layers that lead to this one."""
        return to_proto(self)

    def _name(self, names: Mapping[Any, str], autonames: Counter[str]) -> str:
        if self in names:
            return names[self]
        return self._top_name(self.tops[0], names, autonames) if self.tops else self._count(autonames)

    def _top_name(self, top: Top, names: Mapping[Any, str], autonames: Counter[str]) -> str:
        return names[top] if top in names else self._count(autonames)

    def _count(self, autonames: Counter[str]) -> str:
        autonames[self.type_name] += 1
        return f"{self.type_name}{autonames[self.type_name]}"

    def _to_proto(self, layers: Layers_, names: Mapping[Any, str], autonames: Counter[str]) -> None:
        if self in layers:
            return
        bottoms = []
        for given in self.inputs:
            given.fn._to_proto(layers, names, autonames)
            bottoms.append(layers[given.fn].top[given.n])
        layer = schema.LayerParameter(type=self.type_name, bottom=bottoms)
        tops = list(bottoms) if self.in_place else []
        known = dict(names)
        for top in () if self.in_place else self.tops:
            known[top] = self._top_name(top, known, autonames)
            tops.append(known[top])
        layer.top.extend(tops)
        layer.name = self._name(known, autonames)
        for field, value in self.params.items():
            self._set(layer, field, value)
        layers[self] = layer

    def _set(self, layer: schema.LayerParameter, field: str, value: Any) -> None:
        block = _BLOCKS.get(self.type_name, "")
        target: Message = layer
        if not field.endswith("param") and block:
            own: Message = getattr(layer, block)
            if field in own.DESCRIPTOR.fields_by_name:
                target = own
        assign(target, field, value, f"{layer.name} ({self.type_name})")


Layers_ = OrderedDict[Function, schema.LayerParameter]


def blocks() -> dict[str, str]:
    """The field with the parameters of each type, told from the name of its message: ConvolutionParameter."""
    found: dict[str, str] = {}
    for field in schema.LayerParameter.DESCRIPTOR.fields:
        if field.name.endswith("_param") and field.message_type is not None:
            found.setdefault(field.message_type.name.removesuffix("Parameter"), field.name)
    return found


_BLOCKS = blocks()


def assign(message: Message, field: str, value: Any, title: str = "") -> None:
    """Set a field from plain values: dictionaries for messages, lists for repeated fields (one value will do too).

    Raises:
        WrongFieldError: the message has no such field. WrongValueError: the field does not take the value.
    """
    what = title or str(message.DESCRIPTOR.name)
    known = message.DESCRIPTOR.fields_by_name
    if field not in known:
        where = "" if message.DESCRIPTOR.name == "LayerParameter" else f" in {message.DESCRIPTOR.name}"
        raise WrongFieldError(f'{what}: there is no field "{field}"{where}{nearest(field, known)}')
    current = getattr(message, field)
    try:
        if hasattr(current, "extend"):
            values = list(value) if isinstance(value, (list, tuple)) or hasattr(value, "tolist") else [value]
            if values and isinstance(values[0], Mapping):
                for item in values:
                    added = current.add()
                    for name, inner in item.items():
                        assign(added, name, inner, what)
            else:
                current.extend(values)
        elif isinstance(value, Mapping):
            current.SetInParent()
            for name, inner in value.items():
                assign(current, name, inner, what)
        elif isinstance(current, Message):
            current.CopyFrom(value)
        else:
            setattr(message, field, value)
    except (TypeError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise WrongValueError(f"{what}: {field} does not take {value!r} ({error})") from None


_AS_A_DICT = {"keys": "keys", "vals": "values"}
"""What the SSD fork's NetSpec has besides: the names of all tops, and the tops."""


class NetSpec:
    """Names for tops, in the order in which they are given: attributes or items. ``to_proto`` makes the net."""

    tops: OrderedDict[str, Any]

    def __init__(self) -> None:
        object.__setattr__(self, "tops", OrderedDict())

    def __setattr__(self, name: str, value: Any) -> None:
        self.tops[name] = value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "tops" not in self.__dict__:
            raise AttributeError(name)
        if name in _AS_A_DICT and name not in self.tops:  # a fork's; a top may have the name all the same
            return getattr(self.tops, _AS_A_DICT[name])
        return self[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.tops[name] = value

    def __getitem__(self, name: str) -> Any:
        if name not in self.tops:
            raise UnknownTopError(f'the net has no top "{name}"{nearest(name, self.tops)}')
        return self.tops[name]

    def __delattr__(self, name: str) -> None:
        del self[name]

    def __delitem__(self, name: str) -> None:
        self[name]
        del self.tops[name]

    def __contains__(self, name: str) -> bool:
        return name in self.tops

    def __iter__(self) -> Iterator[str]:
        return iter(self.tops)

    def to_proto(self) -> schema.NetParameter:
        """The net as a message; ``str()`` of it is the prototxt."""
        names = {top: name for name, top in self.tops.items()}
        autonames: Counter[str] = Counter()
        layers: Layers_ = OrderedDict()
        for name, top in self.tops.items():
            if not isinstance(top, (Top, Function)):
                raise NotATopError(f'"{name}" is not a Top (type is {type(top)})')
            top._to_proto(layers, names, autonames)
        return schema.NetParameter(layer=layers.values())


class Layers:
    """``layers.Convolution(bottom, kernel_size=3, ...)``: any layer type as a function that returns its top, a tuple of
    its tops, or (with ntop=0) the layer itself."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def layer(*inputs: Any, **params: Any) -> Any:
            function = Function(name, inputs, params)
            if function.ntop == 0:
                return function
            return function.tops[0] if function.ntop == 1 else function.tops

        layer.__name__ = name
        return layer


class _Constants:
    def __init__(self, name: str) -> None:
        self._name = name
        self._message: Any = getattr(schema, f"{name}Parameter", None)
        if self._message is None:
            raise WrongFieldError(f"there are no parameters called {name}Parameter")

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._message, name, None)
        if found is None or name.startswith("__"):
            known = [value for enum in self._message.DESCRIPTOR.enum_types for value in enum.values_by_name]
            raise WrongFieldError(f"{self._name}Parameter has no {name}{nearest(name, known)}")
        return found


class Parameters:
    """``params.Pooling.MAX``: the named values of a layer type's parameters."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Constants(name)


def to_proto(*tops: Top | Function) -> schema.NetParameter:
    """The net of all layers that lead to these tops; every one is called by its type and a number."""
    autonames: Counter[str] = Counter()
    layers: Layers_ = OrderedDict()
    for top in tops:
        top._to_proto(layers, {}, autonames)
    return schema.NetParameter(layer=layers.values())


layers = Layers()
params = Parameters()

__all__ = ["Function", "Layers", "NetSpec", "Parameters", "Top", "assign", "layers", "params", "to_proto"]
