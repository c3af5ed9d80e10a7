"""What a name of the schema means: the text that ``netrun explain NAME`` prints.

All of it comes from proto/*.proto, comments included, as the build compiled them into comments.desc. A comment's first
sentence is its summary; lists show that alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from textwrap import indent
from typing import TypeAlias

from google.protobuf.descriptor_pb2 import EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto

from ..errors import UsageError, nearest
from . import language
from .schema._load import read_descriptors

OWN_FIELDS = 10000
"""Fields with this number or a higher one are netrun's own; those below are Caffe's."""

# How protobuf numbers the parts of a declaration in the path of a comment: the field numbers of its own descriptors.
_MESSAGES, _ENUMS, _FIELDS, _NESTED_ENUMS, _VALUES = 4, 5, 2, 4, 2

_SUFFIX = "Parameter"


@dataclass(frozen=True)
class Field:
    """One field of a message. ``type`` is a scalar type, or the name of a :class:`Message` or an :class:`Enum`."""

    owner: str
    name: str
    number: int
    label: str
    type: str
    default: str
    comment: str


@dataclass(frozen=True)
class Value:
    """One value of an enum."""

    owner: str
    name: str
    number: int
    comment: str


@dataclass(frozen=True)
class Enum:
    """An enum; ``name`` begins with the message that it stands in, as in ``PoolingParameter.PoolMethod``."""

    name: str
    comment: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Message:
    """A message: its fields in the order of the .proto file, and the enums declared in it."""

    name: str
    comment: str
    fields: tuple[Field, ...]
    enums: tuple[Enum, ...]
    legacy: bool


Item: TypeAlias = Message | Enum | Field | Value


class Index:
    """All messages, and all enums (nested ones too), by name."""

    def __init__(self, messages: Sequence[Message], enums: Sequence[Enum]) -> None:
        self.messages = {m.name: m for m in messages}
        self.enums = {e.name: e for e in (*enums, *(e for m in messages for e in m.enums))}

    def type_of(self, field: Field) -> Message | Enum | None:
        """What the type of a field is; None for a scalar."""
        return self.messages.get(field.type) or self.enums.get(field.type)

    def inside(self, item: Item) -> Iterator[tuple[str, Item]]:
        """The names that may follow ``item`` in a path, and what each leads to."""
        if isinstance(item, Field):
            inner = self.type_of(item)
            if inner:
                yield from self.inside(inner)
        elif isinstance(item, Enum):
            yield from ((v.name, v) for v in item.values)
        elif isinstance(item, Message):
            yield from ((f.name, f) for f in item.fields)
            for enum in item.enums:
                yield enum.name.rpartition(".")[2], enum
                yield from self.inside(enum)

    def layer_types(self) -> dict[str, Message]:
        """The message of each layer type, as the comments in LayerParameter say it: "For X, Y and Z layers."."""
        return {name: self.messages[fields[0].type] for name, fields in self.layer_fields().items()}

    def layer_fields(self) -> dict[str, list[Field]]:
        """The fields of LayerParameter that are the own ones of each layer type, as their comments say it."""
        found: dict[str, list[Field]] = {}
        for field in self.messages["LayerParameter"].fields:
            named = re.match(r"For ([\w, ]+) layers\.$", field.comment.partition("\n")[0])
            if named and field.type in self.messages:
                for name in re.split(r", | and ", named[1]):
                    found.setdefault(name, []).append(field)
        return found

    def readers(self) -> dict[str, set[str]]:
        """The layer types that read each block of LayerParameter, of the blocks whose comments name any."""
        found: dict[str, set[str]] = {}
        for field in self.messages["LayerParameter"].fields:
            named = re.match(r"For ([\w,\s]+) layers[.:]", field.comment)
            if named and field.type in self.messages:
                found[field.name] = set(re.split(r", | and ", named[1]))
        return found

    def starts(self) -> Iterator[dict[str, list[Item]]]:
        """The names that a path may begin with, in groups: who finds a name in one need not look into the next.

        First messages (by the names of their layer types, too) and enums, then all that stands inside of them, then the
        insides of Caffe's old forms.
        """
        tops: list[tuple[str, Item]] = [*self.messages.items(), *self.enums.items()]
        types = self.layer_types()
        short = {m.name.removesuffix(_SUFFIX): m for m in self.messages.values() if _SUFFIX in m.name}
        yield _group([*tops, *types.items(), *((name, m) for name, m in short.items() if name not in types)])
        for legacy in (False, True):
            yield _group([pair for m in self.messages.values() if m.legacy == legacy for pair in self.inside(m)])


@cache
def index() -> Index:
    """The schema with its comments, read when it is first asked for.

    Raises:
        ImportError: the schema was never compiled (see ``netrun.config.schema``).
    """
    files = read_descriptors("comments.desc").file
    return Index([m for f in files for m in _read_messages(f)], [e for f in files for e in _read_enums(f)])


def explain(name: str) -> str:
    """What ``name`` means, in lines for a terminal.

    Args:
        name: a message (``ConvolutionParameter``), a layer type that has one (``Convolution``), an enum, a field or an
            enum value alone (``pad``, ``LMDB``: every place where it stands), or a path from any of these inwards
            (``SolverParameter.base_lr``, ``convolution_param.weight_filler.type``); ``language`` and its words show the
            page of the config language.

    Raises:
        UsageError: nothing has this name; the message suggests the nearest one.
        ImportError: the schema was never compiled (see ``netrun.config.schema``).
    """
    if name.strip() in language.TOPICS:
        return language.PAGE
    schema = index()
    first, *rest = name.strip().split(".")
    groups = list(schema.starts())
    found = next((group[first] for group in groups if first in group), None)
    if found is None:
        raise UsageError(f'the schema has nothing called "{first}"{nearest(first, [n for g in groups for n in g])}')
    for part in rest:
        inside = _group([pair for item in found for pair in schema.inside(item)])
        if part not in inside:
            holder = schema.type_of(found[0]) if isinstance(found[0], Field) else found[0]
            raise UsageError(f'{_title(holder or found[0])} has no "{part}"{nearest(part, inside)}')
        found = inside[part]
    return "\n\n".join(_show(schema, item, whole=len(found) == 1) for item in found)


def _group(pairs: Sequence[tuple[str, Item]]) -> dict[str, list[Item]]:
    """All items of each name, none twice, in their order."""
    groups: dict[str, dict[Item, None]] = {}
    for name, item in pairs:
        groups.setdefault(name, {})[item] = None
    return {name: list(items) for name, items in groups.items()}


# --- text


def _show(schema: Index, item: Item, whole: bool) -> str:
    """The text about one item; ``whole`` shows what is inside of a field's type as well."""
    lines = [_headline(item), indent(item.comment, "    ")]
    shown = schema.type_of(item) if isinstance(item, Field) else item
    if isinstance(shown, Enum):
        rows = [(v.name, f"= {v.number}", _summary(v.comment)) for v in shown.values]
        lines += ["", indent(_table(rows), "    ")]
    elif isinstance(shown, Message) and shown is not item and not whole:
        lines += [f"    Its fields: netrun explain {shown.name}"]
    elif isinstance(shown, Message):
        if shown is not item:
            lines += ["", shown.name, indent(shown.comment, "    ")]
        rows = [(f.name, _type(f), _summary(f.comment)) for f in shown.fields]
        lines += ["", indent(_table(rows), "    ")]
    return "\n".join(lines)


