"""Which class a layer type is: netrun's own, or that of an installed package."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from ..config.forks import type_hint
from ..errors import ConfigError, Where, nearest
from .base import Layer


def _load(entry: EntryPoint, where: Where | None) -> type[Layer]:
    """The class behind an entry point; what goes wrong in its package is told with the package's name."""
    try:
        found = entry.load()
    except Exception as error:
        what = f'layer type "{entry.name}" ({entry.value}) fails to load: {type(error).__name__}: {error}'
        raise ConfigError(what, where) from error
    if hasattr(found, "as_layer"):
        found = found.as_layer(entry.name)  # a class with a forward alone: netrun.ForwardLayer
    if not (isinstance(found, type) and issubclass(found, Layer)):
        what = f'layer type "{entry.name}": {entry.value} is no class derived from Layer or ForwardLayer'
        raise ConfigError(what, where)
    return found


def layer_type(name: str, where: Where | None = None, layer: str = "") -> type[Layer]:
    """The class of a layer type: netrun's own, or one that an installed package offers as an entry point.

    Raises:
        ConfigError: nobody offers that type; the text suggests the nearest name.
    """
    if name not in Layer.registry:
        for entry in entry_points(group="netrun.layers"):
            if entry.name == name:
                Layer.registry[name] = _load(entry, where)
    if name in Layer.registry:
        return Layer.registry[name]
    head = f"layer {layer}: " if layer else ""
    if not name:
        raise ConfigError(f'{head}has no type (write, say, type: "Convolution")', where)
    hint = type_hint(name) or nearest(name, Layer.registry)
    raise ConfigError(f'{head}there is no layer type "{name}"{hint}', where)
