"""Caffe's messages and enums by name: ``caffe_pb2.NetParameter()``, ``caffe_pb2.TRAIN``. ``text_format`` and
``SerializeToString`` work on them as ever. The classes are those of ``netrun.config.schema``.
"""

from __future__ import annotations

from typing import Any

from ...config import schema

DESCRIPTOR = schema.LayerParameter.DESCRIPTOR.file


def __getattr__(name: str) -> Any:
    if not name.startswith("_"):
        found = getattr(schema, name, None)
        if found is not None:
            return found
    else:  # _LAYERPARAMETER: the descriptor, as generated modules call it
        for known in __dir__():
            if known.upper() == name[1:] and hasattr(getattr(schema, known), "DESCRIPTOR"):
                return getattr(schema, known).DESCRIPTOR
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(name for name in vars(schema) if not name.startswith("_"))


__all__ = [*__dir__(), "DESCRIPTOR"]
