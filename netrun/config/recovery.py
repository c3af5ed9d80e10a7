"""What the parser says of what is wrong, and how it steps over it."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from ..errors import nearest
from .cursor import CLOSERS, Cursor, Trouble
from .expand import Expander
from .explain import index
from .fields import Field, Fields, fields_of
from .forks import field_of
from .lexer import END, NAME, NUMBER, STRING, Tokens
from .source import Mark, Source

_LAYER = "LayerParameter"
VALUES = (NAME, NUMBER, STRING)
"""Kinds of tokens that may be a value."""


class Block:
    """An open block: the message it fills, its position, and the fields it may have."""

    __slots__ = ("bad", "closer", "depth", "fields", "mark", "message", "name", "title", "up")

    def __init__(self, message: Message, mark: Mark, name: str, closer: str, up: Block | None) -> None:
        self.message = message
        self.mark = mark
        self.name = name  # of the field it is the value of; for the whole text what it is: "net"
        self.title = f"a {name}" if up is None or name in ("layer", "layers") else name
        self.closer = closer
        self.up = up
        self.depth: int = up.depth + 1 if up else 0
        self.fields: Fields = fields_of(message.DESCRIPTOR)
        self.bad: set[str] = set()  # fields that stand in the text but whose value was refused


class Recovery(Cursor):
    """A cursor that can say what is wrong at its token, and step to where reading may go on."""

    def __init__(self, tokens: Tokens, source: Source, lenient: bool, language: Expander | None) -> None:
        super().__init__(tokens, source)
        self.lenient = lenient
        self.language = language  # what the tokens were expanded by, if they were

    def refuse(self, field: Field) -> None:
        """The token here is no value of the field: say so and step over it."""
        i = self.i
        kind, text = self.kinds[i], self.texts[i]
        if kind == END or text in ("}", ">", "]", ",", ";") or (kind == NAME and self.starts_field(i)):
            self.report(i - 1, f"{field.name} has no value; it wants {field.wants}")
        elif text in CLOSERS:
            got = "a list" if text == "[" else "a block"
            one = " and takes only one" if text == "[" and not field.repeated else ""
            self.report(i, f"{field.name} wants {field.wants}{one}, got {got}")
            self.skip(i)
        else:
            named = self.language is not None and kind == NAME and text in self.language.known
            self.report(i, field.refusal(kind, text) + (f"; a value of that name is written ${text}" if named else ""))
            self.i += 1
            if text in ("-", "+") and self.kinds[self.i] in VALUES and not self.starts_field(self.i):
                self.i += 1
            while self.kinds[self.i] == STRING == kind:
                self.i += 1

    def unknown(self, block: Block, name: str) -> None:
        """A field that the block does not have: report it and step over it."""
        i = self.i
        outer = block.up
        while outer and name not in outer.fields.by_name:
            outer = outer.up
        what = f'{block.title} has no field "{name}"'
        foreign = field_of(block.fields.type, name)
        if foreign and self.lenient and foreign.status in ("ignorable", "layer"):
            self.notice(i, f"{block.name}: {name} is left out: it is of {foreign.fork} ({foreign.what})")
            self.pass_over()
            return
        if foreign:
            what += f": {foreign.told}"
        elif hint := self.of_type(block, name):
            what += hint
        elif outer:
            what += f"; it belongs into the {outer.name} around it"
        else:
            own = self.language.defs if self.language else ()
            if name in own:
                used = "{" in (self.texts[i + 1], self.texts[min(i + 2, len(self.texts) - 1)])
                why = "stands further below, and a def comes before its uses" if used else "is used with a block in { }"
                what += f"; def {name} {why}"
            else:
                what += nearest(name, [*block.fields.by_name, *own]) or self.owners(block, name)
        self.trouble(self.starts[i], what, unknown=name if block.up is None and not foreign else "")
        self.pass_over()

    def mapped(self, block: Block, name: str) -> Field | None:
        """The field that a field of another Caffe is read as; its name and value are replaced in the tokens."""
        row = field_of(block.fields.type, name)
        if row is None or not row.into:
            return None
        at = self.i + (2 if self.texts[self.i + 1] == ":" else 1)
        if self.texts[at] in row.values:
            self.kinds[at], self.texts[at] = NAME, row.values[self.texts[at]]
        value = self.texts[at]
        shown_value = "" if value in CLOSERS else f": {value}"
        remark = f" ({row.what})" if row.what else ""
        self.notice(self.i, f"{block.name}: {name} of {row.fork} is read as {row.into}{shown_value}{remark}")
        return block.fields.by_name[row.into]

    def notice(self, i: int, what: str) -> None:
        """Something at token i that was read in another way than it stands there."""
        self.source.notices.append(f"{self.source.at(self.starts[i])}: {what}")

    def pass_over(self) -> None:
        """Step over the name of a field and whatever value it has."""
        self.i += 1
        if self.texts[self.i] == ":":
            self.i += 1
        if self.texts[self.i] in CLOSERS:
            self.skip(self.i)
        elif self.kinds[self.i] in VALUES and not self.starts_field(self.i):
            self.i += 1
            while self.kinds[self.i - 1] == STRING and self.kinds[self.i] == STRING:
                self.i += 1

    def of_type(self, block: Block, name: str) -> str:
        """``; GroupNorm layers have normalization_param``, where the type of the layer stands in front."""
        layer = block if block.fields.type == _LAYER else block.up
        if layer is None or layer.fields.type != _LAYER:
            return ""
        kind = getattr(layer.message, "type", "")
        fields = [f.name for f in index().layer_fields().get(kind, ())]
        messages = {f: layer.fields.by_name[f].message for f in fields}
        inside = [f for f, message in messages.items() if message and name in fields_of(message).by_name]
        if layer is block and not name.endswith("_param"):
            return f"; it belongs into {' or '.join(inside)}" if inside else ""
        if layer is not block:  # a block that another type reads?
            fields = [] if block.name in fields else inside
        near = nearest(name, block.fields.by_name)
        if not fields or any(f'"{f}"' in near for f in fields):
            return ""
        return f"; {kind} layers have {' and '.join(fields)}"

    def owners(self, block: Block, name: str) -> str:
        """``; it belongs into convolution_param, ...`` if blocks inside this one have the field."""
        inside = [
            field.name
            for field in block.fields.by_name.values()
            if field.message is not None and name in fields_of(field.message).by_name
        ]
        return f"; it belongs into {' or '.join(inside)}" if 0 < len(inside) <= 8 else ""

    def twice(self, block: Block, field: Field, at: int) -> None:
        """Report a second value of a field that takes one."""
        self.report(at, f"{field.name} is given twice, first in {self.line(block.mark.fields[field.name][0].at)}")

    def name_layer(self, message: Any, troubles: list[Trouble]) -> None:
        """Tell the problems inside a layer the name of the layer, which may stand at its end."""
        name = message.name or (message.layer.name if "layer" in fields_of(message.DESCRIPTOR).by_name else "")
        for trouble in troubles:
            if trouble.layer is None and name:
                trouble.layer = name