def _headline(item: Item) -> str:
    if isinstance(item, Field):
        optional_scalar = not item.label and item.type.islower()
        none = ", no default" if optional_scalar and not item.default else ""
        own = " (netrun's own, not in Caffe)" if item.number >= OWN_FIELDS else ""
        return f"{_title(item)}: {_type(item)}{none}, number {item.number}{own}"
    if isinstance(item, Value):
        return f"{_title(item)} = {item.number}"
    return _title(item)


def _title(item: Item) -> str:
    return item.name if isinstance(item, Message | Enum) else f"{item.owner}.{item.name}"


def _type(field: Field) -> str:
    """``uint32``, ``repeated uint32``, ``float = 1``; an enum without the message that it stands in."""
    kind = field.type.removeprefix(f"{field.owner}.")
    return field.label + kind + (f" = {field.default}" if field.default else "")


def _summary(comment: str) -> str:
    """The first sentence, on one line, without its full stop."""
    sentence = re.split(r"(?<=\.)\s", comment, maxsplit=1)[0]
    return " ".join(sentence.split()).removesuffix(".")


def _table(rows: Sequence[tuple[str, str, str]]) -> str:
    widths = [max((len(row[k]) for row in rows), default=0) for k in (0, 1)]
    return "\n".join(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}".rstrip() for a, b, c in rows)


# --- reading


def _read_messages(file: FileDescriptorProto) -> Iterator[Message]:
    comments = _comments(file)
    for i, message in enumerate(file.message_type):
        path = (_MESSAGES, i)
        fields = tuple(
            _read_field(message.name, field, comments.get((*path, _FIELDS, j), ""))
            for j, field in enumerate(message.field)
        )
        enums = tuple(
            _read_enum(f"{message.name}.{enum.name}", enum, comments, (*path, _NESTED_ENUMS, j))
            for j, enum in enumerate(message.enum_type)
        )
        yield Message(message.name, comments.get(path, ""), fields, enums, legacy=file.name.endswith("/legacy.proto"))


def _read_enums(file: FileDescriptorProto) -> Iterator[Enum]:
    comments = _comments(file)
    for i, enum in enumerate(file.enum_type):
        yield _read_enum(enum.name, enum, comments, (_ENUMS, i))


def _read_enum(
    name: str, enum: EnumDescriptorProto, comments: dict[tuple[int, ...], str], path: tuple[int, ...]
) -> Enum:
    values = tuple(
        Value(name, value.name, value.number, comments.get((*path, _VALUES, j), ""))
        for j, value in enumerate(enum.value)
    )
    return Enum(name, comments.get(path, ""), values)


def _read_field(owner: str, field: FieldDescriptorProto, comment: str) -> Field:
    # A label or a scalar type is its protobuf constant in lower case: LABEL_REPEATED, TYPE_UINT32.
    label = FieldDescriptorProto.Label.Name(field.label).removeprefix("LABEL_").lower()
    kind = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    return Field(
        owner=owner,
        name=field.name,
        number=field.number,
        label="" if label == "optional" else f"{label} ",
        type=field.type_name.removeprefix(".netrun.") or kind,
        default=f'"{field.default_value}"' if kind == "string" and field.default_value else field.default_value,
        comment=comment,
    )


def _comments(file: FileDescriptorProto) -> dict[tuple[int, ...], str]:
    """The comment in front of each declaration, by the path that protobuf gives the declaration."""
    found = {}
    for location in file.source_code_info.location:
        lines = location.leading_comments.rstrip().split("\n")
        found[tuple(location.path)] = "\n".join(line.removeprefix(" ") for line in lines)
    return found
