"""Names of blobs and layers: mappings and errors that say which names there are."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import NoReturn, TypeVar

from .errors import UsageError, nearest

T = TypeVar("T")


class UnknownBlobError(UsageError, KeyError):
    """There is no blob (or no layer with parameters) of that name."""

    def __str__(self) -> str:
        return str(self.args[0])


class UnknownLayerError(UsageError, ValueError):
    """There is no layer of that name."""


class Named(OrderedDict[str, T]):
    """An ordered dictionary whose complaint about a missing key names what is there. ``what``: "blob", say."""

    what = "blob"

    def __missing__(self, name: object) -> NoReturn:
        hint = nearest(str(name), self) or f" (there is {', '.join(self) or 'none'})"
        raise UnknownBlobError(f'the net has no {self.what} "{name}"{hint}')


class NamedParameters(Named[T]):
    """As Named, for layers with parameters."""

    what = "layer with parameters called"


class NamedLayers(Named[T]):
    """As Named, for layers."""

    what = "layer"


def unknown_layer(name: str, known: Iterable[str]) -> UnknownLayerError:
    """The error for a layer that is not there."""
    return UnknownLayerError(f'the net has no layer "{name}"{nearest(str(name), known)}')


__all__ = ["Named", "NamedLayers", "NamedParameters", "UnknownBlobError", "UnknownLayerError", "unknown_layer"]
