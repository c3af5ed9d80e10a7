"""Parameters of layer types without a message in the schema: ``option { key: "alpha" value: "0.5" }``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..config import schema
from ..errors import ConfigError, Where, nearest

Value = bool | int | float | str


def read_options(
    given: Iterable[schema.Option], defaults: Mapping[str, Value], who: str, locate: Callable[..., Where | None]
) -> dict[str, Any]:
    """The options of a layer, each of the type that its default has.

    Args:
        who: name and type of the layer, for messages.
        locate: gives the position of a field of the layer.

    Raises:
        ConfigError: there is no such option, or its text is no value of that type.
    """
    values: dict[str, Any] = dict(defaults)
    for i, option in enumerate(given):
        where = locate("option", i)
        if option.key not in defaults:
            raise ConfigError(f'{who}: no option "{option.key}"{nearest(option.key, defaults)}', where)
        default = defaults[option.key]
        try:
            values[option.key] = _converted(option.value, default)
        except (ValueError, KeyError):
            wanted = {bool: "true or false", int: "a whole number", float: "a number"}.get(type(default), "text")
            raise ConfigError(f'{who}: option "{option.key}" wants {wanted}, got "{option.value}"', where) from None
    return values


def _converted(text: str, default: Value) -> Value:
    if isinstance(default, bool):
        return {"true": True, "false": False, "1": True, "0": False}[text.strip().lower()]
    return type(default)(text)


__all__ = ["Value", "read_options"]
