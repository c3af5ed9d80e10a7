"""``--set field=value``: other values for fields of a solver, checked through the schema like the file itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..config import schema
from ..config.fields import is_repeated
from ..config.source import Source
from ..config.text import parse
from ..errors import ConfigError, UsageError, nearest


def override(message: schema.SolverParameter, source: Source | None, assignments: Sequence[str]) -> None:
    """Set fields of a message in place.

    A dotted path leads into blocks (``train_state.level=1``, ``test_state.0.level=1``). The value is written as in a
    prototxt, but texts need no quotes. A value for a repeated field replaces all that it had; ``[1, 2]`` gives several.

    Raises:
        UsageError: there is no such field, or it does not take that value.
    """
    for assignment in assignments:
        _set(message, source, assignment)


def _set(message: schema.SolverParameter, source: Source | None, assignment: str) -> None:
    path, equals, value = assignment.partition("=")
    parts = path.strip().split(".")
    if not equals or not all(parts):
        raise UsageError(f"--set wants FIELD=VALUE, got {assignment}", None, ["for example --set base_lr=0.02"])
    target: Any = message
    mark = source.root if source else None
    for part in parts[:-1]:
        target = _enter(target, part, assignment)
        if mark is not None and not part.isdigit():
            mark = mark.child(part)
    name = parts[-1]
    kind = type(target)
    field = _field(target, name, assignment)
    text = value.strip()
    is_text = field.type in (field.TYPE_STRING, field.TYPE_BYTES)
    if is_text and text[:1] not in ("'", '"') and not (is_repeated(field) and text.startswith("[")):
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        text = f'"{escaped}"'
    try:
        parsed, _ = parse(f"{name} {text}" if field.message_type else f"{name}: {text}", kind, "--set")
    except ConfigError as error:
        raise UsageError(f"--set {assignment}: {error.problems[0].what}") from None
    target.ClearField(name)
    target.MergeFrom(parsed)
    if mark is not None:
        mark.take(name)  # what is wrong with the new value is not wrong in the file


def _enter(target: Any, part: str, assignment: str) -> Any:
    """The block inside ``target`` that one part of a path leads to."""
    if part.isdigit():
        if not hasattr(target, "add") or int(part) >= len(target):
            raise UsageError(f"--set {assignment}: there is no entry {part}")
        return target[int(part)]
    if hasattr(target, "add"):
        raise UsageError(f"--set {assignment}: say which entry, counted from 0, before .{part}")
    field = _field(target, part, assignment)
    if field.message_type is None:
        raise UsageError(f"--set {assignment}: {part} is a plain value, nothing is inside of it")
    return getattr(target, part)


def _field(target: Any, name: str, assignment: str) -> Any:
    if not hasattr(target, "DESCRIPTOR"):
        raise UsageError(f"--set {assignment}: say which entry, counted from 0, before .{name}")
    known = target.DESCRIPTOR.fields_by_name
    if name not in known:
        raise UsageError(f'--set {assignment}: {target.DESCRIPTOR.name} has no field "{name}"{nearest(name, known)}')
    return known[name]
