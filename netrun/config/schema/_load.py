"""Turns the compiled descriptors into message classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal import enum_type_wrapper


def read_descriptors(name: str) -> descriptor_pb2.FileDescriptorSet:
    """What the build compiled from proto/*.proto, each file behind those that it imports.

    Args:
        name: "schema.desc", or "comments.desc" for the same with the comments (``source_code_info``).

    Raises:
        ImportError: the descriptors are missing, because the package was never built (say, it is imported from a
            source tree that was not installed with ``pip install -e .``).
    """
    try:
        data = Path(__file__).with_name(name).read_bytes()
    except FileNotFoundError:
        raise ImportError(
            "netrun's schema is not compiled in this folder: install the project first (pip install -e .)"
        ) from None
    return descriptor_pb2.FileDescriptorSet.FromString(data)


def load_schema() -> dict[str, Any]:
    """Every top-level message class, enum wrapper and enum value of the schema by name.

    Raises:
        ImportError: as :func:`read_descriptors`.
    """
    pool = descriptor_pool.DescriptorPool()
    names: dict[str, Any] = {}
    for file in read_descriptors("schema.desc").file:
        pool.Add(file)
        for message in file.message_type:
            descriptor = pool.FindMessageTypeByName(f"{file.package}.{message.name}")
            names[message.name] = message_factory.GetMessageClass(descriptor)
        for enum in file.enum_type:
            wrapper = enum_type_wrapper.EnumTypeWrapper(pool.FindEnumTypeByName(f"{file.package}.{enum.name}"))
            names[enum.name] = wrapper
            names.update(wrapper.items())
    return names
